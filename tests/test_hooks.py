"""What providers report: only what they prove to have said is stored, once, and means what they meant."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import UUID, uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID
from fastapi.testclient import TestClient
from sqlalchemy import URL, Engine, text

from postlude import db, feedback, hooks, web
from postlude.hooks import reports, sns
from postlude.settings import settings
from postlude.tokens import banner_token, webhook_signature
from postlude.web import FAILURES, MAX_BODY, create_app
from test_web import NOW, Clock, a_message

TOPIC = "arn:aws:sns:eu-west-1:123456789012:mail"
CERT_URL = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-1.pem"
EC_KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(65537, 2048)
SECRETS = {
    "hook_ses": TOPIC,
    "hook_sendgrid": base64.b64encode(
        EC_KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    ).decode(),
    "hook_mailgun": "mailgun-signing-key",
    "hook_postmark": "postmark:a-password",
    "hook_sms": "twilio-auth-token",
    "hook_webhook": "own-secret",
}
Signed = tuple[str, bytes, dict[str, str]]


def certificate() -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    day = timedelta(days=4000)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(RSA_KEY.public_key()).serial_number(1)
    )
    return (
        made.not_valid_before(NOW - day)
        .not_valid_after(NOW + day)
        .sign(RSA_KEY, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses the service asked for; Amazon's certificate is the only thing there is."""
    seen: list[str] = []

    def fetch(self: Any, url: str) -> bytes:
        seen.append(url)
        return certificate()

    monkeypatch.setattr(web._Site, "fetch", fetch)
    sns._certificate.cache_clear()
    return seen


@pytest.fixture
def pages(database: URL) -> Iterator[Engine]:
    """Connected as the public pages are."""
    made = db.engine(database.set(username=db.WEB_ROLE))
    yield made
    made.dispose()


@pytest.fixture
def client(pages: Engine, clock: Clock, monkeypatch: pytest.MonkeyPatch, fetched: list[str]) -> Iterator[TestClient]:
    known = settings().model_copy(update=SECRETS)
    monkeypatch.setattr(web, "settings", lambda: known)
    with TestClient(create_app(pages, clock), follow_redirects=False) as made:
        yield made


# ---------------------------------------------------------------- what each provider would send


def ses(message: UUID, kind: str = "Delivery", now: datetime = NOW, version: str = "2", **more: str) -> Signed:
    said = {
        "eventType": kind,
        "mail": {"messageId": "ses-1", "timestamp": now.isoformat(), "tags": {"msg_key": [str(message)]}},
        "delivery": {"timestamp": now.isoformat()},
        "bounce": {"timestamp": now.isoformat(), "bounceType": "Permanent", "bounceSubType": "General",
                   "bouncedRecipients": [{"emailAddress": "ana@customers.example", "status": "5.1.1"}]},
        "complaint": {"timestamp": now.isoformat()},
        "click": {"timestamp": now.isoformat(), "userAgent": "Mozilla/5.0 (iPhone)"},
    }  # fmt: skip
    envelope = {
        "Type": "Notification", "MessageId": str(uuid4()), "TopicArn": TOPIC, "Message": json.dumps(said),
        "Timestamp": now.isoformat().replace("+00:00", "Z"), "SignatureVersion": version, "SigningCertURL": CERT_URL, **more,
    }  # fmt: skip
    digest = hashes.SHA1() if version == "1" else hashes.SHA256()
    signed = RSA_KEY.sign(sns.signed_text(envelope).encode(), padding.PKCS1v15(), digest)
    envelope["Signature"] = base64.b64encode(signed).decode()
    return "/hooks/ses", json.dumps(envelope).encode(), {}


