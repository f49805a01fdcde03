"""What comes back by mail: told apart by what it is, believed only with our own signature."""

from __future__ import annotations

import json
from email.message import EmailMessage
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import settings as tuned
from hypothesis import strategies as st

from postlude import mailbox, tokens
from postlude.mailbox import Failure, Reading

DSN = """\
From: mailer-daemon@relay.example
To: {to}
Subject: Undelivered Mail Returned to Sender
Return-Path: <>
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary=b

--b
Content-Type: text/plain

Sorry.
--b
Content-Type: message/delivery-status

Reporting-MTA: dns; relay.example

Final-Recipient: rfc822; ana@customers.example
Action: {action}
Status: {status}
Diagnostic-Code: smtp; {said}
--b--
"""


def dsn(
    action: str = "failed", status: str = "5.1.1", said: str = "550 5.1.1 no such user", to: str = "x@y.example"
) -> bytes:
    return DSN.format(action=action, status=status, said=said, to=to).encode()


@pytest.mark.real_data
def test_real_bounces_are_read_as_their_labels_say(real_data: Path) -> None:
    folder = real_data / "bounces_flufl"
    labels = json.loads((folder / "labels.json").read_text())["labels"]
    wrong = []
    for name, label in labels.items():
        found = mailbox.read((folder / "mails" / name).read_bytes()).failures
        for permanent, key in ((False, "temporary"), (True, "permanent")):
            addresses = sorted({failure.address.lower() for failure in found if failure.permanent is permanent})
            if addresses != sorted(address.lower() for address in label[key]):
                wrong.append(name)
    assert len(labels) == 117
    assert len(wrong) <= 2, wrong


@pytest.mark.parametrize(
    ("action", "status", "said", "permanent", "hard"),
    [
        ("failed", "5.1.1", "550 5.1.1 no such user", True, True),
        ("failed", "5.0.0", "550 5.1.1 no such user", True, True),
        ("failed", "5.2.2", "552 5.2.2 mailbox full", True, False),
        ("failed", "5.7.1", "550 5.7.1 refused by policy", True, False),
        ("failed", "5.7.515", "550 5.7.515 sender not authenticated", True, False),
        ("delayed", "4.4.1", "no answer", False, False),
    ],
)
def test_only_a_mailbox_known_not_to_exist_is_a_hard_bounce(
    action: str, status: str, said: str, permanent: bool, hard: bool
) -> None:
    reading = mailbox.read(dsn(action, status, said))
    assert reading.kind == "bounce"
    [failure] = reading.failures
    assert (failure.permanent, failure.hard) == (permanent, hard)


def test_a_report_of_success_and_a_relayed_mail_are_no_bounces() -> None:
    assert mailbox.read(dsn("delivered", "2.0.0", "250 ok")).failures == ()
    assert mailbox.read(dsn("relayed", "2.0.0", "250 ok")).failures == ()


def test_a_bounce_is_believed_only_with_our_own_signature() -> None:
    message = uuid4()
    mine = tokens.bounce_address(message, "bounces.shop.example")
    assert len(mine.partition("@")[0]) <= 64
    assert mailbox.read(dsn(to=mine)).message_id == message
    assert mailbox.read(dsn(to=mine.upper())).message_id == message  # some systems change case
    local, _, domain = mine.partition("@")
    forged = f"{local[:-1]}{'a' if local[-1] != 'a' else 'b'}@{domain}"
    assert mailbox.read(dsn(to=forged)).message_id is None
    assert mailbox.read(dsn(to="someone@shop.example")).message_id is None


@pytest.mark.parametrize(
    ("header", "value", "kind"),
    [
        ("Auto-Submitted", "auto-replied", "auto_reply"),
        ("X-Autoreply", "yes", "auto_reply"),
        ("Precedence", "auto_reply", "auto_reply"),
        ("Subject", "Out of office: back on Monday", "auto_reply"),
        ("Subject", "Automatische Antwort", "reply"),
        ("Subject", "Abwesenheitsnotiz: Urlaub", "auto_reply"),
        ("Subject", "自動返信: 休暇中です", "auto_reply"),
        ("Subject", "부재중 자동 응답", "auto_reply"),
        ("Auto-Submitted", "no", "reply"),
        ("Subject", "Re: How is your mug?", "reply"),
    ],
)
def test_automatic_answers_are_told_from_people(header: str, value: str, kind: str) -> None:
    mail = EmailMessage()
    mail["From"] = "ana@customers.example"
    mail[header] = value
    mail.set_content("I am away. Or I like it.")
    assert mailbox.read(mail.as_bytes()).kind == kind


def test_a_complaint_is_known_by_its_report_and_not_spam_is_none() -> None:
    text = (
        "MIME-Version: 1.0\nTo: {}\nContent-Type: multipart/report; report-type=feedback-report; boundary=b\n\n--b\n"
        "Content-Type: text/plain\n\nspam\n--b\nContent-Type: message/feedback-report\n\nFeedback-Type: {}\nVersion: 1\n--b--\n"
    )
    message = uuid4()
    mine = tokens.bounce_address(message, "b.example")
    assert mailbox.read(text.format(mine, "abuse").encode()) == Reading("complaint", message)
    assert mailbox.read(text.format(mine, "not-spam").encode()).kind != "complaint"


@tuned(max_examples=300, deadline=None)
@given(cut=st.integers(0, 600), noise=st.binary(max_size=40), at=st.integers(0, 600))
def test_no_bytes_can_stop_the_mailbox(cut: int, noise: bytes, at: int) -> None:
    raw = dsn()
    mangled = raw[:at] + noise + raw[cut:]
    assert mailbox.read(mangled).kind in ("bounce", "complaint", "auto_reply", "reply", "unreadable")
    assert mailbox.read(noise).kind in ("reply", "auto_reply", "unreadable", "bounce")


def test_a_maildir_is_read_in_order_and_left_as_it_is(tmp_path: Path) -> None:
    for part in ("new", "cur", "tmp"):
        (tmp_path / part).mkdir()
    (tmp_path / "new" / "2").write_bytes(b"b")
    (tmp_path / "new" / "1").write_bytes(b"a")
    (tmp_path / "tmp" / "3").write_bytes(b"half written")
    assert [raw for _, raw in mailbox.messages(tmp_path)] == [b"a", b"b"]
    assert len(list(tmp_path.rglob("*"))) == 6


def test_failures_compare_by_value() -> None:
    assert Failure("a@b.example", True, "5.1.1") == Failure("a@b.example", True, "5.1.1")
