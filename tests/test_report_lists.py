"""What a landing that was down has missed is read from the provider's own lists: every page, once, and on from where it broke off."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, text

from fake_providers import Provider
from postlude import channels, db, feedback
from postlude.errors import InputError, Unavailable
from test_hooks import client, clock, fetched, mailgun, pages, post, postmark
from test_web import NOW, a_message

__all__ = ["client", "clock", "fetched", "pages"]  # fixtures


def pull(engine: Engine, to: Provider, later: float = 0, url: str = "") -> dict[str, int]:
    module = channels.channel(to.name)
    now = NOW + timedelta(hours=1 + later)
    return feedback.pull(partial(db.transaction, engine), module, url or to.url, "email", to.name, now)


def told(engine: Engine) -> list[tuple[str, UUID]]:
    with db.transaction(engine) as conn:
        feedback.apply(conn, NOW + timedelta(days=2))
        return [tuple(row) for row in conn.execute(text("select kind, message_id from events order by kind, at"))]


def suppressed(engine: Engine) -> list[tuple[str, str]]:
    with engine.connect() as conn:
        return [tuple(row) for row in conn.execute(text("select address, reason from suppressions order by 1"))]


def of_mailgun(message: UUID, kind: str = "delivered", minutes: float = 0, **more: Any) -> dict[str, Any]:
    at = (NOW + timedelta(minutes=minutes)).timestamp()
    return {"event": kind, "timestamp": at, "id": uuid4().hex, "user-variables": {"msg_key": str(message)}, **more}


def of_postmark(provider_id: str, number: int, kind: str = "HardBounce", minutes: float = 0) -> dict[str, Any]:
    at = (NOW + timedelta(minutes=minutes)).astimezone(ZoneInfo("America/New_York"))
    return {"ID": number, "Type": kind, "MessageID": provider_id, "BouncedAt": f"{at:%Y-%m-%dT%H:%M:%S}.6421112{at:%z}",
            "Email": "somebody@customers.example", "Details": "smtp;550 5.1.1 no such user"}  # fmt: skip


def test_every_page_of_the_events_is_read_once_and_a_web_hook_more_counts_no_second_time(
    engine: Engine, client: Any
) -> None:
    messages = [a_message(engine, f"{number}@customers.example") for number in range(5)]
    with Provider("mailgun", entries=[of_mailgun(message, minutes=n) for n, message in enumerate(messages)]) as to:
        path, body, head = mailgun(messages[0])
        to.entries[0]["id"] = json.loads(body)["event-data"]["id"]
        assert post(client, (path, body, head)) == 200
        assert pull(engine, to) == {"pages": 3, "reported": 5, "landed": 4}
        assert pull(engine, to)["landed"] == 0, "again"
        to.entries.append(of_mailgun(messages[0], "complained", minutes=90))
        assert pull(engine, to, later=1)["landed"] == 1, "and on from there"
    assert sorted(told(engine)) == sorted([("complained", messages[0]), *[("delivered", m) for m in messages]])
    assert suppressed(engine) == [("0@customers.example", "complained")]


@pytest.mark.parametrize("fault", ["429", "500", "cut after", "truncated", "garbage body"])
def test_after_a_failure_what_was_read_stays_and_the_next_run_goes_on_there(engine: Engine, fault: str) -> None:
    message = a_message(engine)
    entries = [
        of_mailgun(message, "opened", minutes=-300 + 60 * n, **{"client-info": {"user-agent": "Mozilla"}})
        for n in range(6)
    ]
    with Provider("mailgun", entries=entries) as to:
        to.faults = ["", "", fault]  # the third page
        with pytest.raises(Unavailable, match="wait 7 s" if fault == "429" else "mailgun"):
            pull(engine, to)
        with engine.connect() as conn:
            assert conn.scalar(text("select count(*) from event_inbox")) == 4
            seen = conn.scalar(
                text("select seen_at from report_cursors where provider = 'mailgun' and list = 'events'")
            )
        assert seen == NOW - timedelta(minutes=300 - 60 * 3)
        asked = to.requests
        assert pull(engine, to)["landed"] == 2
        assert to.requests - asked == 4, "two hours again, the rest, and the empty page; not from the beginning"
    assert told(engine) == [("opened", message)] * 6


def test_a_list_that_is_told_newest_first_is_read_to_its_end_before_it_counts_as_read(engine: Engine) -> None:
    sent = [a_message(engine, f"{number}@customers.example") for number in range(3)]
    with engine.begin() as conn:
        conn.execute(text("update messages set provider_id = 'pm-' || message_id"))
    kinds = ("HardBounce", "SpamComplaint", "Unsubscribe")
    ours = [of_postmark(f"pm-{m}", n, kinds[n], minutes=n - 600) for n, m in enumerate(sent)]
    strangers = [of_postmark("another-system", 100 + n, "SoftBounce", minutes=-n / 60) for n in range(1200)]
    with Provider("postmark", entries=ours + strangers) as to:
        to.faults = ["", "503"]
        with pytest.raises(Unavailable):
            pull(engine, to)
        with engine.connect() as conn:
            assert conn.scalar(text("select count(*) from report_cursors")) == 0, "older ones have not been seen"
        assert pull(engine, to) == {"pages": 3, "reported": 1203, "landed": 703}
        to.entries.append(of_postmark(f"pm-{sent[0]}", 4, minutes=30))
        assert pull(engine, to, later=1)["landed"] == 1
    found = [event for event in told(engine) if event[1]]
    assert sorted(found) == sorted(
        [("bounced", sent[0]), ("bounced", sent[0]), ("complained", sent[1]), ("unsubscribed", sent[2])]
    )
    assert [reason for _, reason in suppressed(engine)] == ["hard_bounce", "complained", "unsubscribed"]


def test_more_than_a_question_shows_is_asked_for_anew(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postlude.channels.postmark._MOST", 40)
    monkeypatch.setattr("postlude.channels.postmark._COUNT", 10)
    with Provider("postmark", entries=[of_postmark("x", n, minutes=-n) for n in range(95)]) as to:
        pull(engine, to)
    with engine.connect() as conn:
        assert conn.scalar(text("select count(*) from event_inbox")) == 95


def test_a_bounce_of_the_list_is_the_bounce_of_the_web_hook(engine: Engine, client: Any) -> None:
    message = a_message(engine)
    with Provider("postmark", entries=[of_postmark("pm-1", 7)]) as to:
        assert post(client, postmark(message, "Bounce", MessageID="pm-1", ID=7, Type="HardBounce")) == 200
        assert pull(engine, to)["landed"] == 0


def test_a_suppression_list_is_about_the_newest_mail_to_the_address(engine: Engine) -> None:
    old, new = a_message(engine, "Ana@customers.example"), a_message(engine, "ana@customers.example")
    with engine.begin() as conn:
        move = text("update messages set handed_over_at = :at where message_id = :id")
        for message, days in ((old, 3), (new, 1)):
            conn.execute(move, {"id": message, "at": NOW - timedelta(days=days)})
    created = int(NOW.timestamp())
    entries = [
        {"list": "bounces", "created": created, "email": "ana@customers.example", "status": "5.1.1", "reason": "550 5.1.1"},
        {"list": "spam_reports", "created": created - 2 * 86_400, "email": "ANA@customers.example", "ip": "10.0.0.1"},
        {"list": "unsubscribes", "created": created, "email": "nobody.of.ours@customers.example"},
    ]  # fmt: skip
    with Provider("sendgrid", entries=entries) as to:
        assert pull(engine, to) == {"pages": 3, "reported": 3, "landed": 3}
        assert pull(engine, to)["landed"] == 0
    assert [event for event in told(engine) if event[1]] == [("bounced", new), ("complained", old)]
    assert {address for address, _ in suppressed(engine)} == {"ana@customers.example"}
    with engine.connect() as conn:
        assert (
            conn.scalar(text("select count(*) from event_inbox where payload::text ilike '%customers.example%'")) == 0
        )


def test_the_key_is_shown_to_nobody_else_and_a_wrong_one_is_the_configurations_fault(engine: Engine) -> None:
    with Provider("mailgun", entries=[of_mailgun(uuid4())], next_at="http://127.0.0.1:9") as to:
        with pytest.raises(Unavailable, match="another address"):
            pull(engine, to)
        to.errors = [(401, {"message": "Forbidden"})]
        with pytest.raises(InputError, match="401") as error:
            pull(engine, to)
        assert "a-key-for-tests-only" not in str(error.value)