def sendgrid(message: UUID, kind: str = "delivered", now: datetime = NOW, count: int = 1, **more: Any) -> Signed:
    events = [
        {"event": kind, "timestamp": int(now.timestamp()), "sg_event_id": str(uuid4()), "msg_key": str(message),
         "email": "ana@customers.example", "sg_message_id": "abc.filter-1", **more}
        for _ in range(count)
    ]  # fmt: skip
    body, stamp = json.dumps(events).encode(), str(int(now.timestamp()))
    signature = base64.b64encode(EC_KEY.sign(stamp.encode() + body, ec.ECDSA(hashes.SHA256()))).decode()
    head = {"X-Twilio-Email-Event-Webhook-Timestamp": stamp, "X-Twilio-Email-Event-Webhook-Signature": signature}
    return "/hooks/sendgrid", body, head


def mailgun(message: UUID, kind: str = "delivered", now: datetime = NOW, token: str = "", **more: Any) -> Signed:
    stamp, token = str(int(now.timestamp())), token or uuid4().hex
    signature = hmac.new(SECRETS["hook_mailgun"].encode(), (stamp + token).encode(), hashlib.sha256).hexdigest()
    event = {
        "event": kind,
        "timestamp": now.timestamp(),
        "id": uuid4().hex,
        "user-variables": {"msg_key": str(message)},
        **more,
    }
    signed = {"timestamp": stamp, "token": token, "signature": signature}
    return "/hooks/mailgun", json.dumps({"signature": signed, "event-data": event}).encode(), {}


def postmark(message: UUID, kind: str = "Delivery", now: datetime = NOW, **more: Any) -> Signed:
    at = {"Delivery": "DeliveredAt", "Bounce": "BouncedAt", "SpamComplaint": "BouncedAt"}.get(kind, "ReceivedAt")
    said = {
        "RecordType": kind,
        "MessageID": str(uuid4()),
        at: now.isoformat(),
        "Metadata": {"msg_key": str(message)},
        **more,
    }
    login = "Basic " + base64.b64encode(SECRETS["hook_postmark"].encode()).decode()
    return "/hooks/postmark", json.dumps(said).encode(), {"Authorization": login}


def twilio(message: UUID | None, status: str = "delivered", now: datetime = NOW, **more: str) -> Signed:
    form = {"MessageSid": "SM" + uuid4().hex, "MessageStatus": status, "AccountSid": "AC0", **more}
    path = f"/hooks/sms?m={message}" if message else "/hooks/sms"
    told = settings().web_url + path + "".join(k + v for k, v in sorted(form.items()))
    digest = hmac.new(SECRETS["hook_sms"].encode(), told.encode(), hashlib.sha1).digest()
    head = {
        "X-Twilio-Signature": base64.b64encode(digest).decode(),
        "Content-Type": "application/x-www-form-urlencoded",
    }
    return path, urlencode(form).encode(), head


def own(message: UUID, kind: str = "delivered", now: datetime = NOW, **more: Any) -> Signed:
    body = json.dumps(
        {"id": uuid4().hex, "kind": kind, "message_id": str(message), "at": now.isoformat(), **more}
    ).encode()
    head = {"Postlude-Signature": webhook_signature(SECRETS["hook_webhook"], int(now.timestamp()), body)}
    return "/hooks/webhook", body, head


SIGNERS: dict[str, Callable[..., Signed]] = {
    "ses": ses, "sendgrid": sendgrid, "mailgun": mailgun, "postmark": postmark, "sms": twilio, "webhook": own,
}  # fmt: skip


def post(client: TestClient, signed: Signed) -> int:
    path, body, head = signed
    return client.post(path, content=body, headers=head).status_code


def landed(engine: Engine) -> int:
    with engine.connect() as conn:
        return int(conn.execute(text("select count(*) from event_inbox")).scalar_one())


def told(engine: Engine) -> list[tuple[str, UUID | None]]:
    """Kind and message of every event, after the feedback stage."""
    with db.transaction(engine) as conn:
        feedback.apply(conn, NOW + timedelta(minutes=1))
        return [tuple(row) for row in conn.execute(text("select kind, message_id from events order by kind"))]


# ---------------------------------------------------------------- proof


@pytest.mark.parametrize("provider", SIGNERS)
def test_a_report_is_stored_once_and_becomes_an_event_of_its_message(
    engine: Engine, client: TestClient, provider: str
) -> None:
    message = a_message(engine)
    signed = SIGNERS[provider](message)
    assert [post(client, signed) for _ in range(3)] == [200, 200, 200]
    assert landed(engine) == 1
    assert told(engine) == [("delivered", message)]


