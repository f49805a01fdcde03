"""Handing over by SMTP: whatever the relay does, the outcome is the truth or says that the truth cannot be known."""

from __future__ import annotations

import itertools
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from uuid import UUID

import pytest

from postlude.channels import Send, smtp
from postlude.errors import InputError, Unavailable
from postlude.message import Address, Message, Outcome, to_bytes, uuid_of
from sink import CODES, NOISE, SILENCE, STEPS, TAKEN, Sink

_number = itertools.count()
MESSAGE = Message(
    message_id=UUID(int=1),
    campaign_id="win_back",
    kind="transactional",
    sender=Address("news@shop.example", "The Shop"),
    recipient=Address("kim@customers.example", "Kim"),
    subject="Hello",
    text="Hello\n.\n.dot",
    html="<p>Hello</p>" * 20,
    date=datetime(2026, 1, 2, tzinfo=UTC),
)


def message() -> Message:
    return replace(MESSAGE, message_id=uuid_of("test", str(next(_number))))


def nothing() -> None:
    """An intent that needs no keeping."""


class Intents:
    """Counts intents, and waits for the body's fault so that it is seen before the dot."""

    def __init__(self, sink: Sink, wait: bool = False) -> None:
        self.sink, self.wait, self.at = sink, wait, list[float]()

    def __call__(self) -> None:
        if self.wait and not self.at:
            self.sink.fired.wait(5)
            time.sleep(0.02)
        self.at.append(time.monotonic())


def hand_over(send: Send, sent: Message, intend: Callable[[], None] = nothing) -> Outcome:
    return send(sent, to_bytes(sent), intend)


def entries(sink: Sink, sent: Message) -> int:
    """How many copies of the message the sink took."""
    digest = sha256(to_bytes(sent)).hexdigest()
    return sum(entry.sha256 == digest for entry in sink.accepted)


# ---------------------------------------------------------------- the matrix


def points() -> Iterator[tuple[str, str]]:
    """Every (step, action) that an honest server can commit: who says no has not taken it, who says yes has."""
    for step in STEPS:
        if step not in ("dot-after-store",):
            yield from ((step, action) for action in CODES)
        if step not in ("dot-before-store", "body"):
            yield from ((step, action) for action in TAKEN)
        yield from ((step, action) for action in (*NOISE, *SILENCE))


def expected(step: str, action: str) -> str:
    """What the reply table asks for, in four lines."""
    if step == "quit" or (action in TAKEN and step != "data") or (step, action) == ("data", "354"):
        return "accepted"
    if step.startswith("dot") and action not in CODES:
        return "ambiguous"
    if step == "body" and action == "stall":  # it went silent after the body: only the dot finds out
        return "ambiguous"
    permanent = {"rcpt": ("550", "552", "554"), "data": ("550", "552", "554"), "mail": ("552",)}
    permanent["body"] = permanent["dot-before-store"] = permanent["data"]
    return "refused" if action in permanent.get(step, ()) else "deferred"


MATRIX = [(step, action, piped) for step, action in points() for piped in (True, False)]


def test_the_matrix_is_as_large_as_promised() -> None:
    assert len(MATRIX) >= 160
    assert {step for step, _, _ in MATRIX} == set(STEPS)


@pytest.mark.parametrize(("step", "action", "piped"), MATRIX, ids=str)
def test_a_fault_never_makes_a_lie(step: str, action: str, piped: bool) -> None:
    limit = "timeout=0.3" if action == "stall" else "timeout=3&timeout_quit=0.3"
    with Sink([(step, action)], offers=("PIPELINING",) if piped else ()) as sink:
        first, second = message(), message()
        intend = Intents(sink, wait=step == "body")
        with smtp.connect(sink.url(limit)) as send:
            outcome = hand_over(send, first, intend)
            after = hand_over(send, second, intend)
        took = entries(sink, first)
        assert took <= 1
        assert outcome.kind == expected(step, action)
        if took:
            assert outcome.kind in ("accepted", "ambiguous")
        if outcome.kind == "accepted":
            assert took == 1
        assert not outcome.suppress or (outcome.scope, action) == ("recipient", "550")
        assert outcome.scope not in ("recipient", "message", "policy") or step not in ("banner", "ehlo")
        assert (after.kind, entries(sink, second)) == ("accepted", 1)  # the session heals itself
        assert all(number == 1 for number in sink.recipients if number)
        stores = [entry.at for entry in sink.accepted]
        assert all(early <= late for early, late in zip(intend.at[-len(stores) :], stores, strict=True))
        assert len(intend.at) in (1, 2)


