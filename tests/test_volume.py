"""The volume gate: an unusual plan sends nothing before a named person has said yes to exactly that audience."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.engine import URL
from sqlalchemy.exc import DatabaseError

from postlude import db, enrolment, volume
from postlude.campaign import Approval, Campaign
from postlude.errors import InputError
from postlude.message import Outcome
from postlude.settings import settings
from test_cli import Shell
from world import World, at, campaign, days

TODAY = "2026-06-01 11:30"  # a Monday, inside the send window
BACK = "win_back"


@pytest.fixture
def world(engine: Engine) -> World:
    return World(engine)


@pytest.fixture
def shell(database: URL, tmp_path: Path) -> Shell:
    return Shell(database, tmp_path)


@pytest.fixture(autouse=True)
def defaults(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Settings as shipped; `set_to` changes them for one test."""
    for name in ("APPROVAL", "CANARY_HOLD"):
        monkeypatch.delenv(f"POSTLUDE_{name}", raising=False)
    settings.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    settings.cache_clear()


def set_to(patch: pytest.MonkeyPatch, **values: Any) -> None:
    for name, value in values.items():
        patch.setenv(f"POSTLUDE_{name.upper()}", str(value))
    settings.cache_clear()


def one_step(**changes: Any) -> Campaign:
    """The win-back campaign with its first mail only, so that a customer is a message."""
    back = campaign(BACK, **changes)
    return back.model_copy(update={"steps": back.steps[:1]})


def people(world: World, count: int, last_order: datetime) -> None:
    """So many customers, all with one order at that instant."""
    key = f"{last_order:%y%m%d%H}-"
    new = "select customer_id from customers as c where source_customer_id like :key || '%'"
    world.do(
        "insert into customers (source_id, source_customer_id, email, first_name, known_at) "
        "select 'shop', :key || n, :key || n || '@customers.example', 'Ana', '2020-01-01' from generate_series(1, :n) as n",
        key=key, n=count,
    )  # fmt: skip
    world.do(
        "insert into consents select customer_id, 'email', 'marketing', true, '2020-01-01', 'opt_in', '2020-01-01' "
        f"from ({new}) as x", key=key,
    )  # fmt: skip
    world.do(
        "insert into orders (source_id, source_order_id, customer_id, currency, placed_at, known_at, counted_at, counted_amount) "
        f"select 'shop', 'x' || customer_id, customer_id, 'EUR', :at, :at, :at, 50 from ({new}) as x", at=last_order, key=key,
    )  # fmt: skip
    world.do(
        "insert into order_lines select order_id, '1', 'mug', 'x', 1, 50, placed_at from orders as o "
        "where not exists (select 1 from order_lines as l where l.order_id = o.order_id)"
    )


def lapse(world: World, count: int, now: str = TODAY) -> None:
    """So many customers enter `lapsed` shortly before `now`."""
    people(
        world, count, at(now) - days(180) - timedelta(hours=len(world.do("select distinct placed_at from orders")) + 1)
    )


def history(world: World, camp: Campaign, per_day: int, count: int = 28, now: str = TODAY) -> None:
    """The campaign has sent so many messages on each of the days before."""
    with db.transaction(world.engine) as conn:
        enrolment.remember_version(conn, camp, at(now) - days(count + 1))
    ana = world.customer("Before")
    world.do(
        "insert into enrolments (enrolment_id, campaign_id, version, customer_id, anchor_key, anchor_at, watch_from, enrolled_at, run_id, "
        "exited_at, exit_reason) select gen_random_uuid(), :id, :version, :ana, d || '/' || n, t, t, t, 'past', t, 'completed' "
        "from generate_series(1, :days) as d, generate_series(1, :n) as n, "
        "lateral (select cast(:now as timestamptz) - d * interval '1 day') as x (t)",
        id=camp.id, version=camp.version, ana=ana, days=count, n=per_day, now=at(now),
    )  # fmt: skip
    world.do(
        "insert into messages (message_id, enrolment_id, campaign_id, step_id, customer_id, kind, template, state, due_at, send_at, "
        "expires_at, handed_over_at, finalized_at, planned_at, run_id) select gen_random_uuid(), enrolment_id, campaign_id, 'miss_you', "
        "customer_id, 'marketing', 'win_back/miss_you', 'sent', anchor_at, anchor_at, anchor_at + interval '1 day', anchor_at, anchor_at, "
        "anchor_at, 'past' from enrolments where run_id = 'past'"
    )