@pytest.mark.parametrize("provider", [name for name in SIGNERS if name != "postmark"])
def test_one_bit_more_or_less_and_nothing_is_stored(engine: Engine, client: TestClient, provider: str) -> None:
    path, body, head = SIGNERS[provider](a_message(engine))
    if provider == "mailgun":  # its signature covers time and token only
        place = body.index(b'"token": "') + len(b'"token": "')
    else:
        place = body.index(b"delivered" if provider in ("webhook", "sms", "sendgrid") else b"Delivery")
    flipped = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
    assert client.post(path, content=flipped, headers=head).status_code == 401
    for name in head:
        if name != "Content-Type":
            assert client.post(path, content=body, headers={**head, name: head[name][:-2] + "xx"}).status_code == 401
            assert (
                client.post(path, content=body, headers={k: v for k, v in head.items() if k != name}).status_code == 401
            )
    assert landed(engine) == 0


@pytest.mark.parametrize("provider", ["sendgrid", "webhook"])
def test_a_body_written_anew_is_not_what_was_signed(engine: Engine, client: TestClient, provider: str) -> None:
    path, body, head = SIGNERS[provider](a_message(engine))
    again = json.dumps(json.loads(body), separators=(",", ":")).encode()
    assert client.post(path, content=again, headers=head).status_code == 401
    assert landed(engine) == 0


def test_a_report_signed_at_another_time_is_not_taken(engine: Engine, client: TestClient) -> None:
    message = a_message(engine)
    for provider in ("ses", "sendgrid", "mailgun", "webhook"):
        for hours in (-2, 2):
            assert post(client, SIGNERS[provider](message, now=NOW + timedelta(hours=hours))) == 401, provider
    assert landed(engine) == 0


def test_a_token_of_mailgun_is_good_for_one_body(engine: Engine, client: TestClient) -> None:
    message = a_message(engine)
    assert post(client, mailgun(message, token="t1")) == 200
    assert post(client, mailgun(message, "complained", token="t1")) == 401
    assert (landed(engine), told(engine)) == (1, [("delivered", message)])


def test_postmark_needs_the_password(engine: Engine, client: TestClient) -> None:
    path, body, _ = postmark(a_message(engine))
    for login in ("postmark:wrong", "", "postmark:a-passwor", "Postmark:a-password"):
        head = {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()}
        assert client.post(path, content=body, headers=head).status_code == 401
    assert landed(engine) == 0


def test_both_versions_of_the_signature_of_sns_are_understood(engine: Engine, client: TestClient) -> None:
    message = a_message(engine)
    assert [post(client, ses(message, version=v)) for v in ("1", "2", "3")] == [200, 200, 401]


ELSEWHERE = [
    "https://sns.eu-west-1.amazonaws.com.evil.example/x.pem",
    "https://evil.example/sns.eu-west-1.amazonaws.com/x.pem",
    "http://sns.eu-west-1.amazonaws.com/x.pem",
    "https://me@sns.eu-west-1.amazonaws.com/x.pem",
    "https://sns.eu-west-1.amazonaws.com:8443/x.pem",
    "https://s3.eu-west-1.amazonaws.com/x.pem",
    "file:///etc/x.pem",
]


def test_a_certificate_that_lies_elsewhere_is_not_even_fetched(
    engine: Engine, client: TestClient, fetched: list[str]
) -> None:
    assert {post(client, ses(a_message(engine), SigningCertURL=url)) for url in ELSEWHERE} == {401}
    assert (fetched, landed(engine)) == ([], 0)


