"""The time machine: what it foresees comes true, what it replays is what was, and the original never notices."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.engine import URL

from postlude import audience, calendar, coupons, db, enrolment, pipeline, simulate
from postlude.campaign import load_campaign
from postlude.message import Outcome
from postlude.settings import settings
from postlude.simulate import contract, copying
from world import INCLUDE, World, at, campaign, days

FIRST = "2026-06-01 05:00"


@pytest.fixture(autouse=True)
def three_campaigns(monkeypatch: pytest.MonkeyPatch) -> None:
    """About an order, about a segment, with a coupon: what the machine has to get right, without all of the library."""
    files = [str(INCLUDE / "campaigns" / f"{name}.yml") for name in ("feedback_30d", "loyalty_join", "win_back")]
    monkeypatch.setattr(pipeline, "campaign_files", lambda: files)


@pytest.fixture
def world(engine: Engine) -> Iterator[World]:
    made = World(engine)
    yield made
    engine.dispose()


TABLES = """select table_name from information_schema.tables
            where table_schema = 'postlude' and table_type = 'BASE TABLE' order by 1"""


def everything(url: URL) -> dict[str, str]:
    """A fingerprint of every table."""
    engine = db.engine(url)
    with engine.connect() as conn:
        found = {
            table: conn.execute(
                text(
                    f"select count(*) || ' ' || coalesce(md5(string_agg(t::text, '|' order by t::text)), '') from postlude.{table} as t"
                )
            ).scalar_one()
            for table in conn.execute(text(TABLES)).scalars().all()
        }
    engine.dispose()
    return found


def copies(url: URL, of: int = 0) -> list[str]:
    """Copies that a process (default: this one) has made and not dropped."""
    query = "select datname from pg_database where starts_with(datname, %s) order by 1"
    with copying._admin(url) as admin:
        return [row[0] for row in admin.execute(query, (f"postlude_sim_{of or os.getpid()}_",))]


def shop(world: World) -> None:
    """A dozen people at every point of their passage: in it, about to lapse, just delivered, unwilling."""
    for n in range(12):
        who = world.customer(f"P{n}", zone=("Europe/Berlin", "America/New_York", None)[n % 3], consent=n != 5)
        placed = at("2026-06-01 03:00") - timedelta(
            days=(176, 170, 179, 10, 25, 29, 2, 184, 160, 33, 178, 90)[n], hours=n
        )
        world.order(
            who,
            f"{placed:%Y-%m-%d %H:%M}",
            amount=40 + 30 * n,
            delivered=f"{placed + timedelta(days=3):%Y-%m-%d %H:%M}",
        )
        if n % 4 == 3:
            earlier = placed - timedelta(days=40)
            world.order(who, f"{earlier:%Y-%m-%d %H:%M}", delivered=f"{earlier + timedelta(days=2):%Y-%m-%d %H:%M}")


def live(world: World, first: datetime, many: int) -> None:
    """The days as the DAGs live them: plans at five, deliveries at every full hour."""
    campaigns = [campaign_file(path) for path in pipeline.campaign_files()]
    pools = coupons.load_pools()
    for day in range(many):
        morning = first + days(day)
        with db.transaction(world.engine) as conn:
            coupons.declare(conn, pools, morning)
            audience.derive_features(conn, morning, "test")
            pipeline.happen(conn, morning)
        for one in campaigns:
            world.plan(one, morning, release=False)
            with db.transaction(world.engine) as conn:
                coupons.reserve(conn, one, morning)
                enrolment.release(conn, one)
        for hour in range(24):
            if world.one(
                "select count(*) from messages where state = 'scheduled' and send_at <= :at",
                at=morning + timedelta(hours=hour),
            ):
                world.deliver(*campaigns, now=morning + timedelta(hours=hour))


def campaign_file(path: str) -> Any:
    return load_campaign(Path(path))


def ledger(world: World) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in world.do(
        "select message_id::text, state, reason, due_at, handed_over_at from messages order by 1")]  # fmt: skip


def test_what_is_foreseen_comes_true_and_the_original_never_notices(
    world: World, database: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what Postlude itself works out meanwhile: somebody orders for the second time, and is invited into the community."""
    files = [*pipeline.campaign_files(), str(INCLUDE / "campaigns" / "community_invite.yml")]
    monkeypatch.setattr(pipeline, "campaign_files", lambda: files)
    shop(world)
    again = world.customer("Again")
    for when in ("2026-03-20", "2026-06-03"):
        world.order(again, when, delivered=f"{at(when) + days(2):%Y-%m-%d %H:%M}")
    world.do("update orders set known_at = '2026-05-30' where placed_at > '2026-06-01'")  # ordered ahead
    world.plan(campaign("feedback_30d"), "2026-05-31 05:00")
    world.engine.dispose()
    before = everything(database)
    told: list[tuple[int, int]] = []
    story = simulate.run(database, simulate.Wanted(at(FIRST), days=16), lambda done, of: told.append((done, of)))
    assert everything(database) == before
    assert copies(database) == []
    assert told[-1] == (16, 16)

    live(world, at(FIRST), 16)
    foreseen = [
        (r.message_id, r.state, None if r.reason != r.reason else r.reason, stamp(r.due_at), stamp(r.handed_over_at))
        for r in story.rows.itertuples()
    ]
    assert sorted(foreseen) == ledger(world)
    assert {row[1] for row in foreseen} >= {"sent", "scheduled"}
    assert [(r.campaign, r.state) for r in story.rows.itertuples() if r.campaign == "community_invite"] == [
        ("community_invite", "sent")
    ]
    assert story.summary["totals"]["sent"] == sum(row["sent"] for row in story.summary["days"]) > 5
    assert sum(row["messages"] for row in story.summary["providers"]) == story.summary["totals"]["sent"]


