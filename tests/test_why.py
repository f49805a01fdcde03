"""Explanations: every non-send has a documented reason, and `why` shows the predicates behind it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner

from postlude import cli, db, report, switch, why
from postlude.errors import InputError
from postlude.settings import settings
from test_flow import lapsing
from world import World, at, campaign
from written import written

ROOT = Path(__file__).resolve().parents[1]
STATES = {"sending", "sent", "failed", "cancelled", "skipped", "expired", "held", "scheduled", "unknown", "went"}
NO_REASONS = {"enrolled", "treated", "holdout", "once", "completed", "goal_met", "left_audience", "suppressed", "stopped", "ambiguous",
              "released", "hard", "marketing",
              # why a product is recommended, and groups of ratings
              "bestseller", "category_bestseller", "bought_together", "promoter", "passive", "detractor"}  # fmt: skip


@pytest.fixture
def world(engine: Engine) -> World:
    return World(engine)


def trace(world: World, customer: int, name: str, now: str) -> dict[str, tuple[str, str]]:
    with db.transaction(world.engine) as conn:
        person = why.people(conn, str(customer))[0]
        lines = why.explain(conn, person, campaign(name), world.calendar, at(now))
    return {line.predicate: (line.verdict, line.detail) for line in lines}


def test_why_explains_a_sent_message(world: World) -> None:
    ana = lapsing(world)
    back = campaign("win_back")
    world.plan(back, "2026-06-01 08:30")
    world.deliver(back, now="2026-06-01 09:30")
    told = trace(world, ana, "win_back", "2026-06-01 10:00")
    assert told["trigger"][0] == "yes"
    assert told["may be written to"] == ("yes", "has an address and agreed to it")
    assert "sent" in told["message miss_you"][1]


def test_why_explains_a_message_that_was_not_sent(world: World) -> None:
    ana = lapsing(world, consent=None)
    world.plan(campaign("win_back"), "2026-06-01 08:30")
    told = trace(world, ana, "win_back", "2026-06-01 10:00")
    assert told["may be written to"] == ("no", "has not agreed to marketing by email")
    assert "no_consent" in next(detail for predicate, (_, detail) in told.items() if predicate.startswith("refusal"))


def test_why_shows_a_stale_feed_a_closed_window_and_an_order(world: World) -> None:
    ana = lapsing(world, zone="Asia/Seoul")
    world.plan(campaign("win_back"), "2026-06-01 08:30")
    world.feed_complete_until(at("2026-05-20"))
    told = trace(world, ana, "win_back", "2026-06-01 13:00")  # 22:00 in Seoul
    assert told["order feed is fresh"][0] == "no"
    assert told["send window is open"] == ("no", "next opening 2026-06-02 00:00 UTC, on the clock of Asia/Seoul")
    order = world.order(ana, "2026-06-01 12:00", delivered="2026-06-01 12:30")
    world.do("insert into returns (order_id, return_key, requested_at) values (:o, 'r', '2026-06-01 12:50')", o=order)
    told = trace(world, ana, "feedback_30d", "2026-06-01 13:00")
    assert told["nothing open"] == ("no", "return_open")
    assert any(
        predicate.endswith("still open for it") and verdict == ("no", "returned") for predicate, verdict in told.items()
    )


def test_why_names_the_kill_switch_that_was_thrown_and_only_while_it_was(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ana = lapsing(world)
    world.plan(campaign("win_back"), "2026-06-01 08:30")
    with db.transaction(world.engine) as conn:
        switch.stop(conn, "channel", "email", "relay on fire", "Ben", at("2026-06-01 09:00"))
        switch.stop(conn, "campaign", "feedback_30d", "wrong item", "Ben", at("2026-06-01 09:00"))
    with db.transaction(world.engine) as conn:
        switch.go(conn, "channel", "email", "the fire is out", "Ben", at("2026-06-01 11:00"))
    assert trace(world, ana, "win_back", "2026-06-01 08:59")["not stopped"] == ("yes", "no stop is in force for it")
    assert trace(world, ana, "win_back", "2026-06-01 10:00")["not stopped"] == ("no", "channel email: relay on fire")
    assert trace(world, ana, "win_back", "2026-06-01 12:00")["not stopped"] == ("yes", "no stop is in force for it")
    both = trace(world, ana, "feedback_30d", "2026-06-01 10:00")["not stopped"]
    assert both == ("no", "channel email: relay on fire; campaign feedback_30d: wrong item")

    # the command line says it too; the file STOP speaks of now, and not of the past
    (tmp_path / "STOP").write_text("campaign win_back # wrong price")
    monkeypatch.setattr(db, "default_engine", lambda: world.engine)
    monkeypatch.setattr(switch, "stop_file", lambda: tmp_path / "STOP")
    monkeypatch.setattr(cli, "_ready", lambda: None)

    def told(*more: str) -> str:
        return CliRunner().invoke(cli.app, ["why", str(ana), "win_back", "--json", *more]).stdout

    assert '"campaign win_back: wrong price"' in told()
    assert '"no stop is in force for it"' in told("--at", "2026-06-01T08:00")
    assert '"channel email: relay on fire"' in told("--at", "2026-06-01T10:00")


def test_why_finds_people_by_their_address_and_never_prints_it(world: World) -> None:
    ana = lapsing(world, name="Ana Secretperson")
    world.plan(campaign("win_back"), "2026-06-01 08:30")
    with db.transaction(world.engine) as conn:
        found = why.people(conn, " 1@Customers.Example ")
        assert [p.customer_id for p in found] == [ana]
        lines = why.explain(conn, found[0], campaign("win_back"), world.calendar, at("2026-06-01 10:00"))
        assert "customers.example" not in str(lines)
        assert "Secretperson" not in str(lines)
        with pytest.raises(InputError, match="no customer has this id"):
            why.people(conn, "nobody")


def test_every_reason_the_sql_can_give_is_documented() -> None:
    documented = set(re.findall(r"`([a-z_]+)`", (ROOT / "docs" / "reasons.md").read_text()))
    files = [
        *(settings().sql / "schema" / "rules").glob("*.sql"),
        *settings().sql.glob("3[1-5]_*.sql"),
        *settings().sql.glob("4*_*.sql"),
    ]
    given = {word for file in files for word in re.findall(r"(?:then|else) '([a-z_]+)'", file.read_text())}
    assert len(given) > 20
    assert given - STATES - NO_REASONS - documented == set()


def test_the_report_shows_counts_and_reasons_and_nobodys_data(world: World, tmp_path: Path) -> None:
    lapsing(world, name="Zoe Secretperson")
    lapsing(world, consent=None)
    back = campaign("win_back")
    with db.transaction(world.engine) as conn:
        report.write(conn, at("2026-05-01"), tmp_path)  # a shop without messages has a report too
    world.plan(back, "2026-06-01 08:30")
    world.deliver(back, now="2026-06-01 09:30")
    with db.transaction(world.engine) as conn:
        path, figures = report.write(conn, at("2026-06-01 10:00"), tmp_path)
    page = path.read_text()
    assert figures["messages_sent"] == 1
    assert "no_consent" in page
    assert page.count("<svg") >= 2
    assert "http://" not in re.sub(r"http://www\.w3\.org/[\w/]+", "", page)  # nothing is fetched
    assert "<script" not in page
    assert "Secretperson" not in page
    assert "customers.example" not in page
    assert (tmp_path / "latest.html").read_text() == page


@pytest.mark.parametrize(
    ("counts", "expected"),
    [  # Newcombe (1998), table II, method 10
        ((56, 70, 48, 80), (0.2000, 0.0524, 0.3339)),
        ((9, 10, 3, 10), (0.6000, 0.1705, 0.8090)),
        ((5, 56, 0, 29), (0.0893, -0.0381, 0.1926)),
    ],
)
def test_the_interval_of_a_difference_of_rates_is_newcombes(
    counts: tuple[int, int, int, int], expected: tuple[float, float, float]
) -> None:
    assert report.newcombe(*counts) == pytest.approx(expected, abs=5e-5)


def test_an_empty_arm_has_no_interval() -> None:
    with pytest.raises(ValueError, match="empty arm"):
        report.newcombe(1, 2, 0, 0)


def test_why_tells_a_trigger_by_date_and_the_conditions_of_a_step(world: World, tmp_path: Path) -> None:
    party = written(
        tmp_path, "{date: birthday, entry: existing, max_age: 2 days, once_per: episode}",
        "  - {id: one, template: win_back/miss_you, on_day: 1, expires_after: 3 days, only_if: {feature: score, at_least: 4}}\n",
    )  # fmt: skip
    ana = world.customer()
    world.do("update customers set birthday = '1990-05-10'")
    world.plan(party, "2026-05-10 08:00")

    def told(now: str) -> dict[str, tuple[str, str]]:
        with db.transaction(world.engine) as conn:
            person = why.people(conn, str(ana))[0]
            lines = why.explain(conn, person, party, world.calendar, at(now))
        return {line.predicate: (line.verdict, line.detail) for line in lines}

    assert told("2026-05-10 09:00")["trigger"] == ("yes", "a customer’s birthday: 2026-05-10 00:00 UTC")
    assert told("2026-05-10 09:00")["condition of one"] == ("no", "only if score is at least 4: condition_not_met")
    assert told("2026-05-20 09:00")["trigger"] == ("no", "a customer’s birthday: not after 2026-05-18 09:00 UTC")
    world.do("update customers set birthday = '1890-05-10'")
    assert told("2026-05-10 09:00")["trigger"][0] == "no"


def test_of_the_past_why_says_what_was_known_then(world: World) -> None:
    ana = lapsing(world)
    world.plan(campaign("win_back"), "2026-06-01 08:30")
    world.do(
        "insert into consents values (:c, 'email', 'marketing', false, '2026-06-01 09:00', 'mail', '2026-06-01 11:00')",
        c=ana,
    )
    world.do("insert into suppressions (address, scope, reason, since) select address, 'all', 'complained', '2026-06-01 13:00' "
             "from customers")  # fmt: skip
    told = {hour: trace(world, ana, "win_back", f"2026-06-01 {hour}:00")["may be written to"] for hour in (10, 12, 14)}
    assert told == {
        10: ("yes", "has an address and agreed to it"),
        12: ("no", "has not agreed to marketing by email"),
        14: ("no", "suppressed: complained"),
    }