def test_only_topics_of_ours_are_heard_and_only_at_amazon_is_one_confirmed(
    engine: Engine, client: TestClient, fetched: list[str]
) -> None:
    assert post(client, ses(a_message(engine), TopicArn="arn:aws:sns:eu-west-1:666:mail")) == 401
    assert fetched == []
    asked = {"Type": "SubscriptionConfirmation", "Token": "t"}
    elsewhere = "https://evil.example/?Action=ConfirmSubscription"
    assert post(client, ses(uuid4(), **asked, SubscribeURL=elsewhere)) == 200
    assert elsewhere not in fetched
    there = "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn=x"
    assert post(client, ses(uuid4(), **asked, SubscribeURL=there)) == 200
    assert there in fetched
    assert landed(engine) == 0


def test_only_what_proves_nothing_is_counted_against_an_address(engine: Engine, client: TestClient) -> None:
    message = a_message(engine)
    assert {post(client, own(message)) for _ in range(FAILURES + 10)} == {200}
    path, body, _ = own(message)
    answers = [client.post(path, content=body).status_code for _ in range(FAILURES + 1)]
    assert answers == [401] * FAILURES + [429]
    assert post(client, own(message)) == 200, "the provider itself is not locked out"


def test_a_batch_may_be_large_where_the_provider_sends_batches(engine: Engine, client: TestClient) -> None:
    message = a_message(engine)
    large = sendgrid(message, count=400)
    assert len(large[1]) > MAX_BODY
    assert (post(client, large), landed(engine)) == (200, 400)
    assert post(client, own(message, filler="x" * MAX_BODY)) == 413
    assert post(client, sendgrid(message, filler="x" * 1_100_000)) == 413


def test_a_provider_that_is_not_set_up_is_not_there(pages: Engine, clock: Clock) -> None:
    with TestClient(create_app(pages, clock)) as bare:
        assert {post(bare, SIGNERS[name](uuid4())) for name in SIGNERS} == {404}
        assert bare.post("/hooks/carrier_pigeon").status_code == 404


def test_signed_nonsense_is_refused_and_breaks_nothing(engine: Engine, client: TestClient) -> None:
    for body in (b"", b"[]", b"null", b"{", b"\xff\xfe", b'"x"', b"[" * 60_000):
        head = {"Postlude-Signature": webhook_signature(SECRETS["hook_webhook"], int(NOW.timestamp()), body)}
        assert client.post("/hooks/webhook", content=body, headers=head).status_code == 400
    assert landed(engine) == 0


def test_what_a_database_cannot_keep_is_left_out_and_the_report_is_kept(engine: Engine, client: TestClient) -> None:
    message = a_message(engine)
    assert post(client, sendgrid(message, reason="a\x00b\ud800c")) == 200
    assert told(engine) == [("delivered", message)]


# ---------------------------------------------------------------- meaning

