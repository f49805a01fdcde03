"""Contact pressure across campaigns: who goes, who waits, and why; whatever the order of planning and the number of workers."""

from __future__ import annotations

import itertools
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as tuned
from hypothesis import strategies as st
from sqlalchemy import Engine

from crowd import due, people, plain
from postlude import db
from postlude.calendar import Cap, Pause, Pressure, Window
from postlude.message import Outcome
from world import World, at, calendar, days

OPEN = Window(opens="00:00", closes="23:59")  # type: ignore[arg-type]
SLOW = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


@pytest.fixture
def world(engine: Engine) -> World:
    made = World(engine)
    press(made, {"caps": []})
    return made


def press(world: World, pressure: dict[str, Any], **more: Any) -> None:
    world.calendar = calendar(
        pressure=Pressure.model_validate(pressure), window=OPEN, windows={}, blackout_days=(), **more
    )


def forget(world: World) -> None:
    """A new example in the same database."""
    world.do("truncate messages, attempts, enrolments, campaign_versions cascade")
    world.post.taken.clear()


def outcome(world: World) -> list[tuple[Any, ...]]:
    return [
        tuple(row)
        for row in world.do(
            "select campaign_id, customer_id, state, reason, detail, send_at from messages order by 1, 2"
        )
    ]


# ---------------------------------------------------------------- who wins


def test_priority_then_deadline_decides_and_the_loser_names_the_winner(world: World) -> None:
    (ana,) = people(world, 1)
    press(world, {"caps": [{"most": 1, "within": "7 days"}]})
    now = at("2026-06-01 10:00")
    news, urgent, dear = plain("news"), plain("urgent"), plain("dear", priority=2)
    due(world, news, [ana], now, days(9))
    due(world, urgent, [ana], now, days(8))
    world.deliver(news, urgent, dear, now="2026-06-01 09:59")
    due(world, dear, [ana], now, days(20))
    world.deliver(news, urgent, dear, now=now)
    won = "dear/miss_you (at most 1 in 1 week)"
    assert [row[:5] for row in outcome(world)] == [
        ("dear", ana, "sent", None, "250 ok"),
        ("news", ana, "scheduled", "capped", won),
        ("urgent", ana, "scheduled", "capped", won),
    ]
    free = now + days(7)
    assert all(free <= row[5] <= free + timedelta(hours=2) for row in outcome(world)[1:])
    world.deliver(news, urgent, now=free + timedelta(hours=3))
    assert [row[:4] for row in outcome(world)] == [
        ("dear", ana, "sent", None),
        ("news", ana, "scheduled", "capped"),
        ("urgent", ana, "sent", None),
    ]
    assert outcome(world)[1][4] == "urgent/miss_you (at most 1 in 1 week)"
    world.deliver(news, now=now + days(9))
    assert outcome(world)[1][2:5] == ("expired", "capped", "urgent/miss_you (at most 1 in 1 week)")


def test_when_full_skip_means_it_is_not_sent_at_all(world: World) -> None:
    (ana,) = people(world, 1)
    press(world, {"caps": [{"most": 1, "within": "7 days"}], "when_full": "skip"})
    for name in ("first", "second"):
        due(world, plain(name), [ana], at("2026-06-01 10:00"), days(3 if name == "first" else 4))
    world.deliver(plain("first"), plain("second"), now="2026-06-01 10:00")
    assert outcome(world)[1][2:5] == ("skipped", "capped", "first/miss_you (at most 1 in 1 week)")


def test_transactional_mail_is_never_capped_and_never_counts(world: World) -> None:
    (ana,) = people(world, 1)
    press(world, {"caps": [{"most": 1, "within": "7 days"}], "gap": "12 hours"})
    notices = [plain(f"notice_{n}", kind="transactional") for n in range(3)]
    offer = plain("offer")
    for planned in (*notices, offer):
        due(world, planned, [ana], at("2026-06-01 10:00"), days(3))
    world.deliver(*notices, offer, now="2026-06-01 10:00")
    assert {row[2] for row in outcome(world)} == {"sent"}