def test_a_relay_that_turns_everyone_away_suppresses_nobody() -> None:
    with Sink([("banner", "554")], times=1_000) as sink, smtp.connect(sink.url()) as send:
        outcomes = {hand_over(send, message()) for _ in range(50)}
    assert {(o.kind, o.scope, o.suppress) for o in outcomes} == {("deferred", "relay", False)}


# ---------------------------------------------------------------- before and after the dot


def test_the_intent_is_kept_after_the_whole_body_and_before_the_dot() -> None:
    with Sink() as sink, smtp.connect(sink.url()) as send:
        sent = replace(message(), html="<p>long</p>" * 20_000)
        raw = to_bytes(sent)
        wire = re.sub(rb"(?m)^\.", b"..", raw)

        def intend() -> None:
            limit = time.monotonic() + 5
            while len(sink.body) < len(wire) and time.monotonic() < limit:
                time.sleep(0.005)
            assert sink.body == wire
            time.sleep(0.05)
            assert sink.body == wire and not sink.ledger

        assert send(sent, raw, intend).kind == "accepted"
        assert entries(sink, sent) == 1


def test_when_the_intent_cannot_be_kept_nothing_is_handed_over() -> None:
    def intend() -> None:
        raise RuntimeError("kim@customers.example")

    with Sink() as sink:
        with smtp.connect(sink.url()) as send:
            outcome = hand_over(send, message(), intend)
            assert (outcome.kind, outcome.scope, outcome.reply) == (
                "released",
                None,
                "intent not recorded: RuntimeError",
            )
            sent = message()
            assert hand_over(send, sent).kind == "accepted"
        assert [entry.accepted for entry in sink.ledger] == [True]
        assert len(sink.sessions) == 2


@pytest.mark.parametrize("blow", [KeyboardInterrupt, SystemExit])
def test_a_signal_in_the_intent_goes_through_and_hands_nothing_over(blow: type[BaseException]) -> None:
    def intend() -> None:
        raise blow

    with Sink() as sink:
        with smtp.connect(sink.url()) as send, pytest.raises(blow):
            hand_over(send, message(), intend)
        time.sleep(0.05)
        assert sink.ledger == []
        assert b"QUIT" not in sink.body


def test_a_relay_that_stops_reading_a_large_body_has_not_taken_it() -> None:
    with Sink([("body", "stall")]) as sink, smtp.connect(sink.url("timeout=0.4")) as send:
        intents = Intents(sink)
        sent = replace(message(), html="x" * 6_500_000)
        outcome = hand_over(send, sent, intents)
    assert (outcome.kind, outcome.scope, intents.at) == ("deferred", "relay", [])


def test_the_answer_to_the_dot_is_waited_for_as_long_as_configured() -> None:
    with Sink([("dot-after-store", "stall")]) as sink:
        with smtp.connect(sink.url("timeout=3&timeout_dot=0.3")) as send:
            began = time.monotonic()
            outcome = hand_over(send, message())
        assert 0.25 < time.monotonic() - began < 2
        assert (outcome.kind, len(sink.accepted)) == ("ambiguous", 1)


def test_a_reply_that_drips_does_not_outlast_the_limit() -> None:
    server = socket.create_server(("127.0.0.1", 0))

    def drip() -> None:
        conn, _ = server.accept()
        with conn, server:
            for byte in b"220 " + b"x" * 400:
                try:
                    conn.sendall(bytes([byte]))
                except OSError:
                    return
                time.sleep(0.05)

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    began = time.monotonic()
    with smtp.connect(f"smtp://127.0.0.1:{server.getsockname()[1]}?timeout=0.3") as send:
        outcome = hand_over(send, message())
    thread.join(5)
    assert (outcome.kind, outcome.scope) == ("deferred", "relay")
    assert time.monotonic() - began < 2


# ---------------------------------------------------------------- the wire