MEANINGS = [
    (ses("m", "Bounce"), "bounced", True), (ses("m", "Complaint"), "complained", None), (ses("m", "Click"), "clicked", None),
    (ses("m", "Send"), None, None),
    (sendgrid("m", "processed"), None, None), (sendgrid("m", "deferred"), "deferred", None),
    (sendgrid("m", "bounce", status="5.1.1"), "bounced", True), (sendgrid("m", "bounce", status="5.7.1"), "bounced", False),
    (sendgrid("m", "bounce", status="5.1.1", type="blocked"), "bounced", False), (sendgrid("m", "dropped"), "bounced", False),
    (sendgrid("m", "spamreport"), "complained", None), (sendgrid("m", "unsubscribe"), "unsubscribed", None),
    (sendgrid("m", "open", sg_machine_open=True, useragent="Mozilla/5.0"), "scanned", None),
    (sendgrid("m", "click", useragent="Mozilla/5.0 (Windows NT 10.0) BarracudaCentral"), "scanned", None),
    (sendgrid("m", "click", useragent="Mozilla/5.0 (Windows NT 10.0)"), "clicked", None),
    (mailgun("m", "accepted"), None, None),
    (mailgun("m", "failed", severity="temporary"), "deferred", None),
    (mailgun("m", "failed", severity="permanent", **{"delivery-status": {"message": "550 5.1.1 no"}}), "bounced", True),
    (mailgun("m", "failed", severity="permanent", **{"delivery-status": {"message": "550 5.7.1 spam"}}), "bounced", False),
    (mailgun("m", "complained"), "complained", None), (mailgun("m", "unsubscribed"), "unsubscribed", None),
    (mailgun("m", "clicked", **{"client-info": {"bot": "gmail", "user-agent": "Mozilla"}}), "scanned", None),
    (mailgun("m", "opened", **{"client-info": {"bot": "", "user-agent": "Mozilla/5.0"}}), "opened", None),
    (postmark("m", "Bounce", Type="HardBounce", Details="smtp;550 5.1.1"), "bounced", True),
    (postmark("m", "Bounce", Type="SpamNotification"), "bounced", False),
    (postmark("m", "Bounce", Type="Transient"), "deferred", False),
    (postmark("m", "SpamComplaint"), "complained", None), (postmark("m", "Click", UserAgent="Mozilla/5.0"), "clicked", None),
    (postmark("m", "Open", UserAgent="GoogleImageProxy"), "scanned", None),
    (twilio("m", "undelivered", ErrorCode="30005"), "bounced", True), (twilio("m", "failed", ErrorCode="30007"), "bounced", False),
    (twilio("m", "queued"), None, None), (twilio("m", "sent"), None, None),
    (twilio(None, "received", From="+4915112345678", Body=" Stop! "), "unsubscribed", None),
    (twilio(None, "received", From="+4915112345678", Body="수신거부"), "unsubscribed", None),
    (twilio(None, "received", From="+4915112345678", Body="please stop by"), "replied", None),
    (own("m", "bounced", detail={"hard": True}), "bounced", True), (own("m", "replied"), "replied", None),
]  # fmt: skip


@pytest.mark.parametrize(("signed", "kind", "hard"), MEANINGS)
def test_each_report_means_what_the_provider_meant(signed: Signed, kind: str | None, hard: bool | None) -> None:
    path, body, head = signed
    provider = path.removeprefix("/hooks/").partition("?")[0]
    asked = hooks.Request(settings().web_url + path, {k.lower(): v for k, v in head.items()}, body)
    found = hooks.verify(provider, asked, SECRETS[f"hook_{provider}"], NOW, lambda url: certificate())
    event = reports.read(provider, found[0].raw)
    assert (event["kind"] if event else None) == kind
    if event:
        assert event["detail"].get("hard") == hard
        assert "customers.example" not in repr(event)


def test_a_bounce_a_complaint_and_an_unsubscribe_are_obeyed(engine: Engine, client: TestClient) -> None:
    for number, signed in enumerate((ses, sendgrid, mailgun)):
        message = a_message(engine, f"p{number}@customers.example")
        kind = ("Bounce", "spamreport", "unsubscribed")[number]
        assert post(client, signed(message, kind)) == 200
    told(engine)
    with engine.connect() as conn:
        rows = conn.execute(text("select address, scope, reason from suppressions order by 1")).all()
    assert [tuple(row) for row in rows] == [
        ("p0@customers.example", "all", "hard_bounce"),
        ("p1@customers.example", "marketing", "complained"),
        ("p2@customers.example", "marketing", "unsubscribed"),
    ]


def test_who_replies_stop_to_a_text_gets_no_more_of_them_and_keeps_the_mails(
    engine: Engine, client: TestClient
) -> None:
    message = a_message(engine)
    with engine.begin() as conn:
        conn.execute(text("update customers set phone = '+4915112345678'"))
        conn.execute(text("update messages set channel = 'sms', handed_over_at = :now"), {"now": NOW})
    assert post(client, twilio(None, "received", From="+4915112345678", Body="STOP")) == 200
    assert told(engine) == [("unsubscribed", message)]
    with engine.connect() as conn:
        assert conn.execute(text("select address, scope from suppressions")).all() == [("+4915112345678", "marketing")]
        assert conn.execute(text("select channel, granted from consents")).all() == [("sms", False)]
        assert "+49" not in str(conn.execute(text("select detail from events")).scalar_one())


