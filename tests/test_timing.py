"""Wall clocks: the SQL and the Python say the same, also on the days on which clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as tuned
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from postlude.timing import in_words, local_instant, parse_duration

# zones with shifts of an hour, of half an hour (Lord Howe), near the date line, and without any
ZONES = ["Europe/Berlin", "America/New_York", "America/Sao_Paulo", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Seoul", "UTC",
         "Africa/Casablanca", "America/Santiago", "Asia/Kathmandu"]  # fmt: skip
CHANGES = [
    ("Europe/Berlin", "2026-03-29 02:30", "2026-03-29 01:30"),  # does not exist: forward by the gap
    ("Europe/Berlin", "2026-10-25 02:30", "2026-10-25 00:30"),  # exists twice: the first
    ("America/New_York", "2026-03-08 02:15", "2026-03-08 07:15"),
    ("America/New_York", "2026-11-01 01:59", "2026-11-01 05:59"),
    ("Australia/Lord_Howe", "2026-04-05 01:45", "2026-04-04 14:45"),
    ("Australia/Lord_Howe", "2026-10-04 02:10", "2026-10-03 15:40"),
]


@pytest.mark.parametrize(("zone", "wall", "instant"), CHANGES)
def test_a_gap_moves_forward_and_a_double_hour_is_taken_once(
    conn: Connection, zone: str, wall: str, instant: str
) -> None:
    expected = datetime.fromisoformat(instant).replace(tzinfo=UTC)
    assert local_instant(datetime.fromisoformat(wall), zone) == expected
    assert conn.scalar(text("select local_instant(cast(:w as timestamp), :z)"), {"w": wall, "z": zone}) == expected


@tuned(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    zone=st.sampled_from(ZONES),
    wall=st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)).map(lambda d: d.replace(second=0, microsecond=0)),
    near_change=st.booleans(),
)
def test_sql_and_python_agree_on_every_wall_time(
    conn: Connection, zone: str, wall: datetime, near_change: bool
) -> None:
    if near_change:  # most changes happen on Sundays before four
        wall = (wall - timedelta(days=(wall.weekday() + 1) % 7)).replace(hour=wall.hour % 4)
    assert conn.scalar(text("select local_instant(:w, :z)"), {"w": wall, "z": zone}) == local_instant(wall, zone)


@tuned(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    zone=st.sampled_from(ZONES),
    start=st.datetimes(datetime(2026, 1, 1), datetime(2027, 6, 30), timezones=st.just(UTC)),
    opens=st.integers(0, 22),
    length=st.integers(1, 8),
    weekdays=st.sets(st.integers(1, 7), min_size=1),
    blackout=st.booleans(),
)
def test_the_next_opening_lies_in_the_window_and_none_was_earlier(
    conn: Connection, zone: str, start: datetime, opens: int, length: int, weekdays: set[int], blackout: bool
) -> None:
    from zoneinfo import ZoneInfo

    closes = min(opens + length, 23)
    closed_days = [start.astimezone(ZoneInfo(zone)).date()] if blackout else []
    found = conn.scalar(
        text(
            "select next_opening(:at, :z, make_time(:o, 0, 0), make_time(:c, 0, 0), cast(:d as int[]), cast(:b as date[]))"
        ),
        {"at": start, "z": zone, "o": opens, "c": closes, "d": sorted(weekdays), "b": closed_days},
    )

    def permitted(moment: datetime) -> bool:
        local = moment.astimezone(ZoneInfo(zone))
        return opens <= local.hour < closes and local.isoweekday() in weekdays and local.date() not in closed_days

    assert found >= start
    assert permitted(found) or not permitted(found.replace(minute=0))  # an opening inside a gap moves forward
    probe = start
    while probe < found - timedelta(minutes=1):
        assert not permitted(probe), f"{probe} was open already"
        probe += timedelta(minutes=30)


@pytest.mark.parametrize(
    ("words", "meant"),
    [("5 days", timedelta(days=5)), ("36 hours", timedelta(hours=36)), ("1 week", timedelta(weeks=1))],
)
def test_durations_are_read_as_people_write_them_and_written_back(words: str, meant: timedelta) -> None:
    assert parse_duration(words) == meant
    assert parse_duration(in_words(meant)) == meant


@pytest.mark.parametrize("words", ["5 dayz", "1 month", "2 years", "", "days", "-3 days", "1.5 days", "P3D"])
def test_other_durations_are_refused_with_an_example(words: str) -> None:
    with pytest.raises(ValueError, match=r'write e\.g\. "5 days"'):
        parse_duration(words)