def test_a_message_whose_fate_is_unknown_counts(world: World) -> None:
    (ana,) = people(world, 1)
    press(world, {"caps": [{"most": 1, "within": "7 days"}]})
    due(world, plain("lost"), [ana], at("2026-06-01 10:00"), days(3))
    world.post.answer = lambda message: Outcome("ambiguous", reply="lost")
    world.deliver(plain("lost"), now="2026-06-01 10:00")
    due(world, plain("next"), [ana], at("2026-06-02 10:00"), days(3))
    world.deliver(plain("next"), now="2026-06-02 10:00")
    assert [row[2:4] for row in outcome(world)] == [("unknown", "answer_lost"), ("scheduled", "capped")]


def test_a_cap_of_a_topic_limits_that_topic_only(world: World) -> None:
    (ana,) = people(world, 1)
    press(world, {"caps": [{"most": 1, "within": "30 days", "topic": "survey"}, {"most": 3, "within": "7 days"}]})
    asks = [plain(f"ask_{n}", topic="survey") for n in range(2)]
    offers = [plain(f"offer_{n}") for n in range(2)]
    for planned in (*asks, *offers):
        due(world, planned, [ana], at("2026-06-01 10:00"), days(3))
    world.deliver(*asks, *offers, now="2026-06-01 10:00")
    assert [row[2] for row in outcome(world)].count("sent") == 3
    assert outcome(world)[1][4].endswith("(at most 1 in 30 days, survey)") or outcome(world)[0][4].endswith("survey)")


def test_the_end_of_a_pause_is_no_burst(world: World) -> None:
    everybody = people(world, 120)
    pause = Pause.model_validate({"campaign": "all", "from": "2026-06-01", "until": "2026-06-02", "why": "stocktaking"})
    press(world, {"caps": []}, pauses=(pause,))
    due(world, plain("first"), everybody, at("2026-06-01 10:00"), days(5))
    assert world.deliver(plain("first"), now="2026-06-02 23:59") == {}
    at_once = world.deliver(plain("first"), now="2026-06-03 00:00")
    assert at_once["scheduled:paused"] > 110
    gone = [len(world.post.taken)]
    for minutes in range(20, 121, 20):
        world.deliver(plain("first"), now=at("2026-06-03 00:00") + timedelta(minutes=minutes))
        gone.append(len(world.post.taken))
    assert gone[-1] == len(everybody)
    assert all(5 <= later - before <= 40 for before, later in itertools.pairwise(gone))


def test_several_campaigns_share_the_budget_for_asking_one_person(world: World) -> None:
    ana, ben = people(world, 2)
    press(world, {"caps": [{"most": 1, "within": "30 days", "campaigns": ["ask", "review"]}]})
    ask, review, offer = plain("ask"), plain("review", topic="survey"), plain("offer")
    due(world, ask, [ana], at("2026-06-01 10:00"), days(2))
    due(world, review, [ana, ben], at("2026-06-01 10:00"), days(60))
    due(world, offer, [ana], at("2026-06-01 10:00"), days(3))
    world.deliver(ask, review, offer, now="2026-06-01 10:00")
    budget = "ask/miss_you (at most 1 in 30 days, ask and review)"
    assert [row[:5] for row in outcome(world)] == [
        ("ask", ana, "sent", None, "250 ok"),
        ("offer", ana, "sent", None, "250 ok"),
        ("review", ana, "scheduled", "capped", budget),
        ("review", ben, "sent", None, "250 ok"),
    ]
    world.deliver(ask, review, offer, now="2026-07-01 13:00")
    assert world.received(ana) == ["miss_you"] * 3


def test_a_day_of_the_calendar_is_the_recipients_day_and_a_rolling_day_is_not(world: World) -> None:
    (ana,) = people(world, 1, zone="Asia/Seoul")
    late, early = at("2026-06-01 14:30"), at("2026-06-01 15:30")  # 23:30 in Seoul, and 00:30 the day after
    for pressure, second in (({"most": 1, "per": "day"}, "sent"), ({"most": 1, "within": "1 day"}, "scheduled")):
        forget(world)
        press(world, {"caps": [pressure]})
        due(world, plain("first"), [ana], late, days(3))
        due(world, plain("second"), [ana], early, days(3))
        world.deliver(plain("first"), plain("second"), now=late)
        world.deliver(plain("first"), plain("second"), now=early)
        assert [row[2] for row in outcome(world)] == ["sent", second]