def test_a_live_database_is_copied_in_one_snapshot_and_the_copy_always_goes(
    world: World, database: URL, tmp_path: Path
) -> None:
    shop(world)
    world.plan(campaign("feedback_30d"), "2026-05-31 05:00")
    with world.engine.connect():  # somebody is connected: the server may not copy files
        with copying.copied(database) as copy:
            left = copying.LEFT_BEHIND
            was, now = everything(database), everything(copy)
            assert {t: now[t] for t in was if t not in left} == {t: was[t] for t in was if t not in left}
            engine = db.engine(copy)
            with engine.begin() as conn:  # its counters go on where those of the original stand
                conn.execute(
                    text(
                        "insert into sources (source_id, shop, kind, currency, time_zone) values ('b', 'B', 'files', 'EUR', 'UTC')"
                    )
                )
                number = "insert into customers (source_id, source_customer_id, known_at) values ('b', '1', now()) returning customer_id"
                assert conn.execute(text(number)).scalar_one() == 13
            engine.dispose()
        assert everything(database) == was
    assert copies(database) == []

    # killed without a chance to tidy up
    code = (
        "import sys, time\nfrom sqlalchemy.engine import make_url\nfrom postlude.simulate import copying\n"
        "with copying.copied(make_url(sys.argv[1])) as copy:\n    print(copy.database, flush=True)\n    time.sleep(60)\n"
    )
    world.engine.dispose()
    shown = database.render_as_string(hide_password=False)
    with subprocess.Popen([sys.executable, "-c", code, shown], stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout
        name = victim.stdout.readline().strip()
        assert copies(database, victim.pid) == [name]
        os.kill(victim.pid, signal.SIGKILL)
    for _ in range(200):
        if not copies(database, victim.pid):
            break
        time.sleep(0.05)
    assert copies(database, victim.pid) == []


def test_what_a_dead_machine_left_is_dropped_and_what_lives_is_not(database: URL) -> None:
    with copying._admin(database) as admin, copying._admin(database) as mine:
        admin.execute("create database postlude_sim_1_dead")
        with copying.copied(database) as alive:
            copying.sweep(mine)
            assert copies(database) == [alive.database]
            assert copies(database, 1) == []


def test_the_same_seed_draws_the_same_orders_from_each_customers_own_history(world: World, database: URL) -> None:
    often, once = world.customer("Often"), world.customer("Once")
    for n in range(8):  # every ten days, always soap
        world.order(often, f"{at('2026-05-28') - days(10 * n):%Y-%m-%d %H:%M}", sku="soap", amount=9)
    world.order(once, "2025-01-01")
    silent = world.customer("Silent")
    for n in range(3):
        world.order(silent, f"{at('2025-06-01') - days(5 * n):%Y-%m-%d %H:%M}")

    def drawn(seed: int) -> list[tuple[Any, ...]]:
        with copying.copied(database, template=False) as copy:
            engine = simulate.engine_of(copy)
            simulate.rewind(engine, at(FIRST))
            simulate.draw_orders(engine, at(FIRST), at(FIRST) + days(45), seed)
            with db.transaction(engine) as conn:
                db.run(conn, "85_tell_orders", now=at(FIRST) + days(20))
                rows = conn.execute(
                    text("""select o.customer_id, o.placed_at, o.counted_amount, l.sku
                            from orders as o join order_lines as l using (order_id)
                            where o.source_order_id like 'simulated-%' order by 1, 2""")
                ).all()
            engine.dispose()
            return [tuple(row) for row in rows]

    first = drawn(1)
    assert first == drawn(1)
    mine = [row for row in first if row[0] == often]
    assert len(mine) == 2 and {row[2:] for row in mine} == {(9, "soap")}
    assert mine[1][1] - mine[0][1] == days(10)  # her own gap
    assert all(at(FIRST) <= row[1] < at(FIRST) + days(20) for row in first)
    assert silent not in {row[0] for row in first}  # silent for more than three times her longest gap


def stamp(value: Any) -> datetime | None:
    return None if value != value else value.to_pydatetime()


# ---------------------------------------------------------------- the past once more


def lived(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine days through the pipeline, as the DAGs run it, with what can happen: refusals, a lost answer, an unsubscribe, late
    orders, a pause and a moved delay in the calendar, a plan that needs an approval, a kill switch."""
    monkeypatch.setattr(db, "default_engine", lambda: world.engine)
    monkeypatch.setattr(pipeline.delivery, "channel", lambda name: world.post)
    answers = iter(["refused", "accepted", "ambiguous", "accepted", "deferred"])

    def answer(message: Any) -> Outcome:
        kind = next(answers, "accepted")
        scope = "recipient" if kind == "refused" else "policy" if kind == "deferred" else None
        return Outcome(kind, scope, "said so", suppress=kind == "refused")  # type: ignore[arg-type]

    world.post.answer = answer
    first, run = at("2026-05-20 05:00"), lambda stage, day: f"scheduled/{stage}/{day}"
    for day in range(9):
        now = first + days(day)
        world.feed_complete_until(now)
        if day in (2, 4, 6):
            who = world.one("select customer_id from customers order by customer_id offset :n limit 1", n=day)
            world.order(who, f"{now - timedelta(hours=3):%Y-%m-%d %H:%M}", delivered=f"{now + days(2):%Y-%m-%d %H:%M}")
        if day == 4:
            edit(
                world,
                now - timedelta(hours=2),
                {"do": "pause", "campaign": "win_back", "from": f"{now.date()}", "until": f"{(now + days(2)).date()}"},
            )
        if day == 5:
            edit(world, now + timedelta(hours=1),
                 {"do": "move", "campaign": "win_back", "step": "whats_new", "on_day": 8, "in_flight": "migrate"})  # fmt: skip
        pipeline.derive_features(now, run("segment", day), "test")
        pipeline.update_segments(now, run("segment", day), "test")
        for path in pipeline.campaign_files():
            pipeline.enrol(path, now, run("plan", day), "test")
            pipeline.schedule(path, now, run("plan", day), "test")
            asked = pipeline.assess(path, now, run("plan", day), "test")["approval"]
            if asked:
                pipeline.decide(
                    asked,
                    True,
                    "ana",
                    "cli",
                    now + timedelta(minutes=20),
                    run("plan", day),
                    "test",
                    at_most=2 if day == 3 else None,
                )
            else:
                pipeline.release(path, now, run("plan", day), "test")
        for hour in (6, 11):
            moment = now + timedelta(hours=hour)
            world.feed_complete_until(moment)
            pipeline.recover(moment, run("deliver", f"{day}-{hour}"))
            pipeline.deliver(lambda moment=moment: moment, f"w{day}-{hour}", run("deliver", f"{day}-{hour}"), "test")
            if hour == 6 and day % 3 == 2 and world.post.taken:
                message = world.post.taken[-1][0].message_id
                said = moment + timedelta(minutes=5)
                event = {"kind": "unsubscribed", "message_id": str(message), "at": said.isoformat()}
                with db.transaction(world.engine) as conn:
                    db.run(
                        conn,
                        "80_land_public_event",
                        source="web",
                        key=f"web:unsubscribed:{message}",
                        payload=db.dumps(event),
                        now=said,
                    )
                    db.run(conn, "81_suppress_for_message", message=message, now=said)
            later = moment + timedelta(minutes=10)
            pipeline.apply_events(later, run("feedback", f"{day}-{hour}"), "test")
            pipeline.watch(later, run("feedback", f"{day}-{hour}"), "test")


def edit(world: World, now: datetime, change: dict[str, Any]) -> None:
    with db.transaction(world.engine) as conn:
        draft = calendar.propose(conn, [change], by="ana", why="x", base=calendar.head(conn), now=now)
        calendar.save(conn, draft, now)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_past_window_replayed_gives_the_ledger_row_for_row(
    world: World, database: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ("delivery_check", "first_order_day", "review_request")  # so that the window holds more than a handful
    files = [*pipeline.campaign_files(), *(str(INCLUDE / "campaigns" / f"{name}.yml") for name in more)]
    monkeypatch.setattr(pipeline, "campaign_files", lambda: files)
    shop(world)
    monkeypatch.setenv("POSTLUDE_APPROVAL", "strict")
    settings.cache_clear()
    try:
        lived(world, monkeypatch)
    finally:
        settings.cache_clear()
    before = everything(database)
    world.engine.dispose()
    wanted = simulate.Wanted(at("2026-05-23 03:00"), days=6, future="replay-history")
    monkeypatch.setenv("POSTLUDE_APPROVAL", "strict")
    settings.cache_clear()
    story = simulate.run(database, wanted)
    settings.cache_clear()
    replay = story.summary["replay"]
    assert (replay["different"], replay["missing"], replay["added"]) == ([], 0, 0)
    assert replay["same"] == replay["rows"] > 10
    assert replay["late_by_at_most_seconds"] == 0
    states = story.summary["totals"]
    assert states.keys() >= {"sent", "scheduled"} and len(states) > 2  # something happened in the window
    assert everything(database) == before


# ---------------------------------------------------------------- the contract


def test_what_the_contract_says_is_what_the_next_simulation_shows(world: World, database: URL) -> None:
    shop(world)
    world.plan(campaign("feedback_30d"), "2026-05-31 05:00")
    move = {"do": "move", "campaign": "feedback_30d", "step": "ask", "on_day": 37, "in_flight": "migrate"}
    closed = {"do": "pause", "campaign": "win_back", "from": "2026-06-04", "until": "2026-06-12"}
    now = at(FIRST)
    with db.transaction(world.engine) as conn:
        draft = calendar.propose(conn, [move, closed], by="ana", why="x", base=0, now=now)
    world.engine.dispose()
    wanted = simulate.Wanted(now, days=17)
    found = contract.compare(database, draft.after, wanted)
    assert calendar_is_untouched(world)
    with db.transaction(world.engine) as conn:
        calendar.save(conn, draft, now)
    world.engine.dispose()
    real = simulate.run(database, wanted)
    told = {
        key: value
        for key, value in found.after.summary.items()
        if key not in ("seconds", "calendar", "calendar_revision")
    }
    assert told == {key: real.summary[key] for key in told}
    assert found.after.rows.drop(columns=["planned_at"]).equals(real.rows.drop(columns=["planned_at"]))

    moved = {(r["campaign"], r["from_day"], r["to_day"]): r["customers"] for r in found.figures["moved"]}
    rows = found.before.rows.merge(found.after.rows, on="message_id", suffixes=("_b", "_a"))
    both = rows[(rows["state_b"] == "sent") & (rows["state_a"] == "sent") & (rows["campaign_b"] == "feedback_30d")]
    gone = both[both["handed_over_at_b"].dt.date != both["handed_over_at_a"].dt.date]
    assert sum(n for (name, *_), n in moved.items() if name == "feedback_30d") == len(gone) > 0
    spans = {b - a for (name, a, b) in moved if name == "feedback_30d"}
    assert 7 in spans and spans <= {6, 7}, moved  # 6: was a day overdue when the calendar changed
    assert any("from day 30 to day 37 (feedback_30d/ask)" in line for line in found.words)
    lost = {(r["step"], r["reason"]): r["customers"] for r in found.figures["lost"] if r["campaign"] == "win_back"}
    assert lost and {reason for _, reason in lost} == {"too_late"}, lost
    flying = found.figures["in_flight"][0]
    kinds = ("keep", "move", "later", "lose", "gain", "neither")
    assert flying["choice"] == "migrate" and flying["messages"] == sum(flying[kind] for kind in kinds)
    assert flying["move"] + flying["later"] > 0
    same = contract.differences(real, real, draft.after, wanted) | {"in_flight": []}
    assert contract.in_words(same) == ["nothing changes for anybody from 2026-06-01 to 2026-06-18"]


def calendar_is_untouched(world: World) -> bool:
    return not world.do("select 1 from calendar_revisions where kind <> 'file'")


def test_the_page_and_the_rows_are_written(world: World, database: URL, tmp_path: Path) -> None:
    shop(world)
    world.engine.dispose()
    story = simulate.run(database, simulate.Wanted(at(FIRST), days=6, future="sampled"))
    paths = story.write(tmp_path)
    page = paths["html"].read_text()
    assert page.count("<svg") >= 2 and "<script" not in page and "Assumed" in page
    assert "@customers.example" not in page + paths["csv"].read_text()
    import duckdb

    assert duckdb.sql(f"select count(*) from '{paths['parquet']}'").fetchall() == [(len(story.rows),)]