def plan(world: World, camp: Campaign, now: str = TODAY, run: str = "run") -> dict[str, Any]:
    """Plan, assess and release, as the DAG does without an answer."""
    world.plan(camp, now, release=False)
    with db.transaction(world.engine) as conn:
        counts = volume.assess(conn, camp, at(now), run)
        if not counts["approval"]:
            counts |= volume.put_off(conn, camp, at(now), run)
        return counts | enrolment.release(conn, camp)


def answer(world: World, approval: int, approve: bool = True, now: str = TODAY, **more: Any) -> dict[str, Any]:
    with db.transaction(world.engine) as conn:
        return volume.decide(conn, approval, approve, "Mia Marketer", "cli", at(now), "answer", **more)


def watch(world: World, now: str | datetime) -> dict[str, Any]:
    moment = at(now) if isinstance(now, str) else now
    with db.transaction(world.engine) as conn:
        return volume.expire_held(conn, moment) | volume.watch_canaries(conn, moment)


def tally(world: World) -> dict[str, int]:
    """This test's messages by state and reason."""
    rows = world.do(
        "select state || coalesce(':' || reason, ''), count(*) from messages where run_id <> 'past' group by 1"
    )
    return {row[0]: row[1] for row in rows}


def no_canary(patch: pytest.MonkeyPatch) -> None:
    set_to(patch, canary_hold="PT0S")


# ---------------------------------------------------------------- the band


def test_a_usual_day_goes_out_without_anybody_being_asked(world: World) -> None:
    back = one_step()
    history(world, back, 30)
    lapse(world, 200)  # below 30 + 200
    people(world, 5000, at(TODAY) - days(20))
    counts = plan(world, back)
    assert (counts["approval"], counts["released"], counts["canary"]) == (0, 200, 0)
    assert world.do("select 1 from approvals") == []


def test_a_wrong_join_that_triples_the_audience_sends_nothing_before_it_is_approved(world: World) -> None:
    back = one_step()
    history(world, back, 110)
    lapse(world, 440)  # a usual day and three strangers for each of its customers
    people(world, 9000, at(TODAY) - days(20))
    counts = plan(world, back)
    assert (counts["messages"], counts["released"]) == (440, 0)
    assert set(counts["causes"]) == {"planned", "sent"}  # usual 110, limit 330
    for hour in range(3):
        world.deliver(back, now=at(TODAY) + timedelta(hours=hour))
    assert world.post.taken == []
    assert tally(world) == {"held:awaiting_approval": 440}


@pytest.mark.parametrize(("usual", "limit"), [(0, 200), (50, 250), (100, 300), (400, 1200)])
def test_the_band_is_three_times_the_weekdays_median_or_two_hundred_more(
    world: World, defaults: pytest.MonkeyPatch, usual: int, limit: int
) -> None:
    no_canary(defaults)
    back = one_step(needs_fresh_orders=False)  # no share of the base
    history(world, back, max(usual, 1))
    if not usual:  # one day of it is enough for the campaign not to be new
        world.do("delete from messages where planned_at <> (select min(planned_at) from messages)")
    lapse(world, limit)
    assert plan(world, back)["approval"] == 0
    lapse(world, 1)  # one more on the same day
    counts = plan(world, back)
    assert counts["approval"] > 0
    assert world.one("select causes -> 0 ->> 'limit' from approvals") == f"{limit:.1f}"


def test_each_weekday_is_compared_with_itself(world: World) -> None:
    """A campaign that is loud on Mondays may be loud today, and not tomorrow."""
    back = one_step(needs_fresh_orders=False)
    history(world, back, 300)
    world.do("delete from messages where extract(isodow from planned_at) <> 1 and random() < 2")
    lapse(world, 700)
    assert plan(world, back)["approval"] == 0
    lapse(world, 300, "2026-06-02 11:30")
    assert set(plan(world, back, "2026-06-02 11:30")["causes"]) == {"planned", "sent"}