def test_clicks_within_seconds_or_on_everything_at_once_are_no_persons(engine: Engine, client: TestClient) -> None:
    early, many, person = (a_message(engine, f"c{n}@customers.example") for n in range(3))
    with engine.begin() as conn:
        conn.execute(text("update messages set handed_over_at = :at"), {"at": NOW - timedelta(hours=1)})
        conn.execute(text("update messages set handed_over_at = :at where message_id = :m"),
                     {"at": NOW - timedelta(seconds=4), "m": early})  # fmt: skip
    human = {"useragent": "Mozilla/5.0 (Windows NT 10.0)"}
    for signed in (
        sendgrid(early, "click", **human),
        sendgrid(many, "click", count=4, **human),
        sendgrid(person, "click", **human),
    ):
        assert post(client, signed) == 200
    assert sorted(told(engine)) == sorted([("clicked", person), ("scanned", early), *[("scanned", many)] * 4])


def test_a_report_without_our_key_is_matched_by_the_providers_own_id(engine: Engine, client: TestClient) -> None:
    message = a_message(engine)
    with engine.begin() as conn:
        conn.execute(text("update messages set provider_id = 'abc'"))
    assert post(client, sendgrid("", "delivered")) == 200
    assert told(engine) == [("delivered", message)]


def test_a_report_nobody_understands_keeps_its_problem_and_holds_up_no_other(
    engine: Engine, client: TestClient
) -> None:
    message = a_message(engine)
    for signed in (postmark(message, "Bounce"), own(message, "danced"), own(message)):
        assert post(client, signed) == 200
    assert told(engine) == [("delivered", message)]
    with engine.connect() as conn:
        assert conn.execute(text("select count(*) from event_inbox where problem is not null")).scalar_one() == 2
        assert conn.execute(text("select count(*) from event_inbox where taken_at is null")).scalar_one() == 0


# ---------------------------------------------------------------- the providers' own examples


@pytest.mark.real_data
def test_the_providers_published_examples_are_read(real_data: Path) -> None:
    found: dict[str, int] = {}
    for path in sorted((real_data / "payloads" / "sendgrid").glob("*.json")):
        said = json.loads(path.read_text())
        for event in said if isinstance(said, list) else [said]:
            if "event" in event:
                read = reports.read("sendgrid", event)
                kind = read["kind"] if read else "no news"
                found[kind] = found.get(kind, 0) + 1
    assert {"delivered", "deferred", "bounced", "complained", "unsubscribed", "no news"} <= found.keys()
    mail = json.loads((real_data / "payloads" / "aws" / "ses-sns-event.json").read_text())["Records"][0]["ses"]["mail"]
    event = reports.read(
        "ses", {"notificationType": "Complaint", "mail": mail, "complaint": {"timestamp": mail["timestamp"]}}
    )
    assert event and (event["kind"], event["provider_id"]) == ("complained", mail["messageId"])


# ---------------------------------------------------------------- banners


def test_the_shops_page_shows_a_customers_banners_until_they_expire(
    engine: Engine, client: TestClient, clock: Clock
) -> None:
    person, other = UUID(int=5), UUID(int=6)
    with engine.begin() as conn:
        for number, whose in enumerate((person, other)):
            db.run(conn, "48_store_banner", message=UUID(int=number), person=whose, campaign="win_back", title="Hello",
                   body="News", link="https://shop.example/", shown_from=NOW, shown_until=NOW + timedelta(days=2))  # fmt: skip
    address = f"/b/{banner_token(person, date(2026, 3, 20))}"
    answer = client.get(address)
    assert answer.headers["access-control-allow-origin"] == "*"
    assert [(b["id"], b["title"], b["text"]) for b in answer.json()["banners"]] == [(str(UUID(int=0)), "Hello", "News")]
    clock.now = NOW + timedelta(days=3)
    assert client.get(address).json()["banners"] == []
    clock.now = datetime(2026, 3, 21, tzinfo=UTC)
    assert client.get(address).status_code == 404, "the address itself runs out"
    assert client.get(address[:-1] + ("A" if address[-1] != "A" else "B")).status_code == 404
