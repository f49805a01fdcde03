"""What becomes of a step: delays, marketers' tables, conditions, branches, waiting for an answer, variants, and exits."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL

from postlude import db
from postlude.campaign import Campaign
from postlude.message import Outcome
from world import World, at, campaign, days
from written import written

TRIGGER = "{event: delivered, entry: existing, max_age: 40 days}"
STAYED = "stop_while: []\naudience: {holdout: 0}"


@pytest.fixture
def world(engine: Engine) -> World:
    return World(engine)


def delivered(world: World, when: str = "2026-03-01 08:00", **more: object) -> int:
    ana = world.customer(**more)
    world.order(ana, (at(when) - days(2)).strftime("%Y-%m-%d %H:%M"), delivered=when)
    return ana


def steps(*lines: str) -> str:
    return "".join(f"  - {{{line}}}\n" for line in lines)


def step(name: str, more: str, template: str = "win_back/miss_you") -> str:
    return f"id: {name}, template: {template}, expires_after: 3 days, {more}"


def live(world: World, told: Campaign, first: str, count: int, by_hours: int = 24) -> None:
    """Plan and deliver again and again, as the DAGs do."""
    for turn in range(count):
        now = at(first) + days(turn * by_hours / 24)
        world.plan(told, now)
        world.deliver(told, now=now)


def report(world: World, customer: int, kind: str, when: str, step_id: str, **detail: object) -> None:
    """What a channel or a public page tells about the mail of one step; taken in at once."""
    message = world.one(
        "select message_id from messages where customer_id = :c and step_id = :s", c=customer, s=step_id
    )
    payload = {"kind": kind, "message_id": str(message), "at": f"{at(when):%Y-%m-%dT%H:%M:%SZ}", "detail": detail}
    world.do("insert into event_inbox (received_at, source, dedupe_key, payload) values (:at, 'web', :k, cast(:p as jsonb))",
             at=at(when), k=f"{message}{kind}{when}", p=json.dumps(payload))  # fmt: skip
    world.feedback(when)


def rate(world: World, customer: int, score: int | None, when: str) -> None:
    world.do("insert into reviews (order_id, review_key, score, created_at) "
        "select order_id, :k, :s, :at from orders where customer_id = :c",
             k=when, s=score, at=at(when), c=customer)  # fmt: skip


# ---------------------------------------------------------------- delays


def test_days_by_category_come_from_the_marketers_table(world: World) -> None:
    ana, ben = world.customer(), world.customer()
    world.order(ana, "2026-03-01", delivered="2026-03-02", sku="soap")  # consumable: 7 days
    world.order(ben, "2026-03-01", delivered="2026-03-02", sku="mug")  # not in the table: 30 days
    ask = campaign("feedback_30d")
    world.plan(ask, "2026-03-03")
    assert world.do("select due_at from messages order by 1") == [(at("2026-03-09 10:00"),), (at("2026-04-01 10:00"),)]


def test_a_change_in_the_table_is_a_new_version_of_the_campaign(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    table = tmp_path / "tables" / "days.yml"
    line = steps(step("ask", "on_day: 30, on_day_by_category: {table: days}"))
    table.write_text("soap: 7\n")
    first = written(tmp_path, TRIGGER, line)
    table.write_text("# a comment\nsoap: 7\n")
    assert written(tmp_path, TRIGGER, line).version == first.version
    table.write_text("soap: 8\n")
    assert written(tmp_path, TRIGGER, line).version != first.version
    assert first.steps[0].days_by_category == {"soap": 7}


def test_exact_time_and_local_days_are_different_things_when_the_clocks_change(world: World, tmp_path: Path) -> None:
    delivered(world, "2026-03-28 11:30", zone="Europe/Berlin")  # the day before summer time, 12:30 there
    both = written(
        tmp_path, TRIGGER, steps(step("exact", "after: 24 hours"), step("wall", "on_day: 1, at: '12:30'")), STAYED
    )
    world.plan(both, "2026-03-28 12:00")
    assert dict(tuple(row) for row in world.do("select step_id, due_at from messages")) == {
        "exact": at("2026-03-29 11:30"),
        "wall": at("2026-03-29 10:30"),
    }


# ---------------------------------------------------------------- conditions


@pytest.mark.parametrize(
    ("condition", "sent"),
    [
        ("{feature: frequency, at_least: 1}", True),
        ("{feature: frequency, at_least: 2}", False),
        ("{feature: frequency, more_than: 0, less_than: 2}", True),
        ("{feature: stage, is: new}", True),
        ("{feature: stage, in: [lapsed, at_risk]}", False),
        ("{feature: stage, is_not: lapsed}", True),
        ("{feature: median_gap_days, at_least: 0}", False),  # one order has no gap: unknown ...
        ("{not: {feature: median_gap_days, at_least: 0}}", False),  # ... which is not its opposite either
        ("{feature: median_gap_days, is_not: 5}", False),
        ("{feature: median_gap_days, known: false}", True),
        ("{feature: median_gap_days, known: true}", False),
        ("{feature: category, is: home}", True),
        ("{feature: order_amount, at_most: 50}", True),
        ("{feature: score, at_most: 10}", False),  # not rated: not low
        ("{feature: country, is: DE}", False),
        ("{in_segment: new}", True),
        ("{in_segment: lapsed}", False),
        ("{happened: ordered}", False),
        ("{not: {happened: ordered}}", True),
        ("{all: [{in_segment: new}, {feature: frequency, is: 1}]}", True),
        ("{all: [{in_segment: new}, {feature: score, at_least: 4}]}", False),
        ("{any: [{feature: score, at_least: 4}, {in_segment: new}]}", True),
        ("{not: {any: [{feature: score, at_least: 4}, {in_segment: lapsed}]}}", False),  # unknown or false: unknown
        ("{not: {all: [{feature: score, at_least: 4}, {in_segment: lapsed}]}}", True),  # unknown and false: false
    ],
)
def test_a_step_goes_only_if_its_condition_is_known_to_hold(
    world: World, tmp_path: Path, condition: str, sent: bool
) -> None:
    ana = delivered(world)
    told = written(tmp_path, TRIGGER, steps(step("one", f"on_day: 0, only_if: {condition}")), STAYED)
    live(world, told, "2026-03-01 10:00", 1)
    assert world.received(ana) == (["one"] if sent else [])
    assert world.states() == [("one", "sent", None) if sent else ("one", "skipped", "condition_not_met")]


def test_a_condition_is_read_at_hand_over_and_not_before_the_window_opens(world: World, tmp_path: Path) -> None:
    ana = delivered(world, "2026-03-01 20:30")
    told = written(
        tmp_path, TRIGGER, steps(step("one", "after: 1 hour, only_if: {feature: score, at_least: 4}")), STAYED
    )
    world.plan(told, "2026-03-01 20:40")
    world.deliver(told, now="2026-03-01 22:00")
    assert world.states()[0][1] == "scheduled"
    rate(world, ana, 5, "2026-03-02 08:00")
    world.deliver(told, now="2026-03-02 11:00")  # what waited for the window is spread over its first two hours
    assert world.received(ana) == ["one"]


def test_an_order_between_planning_and_hand_over_is_seen_by_the_condition(world: World, tmp_path: Path) -> None:
    ana = delivered(world)
    told = written(tmp_path, TRIGGER, steps(step("one", "on_day: 3, only_if: {not: {happened: ordered}}")), STAYED)
    assert told.rests_on_absence  # and so it waits while the feed is stale
    world.plan(told, "2026-03-01 10:00")
    world.order(ana, "2026-03-04 08:00")
    world.deliver(told, now="2026-03-04 10:00")
    assert world.states() == [("one", "skipped", "condition_not_met")]


# ---------------------------------------------------------------- branches


BRANCH = steps(
    step("good", "on_day: 2, branch: rated, only_if: {feature: score, at_least: 4}"),
    step("bad", "on_day: 2, branch: rated, only_if: {feature: score, at_most: 2}"),
    step("rest", "on_day: 2, branch: rated"),
    step("after_bad", "on_day: 5, only_if: {got: bad}"),
)


@pytest.mark.parametrize(("score", "gets"), [(5, ["good"]), (1, ["bad", "after_bad"]), (3, ["rest"]), (None, ["rest"])])
@pytest.mark.parametrize("batch", [1, 100])
def test_the_first_branch_that_holds_is_taken_and_only_that_one(
    world: World, tmp_path: Path, score: int | None, gets: list[str], batch: int
) -> None:
    ana = delivered(world)
    told = written(tmp_path, TRIGGER, BRANCH, STAYED)
    world.plan(told, "2026-03-01 10:00")
    rate(world, ana, score, "2026-03-02")
    for day in (3, 4, 6, 7):
        world.deliver(told, now=f"2026-03-0{day} 10:00", batch=batch)
    assert world.received(ana) == gets
    world.plan(told, "2026-03-08")
    assert world.do("select exit_reason from enrolments") == [("completed",)]


def test_a_branch_that_was_taken_stays_taken_when_the_facts_change(world: World, tmp_path: Path) -> None:
    ana = delivered(world)
    told = written(tmp_path, TRIGGER, BRANCH, STAYED)
    world.plan(told, "2026-03-01 10:00")
    world.do("update messages set send_at = '2026-03-03 12:00' where step_id = 'good'")
    world.deliver(told, now="2026-03-03 10:00")  # unrated: everybody else's letter
    rate(world, ana, 5, "2026-03-03 10:01")
    world.deliver(told, now="2026-03-03 13:00")
    assert world.received(ana) == ["rest"]
    assert ("good", "skipped", "other_branch") in world.states()


def test_a_branch_put_off_is_not_replaced_by_the_next(world: World, tmp_path: Path) -> None:
    ana = delivered(world)
    told = written(tmp_path, TRIGGER, BRANCH, STAYED)
    world.plan(told, "2026-03-01 10:00")
    rate(world, ana, 1, "2026-03-02")
    world.post.answer = lambda message: Outcome("deferred", scope="recipient", reply="450 later")
    world.deliver(told, now="2026-03-03 10:00")
    world.post.answer = None
    assert set(world.states()) >= {
        ("good", "skipped", "condition_not_met"), ("bad", "scheduled", "not_now"), ("rest", "skipped", "other_branch"),
    }  # fmt: skip
    world.deliver(told, now="2026-03-03 12:00")
    assert world.received(ana) == ["bad"]


# ---------------------------------------------------------------- waiting for an answer


def waiting(tmp_path: Path, otherwise: str, event: str = "clicked", delay: str = "") -> Campaign:
    return written(
        tmp_path, TRIGGER,
        steps(step("ask", "on_day: 1"), step("thanks", f"wait_for: {{event: {event}, timeout: 3 days, else: {otherwise}}}{delay}")),
        STAYED,
    )  # fmt: skip


@pytest.mark.parametrize("otherwise", ["skip", "send"])
def test_what_is_waited_for_brings_the_step_forward(world: World, tmp_path: Path, otherwise: str) -> None:
    ana = delivered(world)
    told = waiting(tmp_path, otherwise)
    live(world, told, "2026-03-01 10:00", 2)
    assert world.received(ana) == ["ask"]
    live(world, told, "2026-03-02 12:00", 1)
    assert len(world.states()) == 1  # nothing to plan yet
    report(world, ana, "clicked", "2026-03-03 09:30", "ask")
    live(world, told, "2026-03-03 10:00", 1)
    assert world.received(ana) == ["ask", "thanks"]
    assert world.one("select due_at from messages where step_id = 'thanks'") == at("2026-03-03 09:30")
    world.plan(told, "2026-03-03 11:00")
    assert world.do("select exit_reason from enrolments") == [("completed",)]


@pytest.mark.parametrize(
    ("otherwise", "state"), [("skip", ("thanks", "skipped", "event_did_not_come")), ("send", ("thanks", "sent", None))]
)
def test_when_the_time_is_up_the_file_says_what_happens(
    world: World, tmp_path: Path, otherwise: str, state: tuple[str, str, str | None]
) -> None:
    delivered(world)
    told = waiting(tmp_path, otherwise)
    live(world, told, "2026-03-01 10:00", 4)
    assert len(world.states()) == 1
    assert world.do("select exited_at from enrolments") == [(None,)]  # it still waits
    live(world, told, "2026-03-05 10:00", 1)
    assert world.states() == [("ask", "sent", None), state]


def test_an_answer_after_the_time_was_up_changes_nothing_even_if_nobody_looked(world: World, tmp_path: Path) -> None:
    ana = delivered(world)
    told = waiting(tmp_path, "skip")
    live(world, told, "2026-03-01 10:00", 2)
    report(world, ana, "clicked", "2026-03-06 09:00", "ask")  # three days and a few hours later
    live(world, told, "2026-03-06 10:00", 1)
    assert world.states()[1] == ("thanks", "skipped", "event_did_not_come")


def test_a_delay_counts_from_what_was_waited_for(world: World, tmp_path: Path) -> None:
    ana = delivered(world)
    told = waiting(tmp_path, "skip", delay=", on_day: 1, at: '11:00'")
    live(world, told, "2026-03-01 10:00", 2)
    report(world, ana, "clicked", "2026-03-03 15:00", "ask")
    world.plan(told, "2026-03-03 16:00")
    assert world.one("select due_at from messages where step_id = 'thanks'") == at("2026-03-04 11:00")


def test_nothing_waits_for_an_answer_to_a_mail_that_was_never_sent(world: World, tmp_path: Path) -> None:
    ana = delivered(world)
    told = waiting(tmp_path, "send")
    world.plan(told, "2026-03-01 10:00")
    world.deliver(told, now="2026-03-06 10:00")  # a long pause: the question expired
    live(world, told, "2026-03-06 11:00", 1)
    assert world.received(ana) == []
    assert world.states() == [("ask", "expired", "too_late"), ("thanks", "skipped", "previous_not_sent")]
    world.plan(told, "2026-03-06 12:00")
    assert world.do("select exit_reason from enrolments") == [("expired",)]


def test_an_order_can_be_waited_for_as_well(world: World, tmp_path: Path) -> None:
    ana = delivered(world)
    told = waiting(tmp_path, "skip", event="ordered")
    live(world, told, "2026-03-01 10:00", 2)
    world.order(ana, "2026-03-03 09:30")  # within the window
    live(world, told, "2026-03-03 10:00", 1)
    assert world.states(ana)[1][:2] == ("thanks", "sent")


# ---------------------------------------------------------------- variants


SPLIT = ("  - {id: one, on_day: 0, expires_after: 3 days, variants: [{name: short, weight: 3, template: win_back/miss_you}, "
         "{name: long, weight: 1, template: win_back/whats_new}]}\n")  # fmt: skip


def test_variants_are_drawn_by_weight_and_each_customer_always_gets_the_same(world: World, tmp_path: Path) -> None:
    for _ in range(40):
        delivered(world)
    told = written(tmp_path, TRIGGER, SPLIT, STAYED)
    world.plan(told, "2026-03-01 10:00")
    drawn = dict(tuple(row) for row in world.do("select customer_id, variant from messages"))
    assert set(drawn.values()) == {"short", "long"}
    assert world.one("select count(*) from messages where (variant = 'long') <> (template = 'win_back/whats_new')") == 0
    turned = SPLIT.replace("{name: short, weight: 3, template: win_back/miss_you}, ", "").replace(
        "template: win_back/whats_new}",
        "template: win_back/whats_new}, {name: short, weight: 3, template: win_back/miss_you}",
    )
    world.do("delete from messages")
    world.plan(written(tmp_path, TRIGGER, turned, STAYED), "2026-03-01 11:00")
    assert dict(tuple(row) for row in world.do("select customer_id, variant from messages")) == drawn


def test_the_shares_of_variants_are_their_weights_and_independent_of_the_holdout_and_other_steps(world: World) -> None:
    rows = world.do(
        """select variant_of('c', 'one', n, 'salt', '[{"name": "a", "weight": 3}, {"name": "b", "weight": 1}]') as v,
                  variant_of('c', 'two', n, 'salt', '[{"name": "a", "weight": 1}, {"name": "b", "weight": 1}]') as w,
                  in_holdout('c', n, 0.5, 'salt') as h
           from generate_series(1, 20000) as n"""
    )
    shares = Counter(rows)
    for (v, _w, _h), count in shares.items():  # 20,000 x 3/4 or 1/4 x 1/2 x 1/2; four standard deviations
        expected = 20000 * (0.75 if v == "a" else 0.25) / 4
        assert abs(count - expected) < 4 * expected**0.5
    assert len(shares) == 8


# ---------------------------------------------------------------- exits


def test_leaving_the_segment_ends_the_passage_at_hand_over_already(world: World, tmp_path: Path) -> None:
    ana = world.customer()
    world.order(ana, "2025-08-01")
    told = written(
        tmp_path, "{enters: lapsed, entry: existing, max_age: 90 days, once_per: episode}",
        steps(step("one", "on_day: 0"), step("two", "on_day: 60")), STAYED + "\nexit_on: [left_segment]",
    )  # fmt: skip
    world.plan(told, "2026-01-28 08:00")
    world.do("update segment_memberships set left_at = '2026-01-28 08:30' where segment_id = 'lapsed'")
    world.deliver(told, now="2026-01-28 09:30")
    assert world.received(ana) == []
    assert world.states()[0] == ("one", "cancelled", "left_segment")


def test_a_click_can_be_the_goal(world: World, tmp_path: Path) -> None:
    ana = delivered(world)
    told = written(
        tmp_path,
        TRIGGER,
        steps(step("one", "on_day: 0"), step("two", "on_day: 3")),
        STAYED + "\ngoal: clicked\nexit_on: [clicked]",
    )
    live(world, told, "2026-03-01 10:00", 1)
    report(world, ana, "clicked", "2026-03-02 10:00", "one")
    live(world, told, "2026-03-04 10:00", 1)
    assert world.received(ana) == ["one"]
    assert world.do("select exit_reason from enrolments") == [("goal_met",)]
    assert world.states()[1] == ("two", "cancelled", "clicked")


@pytest.mark.parametrize(("score", "gets"), [(2, ["one"]), (3, ["one", "two"]), (None, ["one", "two"])])
def test_a_low_rating_ends_the_passage_and_none_is_not_low(
    world: World, tmp_path: Path, score: int | None, gets: list[str]
) -> None:
    ana = delivered(world)
    told = written(
        tmp_path, TRIGGER, steps(step("one", "on_day: 0"), step("two", "on_day: 3")), STAYED + "\nexit_on: [rated_low]"
    )
    live(world, told, "2026-03-01 10:00", 1)
    rate(world, ana, score, "2026-03-02 10:00")
    world.deliver(told, now="2026-03-04 10:00")
    assert world.received(ana) == gets


def test_a_step_added_to_the_file_is_for_passages_that_begin_later(world: World, tmp_path: Path) -> None:
    ana = delivered(world)
    world.plan(written(tmp_path, TRIGGER, steps(step("one", "on_day: 0")), STAYED), "2026-03-01 08:30")
    longer = written(tmp_path, TRIGGER, steps(step("one", "on_day: 0"), step("two", "on_day: 1")), STAYED)
    ben = delivered(world, "2026-03-01 08:40")
    live(world, longer, "2026-03-01 10:00", 3)
    assert (world.received(ana), world.received(ben)) == (["one"], ["one", "two"])


def test_a_plan_leaves_the_driver_what_it_has_prepared(database: URL) -> None:
    """It forgets every statement of the connection when it sees a DROP or a roll-back; the next plan would begin anew."""
    options = {"options": "-csearch_path=postlude,public -ctimezone=UTC", "prepare_threshold": 0}
    engine = create_engine(db._psycopg(database), connect_args=options)
    event.listen(engine, "connect", lambda raw, _: setattr(raw, "prepared_max", 1000))
    world = World(engine)
    delivered(world)
    kept = []
    for day in ("2026-03-31 10:00", "2026-04-01 10:00"):
        world.plan(campaign("feedback_30d"), day)
        kept.append({name for (name,) in world.do("select name from pg_prepared_statements")})
    engine.dispose()
    assert len(kept[0]) > 40 and kept[0] <= kept[1]