@pytest.mark.parametrize(
    "body",
    [
        b".\r\n",
        b"..\r\n.a\r\n",
        b"a\n.\nb",
        b"a\r.\r\nb",
        b"a\r.\rb",
        b"a\r\n.\r\nb\r\n",
        b"\n.\r\n",
        b"",
        b"no end",
        b".",
        b"a\r\r\n.\r\r\nb",
    ],
)
def test_no_body_can_end_the_message_early_or_change_on_the_way(body: bytes) -> None:
    raw = b"Message-ID: <1@shop.example>\r\nSubject: x\r\n\r\n" + body
    with Sink() as sink:
        with smtp.connect(sink.url()) as send:
            assert send(message(), raw, nothing).kind == "accepted"
            assert hand_over(send, message()).kind == "accepted"
        wanted = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
        wanted += b"" if wanted.endswith(b"\r\n") else b"\r\n"
        assert sink.ledger[0].raw == wanted
        assert len(sink.ledger) == 2


def test_one_connection_serves_many_messages_and_is_renewed_in_time() -> None:
    with Sink() as sink:
        with smtp.connect(sink.url("timeout=5&session=10")) as send:
            kinds = [hand_over(send, message()).kind for _ in range(25)]
        assert kinds == ["accepted"] * 25
        assert sink.sessions == [10, 10, 5]
        assert set(sink.recipients) == {1}


def test_a_connection_the_relay_closed_meanwhile_is_replaced_without_loss() -> None:
    for action in ("close", "421", "reset"):
        with Sink([("quit", "close")]) as sink, smtp.connect(sink.url()) as send:
            assert hand_over(send, message()).kind == "accepted"
            sink._left[("mail", action)] = 1
            outcome = hand_over(send, message())
            assert (outcome.kind, len(sink.sessions)) == ("accepted", 2)


def test_a_refused_recipient_does_not_cost_the_connection() -> None:
    for offers in (("PIPELINING",), ()):
        with Sink([("rcpt", "550")], offers=offers) as sink, smtp.connect(sink.url()) as send:
            assert hand_over(send, message()).suppress
            assert hand_over(send, message()).kind == "accepted"
            assert len(sink.sessions) == 1


def test_pipelining_is_used_only_when_offered() -> None:
    for offers, together in ((("PIPELINING",), True), ((), False)):
        with Sink(offers=offers) as sink, smtp.connect(sink.url()) as send:
            hand_over(send, message())
            assert bool(sink.together) is together
            assert [line.split(b" ")[0] for line in sink.lines] == [b"EHLO", b"MAIL", b"RCPT", b"DATA"]


def test_a_server_that_takes_data_after_refusing_the_recipient_gets_no_message() -> None:
    with Sink([("rcpt", "550")], lax=True) as sink:
        with smtp.connect(sink.url()) as send:
            outcome = hand_over(send, message())
            assert sink.body == b""
            assert hand_over(send, message()).kind == "accepted"
        assert (outcome.kind, outcome.scope) == ("refused", "recipient")
        assert (len(sink.ledger), len(sink.sessions)) == (1, 2)


def test_the_relays_own_id_is_kept() -> None:
    for said, wanted in (
        (b"250 2.0.0 Ok: queued as 4F3A21\r\n", "4F3A21"),
        (b"250 OK id=1qXyz-0001\r\n", "1qXyz-0001"),
        (b"250-2.0.0 hello\r\n250 Ok 010201890abc-def\r\n", "010201890abc-def"),
        (b"250 fine\r\n", None),
        (b"250\r\n", None),
    ):
        with Sink(replies={"dot": said}) as sink, smtp.connect(sink.url()) as send:
            outcome = hand_over(send, message())
            assert (outcome.kind, outcome.provider_id) == ("accepted", wanted)


def test_a_stored_reply_does_not_name_the_person() -> None:
    said = b"550 5.1.1 <kim@customers.example> unknown, ask postmaster@customers.example\r\n"
    with Sink(replies={"rcpt": said}) as sink, smtp.connect(sink.url()) as send:
        outcome = hand_over(send, message())
    assert outcome.reply == "550 5.1.1 <address> unknown, ask <address>"


# ---------------------------------------------------------------- addresses and sizes