def test_what_was_put_off_is_spread_and_not_released_in_one_burst(world: World) -> None:
    everybody = people(world, 300)
    press(world, {"caps": [{"most": 1, "within": "1 day"}]})
    due(world, plain("first"), everybody, at("2026-06-01 10:00"), days(3))
    due(world, plain("second"), everybody, at("2026-06-01 10:00"), days(4))
    world.deliver(plain("first"), plain("second"), now="2026-06-01 10:00")
    minutes = world.do(
        "select floor(extract(epoch from send_at - '2026-06-02 10:00') / 600)::int, count(*) from messages "
        "where state = 'scheduled' group by 1"
    )
    assert {row[0] for row in minutes} == set(range(12))  # two hours, in tens of minutes
    assert max(row[1] for row in minutes) < 60


def test_the_feedback_budget_of_a_person_is_given_to_the_oldest_deadline(world: World) -> None:
    (ana,) = people(world, 1)
    ask = plain("ask", at_most_every=days(30))
    for number, life in enumerate((5, 3, 4)):
        due(world, ask, [ana], at("2026-06-01 10:00"), days(life), anchor=f"order:{number}")
    world.deliver(ask, now="2026-06-01 10:00")
    rows = world.do(
        "select e.anchor_key, m.state, m.reason, m.detail from messages m join enrolments e using (enrolment_id) order by 1"
    )
    assert [tuple(row) for row in rows] == [
        ("order:0", "skipped", "asked_recently", "ask/miss_you"),
        ("order:1", "sent", None, "250 ok"),
        ("order:2", "skipped", "asked_recently", "ask/miss_you"),
    ]


# ---------------------------------------------------------------- properties

PLANS = st.lists(
    st.tuples(
        st.integers(1, 3),  # priority
        st.integers(1, 96),  # hours of life
        st.integers(0, 60),  # hours until due
        st.sampled_from(["marketing", "survey"]),
    ),
    min_size=2,
    max_size=7,
)
RULES = st.fixed_dictionaries(
    {
        "caps": st.lists(
            st.one_of(
                st.builds(lambda m, h: {"most": m, "within": f"{h} hours"}, st.integers(1, 3), st.integers(1, 72)),
                st.builds(lambda m, p: {"most": m, "per": p}, st.integers(1, 3), st.sampled_from(["day", "week", "month"])),
                st.builds(lambda m, h: {"most": m, "within": f"{h} hours", "topic": "survey"}, st.integers(1, 2), st.integers(1, 72)),
            ),
            max_size=3,
        ),
        "gap": st.sampled_from(["0 hours", "1 hour", "12 hours"]),
        "when_full": st.sampled_from(["defer", "skip"]),
    }
)  # fmt: skip


@tuned(max_examples=12, **SLOW)
@given(plans=PLANS, rules=RULES, data=st.data())
def test_the_order_in_which_campaigns_were_planned_changes_nothing(
    world: World, plans: list[tuple[int, int, int, str]], rules: dict[str, Any], data: st.DataObject
) -> None:
    start = at("2026-03-27 10:00")
    campaigns = [plain(f"c{n}", priority=p, topic=topic) for n, (p, _, _, topic) in enumerate(plans)]
    press(world, rules)
    found = []
    world.do("delete from consents")
    world.do("truncate customers cascade")
    (ana,) = people(world, 1, zone="Europe/Berlin")
    for order in (range(len(plans)), data.draw(st.permutations(range(len(plans))))):
        forget(world)
        for n in order:
            _, life, wait, _ = plans[n]
            due(world, campaigns[n], [ana], start + timedelta(hours=wait), timedelta(hours=life))
        now = start
        while (next_at := world.one("select min(send_at) from messages where state = 'scheduled'")) is not None:
            now = max(now, next_at)
            world.deliver(*[campaigns[n] for n in order], now=now, batch=1)
        found.append(outcome(world))
    assert found[0] == found[1]


