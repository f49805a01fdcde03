"""When mail goes: on whose clock, not on whose holidays, and exactly once on the days on which clocks change."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from postlude import db, why
from postlude.calendar import Calendar, Holidays, Pressure, Window, load_calendar
from postlude.errors import InputError
from test_flow import lapsing
from world import World, at, calendar, campaign

# zone, local day, and what the three wall times of that day are in UTC: before, inside and after the gap or fold
CHANGES = [
    ("Europe/Berlin", "2026-03-29", {"01:30": "00:30", "02:30": "01:30", "03:30": "01:30"}),
    ("Europe/Berlin", "2026-10-25", {"01:30": "23:30", "02:30": "00:30", "03:30": "02:30"}),
    ("Europe/London", "2026-03-29", {"00:45": "00:45", "01:15": "01:15", "02:15": "01:15"}),
    ("Europe/London", "2026-10-25", {"00:30": "23:30", "01:30": "00:30", "02:30": "02:30"}),
    ("America/New_York", "2026-03-08", {"01:45": "06:45", "02:15": "07:15", "03:00": "07:00"}),
    ("America/New_York", "2026-11-01", {"00:59": "04:59", "01:59": "05:59", "02:00": "07:00"}),
    ("Australia/Lord_Howe", "2026-10-04", {"01:45": "15:15", "02:10": "15:40", "02:45": "15:45"}),
    ("Australia/Lord_Howe", "2026-04-05", {"01:15": "14:15", "01:45": "14:45", "02:15": "15:45"}),
    ("America/Santiago", "2026-09-06", {"00:00": "04:00", "00:30": "04:30", "01:30": "04:30"}),
    ("America/Santiago", "2026-04-04", {"22:30": "01:30", "23:00": "02:00", "23:30": "02:30"}),
    ("Africa/Cairo", "2026-04-24", {"00:15": "22:15", "00:45": "22:45", "01:15": "22:15"}),
    ("Asia/Seoul", "2026-03-29", {"00:00": "15:00", "02:30": "17:30", "23:30": "14:30"}),
]


@pytest.fixture
def world(engine: Engine) -> World:
    return World(engine)


def test_there_are_thirty_six_cases() -> None:
    assert sum(len(cases) for _, _, cases in CHANGES) == 36


@pytest.mark.parametrize(("zone", "day", "cases"), CHANGES)
def test_a_wall_time_in_a_gap_or_fold_gives_exactly_one_message_at_the_right_instant(
    world: World, zone: str, day: str, cases: dict[str, str]
) -> None:
    ana = world.customer(zone=zone)
    delivered = datetime.combine(date.fromisoformat(day), time(12), UTC) - timedelta(days=10)
    world.order(ana, f"{delivered - timedelta(days=1):%Y-%m-%d %H:%M}", delivered=f"{delivered:%Y-%m-%d %H:%M}")
    ask = campaign("feedback_30d", at_most_every=None)
    (step,) = ask.steps
    changes = {"on_day": 10, "on_day_by_category": {}}
    ask = ask.model_copy(
        update={
            "steps": tuple(
                step.model_copy(update={"id": f"at_{wall[:2]}{wall[3:]}", "at": time.fromisoformat(wall), **changes})
                for wall in cases
            )
        }
    )
    world.calendar = calendar(
        window=Window(opens="00:00", closes="23:59"), windows={}, blackout_days=(), pressure=Pressure()  # type: ignore[arg-type]
    )  # fmt: skip
    world.plan(ask, delivered + timedelta(hours=2))
    due = dict(tuple(row) for row in world.do("select step_id, due_at from messages"))
    for wall, utc in cases.items():
        expected = due[f"at_{wall[:2]}{wall[3:]}"]
        assert f"{expected:%H:%M}" == utc, wall
        assert abs(expected - datetime.combine(date.fromisoformat(day), time(12), UTC)) < timedelta(hours=24)
    sent_at: dict[str, list[datetime]] = {}
    for moment in sorted({moment + timedelta(minutes=m) for moment in due.values() for m in (-1, 0, 1, 30, 60, 90)}):
        before = len(world.received(ana))
        world.deliver(ask, now=moment)
        for sent in world.received(ana)[before:]:
            sent_at.setdefault(sent, []).append(moment)
    assert sent_at == {step: [moment] for step, moment in due.items()}


@pytest.mark.parametrize(
    ("profile", "country", "zone", "said"),
    [
        ("Asia/Seoul", "DE", "Asia/Seoul", "on the clock of Asia/Seoul"),
        (None, "KR", "Asia/Seoul", "on the clock of Asia/Seoul (the one clock of KR)"),
        ("Nonsense/Place", " germany ", "Europe/Berlin", "on the clock of Europe/Berlin (the one clock of DE)"),
        (None, "Deutschland", "Europe/Berlin", "(the one clock of DE)"),
        (None, "United States", "Pacific/Auckland", "on the clock of Pacific/Auckland (the shop’s)"),
        (None, "Brazil", "Pacific/Auckland", "(the shop’s)"),
        (None, "Unspecified", "Pacific/Auckland", "(the shop’s)"),
        (None, None, "Pacific/Auckland", "(the shop’s)"),
    ],
)
def test_the_clock_is_the_profiles_else_the_countrys_if_it_has_one_else_the_shops(
    engine: Engine, profile: str | None, country: str | None, zone: str, said: str
) -> None:
    world = World(engine, zone="Pacific/Auckland")
    ana = lapsing(world, zone=profile)
    world.do("update customers set country = :country", country=country)
    assert world.one("select zone from recipients") == zone
    world.plan(campaign("win_back"), "2026-06-01 08:30")
    with db.transaction(world.engine) as conn:
        lines = why.explain(
            conn, why.people(conn, str(ana))[0], campaign("win_back"), world.calendar, at("2026-06-01 10:00")
        )
    assert next(line.detail for line in lines if line.predicate == "send window is open").endswith(said)


def test_no_marketing_on_a_public_holiday_of_the_recipients_country(world: World) -> None:
    world.calendar = calendar(
        holidays=Holidays(countries=("DE", "KR")),  # type: ignore[call-arg]
        blackout_days=(),
        spread=timedelta(0),
    )
    # 3 October is German Unity Day, and Gaecheonjeol in Korea; 5 October 2026 is its substitute there, and an ordinary Monday in Germany
    sent: dict[str | None, str] = {}
    back = campaign("win_back")
    for country in ("DE", "KR", "FR", None):
        who = lapsing(world, lapse="2026-10-03 00:30")
        world.do(
            "update customers set country = :country, time_zone = 'UTC' where customer_id = :who",
            country=country,
            who=who,
        )
        sent[country] = str(who)
    world.plan(back, "2026-10-03 01:00")
    first = {
        country: f"{world.one('select send_at from messages where step_id = :s and customer_id = :c', s='miss_you', c=int(who)):%d %H:%M}"
        for country, who in sent.items()
    }
    assert first == {"DE": "04 09:00", "KR": "04 09:00", "FR": "03 09:00", None: "03 09:00"}
    # the calendar is read again at hand-over: a holiday learnt of after planning is kept as well
    world.calendar = calendar(
        holidays=Holidays.model_validate({"countries": "all", "except": ["KR"]}), blackout_days=()
    )
    world.do("update messages set send_at = '2026-10-03 09:00' where step_id = 'miss_you'")
    world.deliver(back, now="2026-10-03 09:30")
    assert {c for c, who in sent.items() if world.received(int(who))} == {"KR", "FR", None}
    world.deliver(back, now="2026-10-04 11:30")
    assert world.received(int(sent["DE"])) == ["miss_you"]


def test_transactional_mail_keeps_no_office_hours(world: World) -> None:
    ana = world.customer()
    world.order(ana, "2026-03-01", delivered="2026-03-02 23:10")
    notice = campaign("feedback_30d", kind="transactional")
    step = notice.steps[0].model_copy(update={"on_day": None, "on_day_by_category": {}, "after": timedelta(minutes=5)})
    notice = notice.model_copy(update={"steps": (step,)})
    world.plan(notice, "2026-03-02 23:12")
    world.deliver(notice, now="2026-03-02 23:15")
    assert world.received(ana) == ["ask"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("holidays: {countries: [Germany]}", 'no holidays are known for "Germany"; write ISO codes'),
        ("holidays: {countries: all, except: [XX]}", 'no holidays are known for "XX"'),
        ("pressure: {caps: [{most: 0, within: 7 days}]}", "most"),
        ("pressure: {caps: [{most: 1}]}", 'name either "within"'),
        ("pressure: {caps: [{most: 1, within: 7 days, per: day}]}", 'name either "within"'),
        ("pressure: {caps: [{most: 1, per: year}]}", "per"),
        ("pressure: {cap: []}", 'did you mean "caps"'),
        ("pressure: {when_full: wait}", "when_full"),
        ("pressure: {gap: 1 month}", 'write e.g. "5 days"'),
    ],
)
def test_a_wrong_rule_in_the_calendar_names_its_line(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "calendar.yml").write_text('window: {opens: "09:00", closes: "20:00"}\n' + text)
    with pytest.raises(InputError, match=told) as fault:
        load_calendar(tmp_path / "calendar.yml")
    assert "calendar.yml:2" in str(fault.value)


def test_the_holidays_of_all_countries_are_known() -> None:
    everywhere = Calendar(window=Window(opens="09:00", closes="20:00"), holidays=Holidays(countries="all"))  # type: ignore[arg-type,call-arg]
    days = {row["country"]: row["days"] for row in everywhere.holidays_around(at("2026-12-20"), timedelta(0))}
    assert len(days) > 150
    assert {"2026-12-25", "2027-01-01"} <= set(days["DE"])