def test_an_invalid_address_is_refused_before_anything_is_said() -> None:
    with Sink() as sink:
        with smtp.connect(sink.url()) as send:
            bad = replace(message(), recipient=Address("a@b\r\nRCPT TO:<x@customers.example>"))
            outcome = send(bad, to_bytes(message()), nothing)
            assert (outcome.kind, outcome.scope, outcome.suppress) == ("refused", "recipient", False)
            wrong = replace(message(), return_path="nobody")
            assert send(wrong, to_bytes(message()), nothing).scope == "configuration"
        assert sink.lines == []


def test_an_international_mailbox_needs_a_relay_that_knows_them() -> None:
    sent = replace(message(), recipient=Address("한글@customers.example"))
    with Sink() as sink, smtp.connect(sink.url()) as send:
        outcome = hand_over(send, sent)
        assert (outcome.kind, outcome.scope, outcome.reply, outcome.suppress) == ("refused", "recipient", "eai", False)
        assert [line for line in sink.lines if line.startswith(b"MAIL")] == []
        assert hand_over(send, message()).kind == "accepted"
    with Sink(offers=("SMTPUTF8", "8BITMIME", "PIPELINING")) as sink, smtp.connect(sink.url()) as send:
        assert hand_over(send, sent).kind == "accepted"
        assert [line for line in sink.lines if line.endswith(b" SMTPUTF8")]


def test_an_unusual_local_part_is_quoted_and_the_return_path_is_used() -> None:
    with Sink() as sink, smtp.connect(sink.url()) as send:
        sent = replace(message(), recipient=Address("a..b@docomo.example"), return_path="b+1@shop.example")
        assert hand_over(send, sent).kind == "accepted"
        assert sink.lines[1:3] == [b"MAIL FROM:<b+1@shop.example>", b'RCPT TO:<"a..b"@docomo.example>']


def test_a_message_larger_than_the_relay_takes_is_its_own_fault() -> None:
    with Sink(offers=("SIZE 300",)) as sink, smtp.connect(sink.url()) as send:
        outcome = hand_over(send, message())
        assert (outcome.kind, outcome.scope, sink.ledger) == ("refused", "message", [])