@tuned(max_examples=20, **SLOW)
@given(
    plans=PLANS,
    rules=RULES,
    zone=st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Seoul"]),
    start=st.sampled_from(
        ["2026-03-28 00:30", "2026-10-24 22:10", "2026-03-07 20:00", "2026-10-31 23:50", "2026-04-04 13:00"]
    ),
)
def test_no_cap_is_ever_exceeded_also_on_days_of_23_and_25_hours(
    world: World, plans: list[tuple[int, int, int, str]], rules: dict[str, Any], zone: str, start: str
) -> None:
    forget(world)
    world.do("truncate customers cascade")
    (ana,) = people(world, 1, zone=zone)
    press(world, rules)
    campaigns = [plain(f"c{n}", priority=p, topic=topic) for n, (p, _, _, topic) in enumerate(plans)]
    for planned, (_, life, wait, _) in zip(campaigns, plans, strict=True):
        due(world, planned, [ana], at(start) + timedelta(hours=wait), timedelta(hours=life))
    took: list[tuple[datetime, str]] = []  # the oracle: what the channel took and when, not what the database says
    topics = {planned.id: planned.topic for planned in campaigns}
    now = at(start)
    while (next_at := world.one("select min(send_at) from messages where state = 'scheduled'")) is not None:
        now = max(now, next_at)
        before = len(world.post.taken)
        world.deliver(*campaigns, now=now)
        took += [(now, topics[message.campaign_id]) for message, _ in world.post.taken[before:]]
    pressure = Pressure.model_validate(rules)
    gap = [Cap(most=1, within=pressure.gap)] if pressure.gap else []  # type: ignore[call-arg]
    for cap in (*pressure.caps, *gap):
        moments = [moment for moment, topic in took if cap.topic in (None, topic)]
        if cap.within:
            for moment in moments:
                assert len([m for m in moments if moment <= m < moment + cap.within]) <= cap.most
        else:
            local = [m.astimezone(ZoneInfo(zone)).date() for m in moments]
            for day in local:
                same = {
                    "day": lambda d: d,
                    "week": lambda d: d.isocalendar()[:2],
                    "month": lambda d: (d.year, d.month),
                }[cap.per]  # type: ignore[index]
                assert len([d for d in local if same(d) == same(day)]) <= cap.most
    if not pressure.caps and not pressure.gap:
        assert len(took) == len(plans)
    assert {row[2] for row in outcome(world)} <= {"sent", "skipped", "expired"}  # nothing hangs
    assert all(row[3] and row[4] for row in outcome(world) if row[2] == "skipped")


# ---------------------------------------------------------------- real threads


def test_four_workers_at_once_exceed_no_cap(world: World) -> None:
    everybody = people(world, 500)
    press(world, {"caps": [{"most": 2, "within": "7 days"}]})
    campaigns = [plain(f"c{n}") for n in range(4)]
    for planned in campaigns:
        due(world, planned, everybody, at("2026-06-01 10:00"), days(3))
    world.feed_complete_until(at("2026-06-01 10:00"))
    with ThreadPoolExecutor(4) as pool:
        counts = list(
            pool.map(
                lambda n: world.deliver(*campaigns, now="2026-06-01 10:00", fresh=False, worker=f"w{n}", batch=40),
                range(4),
            )
        )
    got: dict[str, int] = defaultdict(int)
    for message, _ in world.post.taken:
        got[str(message.recipient)] += 1
    assert len(got) == 500
    assert set(got.values()) == {2}
    assert sum(count.get("sent", 0) for count in counts) == 1000
    assert sum(1 for count in counts if count.get("sent")) > 1, "more than one worker took part"
    assert (
        world.one(
            "select count(*) from messages where state = 'scheduled' and reason = 'capped' and detail like 'c%/miss_you (%'"
        )
        == 1000
    )


def test_two_workers_never_hold_the_same_customer(world: World) -> None:
    everybody = people(world, 6)
    for name in ("first", "second"):
        due(world, plain(name), everybody, at("2026-06-01 10:00"), days(3))
    mail = {
        "channel": "email", "campaigns": ["first", "second"], "now": at("2026-06-01 10:00"), "stopped_shops": [], "silent_shops": [],
        "shard": 0, "shards": 1,
    }  # fmt: skip
    with db.transaction(world.engine) as one, db.transaction(world.engine) as other:
        held = set(db.run(one, "40_lock_due", **mail, batch=5).scalars())
        others = set(db.run(other, "40_lock_due", **mail, batch=100).scalars())
        assert held
        assert others
        assert not held & others
        assert held | others == set(everybody)