def test_a_plan_that_piles_up_on_one_later_day_is_held_although_the_run_is_of_usual_size(world: World) -> None:
    """Small runs one after the other must not add up to a large send."""
    back = one_step(needs_fresh_orders=False)
    history(world, back, 100)
    lapse(world, 250)
    assert plan(world, back)["approval"] == 0
    world.do("update messages set send_at = '2026-06-03 10:00' where state = 'scheduled'")
    later = "2026-06-02 11:30"
    lapse(world, 250, later)
    world.plan(back, later, release=False)
    world.do("update messages set send_at = '2026-06-03 10:00' where state = 'held'")
    with db.transaction(world.engine) as conn:
        counts = volume.assess(conn, back, at(later), "run")
    assert counts["causes"] == ["sent"]
    assert world.do("select causes -> 0 ->> 'day', causes -> 0 ->> 'found' from approvals") == [("2026-06-03", "500")]


def test_a_win_back_to_more_than_a_twentieth_of_all_customers_is_held(world: World) -> None:
    back = one_step()
    history(world, back, 100)
    people(world, 4500, at(TODAY) - days(20))
    lapse(world, 240)
    assert plan(world, back)["causes"] == ["share"]  # 240 of 4,740


def test_a_small_shop_starts_its_campaigns_without_an_approval(world: World) -> None:
    lapse(world, 150)
    counts = plan(world, campaign(BACK))
    assert (counts["approval"], counts["released"]) == (0, 600)


def test_a_first_run_waits_when_it_is_large_or_the_file_or_the_setting_says_so(
    world: World, defaults: pytest.MonkeyPatch
) -> None:
    lapse(world, 30)
    back = one_step()
    set_to(defaults, approval_first_run=29)
    counts = plan(world, back)
    assert counts["causes"] == ["first_run"]
    world.do("update messages set reason = 'awaiting_check'")
    assert plan(world, one_step(approval=Approval(first_run=False)))["approval"] == 0
    world.do("update messages set state = 'held', reason = 'awaiting_check'")
    set_to(defaults, approval_first_run=5000)
    assert plan(world, one_step(approval=Approval(first_run=True)))["causes"] == ["first_run"]
    world.do("update messages set reason = 'awaiting_check'")
    set_to(defaults, approval="strict")
    assert plan(world, back)["causes"] == ["first_run"]
    world.do("update messages set reason = 'awaiting_check'")
    set_to(defaults, approval="off")
    assert plan(world, back)["released"] == 30


def test_the_limit_of_the_campaign_file_holds_whatever_is_usual(world: World) -> None:
    back = one_step(approval=Approval(above=99))
    history(world, back, 400)
    people(world, 5000, at(TODAY) - days(20))
    lapse(world, 100)
    assert plan(world, back)["causes"] == ["above"]


def test_a_transactional_campaign_waits_for_nobody(world: World) -> None:
    told = one_step(kind="transactional")
    history(world, told, 1)
    lapse(world, 400)
    assert plan(world, told)["released"] == 400


# ---------------------------------------------------------------- the approval


def asked(world: World, count: int = 440, usual: int = 110) -> tuple[Campaign, int]:
    """A campaign whose plan of today is held, and the number of the request."""
    back = one_step(needs_fresh_orders=False)
    history(world, back, usual)
    lapse(world, count)
    return back, plan(world, back)["approval"]


def test_an_approval_names_who_when_and_why_and_releases_what_was_asked_about(
    world: World, defaults: pytest.MonkeyPatch
) -> None:
    no_canary(defaults)
    back, approval = asked(world)
    assert answer(world, approval, comment="sale of June")["released"] == 440
    world.deliver(back, now=TODAY)
    assert len(world.post.taken) == 440
    assert world.do(
        "select d.decision, decided_by, via, comment, released, at, d.audience_hash = a.audience_hash "
        "from approval_decisions as d join approvals as a using (approval_id)"
    ) == [("approved", "Mia Marketer", "cli", "sale of June", 440, at(TODAY), True)]


def test_an_approval_of_five_hundred_releases_five_hundred(world: World, defaults: pytest.MonkeyPatch) -> None:
    no_canary(defaults)
    back, approval = asked(world, count=900)
    assert answer(world, approval, at_most=500)["released"] == 500
    for hour in range(4):
        world.deliver(back, now=at(TODAY) + timedelta(hours=hour))
    assert len(world.post.taken) == 500
    later = plan(world, back, "2026-06-02 11:30")  # the rest is asked about again and does not go by itself
    assert (later["messages"], later["released"]) == (400, 0)
    assert "still_waiting" in later["causes"]