# ---------------------------------------------------------------- TLS and login


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key."""
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sink.example")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path = tmp_path_factory.mktemp("tls") / "cert.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


def server_tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


def test_mail_goes_through_verified_tls(certificate: Path) -> None:
    with Sink(tls=server_tls(certificate), login=("shop", "s3cret:@/")) as sink:
        url = f"smtp://shop:s3cret%3A%40%2F@127.0.0.1:{sink.port}?starttls=required&ca={certificate}&timeout=5"
        with smtp.connect(url) as send:
            assert [hand_over(send, message()).kind for _ in range(3)] == ["accepted"] * 3
        assert [line.split(b" ")[0] for line in sink.lines[:4]] == [b"EHLO", b"STARTTLS", b"EHLO", b"AUTH"]
        assert len(sink.sessions) == 1


def test_a_mail_too_large_for_the_kernel_goes_through_tls_whole(certificate: Path) -> None:
    """What TLS could not take at once it wants again, with the same end."""
    with Sink(tls=server_tls(certificate)) as sink:
        url = f"smtp://127.0.0.1:{sink.port}?starttls=required&ca={certificate}&timeout=20"
        with smtp.connect(url) as send:
            sent = replace(message(), html="<p>a long one</p>\n" * 300_000)
            assert hand_over(send, sent).kind == "accepted"
        assert sink.body == re.sub(rb"(?m)^\.", b"..", to_bytes(sent)) + b".\r\n"


def test_a_certificate_nobody_vouches_for_stops_everything(certificate: Path) -> None:
    with Sink(tls=server_tls(certificate)) as sink, smtp.connect(sink.url("starttls=required&timeout=5")) as send:
        outcome = hand_over(send, message())
        assert (outcome.kind, outcome.scope) == ("deferred", "relay")
        assert "certificate" in outcome.reply
        assert not [line for line in sink.lines if line.startswith((b"MAIL", b"DATA"))]


def test_a_relay_without_tls_gets_nothing_where_tls_is_required() -> None:
    with Sink() as sink, smtp.connect(sink.url("starttls=required&timeout=5")) as send:
        outcome = hand_over(send, message())
        assert (outcome.kind, outcome.scope, sink.ledger) == ("deferred", "relay", [])


@pytest.mark.parametrize("offers", [("PIPELINING",), ("LOGIN-ONLY",)])
def test_a_wrong_password_is_the_configurations_fault(offers: tuple[str, ...]) -> None:
    with Sink(login=("shop", "right"), offers=offers) as sink:
        with smtp.connect(f"smtp://shop:right@127.0.0.1:{sink.port}?timeout=5") as send:
            assert hand_over(send, message()).kind == "accepted"
        with smtp.connect(f"smtp://shop:wrong@127.0.0.1:{sink.port}?timeout=5") as send:
            outcome = hand_over(send, message())
        assert (outcome.kind, outcome.scope) == ("deferred", "configuration")
        assert len(sink.accepted) == 1


# ---------------------------------------------------------------- the URL


def test_tls_is_required_unless_the_relay_is_this_machine() -> None:
    assert smtp.Relay.parse("smtp://mail.shop.example").starttls
    assert not smtp.Relay.parse("smtp://127.0.0.1:1025").starttls
    assert not smtp.Relay.parse("smtp://localhost").starttls
    assert smtp.Relay.parse("smtp://localhost?starttls=required").starttls
    assert not smtp.Relay.parse("smtp://mailpit:1025?starttls=never").starttls
    assert smtp.Relay.parse("smtps://mail.shop.example").implicit_tls
    ports = [smtp.Relay.parse(url).port for url in ("smtp://a.example", "smtp://u:p@a.example", "smtps://a.example")]
    assert ports == [25, 587, 465]


def test_the_dot_gets_ten_minutes_by_default() -> None:
    limits = smtp.Relay.parse("smtp://a.example?timeout_data=7").timeouts
    assert [limits[name] for name in ("dot", "banner", "command", "block", "data")] == [600, 300, 300, 180, 7]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://a.example", "must look like"),
        ("smtp://", "must look like"),
        ("smtp://a.example:port", "cannot be read"),
        ("smtp://u:topsecret@a.example?starttls=maybe", "starttls"),
        ("smtp://u:topsecret@a.example?starttls=never", "in clear"),
        ("smtp://u:topsecret@a.example?timeot=3", "unknown key timeot"),
        ("smtp://u:topsecret@a.example?timeout_dot=soon", "timeout_dot"),
        ("smtp://u:topsecret@a.example?timeout=-1", "above 0"),
        ("smtp://u:topsecret@a.example?helo=a%0d%0aMAIL", "helo"),
        ("smtp://u:topsecret@a.example?ca=/does/not/exist", "certificates"),
    ],
)
def test_a_wrong_url_is_named_without_its_password(url: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as fault, smtp.connect(url):
        pass
    assert "topsecret" not in str(fault.value)
    assert "topsecret" not in repr(smtp.Relay.parse("smtp://u:topsecret@a.example"))


def test_nobody_listening_is_the_relays_fault() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    for host in (f"127.0.0.1:{port}", "no-such-host.invalid:25?starttls=never"):
        with smtp.connect(f"smtp://{host}") as send:
            outcome = hand_over(send, message())
        assert (outcome.kind, outcome.scope) == ("deferred", "relay")
    url = f"smtp://127.0.0.1?events=http://127.0.0.1:{port}/api/events"
    with pytest.raises(Unavailable):
        list(smtp.events(url, datetime(2026, 1, 1, tzinfo=UTC)))


if os.environ.get("POSTLUDE_MEASURE"):  # not a test: messages a second to the sink, intent for nothing

    def test_measure() -> None:
        big = [replace(message(), html="<p>Hello</p>" * 800) for _ in range(3_000)]
        raws = [to_bytes(one) for one in big]
        for offers in (("PIPELINING",), ()):
            with Sink(offers=offers) as sink, smtp.connect(sink.url("timeout=30")) as send:
                began, cpu = time.perf_counter(), time.thread_time()
                for one, raw in zip(big, raws, strict=True):
                    assert send(one, raw, nothing).kind == "accepted"
                wall = time.perf_counter() - began
                print(f"\n{offers}: {len(big) / wall:.0f}/s, {(time.thread_time() - cpu) / len(big) * 1e6:.0f} us cpu")
