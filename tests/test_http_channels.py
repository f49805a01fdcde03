"""The channels that speak to a provider's HTTP API: what may be sent again, what must not, and who is to blame."""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import sleep

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fake_providers import FAULTS, Provider
from postlude.channels import channel
from postlude.errors import InputError
from postlude.message import Address, Outcome, to_bytes
from postlude.texting import segments
from test_channels import BY_HTTP, MESSAGE, RAW

MAILERS = ["mailgun", "postmark", "sendgrid", "ses"]


def handed(name: str, *faults: str, errors: list | None = None, url: str = "", **more) -> tuple[Outcome, Provider, int]:
    """One message through one channel: the outcome, the provider, and how many intents there were."""
    intents: list[int] = []
    with (
        Provider(name, list(faults), errors=errors or [], **more) as provider,
        channel(name).connect(url or provider.url) as send,
    ):
        outcome = send(MESSAGE, RAW, lambda: intents.append(1))
    return outcome, provider, len(intents)


# kind and scope for each fault, whoever the provider is
EXPECTED = {
    "cut before": ("deferred", "relay"),
    "cut in the body": None,  # where it was noticed decides: see the rule below
    "cut after": ("ambiguous", None),
    "reset after": ("ambiguous", None),
    "429": ("deferred", "relay"),
    "429 date": ("deferred", "relay"),
    "500": ("deferred", "relay"),
    "502": ("ambiguous", None),
    "503": ("deferred", "relay"),
    "504": ("ambiguous", None),
    "garbage body": ("ambiguous", None),
    "not http": ("ambiguous", None),
    "stall": ("ambiguous", None),
    "truncated": ("ambiguous", None),
    "drip": ("ambiguous", None),
    "huge": ("ambiguous", None),
    "early 401": ("deferred", "configuration"),
    "redirect": ("deferred", "configuration"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", [name for name in BY_HTTP if name != "webhook"])
def test_no_fault_makes_a_copy_or_a_lie(name: str, fault: str) -> None:
    outcome, provider, intents = handed(name, fault, keep_alive=False)
    found = (outcome.kind, outcome.scope)
    expected = EXPECTED[fault]
    if name == "postmark" and fault == "500":
        expected = ("ambiguous", None)
    if fault in ("cut in the body", "cut before"):
        assert found in (("deferred", "relay"), ("ambiguous", None))
        assert not provider.ledger
    else:
        assert found == expected
    assert not outcome.suppress
    assert len(provider.ledger) <= 1
    if provider.ledger:
        assert outcome.kind in ("accepted", "ambiguous"), "what was taken must never be sent again by itself"
    assert intents == 1 or fault in ("cut before", "cut in the body", "early 401")
    if fault == "429":
        assert outcome.retry_after == timedelta(seconds=7)
    if fault == "429 date":
        assert outcome.retry_after == timedelta(hours=24), "a date far ahead is capped"


@pytest.mark.parametrize("fault", ["cut after", "reset after", "502", "504", "not http", "stall", "truncated", "huge"])
def test_a_receiver_that_keeps_one_copy_per_key_is_asked_again(fault: str) -> None:
    outcome, provider, intents = handed("webhook", fault)
    assert (outcome.kind, intents) == ("accepted", 1)
    assert [taken.key for taken in provider.ledger] == [str(MESSAGE.message_id)]
    assert provider.requests == 2


def test_it_is_asked_only_so_often_and_then_nobody_knows() -> None:
    outcome, provider, intents = handed("webhook", *["cut after"] * 5)
    assert (outcome.kind, intents, provider.requests) == ("ambiguous", 1, 3)
    assert len(provider.ledger) == 1


def test_a_repetition_that_is_put_off_leaves_the_first_one_unknown() -> None:
    outcome, _, _ = handed("webhook", "cut after", "503")
    assert outcome.kind == "ambiguous"


@pytest.mark.parametrize("name", BY_HTTP)
def test_the_message_goes_with_our_key_and_the_right_recipient(name: str) -> None:
    outcome, provider, intents = handed(name)
    assert (outcome.kind, intents) == ("accepted", 1)
    taken = provider.ledger[0]
    assert taken.key == str(MESSAGE.message_id)
    assert taken.text.strip() == "Hello Kim"
    assert taken.to == (MESSAGE.phone if name in ("sms", "webhook") else "kim.lee@customers.example")
    assert (outcome.provider_id or "").startswith(name)
    if name in MAILERS:
        assert {k.lower(): v for k, v in taken.headers.items()}["x-msg-key"] == str(MESSAGE.message_id)


@pytest.mark.parametrize("name", MAILERS)
def test_marketing_keeps_its_unsubscribe_headers_through_every_provider(name: str) -> None:
    mail = replace(
        MESSAGE, kind="marketing", list_unsubscribe="https://mail.shop.example/u/x", list_id="a.shop.example",
        feedback_id="a:b:c:d", subject="(광고) 안녕하세요 🎉", sender=Address("news@shop.example", "The \"Shop\", 가게"),
    )  # fmt: skip
    with Provider(name) as provider, channel(name).connect(provider.url) as send:
        assert send(mail, to_bytes(mail), lambda: None).kind == "accepted"
    headers = {k.lower(): str(v) for k, v in provider.ledger[0].headers.items()}
    assert headers["list-unsubscribe"] == "<https://mail.shop.example/u/x>"
    assert headers["list-unsubscribe-post"] == "List-Unsubscribe=One-Click"
    assert headers["list-id"] == "<a.shop.example>"
    fields = provider.ledger[0].fields
    subject = fields.get("subject") or fields.get("Subject") or headers.get("subject")
    assert subject == mail.subject


@pytest.mark.parametrize("name", BY_HTTP)
def test_a_wrong_key_is_our_fault_and_nobodys_else(name: str) -> None:
    with Provider(name) as provider:
        wrong = provider.url.replace("a-key-for-tests-only", "another")
        with channel(name).connect(wrong) as send:
            outcome = send(MESSAGE, RAW, lambda: None)
    assert (outcome.kind, outcome.scope, outcome.suppress) == ("deferred", "configuration", False)
    assert not provider.ledger


REFUSALS = [
    ("ses", 400, {"__type": "MailFromDomainNotVerifiedException", "message": "x"}, "deferred", "configuration", False),
    ("ses", 400, {"__type": "MessageRejected", "message": "Email address is not verified. kim.lee@customers.example"},
     "deferred", "configuration", False),
    ("ses", 400, {"__type": "MessageRejected", "message": "virus"}, "refused", "policy", False),
    ("ses", 400, {"__type": "com.amazonaws.sesv2#TooManyRequestsException", "message": "rate"}, "deferred", "relay", False),
    ("ses", 400, {"__type": "AccountSuspendedException", "message": "x"}, "deferred", "configuration", False),
    ("ses", 400, {"__type": "BadRequestException", "message": "x"}, "refused", "message", False),
    ("sendgrid", 400, {"errors": [{"field": "personalizations.0.to.0.email", "message": "x"}]}, "refused", "recipient", False),
    ("sendgrid", 400, {"errors": [{"field": "content.0.value", "message": "x"}]}, "refused", "message", False),
    ("sendgrid", 400, {"errors": [{"field": "from.email", "message": "x"}]}, "deferred", "configuration", False),
    ("sendgrid", 403, {"errors": [{"message": "The from address does not match a verified Sender"}]},
     "deferred", "configuration", False),
    ("sendgrid", 413, {"errors": [{"message": "too large"}]}, "refused", "message", False),
    ("mailgun", 400, {"message": "'to' parameter is not a valid address. please check"}, "refused", "recipient", False),
    ("mailgun", 400, {"message": "Need at least one of 'text' or 'html'"}, "refused", "message", False),
    ("mailgun", 402, {"message": "Payment required"}, "deferred", "configuration", False),
    ("postmark", 422, {"ErrorCode": 406, "Message": "You tried to send to kim.lee@customers.example, marked inactive"},
     "refused", "recipient", False),
    ("postmark", 422, {"ErrorCode": 401, "Message": "Sender signature not confirmed"}, "deferred", "configuration", False),
    ("postmark", 422, {"ErrorCode": 405, "Message": "Not allowed to send"}, "deferred", "configuration", False),
    ("postmark", 422, {"ErrorCode": 300, "Message": "Invalid 'To' address"}, "refused", "recipient", False),
    ("postmark", 422, {"ErrorCode": 300, "Message": "Zero HtmlBody"}, "refused", "message", False),
    ("postmark", 503, {"ErrorCode": 100, "Message": "Maintenance"}, "deferred", "relay", False),
    ("sms", 400, {"code": 21211, "message": "The 'To' number +4915112345678 is not a valid phone number."},
     "refused", "recipient", True),
    ("sms", 400, {"code": 21610, "message": "Attempt to send to unsubscribed recipient"}, "refused", "recipient", False),
    ("sms", 400, {"code": 21408, "message": "Permission to send has not been enabled for the region"},
     "deferred", "configuration", False),
    ("sms", 400, {"code": 21617, "message": "exceeds 1600"}, "refused", "message", False),
    ("sms", 400, {"code": 30001, "message": "Queue overflow"}, "deferred", "relay", False),
    ("webhook", 422, {"error": "unknown field"}, "refused", "message", False),
    ("webhook", 410, {}, "deferred", "configuration", False),
]  # fmt: skip


@pytest.mark.parametrize(("name", "status", "told", "kind", "scope", "suppress"), REFUSALS)
def test_a_providers_own_code_says_who_is_to_blame(
    name: str, status: int, told: dict, kind: str, scope: str, suppress: bool
) -> None:
    outcome, _, _ = handed(name, errors=[(status, told)])
    assert (outcome.kind, outcome.scope, outcome.suppress) == (kind, scope, suppress)
    assert not re.search(r"kim|lee|@|15112345678", outcome.reply), "a stored reply names nobody"


def test_a_provider_that_gives_one_id_twice_is_still_told_two_messages() -> None:
    other = replace(MESSAGE, message_id=MESSAGE.message_id.__class__(int=78))
    with Provider("sendgrid", same_id=True) as provider, channel("sendgrid").connect(provider.url) as send:
        outcomes = [send(m, to_bytes(m), lambda: None) for m in (MESSAGE, other)]
    assert {o.provider_id for o in outcomes} == {"sendgrid-1"}
    assert [taken.key for taken in provider.ledger] == [str(MESSAGE.message_id), str(other.message_id)]


def test_one_connection_serves_many_messages() -> None:
    with Provider("postmark") as provider, channel("postmark").connect(provider.url) as send:
        assert {send(MESSAGE, RAW, lambda: None).kind for _ in range(20)} == {"accepted"}
    assert (provider.connections, len(provider.ledger)) == (1, 20)


def test_a_kept_connection_that_was_closed_meanwhile_makes_no_unknown() -> None:
    """Most servers hang up on an idle connection: that must not leave a message nobody knows about."""
    with Provider("postmark", hang_up_after_answer=True) as provider, channel("postmark").connect(provider.url) as send:
        outcomes = []
        for _ in range(10):
            outcomes.append(send(MESSAGE, RAW, lambda: None).kind)
            assert provider.hung_up.acquire(timeout=10)  # closed while idle, not in the middle of the next request
    assert outcomes == ["accepted"] * 10
    assert len(provider.ledger) == 10


def test_an_answer_during_the_intent_keeps_the_last_byte_here() -> None:
    with Provider("sendgrid", ["early 401"]) as provider, channel("sendgrid").connect(provider.url) as send:
        outcome = send(MESSAGE, RAW, lambda: sleep(0.15))
    assert (outcome.kind, outcome.scope, provider.ledger) == ("deferred", "configuration", [])


def test_the_last_byte_waits_for_the_intent() -> None:
    """At the moment of the intent the provider has everything but one byte, and has taken nothing."""
    with Provider("mailgun") as provider:
        seen: list[int] = []
        with channel("mailgun").connect(provider.url) as send:
            outcome = send(MESSAGE, RAW, lambda: seen.append(len(provider.ledger)))
    assert (seen, outcome.kind) == ([0], "accepted")


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ssl.SSLContext, Path]]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("tls")
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(key.private_bytes(*form))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    yield context, folder / "cert.pem"


