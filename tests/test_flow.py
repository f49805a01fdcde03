"""Customers, campaigns and mail: what people get, what they do not get, and why."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import Engine

from postlude.errors import GateClosed
from postlude.message import Outcome
from test_mailbox import dsn
from world import World, at, campaign, days


@pytest.fixture
def world(engine: Engine) -> World:
    return World(engine)


def lapsing(world: World, lapse: str = "2026-06-01 08:00", **more: object) -> int:
    """A customer whose last order was 180 days before `lapse`."""
    ana = world.customer(**more)
    world.order(ana, (at(lapse) - days(180)).strftime("%Y-%m-%d %H:%M"))
    return ana


# ---------------------------------------------------------------- the 30-day feedback request


def test_feedback_is_asked_thirty_local_days_after_delivery_by_the_items_name(world: World) -> None:
    ana = world.customer(zone="Asia/Seoul")
    world.order(ana, "2026-03-01", delivered="2026-03-04 20:00")  # already 5 March in Seoul
    ask = campaign("feedback_30d")
    world.plan(ask, "2026-03-05")
    assert world.one("select due_at from messages") == at("2026-04-04 01:00")  # 10:00 in Seoul on 4 April
    world.deliver(ask, now="2026-04-04 00:59")
    assert world.received(ana) == []
    world.deliver(ask, now="2026-04-04 01:00")
    assert world.received(ana) == ["ask"]
    message, raw = world.post.taken[0]
    assert "Blue mug" in message.subject or "Blue mug" in message.text
    assert b"List-Unsubscribe-Post: List-Unsubscribe=One-Click" in raw


def test_the_delay_follows_the_category_of_the_main_item(world: World) -> None:
    ana = world.customer()
    world.order(ana, "2026-03-01", delivered="2026-03-02", sku="soap")
    world.plan(campaign("feedback_30d"), "2026-03-03")
    assert world.one("select due_at from messages") == at("2026-03-09 10:00")


@pytest.mark.parametrize(
    ("fact", "reason"),
    [
        ("insert into reviews (order_id, review_key, score, created_at) values (:o, 'r', 5, '2026-03-20')", "reviewed"),
        (
            "insert into returns (order_id, return_key, requested_at, closed_at) values (:o, 'r', '2026-03-20', '2026-03-21')",
            "returned",
        ),
        ("update orders set cancelled_at = '2026-03-20' where order_id = :o", "order_cancelled"),
    ],
)
def test_who_has_answered_returned_or_cancelled_is_not_asked(world: World, fact: str, reason: str) -> None:
    ana = world.customer()
    order = world.order(ana, "2026-03-01", delivered="2026-03-02")
    ask = campaign("feedback_30d")
    world.plan(ask, "2026-03-03")
    world.do(fact, o=order)
    world.deliver(ask, now="2026-04-01 12:00")  # nothing was planned anew in between: the last look must see it
    assert world.received(ana) == []
    assert world.states() == [("ask", "cancelled", reason)]


def test_an_open_ticket_stops_the_question(world: World) -> None:
    ana = world.customer()
    world.order(ana, "2026-03-01", delivered="2026-03-02")
    ask = campaign("feedback_30d")
    world.plan(ask, "2026-03-03")
    world.do("insert into tickets values ('shop', 't', :c, '2026-03-30', null)", c=ana)
    world.deliver(ask, now="2026-04-01 12:00")
    assert world.states() == [("ask", "skipped", "ticket_open")]


def test_two_orders_in_a_month_are_asked_about_once(world: World) -> None:
    ana = world.customer()
    world.order(ana, "2026-03-01", delivered="2026-03-02")
    world.order(ana, "2026-03-05", delivered="2026-03-07")
    ask = campaign("feedback_30d")
    world.plan(ask, "2026-03-08")
    world.deliver(ask, now="2026-04-01 12:00")
    world.deliver(ask, now="2026-04-06 12:00")
    assert world.states() == [("ask", "sent", None), ("ask", "skipped", "asked_recently")]


def test_of_two_questions_that_could_go_today_the_newer_one_goes(world: World) -> None:
    ana = world.customer()
    world.order(ana, "2026-03-01", delivered="2026-03-02")
    world.order(ana, "2026-03-05", delivered="2026-03-07")
    ask = campaign("feedback_30d")
    world.plan(ask, "2026-03-08")
    world.deliver(ask, now="2026-04-06 12:00")  # nothing went for five days
    assert world.states() == [("ask", "cancelled", "superseded"), ("ask", "sent", None)]


def test_a_newer_question_that_went_first_takes_the_older_ones_place(world: World) -> None:
    ana = world.customer()
    world.order(ana, "2026-03-01", delivered="2026-03-02")  # a mug: asked about after 30 days
    world.order(ana, "2026-03-05", delivered="2026-03-16", sku="soap")  # soap: after 7
    ask = campaign("feedback_30d")
    world.plan(ask, "2026-03-17")
    world.deliver(ask, now="2026-03-23 12:00")
    world.plan(ask, "2026-03-24")
    assert world.states() == [("ask", "sent", None), ("ask", "cancelled", "superseded")]
    assert world.do("select exit_reason from enrolments order by anchor_at") == [("left_audience",), ("completed",)]


def test_who_orders_every_twenty_days_is_asked_once_in_thirty(world: World) -> None:
    ana = world.customer()
    ask = campaign("feedback_30d")
    for day in range(0, 121, 10):
        now = at("2026-01-01 12:00") + days(day)
        if day % 20 == 0:
            world.order(ana, f"{now - days(3):%Y-%m-%d}", delivered=f"{now - days(1):%Y-%m-%d}")
        world.plan(ask, now)
        world.deliver(ask, now=now)
    went = [row[0] for row in world.do("select handed_over_at from messages where state = 'sent' order by 1")]
    assert len(went) >= 3
    assert all(later - earlier >= days(30) for earlier, later in pairwise(went))
    assert {reason for _, state, reason in world.states() if state in ("cancelled", "skipped")} <= {
        "asked_recently",
        "superseded",
    }


def test_a_score_clicked_in_the_mail_is_a_review_and_ends_the_campaign(world: World) -> None:
    ana = world.customer()
    world.order(ana, "2026-03-01", delivered="2026-03-02")
    ask = campaign("feedback_30d")
    world.plan(ask, "2026-03-03")
    world.deliver(ask, now="2026-04-01 12:00")
    message = world.post.taken[0][0].message_id
    rated = {"kind": "rated", "message_id": str(message), "detail": {"score": 4}}
    world.do(
        "insert into event_inbox (received_at, source, dedupe_key, payload) "
        "values ('2026-04-01 13:00', 'web', 'k', cast(:p as jsonb))",
        p=json.dumps(rated),
    )
    assert world.feedback("2026-04-01 14:00")["rated"] == 1
    world.plan(ask, "2026-04-01 15:00")
    assert world.do("select exit_reason from enrolments") == [("goal_met",)]


# ---------------------------------------------------------------- we miss you


def test_a_lapsed_customer_gets_four_mails_and_then_rest(world: World) -> None:
    ana = lapsing(world)
    back = campaign("win_back")
    for day in range(0, 40):
        now = at("2026-06-01 09:30") + days(day)
        world.plan(back, now)
        world.deliver(back, now=now)
    assert world.received(ana) == ["miss_you", "whats_new", "coupon", "last_word"]
    assert world.do("select exit_reason from enrolments") == [("completed",)]
    codes = [row[0] for row in world.do("select coupon_code from messages where coupon_code is not null")]
    assert len(codes) == 1
    assert codes[0] in world.post.taken[2][0].text


def test_an_order_between_planning_and_hand_over_stops_we_miss_you(world: World) -> None:
    ana = lapsing(world)
    back = campaign("win_back")
    world.plan(back, "2026-06-01 08:30")
    world.order(ana, "2026-06-01 08:45")
    world.deliver(back, now="2026-06-01 09:30")
    assert world.received(ana) == []
    world.plan(back, "2026-06-01 10:00")
    assert world.do("select exit_reason from enrolments") == [("goal_met",)]
    assert {state for _, state, _ in world.states()} == {"cancelled"}


def test_a_dead_feed_cannot_start_or_send_a_win_back(world: World) -> None:
    ana = lapsing(world)
    back = campaign("win_back")
    world.feed_complete_until(at("2026-05-29"))
    counts = world.plan(back, "2026-06-01 08:30", fresh=False)
    assert counts["enrolled"] == 0
    assert counts["reasons"] == {"feed_stale": 1}
    world.plan(back, "2026-06-01 08:40")  # fresh again: planned
    world.feed_complete_until(at("2026-05-29"))  # and dead once more before the hand-over
    world.deliver(back, now="2026-06-01 09:30", fresh=False)
    assert world.received(ana) == []
    world.deliver(back, now="2026-06-01 12:30")
    assert world.received(ana) == ["miss_you"]


def test_win_back_refuses_segments_of_another_day(world: World) -> None:
    lapsing(world)
    back = campaign("win_back")
    world.plan(back, "2026-06-01 08:30")
    from postlude import db, enrolment

    with pytest.raises(GateClosed, match="run the segment stage"), db.transaction(world.engine) as conn:
        enrolment.enrol(conn, back, at("2026-06-08 08:30"), "late")


# ---------------------------------------------------------------- who is not written to


@pytest.mark.parametrize(
    ("person", "reason"),
    [
        ({"consent": None}, "no_consent"),
        ({"consent": False}, "no_consent"),
        ({"email": None}, "no_address"),
        ({"email": "not-an-address"}, "no_address"),
        ({"marketplace": True}, "marketplace"),
    ],
)
def test_everybody_not_written_to_has_a_stored_reason(world: World, person: dict[str, object], reason: str) -> None:
    ana = lapsing(world, **person)
    counts = world.plan(campaign("win_back"), "2026-06-01 08:30")
    assert counts["enrolled"] == 0
    assert world.do("select customer_id, reason from refusals") == [(ana, reason)]


def test_an_unsubscribe_after_planning_is_obeyed(world: World) -> None:
    ana = lapsing(world)
    back = campaign("win_back")
    world.plan(back, "2026-06-01 08:30")
    world.do("insert into suppressions (address, scope, reason, since) select address, 'marketing', 'unsubscribed', '2026-06-01 09:00' "
             "from customers")  # fmt: skip
    world.deliver(back, now="2026-06-01 09:30")
    assert world.received(ana) == []
    assert world.states()[0][1:] == ("skipped", "unsubscribed")


def test_an_unsubscribe_during_the_hand_over_is_obeyed_up_to_the_final_dot(world: World) -> None:
    ana = lapsing(world)
    back = campaign("win_back")
    world.plan(back, "2026-06-01 08:30")
    world.post.before_intent = lambda message: world.do(
        "insert into suppressions (address, scope, reason, since) select address, 'marketing', 'unsubscribed', '2026-06-01 09:30' "
        "from customers on conflict do nothing"
    )
    world.deliver(back, now="2026-06-01 09:30")
    assert world.received(ana) == []
    assert world.states()[0][1:] == ("skipped", "unsubscribed")


def test_nobody_gets_more_marketing_than_the_cap_allows(world: World) -> None:
    ana = lapsing(world)
    back = campaign("win_back")
    world.plan(back, "2026-06-01 08:30")
    world.do(
        "update messages set due_at = '2026-06-01 09:00', send_at = '2026-06-01 09:00', expires_at = '2026-06-04 09:00'"
    )
    world.deliver(back, now="2026-06-01 09:30", batch=10)
    assert len(world.received(ana)) == 3
    assert [reason for _, state, reason in world.states() if state == "scheduled"] == ["capped"]


def test_the_holdout_is_enrolled_left_alone_and_always_the_same(world: World) -> None:
    for _ in range(40):
        lapsing(world)
    half = campaign("win_back")
    half = half.model_copy(update={"audience": half.audience.model_copy(update={"holdout": 0.5})})
    counts = world.plan(half, "2026-06-01 08:30")
    assert counts["enrolled"] + counts["holdout"] == 40
    assert 5 < counts["holdout"] < 35
    assert (
        world.one("select count(*) from messages m join enrolments e using (enrolment_id) where arm = 'holdout'") == 0
    )


# ---------------------------------------------------------------- time


def test_nothing_goes_outside_the_recipients_window_or_on_a_blackout_day(world: World) -> None:
    ana = lapsing(world, zone="America/New_York")
    back = campaign("win_back")
    world.plan(back, "2026-06-01 08:30")
    world.deliver(back, now="2026-06-01 08:31")  # 04:31 in New York
    assert world.received(ana) == []
    assert world.one("select send_at from messages where step_id = 'miss_you'") == at("2026-06-01 13:00")
    from postlude.calendar import Blackout
    from world import calendar

    world.calendar = calendar(blackout_days=(Blackout(date="2026-06-01", why="x"),))
    world.deliver(back, now="2026-06-01 14:00")
    assert world.received(ana) == []
    world.deliver(back, now="2026-06-02 15:00")  # what was put off is spread over two hours
    assert world.received(ana) == ["miss_you"]


def test_a_pause_holds_and_its_end_sends_only_what_is_still_true(world: World) -> None:
    ana = lapsing(world)
    back = campaign("win_back")
    world.plan(back, "2026-06-01 08:30")
    from postlude.calendar import Pause
    from world import calendar

    world.calendar = calendar(
        pauses=(Pause.model_validate({"campaign": "all", "from": "2026-06-01", "until": "2026-06-07", "why": "x"}),)
    )
    for day in range(7):
        world.deliver(back, now=at("2026-06-01 09:30") + days(day))
    assert world.received(ana) == []
    world.deliver(back, now="2026-06-08 09:30")
    assert world.received(ana) == ["whats_new"]
    assert world.states()[0][1:] == ("expired", "too_late")


def test_whoever_a_campaign_missed_while_it_did_not_run_keeps_that_reason(world: World) -> None:
    back = campaign("win_back")
    early, missed, late = world.customer("Early"), world.customer("Missed"), world.customer("Late", consent=False)
    world.order(early, "2025-12-03")  # lapsed on 1 June, in reach of the last run before the pause
    world.order(missed, "2025-12-06")
    world.order(late, "2025-12-13")
    for day in ("2026-06-02 08:30", "2026-06-12 08:30"):  # the DAG was paused for ten days; win_back reaches back three
        counts = world.plan(back, day)
        world.do(
            "insert into runs (run_id, stage, subject, as_of, started_at, outcome) values (:id, 'enrol', 'win_back', :at, :at, 'done')",
            id=day, at=at(day),
        )  # fmt: skip
    assert counts["missed"] == 1
    assert world.do("select customer_id, reason from refusals order by 1") == [(missed, "missed"), (late, "no_consent")]
    assert world.one("select count(*) from enrolments") == 1
    assert world.plan(back, "2026-06-12 09:30")["missed"] == 0


def test_what_comes_too_late_is_expired_and_never_sent(world: World) -> None:
    ana = lapsing(world)
    back = campaign("win_back")
    world.plan(back, "2026-06-01 08:30")
    world.deliver(back, now="2026-07-30 09:30")
    assert world.received(ana) == []
    assert {(state, reason) for _, state, reason in world.states()} == {("expired", "too_late")}


def test_a_run_over_the_past_writes_history_and_sends_nothing(world: World) -> None:
    from postlude import db, enrolment

    old, young = world.customer(), world.customer()
    world.order(old, "2026-03-01", delivered="2026-03-02")
    world.order(young, "2026-05-20", delivered="2026-05-22")
    world.feed_complete_until(at("2026-06-01"))
    ask = campaign("feedback_30d")
    with db.transaction(world.engine) as conn:
        enrolment.enrol(conn, ask, at("2026-03-20"), "backfill", history_before=at("2026-06-01"))
        enrolment.enrol(conn, ask, at("2026-05-31"), "backfill", history_before=at("2026-06-01"))
        enrolment.schedule(conn, ask, world.calendar, at("2026-06-01"), "backfill")
        enrolment.release(conn, ask)
    assert world.states(old) == [("ask", "expired", "too_late")]
    assert world.states(young) == []  # still alive: left to the next run of today
    world.deliver(ask, now="2026-06-01 12:00")
    assert world.post.taken == []


# ---------------------------------------------------------------- nothing twice


def test_planning_and_delivering_again_changes_nothing(world: World) -> None:
    ana = lapsing(world)
    back = campaign("win_back")
    for _ in range(3):
        world.plan(back, "2026-06-01 08:30")
        world.deliver(back, now="2026-06-01 09:30")
    assert world.received(ana) == ["miss_you"]
    assert world.one("select count(*) from messages") == 4


def test_a_lost_answer_leaves_unknown_and_is_never_sent_again_by_itself(world: World) -> None:
    ana = lapsing(world)
    back = campaign("win_back")
    world.plan(back, "2026-06-01 08:30")
    world.post.answer = lambda message: Outcome("ambiguous", reply="connection lost after the dot")
    world.deliver(back, now="2026-06-01 09:30")
    world.post.answer = None
    for hour in range(10, 18):
        world.deliver(back, now=f"2026-06-01 {hour}:30")
    assert world.received(ana) == ["miss_you"]
    assert world.states()[0][1:] == ("unknown", "answer_lost")


def test_later_evidence_settles_an_unknown_message(world: World) -> None:
    lapsing(world)
    back = campaign("win_back")
    world.plan(back, "2026-06-01 08:30")
    world.post.answer = lambda message: Outcome("ambiguous", reply="timeout")
    world.deliver(back, now="2026-06-01 09:30")
    message = world.post.taken[0][0].message_id
    world.post.reports = [
        {"kind": "delivered", "at": "2026-06-01T09:30:05Z", "message_id": str(message), "detail": {"id": "x"}}
    ]
    assert world.feedback("2026-06-01 09:40")["settled"] == 1
    assert world.feedback("2026-06-01 09:50")["taken"] == 0  # told twice, stored once
    assert world.states()[0][1:] == ("sent", None)


def test_a_worker_killed_before_the_dot_loses_nothing_and_after_it_sends_nothing_twice(world: World) -> None:
    from postlude import outbox

    class Killed(BaseException):
        pass

    ana, ben = lapsing(world), lapsing(world)
    back = campaign("win_back")
    world.plan(back, "2026-06-01 08:30")

    def die(message: object) -> None:
        raise Killed

    world.post.before_intent = die
    with pytest.raises(Killed):
        world.deliver(back, now="2026-06-01 09:30", batch=1)
    world.post.before_intent = None
    world.post.answer = die  # type: ignore[assignment]
    with pytest.raises(Killed):
        world.deliver(back, now="2026-06-01 09:31", batch=1, worker="w2")
    world.post.answer = None
    assert outbox.recover(world.engine, at("2026-06-01 09:40")) == {"released": 0, "unknown": 0}  # leases still run
    assert outbox.recover(world.engine, at("2026-06-01 10:00")) == {"released": 1, "unknown": 1}
    world.deliver(back, now="2026-06-01 10:05", worker="w3")
    assert len(world.post.taken) == 1
    states = sorted(world.one("select array_agg(state) from messages where step_id = 'miss_you'"))
    assert states == ["sent", "unknown"]
    assert {ana, ben} == {row[0] for row in world.do("select customer_id from messages where step_id = 'miss_you'")}


def test_a_worker_that_comes_back_late_sends_nothing_and_settles_nothing(world: World) -> None:
    from postlude import outbox

    lapsing(world)
    back = campaign("win_back")
    world.plan(back, "2026-06-01 08:30")

    def steal(message: object) -> None:
        world.post.before_intent = None
        outbox.recover(world.engine, at("2026-06-01 10:00"))
        world.deliver(back, now="2026-06-01 10:01", worker="w2")

    world.post.before_intent = steal
    counts = world.deliver(back, now="2026-06-01 09:30", worker="w1")
    assert len(world.post.taken) == 1
    assert counts["lost_claim"] == 1
    assert world.states()[0][1:] == ("sent", None)


def test_a_dead_relay_costs_no_attempts_and_blames_nobody(world: World) -> None:
    for _ in range(3):
        lapsing(world)
    back = campaign("win_back")
    world.plan(back, "2026-06-01 08:30")
    world.post.answer = lambda message: Outcome("deferred", scope="relay", reply="connection refused")
    for hour in range(10, 20):
        counts = world.deliver(back, now=f"2026-06-01 {hour}:00")
        assert counts.get("failed", 0) == 0
    world.post.answer = None
    world.deliver(back, now="2026-06-02 09:30")
    assert len(world.post.taken) == 3
    assert world.one("select count(*) from suppressions") == 0


def test_only_the_recipients_own_fault_suppresses_the_address(world: World) -> None:
    lapsing(world)
    back = campaign("win_back")
    world.plan(back, "2026-06-01 08:30")
    world.post.answer = lambda message: Outcome("refused", scope="policy", reply="5.7.1 no")
    world.deliver(back, now="2026-06-01 09:30")
    assert world.states()[0][1:] == ("failed", "refused_policy")
    assert world.one("select count(*) from suppressions") == 0
    world.post.answer = lambda message: Outcome("refused", scope="recipient", reply="5.1.1 no such user", suppress=True)
    world.deliver(back, now="2026-06-07 09:30")
    assert world.one("select reason from suppressions") == "hard_bounce"
    world.post.answer = None
    world.deliver(back, now="2026-06-14 09:30")
    assert world.post.taken == []


def test_a_bounce_in_the_mailbox_suppresses_only_the_person_it_is_signed_for(world: World, tmp_path: Path) -> None:
    from postlude import db, feedback, tokens

    ana, ben = lapsing(world), lapsing(world)
    back = campaign("win_back")
    world.plan(back, "2026-06-01 08:30")
    world.deliver(back, now="2026-06-01 09:30")
    [mine] = [m.message_id for m, _ in world.post.taken if m.recipient.address.startswith("1@")]
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "1").write_bytes(dsn(to=tokens.bounce_address(mine, "bounces.shop.example")))
    (tmp_path / "new" / "2").write_bytes(dsn(to="b+" + "a" * 26 + "." + "b" * 20 + "@bounces.shop.example"))  # forged
    for _ in range(2):  # read twice, counted once
        with db.transaction(world.engine) as conn:
            counts, read = feedback.collect_mailbox(conn, tmp_path, at("2026-06-01 12:00"))
            feedback.apply(conn, at("2026-06-01 12:05"))
        assert (counts["bounce"], len(read)) == (2, 2)
    assert world.do("select address, reason from suppressions") == [("1@customers.example", "hard_bounce")]
    assert world.do("select problem from event_inbox where problem is not null") == [("unknown message",)]
    world.deliver(back, now="2026-06-07 09:30")
    assert world.received(ana) == ["miss_you"]
    assert world.received(ben) == ["miss_you", "whats_new"]


# ---------------------------------------------------------------- welcome to the club


def test_crossing_the_loyalty_threshold_invites_once_in_a_lifetime(world: World) -> None:
    ana = world.customer()
    world.order(ana, "2026-05-01", amount=100)
    world.order(ana, "2026-05-31 20:00", amount=250)
    join = campaign("loyalty_join")
    for day in range(5):
        now = at("2026-06-01 09:30") + days(day)
        world.plan(join, now)
        world.deliver(join, now=now)
    world.order(ana, "2026-06-08", amount=500)
    world.plan(join, "2026-06-09 09:30")
    world.deliver(join, now="2026-06-09 09:30")
    assert world.received(ana) == ["invite"]


def test_nothing_is_sent_over_a_connection_that_forgets_commits(world: World, database: object) -> None:
    from postlude import db
    from postlude.errors import InputError

    lapsing(world)
    back = campaign("win_back")
    world.plan(back, "2026-06-01 08:30")
    world.do(f'alter role postgres in database "{database.database}" set synchronous_commit = off')  # type: ignore[attr-defined]
    forgetful = db.create_engine(db._psycopg(database), connect_args={"options": "-csearch_path=postlude,public"})  # type: ignore[arg-type]
    world.engine = forgetful
    with pytest.raises(InputError, match="synchronous_commit is off"):
        world.deliver(back, now="2026-06-01 09:30", fresh=False)
    assert world.post.taken == []
    forgetful.dispose()
