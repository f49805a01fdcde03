"""One set of promises for every channel there is, found by its file name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL

from fake_providers import Provider
from postlude import channels, db
from postlude.catcher import Catcher
from postlude.errors import InputError
from postlude.message import Address, Message, Outcome, to_bytes

MESSAGE = Message(
    message_id=UUID(int=77),
    campaign_id="win_back",
    kind="transactional",
    sender=Address("news@shop.example", "The Shop"),
    recipient=Address("kim.lee@customers.example", "Kim Lee"),
    subject="Hello Kim",
    text="Hello Kim",
    html="<p>Hello Kim</p>",
    date=datetime(2026, 1, 2, tzinfo=UTC),
    phone="+4915112345678",
    person=UUID(int=5),
    link="https://shop.example/",
    expires_at=datetime(2026, 1, 9, tzinfo=UTC),
)
RAW = to_bytes(MESSAGE)
PERSONAL = re.compile(r"kim|lee|@|Hello|15112345678", re.IGNORECASE)
BY_HTTP = ["mailgun", "postmark", "sendgrid", "ses", "sms", "webhook"]


@pytest.fixture(params=channels.names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


Place = Callable[[], URL]


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Place:
    """A database, made only for the channel that needs one."""
    return lambda: request.getfixturevalue("database")


@dataclass
class Receiver:
    """Where a channel hands over to, and how many messages arrived there."""

    url: str
    arrived: Callable[[], int]


@contextmanager
def receiving(name: str, folder: Path, place: Place) -> Iterator[Receiver]:
    """A place where the channel is accepted; a new channel gets its line here."""
    if name == "smtp":
        with Catcher(folder) as catcher:
            yield Receiver(catcher.smtp_url, lambda: len(list(folder.glob("*.eml"))))
    elif name == "banner":
        database = place()
        yield Receiver(f"banner:{database.render_as_string(hide_password=False)}", lambda: _banners(database))
    elif name == "console":
        yield Receiver("console:", lambda: 0)
    else:
        with Provider(name) as provider:
            yield Receiver(provider.url, lambda: len(provider.ledger))


def _banners(database: URL) -> int:
    engine = create_engine(db._psycopg(database))
    with engine.connect() as conn:
        found = conn.execute(text("select count(*) from postlude.banners")).scalar_one()
    engine.dispose()
    return int(found)


def test_the_channels_are_found_by_their_file_names() -> None:
    assert channels.names() == ["banner", "console", *BY_HTTP[:5], "smtp", "webhook"]


@pytest.mark.parametrize("wrong", ["carrier_pigeon", "", "_smtp_client", "smtp.x", "../smtp", "SMTP", "smtp\n"])
def test_an_unknown_channel_is_named_with_those_there_are(wrong: str) -> None:
    with pytest.raises(InputError, match="banner, console, mailgun"):
        channels.channel(wrong)


def test_a_channel_says_whether_sending_twice_delivers_once(name: str) -> None:
    assert type(channels.channel(name).idempotent) is bool


def test_a_message_is_accepted_after_one_intent(name: str, tmp_path: Path, place: Place) -> None:
    intents = []
    with receiving(name, tmp_path, place) as to:
        with channels.channel(name).connect(to.url) as send:
            outcomes = [send(MESSAGE, RAW, lambda: intents.append(1)) for _ in range(2)]
        arrived = to.arrived()
    assert {(o.kind, o.scope, o.suppress) for o in outcomes} == {("accepted", None, False)}
    assert len(intents) == 2
    assert arrived == (0 if name == "console" else 1 if channels.channel(name).idempotent else 2)


def test_a_failed_intent_releases_the_message_and_hands_nothing_over(
    name: str, tmp_path: Path, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    def intend() -> None:
        raise RuntimeError("kim.lee@customers.example")

    module = channels.channel(name)
    with receiving(name, tmp_path, place) as to:
        with module.connect(to.url) as send:
            outcome = send(MESSAGE, RAW, intend)
        assert list(module.events(to.url, datetime(2020, 1, 1, tzinfo=UTC))) == []
        assert to.arrived() == 0
    assert outcome == Outcome("released", reply="intent not recorded: RuntimeError")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("blow", [KeyboardInterrupt, SystemExit])
def test_a_signal_passes_through(name: str, blow: type[BaseException], tmp_path: Path, place: Place) -> None:
    def intend() -> None:
        raise blow

    with receiving(name, tmp_path, place) as to:
        with pytest.raises(blow), channels.channel(name).connect(to.url) as send:
            send(MESSAGE, RAW, intend)
        assert to.arrived() == 0


def test_nobodys_data_is_printed_logged_or_kept_in_the_outcome(
    name: str, tmp_path: Path, place: Place, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    with receiving(name, tmp_path, place) as to, channels.channel(name).connect(to.url) as send:
        outcome = send(MESSAGE, RAW, lambda: None)
    out, err = capfd.readouterr()
    assert not PERSONAL.search(out + err + repr(outcome) + " ".join(record.getMessage() for record in caplog.records))


def test_what_happened_is_reported_in_one_shape(name: str, tmp_path: Path, place: Place) -> None:
    module = channels.channel(name)
    with receiving(name, tmp_path, place) as to:
        with module.connect(to.url) as send:
            send(MESSAGE, RAW, lambda: None)
            other = replace(MESSAGE, message_id=UUID(int=78))
            send(other, to_bytes(other), lambda: None)
        found = list(module.events(to.url, datetime(2020, 1, 1, tzinfo=UTC)))
        assert list(module.events(to.url, datetime(2999, 1, 1, tzinfo=UTC))) == []
    assert [event["message_id"] for event in found] == ([UUID(int=77), UUID(int=78)] if name == "smtp" else [])
    for event in found:
        assert set(event) == {"kind", "at", "message_id", "source", "detail"}
        assert (event["kind"], event["source"]) == ("delivered", "catcher")
        assert event["at"].tzinfo is UTC
        assert not PERSONAL.search(repr(event))
