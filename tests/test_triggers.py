"""What starts a campaign: events of orders, segments entered and left, dates, the calendar, events from outside; and again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from postlude import audience, db
from postlude.calendar import Occasion
from postlude.campaign import Trigger, load_campaigns
from postlude.errors import GateClosed, InputError
from world import INCLUDE, World, at, calendar, campaign, days
from written import ONE_STEP, written

EVENT = "{{event: {}, entry: existing, max_age: 5 days}}"


@pytest.fixture
def world(engine: Engine) -> World:
    return World(engine)


def anchors(world: World) -> list[tuple[int, object]]:
    return [
        tuple(row) for row in world.do("select customer_id, anchor_at from enrolments order by anchor_at, customer_id")
    ]


# ---------------------------------------------------------------- orders


@pytest.mark.parametrize(
    ("event", "happens"),
    [
        ("placed", "2026-03-01 10:00"),
        ("paid", "2026-03-01 11:00"),
        ("shipped", "2026-03-02 10:00"),
        ("delivered", "2026-03-04 10:00"),
        ("cancelled", "2026-03-05 10:00"),
        ("returned", "2026-03-06 10:00"),
        ("return_received", "2026-03-09 10:00"),
        ("refunded", "2026-03-11 10:00"),
    ],
)
def test_each_event_of_an_order_starts_a_passage_when_it_happens_and_once(
    world: World, tmp_path: Path, event: str, happens: str
) -> None:
    ana = world.customer()
    order = world.order(ana, "2026-03-01 10:00")
    world.do(
        "update orders set paid_at = '2026-03-01 11:00', cancelled_at = '2026-03-05 10:00' where order_id = :o", o=order
    )
    world.do("insert into shipments (order_id, shipment_key, shipped_at, delivered_at) "
             "values (:o, '1', '2026-03-02 10:00', '2026-03-04 10:00')", o=order)  # fmt: skip
    world.do("insert into returns (order_id, return_key, requested_at, received_at, refunded_at) "
             "values (:o, '1', '2026-03-06 10:00', '2026-03-09 10:00', '2026-03-11 10:00')", o=order)  # fmt: skip
    told = written(tmp_path, EVENT.format(event))
    world.plan(told, at(happens) - days(0.01))
    assert anchors(world) == []
    for later in (0.01, 1, 2):
        world.plan(told, at(happens) + days(later))
    assert anchors(world) == [(ana, at(happens))]


def test_an_old_event_starts_nothing_even_if_it_is_new_to_us(world: World, tmp_path: Path) -> None:
    world.order(world.customer(), "2026-03-01 10:00")
    assert world.plan(written(tmp_path, EVENT.format("placed")), "2026-03-06 10:01")["enrolled"] == 0


def test_what_happened_before_the_campaign_first_ran_counts_only_if_the_file_says_so(
    world: World, tmp_path: Path
) -> None:
    world.order(world.customer(), "2026-03-01 10:00")
    new = written(tmp_path, "{event: placed, entry: from_now_on, max_age: 5 days}", name="new_ones")
    assert world.plan(new, "2026-03-02")["reasons"] == {"before_activation": 1}
    ben = world.customer()
    world.order(ben, "2026-03-02 10:00")
    assert world.plan(new, "2026-03-03")["enrolled"] == 1
    assert world.plan(written(tmp_path, EVENT.format("placed"), name="all_of_them"), "2026-03-03")["enrolled"] == 2


# ---------------------------------------------------------------- segments


LEAVES = "{leaves: lapsed, entry: existing, max_age: 3 days, once_per: episode}"


def test_leaving_a_segment_starts_a_passage_once_for_each_stay(world: World, tmp_path: Path) -> None:
    back = written(tmp_path, LEAVES)
    ana, ben = world.customer(), world.customer()
    for person in (ana, ben):
        world.order(person, "2025-06-01")
    assert world.plan(back, "2026-03-01")["enrolled"] == 0  # both lapsed
    world.order(ana, "2026-03-01 10:00")
    assert world.plan(back, "2026-03-02")["enrolled"] == 1
    world.plan(back, "2026-03-03")
    assert anchors(world) == [(ana, at("2026-03-02"))]
    world.deliver(back, now="2026-03-03 10:00")
    world.plan(back, "2026-10-01")  # lapsed again
    world.order(ana, "2026-10-01 12:00")
    world.plan(back, "2026-10-02")
    assert anchors(world) == [(ana, at("2026-03-02")), (ana, at("2026-10-02"))]


def test_who_has_come_back_to_the_segment_has_not_left_it(world: World, tmp_path: Path) -> None:
    ana = world.customer()
    order = world.order(ana, "2025-06-01")
    back = written(tmp_path, LEAVES)
    world.plan(back, "2026-03-01")
    mistaken = world.order(ana, "2026-03-01 10:00")
    world.plan(campaign("win_back"), "2026-03-02")  # another campaign sees the departure first
    world.do("update orders set cancelled_at = '2026-03-02 10:00' where order_id = :o", o=mistaken)
    assert world.plan(back, "2026-03-03")["enrolled"] == 0
    assert order


def test_a_segment_trigger_refuses_segments_of_another_day(world: World, tmp_path: Path) -> None:
    from postlude import db, enrolment

    world.order(world.customer(), "2026-02-01")
    world.plan(campaign("win_back"), "2026-03-01")
    with pytest.raises(GateClosed, match="run the segment stage"), db.transaction(world.engine) as conn:
        enrolment.enrol(conn, written(tmp_path, LEAVES), at("2026-03-05"), "late")


# ---------------------------------------------------------------- dates


def born(world: World, day: str, **more: object) -> int:
    ana = world.customer(**more)
    world.do("update customers set birthday = :day where customer_id = :c", day=day, c=ana)
    return ana


BIRTHDAY = "{date: birthday, entry: existing, max_age: 1 day, once_per: episode}"


def test_a_birthday_begins_at_midnight_on_the_customers_clock_every_year(world: World, tmp_path: Path) -> None:
    seoul, york = born(world, "1990-05-10", zone="Asia/Seoul"), born(world, "1980-05-10", zone="America/New_York")
    party = written(tmp_path, BIRTHDAY)
    for day in range(-2, 4):
        for hour in (3, 15):
            world.plan(party, at("2026-05-10") + days(day + hour / 24))
    assert anchors(world) == [(seoul, at("2026-05-09 15:00")), (york, at("2026-05-10 04:00"))]
    world.deliver(party, now="2026-05-10 00:00")  # 09:00 in Seoul
    assert (len(world.received(seoul)), len(world.received(york))) == (1, 0)
    world.deliver(party, now="2026-05-10 14:00")
    world.plan(party, "2027-05-10 12:00")
    assert len(anchors(world)) == 4


def test_the_twenty_ninth_of_february_is_kept_on_the_twenty_eighth(world: World, tmp_path: Path) -> None:
    born(world, "1992-02-29")
    party = written(tmp_path, BIRTHDAY)
    for year in (2026, 2027, 2028):
        for day in ("02-28", "02-29", "03-01"):
            if (year, day) != (2026, "02-29") and (year, day) != (2027, "02-29"):
                world.plan(party, f"{year}-{day} 12:00")
                world.deliver(party, now=f"{year}-{day} 12:30")
    assert [when for _, when in anchors(world)] == [at("2026-02-28"), at("2027-02-28"), at("2028-02-29")]


def test_days_before_begins_the_passage_ahead_of_the_day(world: World, tmp_path: Path) -> None:
    born(world, "1990-01-03")
    early = written(tmp_path, BIRTHDAY.replace("entry", "days_before: 7, entry"))
    assert world.plan(early, "2026-12-26 12:00")["enrolled"] == 0
    world.plan(early, "2026-12-27 12:00")
    assert world.do("select anchor_key, anchor_at from enrolments") == [("birthday:2027-01-03", at("2026-12-27"))]


def test_birthdays_on_new_year_are_not_believed_in_bulk(world: World, tmp_path: Path) -> None:
    for number in range(10):
        born(world, f"19{70 + number}-01-01")
    ana = born(world, "1990-05-10")
    party = written(tmp_path, BIRTHDAY)
    counts = world.plan(party, "2026-01-01 12:00")
    assert (counts["enrolled"], counts["reasons"]) == (0, {"birthday_not_believed": 10})
    assert world.plan(party, "2026-05-10 12:00")["enrolled"] == 1
    assert anchors(world)[0][0] == ana


def test_one_birthday_on_new_year_among_others_is_believed_and_one_in_the_future_is_not(
    world: World, tmp_path: Path
) -> None:
    born(world, "1990-01-01")
    born(world, "1890-01-01")
    counts = world.plan(written(tmp_path, BIRTHDAY), "2026-01-01 12:00")
    assert (counts["enrolled"], counts["reasons"]) == (1, {"birthday_not_believed": 1})


def test_the_anniversary_of_the_first_order_comes_after_a_year_on_the_customers_calendar(
    world: World, tmp_path: Path
) -> None:
    ana = world.customer(zone="Asia/Seoul")
    world.order(ana, "2025-03-01 20:00")  # 2 March in Seoul
    world.order(ana, "2025-09-01")
    year = written(tmp_path, BIRTHDAY.replace("birthday", "first_order"))
    for day in range(4):
        world.plan(year, at("2026-03-01 12:00") + days(day))
    assert anchors(world) == [(ana, at("2026-03-01 15:00"))]


def test_a_renewal_is_announced_once_for_its_date(world: World, tmp_path: Path) -> None:
    ana = world.customer()
    world.do("update customers set renews_on = '2026-06-15'")
    soon = written(tmp_path, BIRTHDAY.replace("birthday", "renewal, days_before: 14"))
    for day in ("2026-05-31 12:00", "2026-06-01 12:00", "2026-06-15 12:00", "2027-06-01 12:00"):
        world.plan(soon, day)
    assert anchors(world) == [(ana, at("2026-06-01"))]


# ---------------------------------------------------------------- calendar and outside


def test_an_occasion_of_the_calendar_starts_for_the_audience_and_once_each_year(world: World, tmp_path: Path) -> None:
    ana, ben = world.customer(), world.customer(zone="Asia/Seoul")
    world.order(ana, "2026-11-01")
    world.order(ben, "2025-11-01")
    sale = written(
        tmp_path, "{occasion: sale, days_before: 1, entry: existing, max_age: 1 day, once_per: episode}",
        more="stop_while: []\naudience: {within: [new, active]}",
    )  # fmt: skip
    with pytest.raises(InputError, match='no occasion "sale"; add'):
        world.plan(sale, "2026-11-26 12:00")
    world.calendar = calendar(
        occasions=(Occasion(id="sale", date="2026-11-27", why="x"), Occasion(id="sale", date="2027-11-26", why="x"))
    )
    for day in ("2026-11-25 12:00", "2026-11-26 08:00", "2026-11-26 12:00", "2026-11-27 12:00"):
        world.plan(sale, day)
    assert world.do("select customer_id, anchor_key, anchor_at from enrolments") == [
        (ana, "occasion:sale:2026-11-27", at("2026-11-26"))
    ]


OUTSIDE = "{external: quiz_done, entry: existing, max_age: 5 days, once_per: episode}"


def outside(
    world: World, customer: int, key: str, when: str, known: str | None = None, kind: str = "quiz_done"
) -> None:
    world.do("insert into external_events (source_id, event_key, customer_id, kind, at, known_at) "
             "values ('shop', :k, :c, :kind, :at, :known)",
             k=key, c=customer, kind=kind, at=at(when), known=at(known or when))  # fmt: skip


def test_an_event_from_outside_starts_a_passage_once_it_is_known(world: World, tmp_path: Path) -> None:
    ana, ben = world.customer(), world.customer()
    outside(world, ana, "1", "2026-03-01", known="2026-03-03")
    outside(world, ben, "2", "2026-03-01", kind="something_else")
    quiz = written(tmp_path, OUTSIDE)
    assert world.plan(quiz, "2026-03-02")["enrolled"] == 0
    assert world.plan(quiz, "2026-03-04")["enrolled"] == 1
    assert world.plan(quiz, "2026-03-05")["enrolled"] == 0
    assert anchors(world) == [(ana, at("2026-03-01"))]


# ---------------------------------------------------------------- one passage at a time, and again


LONG = ONE_STEP + "  - {id: two, template: win_back/whats_new, on_day: 20, expires_after: 3 days}\n"


def test_a_customer_is_in_a_campaign_once_at_a_time(world: World, tmp_path: Path) -> None:
    ana = world.customer()
    quiz = written(tmp_path, OUTSIDE, LONG)
    outside(world, ana, "1", "2026-03-01")
    outside(world, ana, "2", "2026-03-01 05:00")
    assert world.plan(quiz, "2026-03-02")["reasons"] == {"already_in_it": 1}
    outside(world, ana, "3", "2026-03-08")
    assert world.plan(quiz, "2026-03-09")["reasons"] == {"already_in_it": 1}
    for day in range(30):
        world.deliver(quiz, now=at("2026-03-02 10:00") + days(day))
    outside(world, ana, "4", "2026-04-08")
    assert world.plan(quiz, "2026-04-09")["enrolled"] == 1


def test_a_campaign_about_orders_runs_for_each_of_them(world: World, tmp_path: Path) -> None:
    ana = world.customer()
    world.order(ana, "2026-03-01")
    world.order(ana, "2026-03-02")
    assert world.plan(written(tmp_path, EVENT.format("placed"), LONG), "2026-03-03")["enrolled"] == 2


def test_reentry_never_is_once_in_a_lifetime(world: World, tmp_path: Path) -> None:
    ana = world.customer()
    once = written(tmp_path, EVENT.format("placed"), more="stop_while: []\nreentry: never")
    world.order(ana, "2026-03-01")
    world.order(ana, "2026-03-02")
    assert world.plan(once, "2026-03-03")["reasons"] == {"reentry_never": 1}
    world.order(ana, "2027-03-01")
    counts = world.plan(once, "2027-03-03")
    assert (counts["enrolled"], counts["reasons"]) == (0, {"reentry_never": 1})


@pytest.mark.parametrize(
    ("zone", "period", "first", "again", "enrolled"),
    [
        (
            "UTC",
            "30 days",
            "2026-03-01 20:00",
            "2026-03-31 08:00",
            1,
        ),  # 30 days of the calendar, though not 30 x 24 hours
        ("UTC", "30 days", "2026-03-01 08:00", "2026-03-30 20:00", 0),
        ("UTC", "1 month", "2026-02-15 12:00", "2026-03-15 08:00", 1),
        ("UTC", "1 month", "2026-01-31 12:00", "2026-02-27 12:00", 0),
        ("UTC", "1 month", "2026-01-31 12:00", "2026-02-28 12:00", 1),
        ("Asia/Seoul", "1 day", "2026-03-01 14:30", "2026-03-01 15:30", 1),  # midnight in Seoul lies between
        ("Europe/Berlin", "1 day", "2026-03-28 22:30", "2026-03-29 21:30", 1),  # the day with 23 hours
    ],
)
def test_reentry_after_a_period_counts_the_customers_calendar(
    world: World, tmp_path: Path, zone: str, period: str, first: str, again: str, enrolled: int
) -> None:
    ana = world.customer(zone=zone)
    paced = written(tmp_path, EVENT.format("placed"), more=f"stop_while: []\nreentry: {{after: {period}}}")
    world.order(ana, first)
    assert world.plan(paced, at(first) + days(0.02))["enrolled"] == 1
    world.order(ana, again)
    counts = world.plan(paced, at(again) + days(0.02))
    assert counts["enrolled"] == enrolled
    assert counts["reasons"] == ({} if enrolled else {"reentry_too_soon": 1})


def test_the_history_of_passages_stays(world: World, tmp_path: Path) -> None:
    ana = world.customer()
    paced = written(tmp_path, EVENT.format("placed"), more="stop_while: []\nreentry: {after: 10 days}")
    for day in ("2026-03-01", "2026-04-01", "2026-05-01"):
        world.order(ana, day)
        world.plan(paced, at(day) + days(1))
        world.deliver(paced, now=at(day) + days(1.5))
    world.plan(paced, "2026-05-04")
    assert world.do("select anchor_at, exit_reason from public.enrolments order by 1") == [
        (at("2026-03-01"), "completed"), (at("2026-04-01"), "completed"), (at("2026-05-01"), "completed"),
    ]  # fmt: skip


# ---------------------------------------------------------------- asked about one person


def test_asked_about_one_customer_every_trigger_finds_what_planning_finds_among_all(world: World) -> None:
    """`why` asks about one; the answer is never another one than that of the statement that plans."""
    now = at("2027-01-01 12:00")
    campaigns = load_campaigns(INCLUDE / "campaigns")
    people = [born(world, f"1990-0{1 + n // 6}-0{1 + n % 3}") for n in range(9)]
    for n, ana in enumerate(people):
        delivered, cancelled = ("2026-12-31 08:00" if n % 3 else None), ("2026-12-31" if n == 3 else None)
        order = world.order(ana, "2026-12-30", delivered=delivered, cancelled=cancelled)
        world.do("insert into returns (order_id, return_key, requested_at, received_at) values (:o, 'r', :at, :back)",
                 o=order, at=at("2026-12-30"), back=at("2026-12-31") if n % 2 else None)  # fmt: skip
        if n in (3, 6):  # under way
            world.do(
                "insert into shipments (order_id, shipment_key, shipped_at) values (:o, '1', '2026-12-31')", o=order
            )
        for kind in {one.trigger.external for one in campaigns if one.trigger.external}:
            outside(world, ana, f"{kind}{n}", "2026-12-31 20:00", kind=kind)
    for day in ("2026-01-01", "2026-07-05"):
        world.order(world.customer(), day)
    # a shop that tells no deliveries: there the order date stands for them
    world.do(
        "insert into sources (source_id, shop, kind, currency, time_zone) values ('bare', 'B', 'files', 'EUR', 'UTC')"
    )
    world.do("update customers set source_id = 'bare', renews_on = '2027-01-02' where customer_id = :c", c=people[0])
    world.do("update orders set source_id = 'bare' where customer_id = :c", c=people[0])
    found = set()
    with db.transaction(world.engine) as conn:
        audience.derive_features(conn, now, "test")
        audience.update_segments(conn, audience.load_segments(INCLUDE / "segments"), now, "test")
        everybody = list(conn.execute(text("select customer_id from customers")).scalars())
        for one in campaigns:
            trigger, within = one.trigger.model_copy(update={"max_age": days(3)}), list(one.audience.within)
            dates = [now.date()] if trigger.occasion else []

            def candidates(
                customer: int | None, asked: Trigger = trigger, on: Any = dates, of: Any = within
            ) -> list[str]:
                name, params = asked.candidates(now, on, of, customer=customer)
                return [repr(row) for row in db.kept_by(conn, name, **params)]

            of_all = sorted(candidates(None))
            assert sorted(row for customer in everybody for row in candidates(customer)) == of_all, one.id
            found |= {trigger.candidates(now, dates, within)[0]} if of_all else set()
    assert {name.removeprefix("30_candidates_of_") for name in found} >= {
        "event",
        "outside",
        "date",
        "segment",
        "occasion",
        "parcel",
    }