def test_tls_works_and_its_tickets_are_not_taken_for_an_answer(tls: tuple[ssl.SSLContext, Path]) -> None:
    context, ca = tls
    with Provider("sendgrid", tls=context) as provider:
        with channel("sendgrid").connect(provider.url_of(f"&ca={ca}")) as send:
            assert [send(MESSAGE, RAW, lambda: None).kind for _ in range(3)] == ["accepted"] * 3
        assert provider.connections == 1
        with channel("sendgrid").connect(provider.url) as send:  # a certificate nobody vouches for
            outcome = send(MESSAGE, RAW, lambda: None)
        assert (outcome.kind, outcome.scope) == ("deferred", "relay")
    assert len(provider.ledger) == 3


@pytest.mark.parametrize("name", MAILERS)
def test_an_address_that_is_none_is_refused_before_anything_leaves(name: str) -> None:
    bad = replace(MESSAGE, recipient=Address("nobody\r\nBcc: all@customers.example"))
    with Provider(name) as provider, channel(name).connect(provider.url) as send:
        outcome = send(bad, RAW, lambda: None)
    assert (outcome.kind, outcome.scope) == ("refused", "recipient")
    assert provider.requests == 0


@pytest.mark.parametrize("phone", [None, "", "0151 1234", "+49 151", "+0123456789", "+49151123456789012"])
def test_a_text_message_goes_to_an_international_number_or_not_at_all(phone: str | None) -> None:
    with Provider("sms") as provider, channel("sms").connect(provider.url) as send:
        outcome = send(replace(MESSAGE, phone=phone), RAW, lambda: None)
    assert (outcome.kind, outcome.scope, provider.requests) == ("refused", "recipient", 0)


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("ses", "ses://AKID@eu-west-1"),
        ("ses", "ses://AKID:x@nowhere"),
        ("sendgrid", "sendgrid://"),
        ("sendgrid", "sendgrid://:x@?api=http://mail.shop.example"),
        ("sendgrid", "sendgrid://:x@?trcking=1"),
        ("mailgun", "mailgun://:x@"),
        ("postmark", "smtp://x"),
        ("sms", f"sms://AC{'0' * 32}:x@"),
        ("sms", "sms://me:x@?from=%2B4930123456"),
        ("webhook", "webhook://shop.example"),
        ("banner", "panner:"),
    ],
)
def test_a_url_that_cannot_work_is_told_without_its_secret(name: str, url: str) -> None:
    with pytest.raises(InputError) as told, channel(name).connect(url):
        pass
    assert name in str(told.value)
    assert "x@" not in str(told.value)


@pytest.mark.parametrize(
    ("text", "alphabet", "count"),
    [
        ("a" * 160, "gsm7", 1),
        ("a" * 161, "gsm7", 2),
        ("€" * 80, "gsm7", 1),
        ("€" * 81, "gsm7", 2),
        ("a" * 152 + "€" + "a" * 152, "gsm7", 3),  # the escape and its sign do not lie over two segments
        ("가" * 70, "ucs2", 1),
        ("가" * 71, "ucs2", 2),
        ("🎉" * 35, "ucs2", 1),
        ("🎉" * 36, "ucs2", 2),
        ("é" * 160, "gsm7", 1),
        ("ê" * 71, "ucs2", 2),
        ("", "gsm7", 1),
    ],
)
def test_segments_are_counted_as_networks_do(text: str, alphabet: str, count: int) -> None:
    found = segments(text)
    assert (found.alphabet, found.messages) == (alphabet, count)