def test_the_approval_of_one_audience_cannot_release_another(world: World, defaults: pytest.MonkeyPatch) -> None:
    no_canary(defaults)
    back, first = asked(world)
    lapse(world, 50, "2026-06-01 18:00")
    second = plan(world, back, "2026-06-01 18:00", run="later")["approval"]
    assert second != first
    hashes = world.do("select distinct audience_hash from approvals")
    assert len(hashes) == 2
    with pytest.raises(InputError, match=f"approval {first} was superseded"):
        answer(world, first, now="2026-06-01 18:30")
    world.deliver(back, now="2026-06-01 18:40")
    assert world.post.taken == []
    assert answer(world, second, now="2026-06-01 18:50")["released"] == 490


def test_an_audience_that_was_changed_behind_the_request_is_not_released(world: World) -> None:
    back, approval = asked(world)
    world.do("update messages set customer_id = (select min(customer_id) from customers) where message_id = "
             "(select message_id from messages where state = 'held' order by message_id limit 1)")  # fmt: skip
    result = answer(world, approval)
    assert (result["released"], result["changed"]) == (0, 1)
    assert tally(world) == {"held:awaiting_approval": 440}
    assert world.do("select decision from approval_decisions") == [("changed",)]
    again = plan(world, back, run="anew")
    assert again["approval"] > approval
    assert "still_waiting" in again["causes"]


def test_who_has_left_the_audience_meanwhile_is_not_released_with_it(
    world: World, defaults: pytest.MonkeyPatch
) -> None:
    no_canary(defaults)
    back, approval = asked(world)
    gone = world.one("select min(customer_id) from messages where state = 'held'")
    world.order(gone, "2026-06-01 11:00")
    assert plan(world, back, "2026-06-01 12:00")["approval"] == approval  # nothing new: the same request
    assert answer(world, approval, now="2026-06-01 12:05")["released"] == 439
    assert world.states(gone) == [("miss_you", "cancelled", "ordered")]


def test_a_rejected_plan_is_cancelled_and_is_not_planned_again(world: World) -> None:
    back, approval = asked(world)
    assert answer(world, approval, approve=False)["cancelled"] == 440
    assert plan(world, back, "2026-06-01 14:00")["messages"] == 0
    assert tally(world) == {"cancelled:not_approved": 440}
    with pytest.raises(InputError, match="was rejected by Mia Marketer at 2026-06-01 11:30 UTC"):
        answer(world, approval)
    assert answer(world, approval, approve=False)["cancelled"] == 440  # a task run again
    assert world.one("select count(*) from approval_decisions") == 1


@pytest.mark.parametrize("some_went", [False, True])
def test_a_rejected_plan_takes_its_control_group_with_it_unless_some_of_it_went_before(
    world: World, defaults: pytest.MonkeyPatch, some_went: bool
) -> None:
    no_canary(defaults)
    back = one_step(needs_fresh_orders=False)
    back = back.model_copy(update={"audience": back.audience.model_copy(update={"holdout": 0.3})})
    history(world, back, 110)
    lapse(world, 640)
    approval = plan(world, back)["approval"]
    ghosts = world.one("select count(*) from ghost_messages where state = 'scheduled'")
    assert ghosts > 30
    if some_went:
        answer(world, approval, at_most=5)
        approval = plan(world, back, "2026-06-01 12:00")["approval"]
    assert answer(world, approval, approve=False, now="2026-06-01 12:30")["cancelled"] == 640 - ghosts - 5 * some_went
    told = world.do("select state, reason, count(*) from ghost_messages group by 1, 2")
    assert told == [("scheduled", None, ghosts) if some_went else ("cancelled", "not_approved", ghosts)]


def test_what_nobody_approved_expires_with_the_reason(world: World) -> None:
    back, approval = asked(world)
    watch(world, "2026-06-03 10:00")
    assert tally(world) == {"held:awaiting_approval": 440}
    assert watch(world, "2026-06-05 12:00") == {
        "expired": 440, "approvals_expired": 1, "canaries_passed": 0, "canaries_failed": [],
    }  # fmt: skip
    assert tally(world) == {"expired:approval_expired": 440}
    with pytest.raises(InputError, match=f"approval {approval}"):
        answer(world, approval, now="2026-06-05 12:01")
    assert plan(world, back, "2026-06-05 13:00")["messages"] == 0


def test_the_same_plan_assessed_again_asks_once(world: World) -> None:
    back, approval = asked(world)
    for _ in range(3):
        assert plan(world, back)["approval"] == approval
    assert world.one("select count(*) from approvals") == 1


