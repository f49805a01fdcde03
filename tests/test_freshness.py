"""The freshness gate: a feed that stops, thins out or comes back, and who is written to meanwhile.

Three shops whose orders come every night. "Has not ordered for 180 days" is true of everybody in a shop that is not heard of.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from cornershop import Shop
from postlude import cli, cli_feeds, db, freshness, pipeline
from postlude.errors import GateClosed
from postlude.freshness import Feed
from postlude.settings import settings
from world import World, at, campaign, days
from written import written

MONDAY = at("2026-06-01")
NIGHT, MORNING, SEND = timedelta(hours=5), timedelta(hours=10), timedelta(hours=10, minutes=30)


class Nights:
    """Shops that tell every night at 05:00 what was ordered the day before; four weeks and more of it are there already."""

    def __init__(self, engine: Engine, *shops: str, usual: int = 25, closed: int | None = None) -> None:
        self.world = World(engine)
        self.world.do("delete from products")
        self.world.do("delete from sources")
        self.told: dict[str, datetime] = {}
        for shop in shops:
            self.world.do(
                "insert into sources (source_id, shop, kind, currency, time_zone) values (:shop, :shop, 'files', 'EUR', 'UTC')",
                shop=shop,
            )
            before = [MONDAY - days(n) for n in range(2, 42)]
            self.arrive(shop, MONDAY - days(1) + NIGHT, [day for day in before if day.isoweekday() != closed], usual)
            # as forty nights left it
            self.world.do(
                "insert into feed_marks select :shop, n + interval '5 hours', max(f.newest) "
                "from generate_series(cast(:first as timestamptz), :last, interval '1 day') as n, feed_days as f "
                "where f.source_id = :shop and f.newest < n group by n on conflict do nothing",
                shop=shop, first=MONDAY - days(39), last=MONDAY - days(1),
            )  # fmt: skip

    def arrive(
        self,
        shop: str,
        when: datetime,
        dates: Iterable[datetime] = (),
        usual: int = 25,
        own: Iterable[tuple[int, datetime]] = (),
    ) -> None:
        """A load is accepted: `usual` orders of strangers on each date, and those of known customers."""
        rows = [
            (None, day + timedelta(minutes=30 + n * (1200 // usual))) for day in dates for n in range(usual)
        ] + list(own)
        with db.transaction(self.world.engine) as conn:
            conn.execute(text("drop table if exists staging_orders, staging_reviews, staging_returns"))
            for entity, column in (("orders", "placed_at"), ("reviews", "created_at"), ("returns", "requested_at")):
                conn.execute(text(
                    f"create temporary table staging_{entity} ({column} timestamptz, customer bigint, problems text[] default '{{}}') "
                    "on commit drop"
                ))  # fmt: skip
            if rows:
                given = [{"at": placed, "customer": customer} for customer, placed in rows]
                conn.execute(text("insert into staging_orders values (:at, :customer, '{}')"), given)
            conn.execute(
                text("""insert into orders (source_id, source_order_id, customer_id, currency, placed_at, known_at,
                            counted_at, counted_amount)
                        select :shop, gen_random_uuid(), customer, 'EUR', placed_at, :now,
                            case when customer is not null then placed_at end, 50 from staging_orders"""),
                {"shop": shop, "now": when},
            )
            db.run(conn, "18_move_watermark", source=shop, now=when)
            db.run(conn, "18_count_feed_days", source=shop, now=when)
            db.run(conn, "18_mark_feed", source=shop)

    def customer(self, shop: str, lapses: datetime) -> int:
        """Somebody of this shop whose last order will be 180 days ago at `lapses`."""
        world = self.world
        name = world.one("select gen_random_uuid()::text")
        person = world.one(
            "insert into customers (source_id, source_customer_id, email, first_name, known_at) "
            "values (:shop, :name, :name || '@customers.example', 'Ana', '2020-01-01') returning customer_id",
            shop=shop, name=name,
        )  # fmt: skip
        world.consent(person, True, "2020-01-01")
        world.do(
            "insert into orders (source_id, source_order_id, customer_id, currency, placed_at, known_at, counted_at, counted_amount) "
            "values (:shop, :name, :person, 'EUR', :at, :at, :at, 50)",
            shop=shop, name=name, person=person, at=lapses - days(180),
        )  # fmt: skip
        return int(person)

    def verdicts(self, now: datetime) -> dict[str, Feed]:
        with db.transaction(self.world.engine) as conn:
            return {feed.source_id: feed for feed in freshness.verdicts(conn, now) if feed.entity == "orders"}

    def reasons(self, now: datetime) -> dict[str, str | None]:
        return {shop: feed.reason for shop, feed in self.verdicts(now).items()}

    def refused(self) -> Counter[tuple[str, str]]:
        rows = self.world.do(
            "select c.source_id, r.reason from refusals as r join customers as c using (customer_id) group by customer_id, 1, 2"
        )
        return Counter((row[0], row[1]) for row in rows)

    def day(self, back: Any, now: datetime) -> None:
        self.world.plan(back, now + MORNING, fresh=False)
        self.world.deliver(back, now=now + SEND, fresh=False)


def test_one_shop_of_three_falls_silent_and_only_its_customers_wait_until_it_is_heard_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shops = ("north", "south", "west")
    life, back = Nights(engine, *shops), campaign("win_back")
    world = life.world
    monkeypatch.setattr(db, "default_engine", lambda: engine)
    path = str(Path(settings().include / "campaigns" / "win_back.yml"))

    def look(now: datetime) -> dict[str, Any]:
        return pipeline.check_feeds(path, now, f"run-{now:%d}", "test")

    planned = {shop: life.customer(shop, MONDAY - days(1) + MORNING) for shop in shops}
    lapsing = {shop: life.customer(shop, MONDAY + days(1) + NIGHT) for shop in shops}
    buying = {shop: life.customer(shop, MONDAY + days(1) + NIGHT) for shop in shops}

    # Sunday evening, all is well: planned, and not sent before the night
    sunday = MONDAY - timedelta(hours=5)
    world.plan(back, sunday, fresh=False)
    assert look(sunday)["stale"] == 0
    assert world.do("select count(*) from messages where state = 'scheduled' and step_id = 'miss_you'") == [(3,)]

    def night(day: datetime, *told: str) -> None:
        for shop in told:
            bought = [(buying[shop], day - timedelta(hours=9))] if day == MONDAY + days(1) else []
            life.arrive(shop, day + NIGHT, [day - days(1)], own=bought)

    put_off = "select state, reason from messages where customer_id = :p and step_id = 'miss_you'"

    # the north falls silent; all it delivers is one order of another century, which moves nothing
    before = world.one("select complete_until from sources where source_id = 'north'")
    life.arrive("north", MONDAY + NIGHT, own=[(buying["north"], at("2099-01-01"))])
    world.do("delete from orders where placed_at > '2098-01-01'")
    assert world.one("select complete_until from sources where source_id = 'north'") == before
    for day in (MONDAY, MONDAY + days(1), MONDAY + days(2)):
        night(day, "south", "west")
        assert life.reasons(day + MORNING) == {"north": "no_new_orders", "south": None, "west": None}
        life.day(back, day)
        if day == MONDAY:
            assert world.do(put_off, p=planned["north"]) == [("scheduled", "feed_stale")]
        with pytest.raises(GateClosed, match="orders of north: no_new_orders") as red:
            look(day + MORNING)
        assert "of south" not in str(red.value) and "of west" not in str(red.value)
    for shop in ("south", "west"):
        assert world.received(planned[shop]) == ["miss_you"]
        assert world.received(lapsing[shop]) == ["miss_you"]
        assert world.received(buying[shop]) == []
    assert {person: world.received(person) for person in (planned["north"], lapsing["north"], buying["north"])} == {
        planned["north"]: [], lapsing["north"]: [], buying["north"]: [],
    }  # fmt: skip
    assert life.refused() == {("north", "feed_stale"): 2}
    assert world.do(put_off, p=planned["north"]) == [("expired", "feed_stale")]  # past its time, and it says why

    # a delivery notice of the silent shop goes out all the same
    notice = written(tmp_path, "{event: placed, entry: existing, max_age: 2 days}").model_copy(
        update={"kind": "transactional"}
    )
    assert notice.feeds == ()
    eve = life.customer("north", MONDAY + days(181))  # ordered on Tuesday, as the shop's own counter told
    world.plan(notice, MONDAY + days(2) + MORNING, fresh=False)
    world.deliver(notice, now=MONDAY + days(2) + SEND, fresh=False)
    assert world.received(eve) == ["one"]

    # every verdict is kept, one row for each source, with figures and the reason
    kept = world.do(
        "select subject, success, failures, metrics from gate_results where gate = 'freshness' and run_id = 'run-01'"
    )
    assert {row.subject: row.success for row in kept} == {"north": False, "south": True, "west": True}
    north = next(row for row in kept if row.subject == "north")
    assert [failure["expectation"] for failure in north.failures] == ["no_new_orders"]
    assert north.metrics["orders"]["lag"] > north.metrics["orders"]["lag_limit"] > north.metrics["orders"]["usual_lag"]
    assert "customers.example" not in json.dumps([row.metrics for row in kept])

    # Thursday the north is heard again, all three days of it: only who has still not bought is written to
    thursday = MONDAY + days(3)
    night(thursday, "south", "west")
    life.arrive(
        "north",
        thursday + NIGHT,
        [thursday - days(n) for n in (1, 2, 3, 4)],
        own=[(buying["north"], MONDAY + timedelta(hours=15))],
    )
    assert look(thursday + MORNING)["stale"] == 0
    life.day(back, thursday)
    assert world.received(lapsing["north"]) == ["miss_you"]
    assert world.received(buying["north"]) == world.received(planned["north"]) == []


def test_a_thin_delivery_is_not_taken_for_a_quiet_day(engine: Engine) -> None:
    life = Nights(engine, "thin", "half", "small")
    for shop, rows in (("thin", 7), ("half", 13)):
        life.arrive(shop, MONDAY + NIGHT, [MONDAY - days(1)], usual=rows)
    life.arrive("small", MONDAY + NIGHT, [MONDAY - days(1)])
    found = life.verdicts(MONDAY + MORNING)
    assert {shop: feed.reason for shop, feed in found.items()} == {
        "thin": "too_few_orders",
        "half": None,
        "small": None,
    }
    assert (found["thin"].found, found["thin"].usual, found["thin"].day) == (7, 25, (MONDAY - days(1)).date())
    # the rest of it comes: whole again
    life.arrive("thin", MONDAY + timedelta(hours=11), [MONDAY - days(1)], usual=18)
    assert life.reasons(MONDAY + timedelta(hours=12))["thin"] is None
    # a night is left out, and the next one comes: the hole is seen
    life.arrive("half", MONDAY + days(2) + NIGHT, [MONDAY + days(1)])
    assert life.reasons(MONDAY + days(2) + MORNING)["half"] == "too_few_orders"


def test_a_shop_closed_on_sundays_is_not_stale_on_monday_and_a_dead_feed_does_not_become_usual(engine: Engine) -> None:
    life = Nights(engine, "closed", closed=7)
    monday = life.verdicts(MONDAY + timedelta(hours=14))["closed"]
    assert monday.reason is None
    assert monday.lag is not None and monday.lag > timedelta(hours=36)  # the fixed bound alone would hold its customers
    for weeks in (1, 3, 6, 30):
        assert life.reasons(MONDAY + days(7 * weeks)) == {"closed": "late"}


def test_a_shop_closed_on_sundays_that_fell_silent_on_friday_is_stale_on_monday(engine: Engine) -> None:
    life = Nights(engine, "closed", closed=7)
    life.world.do("delete from feed_days where day >= :saturday", saturday=(MONDAY - days(2)).date())
    life.world.do("update sources set complete_until = (select max(newest) from feed_days)")
    life.world.do("update feed_marks set complete_until = least(complete_until, (select max(newest) from feed_days))")
    assert life.reasons(MONDAY + MORNING) == {"closed": "no_new_orders"}


def test_a_young_source_has_the_fixed_bound_and_one_never_loaded_is_stale(engine: Engine) -> None:
    world = World(engine)
    world.do(
        "insert into sources (source_id, shop, kind, currency, time_zone) values ('empty', 'E', 'files', 'EUR', 'UTC')"
    )
    world.do("update sources set complete_until = :at where source_id = 'shop'", at=MONDAY)
    with db.transaction(engine) as conn:

        def reasons(hours: int) -> dict[str, str | None]:
            return {feed.source_id: feed.reason for feed in freshness.verdicts(conn, MONDAY + timedelta(hours=hours))}

        assert reasons(36) == {"shop": None, "empty": "never_loaded"}
        assert reasons(37) == {"shop": "late", "empty": "never_loaded"}


def test_feeds_that_cannot_be_judged_count_as_stale_and_transactional_mail_goes_on(
    engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(engine)
    back = campaign("win_back")
    notice = written(tmp_path, "{event: placed, entry: existing, max_age: 400 days}").model_copy(
        update={"kind": "transactional"}
    )
    ana, ben = world.customer(), world.customer()
    world.order(ana, (MONDAY - days(180)).strftime("%Y-%m-%d %H:%M"))
    world.order(ben, "2026-06-01 09:00")
    for told in (back, notice):
        world.plan(told, MONDAY + MORNING)
    world.do("alter function feed_verdicts rename to gone")
    world.deliver(back, notice, now=MONDAY + SEND)
    assert (world.received(ben), world.received(ana)) == (["one"], [])
    assert world.do("select reason from messages where campaign_id = 'win_back' and step_id = 'miss_you'") == [
        ("feed_stale",)
    ]
    assert "could not be judged" in caplog.text
    world.do("alter function gone rename to feed_verdicts")
    world.deliver(back, now=MONDAY + SEND + timedelta(hours=1))
    assert world.received(ana) == ["miss_you"]


def test_missing_deliveries_never_make_more_win_backs(engine: Engine) -> None:
    """The same people in a shop that tells everything and in shops that leave out nights: nobody more is written to there."""
    dice = random.Random(7)
    gappy = [f"gappy{n}" for n in range(6)]
    life, back = Nights(engine, "whole", *gappy), campaign("win_back")
    lapses = [MONDAY + timedelta(hours=dice.randrange(24 * 7)) for _ in range(8)]
    bought = [MONDAY + timedelta(hours=dice.randrange(24 * 7)) if dice.random() < 0.5 else None for _ in lapses]
    people = {shop: [life.customer(shop, moment) for moment in lapses] for shop in ("whole", *gappy)}
    told = dict.fromkeys(people, MONDAY - days(1))
    for day in (MONDAY + days(n) for n in range(7)):
        for shop, since in told.items():
            if shop != "whole" and dice.random() < 0.5:
                continue
            own = [(who, when) for who, when in zip(people[shop], bought, strict=True) if when and since <= when < day]
            life.arrive(shop, day + NIGHT, [since + days(n) for n in range((day - since).days)], own=own)
            told[shop] = day
        life.day(back, day)
    got = {shop: [bool(life.world.received(person)) for person in persons] for shop, persons in people.items()}
    assert any(got["whole"])
    assert {shop: [n for n, mailed in enumerate(got[shop]) if mailed and not got["whole"][n]] for shop in gappy} == {
        shop: [] for shop in gappy
    }
    assert any(refused == "feed_stale" for _, refused in life.refused())  # nights were left out, and it showed


def test_a_load_counts_the_days_it_touched_and_nothing_of_the_future(engine: Engine, tmp_path: Path) -> None:
    shop = Shop(engine, tmp_path)
    shop.deliver("people", "ana,ana@customers.example,")
    shop.deliver("sales1", "1,ana,2026-11-29 23:30,,,", "2,ana,2026-11-30 00:30,,,", "3,ana,2099-01-01 10:00,,,")
    shop.ingest()
    counted = "select day::text, rows from feed_days where entity = 'orders' order by 1"
    assert shop.ask(counted) == [("2026-11-29", 1), ("2026-11-30", 1)]  # on the shop's clock
    assert shop.ask("select complete_until::text from sources") == [("2026-11-29 23:30:00+00",)]
    shop.deliver("sales2", "4,ana,2026-11-29 12:00,,,", "1,ana,2026-11-29 23:30,,,")
    shop.ingest()
    assert shop.ask(counted) == [("2026-11-29", 2), ("2026-11-30", 1)]
    assert shop.ask("select complete_until::text from sources") == [("2026-11-29 23:30:00+00",)]  # never back
    assert shop.ask("select count(*) from feed_marks") == [(1,)]  # one moment, one mark


@pytest.mark.parametrize(
    ("more", "feeds"),
    [
        ("exit_on: [ordered]", ("orders",)),
        ("exit_on: [reviewed, returned]", ("orders", "reviews", "returns")),
        ("stop_while: []", ()),
        ("stop_while: []\ndepends_on: [returns]", ("returns",)),
        ("exit_on: [ordered]\ndepends_on: [orders, reviews]", ("orders", "reviews")),
        ("exit_on: [ordered]\nneeds_fresh_orders: false", ()),
    ],
)
def test_the_feeds_of_a_campaign_follow_from_its_rules_unless_it_names_more(
    tmp_path: Path, more: str, feeds: tuple[str, ...]
) -> None:
    told = written(tmp_path, "{event: delivered, entry: existing, max_age: 40 days}", more=more)
    assert told.feeds == feeds
    assert told.definition()["feeds"] == list(feeds)
    assert told.rests_on_absence == bool(feeds)


def test_the_command_shows_every_feed_with_its_verdict(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "default_engine", lambda: engine)
    monkeypatch.setattr(cli, "_ready", lambda: None)
    life = Nights(engine, "north", "south")
    life.arrive("south", MONDAY + NIGHT, [MONDAY - days(1)])
    asked = ["--as-of", "2026-06-01T10:00:00+00:00"]
    run = CliRunner().invoke
    told = json.loads(run(cli_feeds.app, [*asked, "--json"]).stdout)["feeds"]
    assert [(feed["source_id"], feed["entity"], feed["fresh"], feed["reason"]) for feed in told] == [
        ("north", "orders", False, "late"), ("south", "orders", True, None),
    ]  # fmt: skip
    assert (told[1]["found"], told[1]["usual"]) == (25, 25)
    page = run(cli_feeds.app, asked).stdout
    assert "north/orders" in page and "late" in page and "fresh" in page