def test_a_rejected_or_unanswered_glitch_does_not_become_usual(world: World) -> None:
    back, approval = asked(world)
    answer(world, approval, approve=False)
    lapse(world, 440, "2026-06-08 11:30")
    assert plan(world, back, "2026-06-08 11:30")["released"] == 0


def test_requests_and_decisions_are_append_only(world: World) -> None:
    _, approval = asked(world)
    answer(world, approval)
    for statement in (
        "update approvals set messages = 1", "delete from approvals where false", "update approval_decisions set decided_by = 'x'",
        "delete from approval_decisions",
    ):  # fmt: skip
        with pytest.raises(DatabaseError, match="is append-only"):
            world.do(statement)


@pytest.mark.parametrize(
    ("more", "told"),
    [({"at_most": 0}, "from 1 on"), ({"at_most": -5}, "from 1 on"), ({"approve": False, "at_most": 5}, "reject")],
)
def test_an_impossible_answer_is_refused(world: World, more: dict[str, Any], told: str) -> None:
    _, approval = asked(world)
    with pytest.raises(InputError, match=told):
        answer(world, approval, **more)
    with pytest.raises(InputError, match="there is no approval 99"):
        answer(world, 99)
    with pytest.raises(InputError, match="needs the name"), db.transaction(world.engine) as conn:
        volume.decide(conn, approval, True, " ", "cli", at(TODAY), "x")
    assert tally(world) == {"held:awaiting_approval": 440}


def test_the_request_shows_counts_band_difference_and_twenty_customers_and_no_persons_data(world: World) -> None:
    _, approval = asked(world)
    with db.transaction(world.engine) as conn:
        row = volume.approvals(conn, at(TODAY), approval)[0]
    subject, body = volume.in_words(row)
    assert subject == "Send 440 messages of win_back to 440 customers?"
    assert "| more messages planned than on other Mondays | 440 | 330 | 110 |" in body
    assert "440 are new in it, 1 are no longer in it" in body
    ids = set(re.findall(r"^\| (\d+) \| miss_you \| 2026-0[56]-\d\d \| 2025-1[12]-\d\d \| 1 \|$", body, re.MULTILINE))
    assert len(ids) == 20
    assert {str(c) for (c,) in world.do("select customer_id from messages where state = 'held'")} >= ids
    shown = body + subject + json.dumps(row.facts)
    assert "customers.example" not in shown
    assert "Ana" not in shown


def test_the_command_line_lists_shows_and_answers_requests(world: World, shell: Shell) -> None:
    _, approval = asked(world)
    past = ("--as-of", TODAY)
    rows = shell.json("approvals", "list", *past)
    assert [(row["approval_id"], row["messages"], row["decision"]) for row in rows] == [(approval, 440, "open")]
    shown = shell("approvals", "show", str(approval), *past)
    assert "more messages planned than on other Mondays" in shown
    assert "customers.example" not in shown
    assert "440 messages wait" in shown
    given = shell.json("approvals", "approve", str(approval), "--by", "Mia", "--at-most", "40", *past)
    assert (given["released"], given["changed"]) == (40, 0)
    assert tally(world) == {"scheduled": 40, "held:awaiting_approval": 400}
    told = shell("approvals", "reject", str(approval), "--by", "Ben", *past, code=2)
    assert told.startswith(f"approval {approval} was approved by Mia at 2026-06-01 11:30 UTC")
    assert "Nothing waits" in shell("approvals", "list", *past)
    assert "approved by Mia" in shell("approvals", "list", "--all", *past, COLUMNS="200")


def test_a_changed_audience_is_not_approved_on_the_command_line_and_is_asked_about_anew(
    world: World, shell: Shell
) -> None:
    _, approval = asked(world)
    world.do("update messages set step_id = 'another' where state = 'held'")
    told = shell("approvals", "approve", str(approval), "--by", "Mia", "--as-of", TODAY, code=3)
    assert f"look at request {approval + 1}" in told
    assert tally(world) == {"held:awaiting_approval": 440}


# ---------------------------------------------------------------- the canary


def large(world: World) -> tuple[Campaign, int]:
    back, approval = asked(world, count=1500)
    return back, approval


def bounce(world: World, kind: str, count: int) -> None:
    world.do(
        "insert into events (event_id, message_id, customer_id, kind, at, known_at, source) select gen_random_uuid(), message_id, "
        "customer_id, :kind, :at, :at, 'test' from messages where state = 'sent' and run_id <> 'past' limit :n",
        kind=kind, at=at(TODAY), n=count,
    )  # fmt: skip


def test_of_an_approved_release_one_in_a_hundred_goes_first_and_the_rest_after_it_was_watched(world: World) -> None:
    back, approval = large(world)
    assert answer(world, approval)["canary"] == 15
    world.deliver(back, now=TODAY)
    assert len(world.post.taken) == 15
    assert watch(world, "2026-06-01 11:44")["canaries_passed"] == 0
    world.deliver(back, now="2026-06-01 11:44")
    assert len(world.post.taken) == 15
    assert watch(world, "2026-06-01 11:46")["canaries_passed"] == 1
    world.deliver(back, now="2026-06-01 11:46")
    assert len(world.post.taken) == 1500
    assert world.do("select outcome, messages, figures ->> 'handed_over' from canaries") == [("passed", 1500, "15")]


def test_a_large_usual_release_has_a_canary_as_well_and_never_more_than_fifty(world: World) -> None:
    back = one_step(needs_fresh_orders=False)
    lapse(world, 4990)
    counts = plan(world, back)
    assert (counts["approval"], counts["canary"], counts["released"]) == (0, 50, 0)
    assert tally(world) == {"scheduled": 50, "held:awaiting_canary": 4940}


@pytest.mark.parametrize(("kind", "count"), [("bounced", 2), ("complained", 2)])
def test_a_canary_that_does_badly_holds_the_rest_until_somebody_approves_anew(
    world: World, kind: str, count: int
) -> None:
    back, approval = large(world)
    answer(world, approval)
    world.deliver(back, now=TODAY)
    bounce(world, kind, count)
    told = watch(world, "2026-06-01 11:46")["canaries_failed"]
    assert len(told) == 1 and "the other 1485 are held" in told[0]
    world.deliver(back, now="2026-06-01 12:00")
    assert len(world.post.taken) == 15
    assert tally(world) == {"sent": 15, "held:canary_failed": 1485}
    assert watch(world, "2026-06-01 12:10")["canaries_failed"] == []  # told once
    again = plan(world, back, "2026-06-02 11:30")
    assert (again["messages"], again["released"]) == (1485, 0)
    assert "canary_failed" in again["causes"]
    assert answer(world, again["approval"], now="2026-06-02 11:31")["released"] == 1485


def test_one_bounce_is_chance(world: World) -> None:
    back, approval = large(world)
    answer(world, approval)
    world.deliver(back, now=TODAY)
    bounce(world, "bounced", 1)
    assert watch(world, "2026-06-01 11:46")["canaries_passed"] == 1


def test_refusals_of_the_relay_count_against_a_canary(world: World) -> None:
    back, approval = large(world)
    answer(world, approval)
    world.post.answer = lambda message: Outcome("refused", scope="recipient", reply="550 no such user", suppress=True)
    world.deliver(back, now=TODAY)
    assert len(watch(world, "2026-06-01 11:46")["canaries_failed"]) == 1
    world.deliver(back, now="2026-06-01 12:00")
    assert tally(world) == {"failed:refused_recipient": 15, "held:canary_failed": 1485}


def test_a_canary_whose_messages_a_rule_refused_is_drawn_again(world: World) -> None:
    back, approval = large(world)
    answer(world, approval)
    world.do("insert into consents select customer_id, 'email', 'marketing', false, '2026-06-01 11:20', 'unsubscribe', '2026-06-01 11:20' "
             "from messages where state = 'scheduled'")  # fmt: skip
    world.deliver(back, now=TODAY)
    assert world.post.taken == []
    watch(world, "2026-06-01 11:46")
    world.deliver(back, now="2026-06-01 11:46")
    assert len(world.post.taken) == 15
    assert watch(world, "2026-06-01 12:02")["canaries_passed"] == 1


def test_a_canary_planned_for_tomorrow_is_not_drawn_anew_every_ten_minutes(world: World) -> None:
    back, approval = large(world)
    answer(world, approval)
    world.do("update messages set send_at = '2026-06-02 11:00' where run_id <> 'past'")
    for minute in range(30, 59, 10):
        watch(world, f"2026-06-01 12:{minute}")
    assert tally(world) == {"scheduled": 15, "held:awaiting_canary": 1485}
    world.deliver(back, now="2026-06-02 11:05")
    watch(world, "2026-06-02 11:25")
    world.deliver(back, now="2026-06-02 11:25")
    assert len(world.post.taken) == 1500
