"""Marketers change the calendar: each change is a revision over the file, and the engine obeys it from that instant on."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from postlude import calendar, db, pipeline
from postlude.calendar import Conflict
from postlude.errors import InputError
from world import World, at, campaign, days

PAUSE = {"do": "pause", "campaign": "win_back", "from": "2026-06-02", "until": "2026-06-08"}
CLOSED = {"do": "add_blackout", "date": "2026-06-05"}


@pytest.fixture
def world(engine: Engine) -> World:
    return World(engine)


def change(world: World, when: str, *edits: dict[str, Any], by: str = "ana", base: int | None = None) -> int:
    with db.transaction(world.engine) as conn:
        known = calendar.head(conn) if base is None else base
        draft = calendar.propose(conn, edits, by=by, why="summer", base=known, now=at(when))
        return calendar.save(conn, draft, at(when))


def in_force(world: World, when: str) -> calendar.Calendar:
    with db.transaction(world.engine) as conn:
        return calendar.effective(conn, at(when))


def test_a_change_holds_from_its_instant_on_over_the_file_and_can_be_taken_back(world: World) -> None:
    file = in_force(world, "2026-06-01")
    paused = change(world, "2026-06-01 10:00", PAUSE)
    change(world, "2026-06-01 12:00", CLOSED, by="ben")
    assert in_force(world, "2026-06-01 09:59") == file
    assert [p.campaign for p in in_force(world, "2026-06-01 11:00").pauses] == ["win_back"]
    assert date(2026, 6, 5) not in in_force(world, "2026-06-01 11:00").blackouts
    assert date(2026, 6, 5) in in_force(world, "2026-06-01 13:00").blackouts

    with db.transaction(world.engine) as conn:
        taken_back = calendar.revert(conn, paused, by="ana", why="wrong week", now=at("2026-06-02 08:00"))
    now = in_force(world, "2026-06-02 08:00")
    assert now.pauses == () and date(2026, 6, 5) in now.blackouts  # what the others changed stays
    assert in_force(world, "2026-06-01 13:00").pauses  # and the past keeps what held then
    with db.transaction(world.engine) as conn:
        story = calendar.history(conn)
        told = [(r.author, r.kind, r.words, r.reverted_by) for r in story]
        assert told == [
            ("ana", "revert", ["win_back is not paused from 2026-06-02 to 2026-06-08"], None),
            ("ben", "edit", ["2026-06-05 is a day without marketing (summer)"], None),
            ("ana", "edit", ["win_back is paused from 2026-06-02 to 2026-06-08 (summer)"], taken_back),
        ]
        with pytest.raises(InputError, match="taken back by revision"):
            calendar.revert(conn, paused, by="ana", why="again", now=at("2026-06-02 09:00"))
    change(world, "2026-06-03 08:00", {"do": "remove_blackout", "date": "2026-06-05"})
    assert in_force(world, "2026-06-03 08:00").content_hash == file.content_hash
    for statement in ("update calendar_revisions set why = 'x'", "delete from calendar_revisions"):
        with pytest.raises(DBAPIError, match="append-only"):
            world.do(statement)


def test_of_two_editors_the_second_is_told_what_the_first_changed(world: World) -> None:
    with db.transaction(world.engine) as conn:
        mine = calendar.propose(conn, [PAUSE], by="ana", why="a", base=0, now=at("2026-06-01 10:00"))
    first = change(world, "2026-06-01 10:01", {**PAUSE, "until": "2026-06-20"}, CLOSED, by="ben", base=0)
    for late in ("save", "propose"):
        with db.transaction(world.engine) as conn, pytest.raises(Conflict) as told:
            if late == "save":
                calendar.save(conn, mine, at("2026-06-01 10:02"))
            else:
                calendar.propose(conn, [PAUSE], by="ana", why="a", base=0, now=at("2026-06-01 10:02"))
        assert (told.value.base, told.value.head) == (0, first)
        assert told.value.overlap == ["pauses/win_back/2026-06-02"]
        assert "win_back is paused from 2026-06-02 to 2026-06-20 (summer)" in told.value.words
    # taking back what somebody else has changed since is a conflict as well
    change(world, "2026-06-01 11:00", {"do": "resume", "campaign": "win_back", "on": "2026-06-10"})
    with db.transaction(world.engine) as conn, pytest.raises(Conflict):
        calendar.revert(conn, first, by="ana", why="x", now=at("2026-06-01 12:00"))


IMPOSSIBLE: list[tuple[list[dict[str, Any]], str]] = [
        ([{**PAUSE, "until": "2026-06-31"}], '"2026-06-31" is not a date'),
        ([{**PAUSE, "until": "2026-06-01"}], "ends .* before it begins"),
        ([{**PAUSE, "campaign": "winback"}], 'no campaign "winback"; did you mean "win_back"'),
        ([PAUSE, {**PAUSE, "from": "2026-06-04"}], "overlaps the pause from 2026-06-02 to 2026-06-08"),
        ([CLOSED, CLOSED], "is a blackout day already"),
        ([{"do": "resume", "campaign": "win_back", "on": "2026-06-03"}], "is not paused"),
        ([{"do": "window", "opens": "20:00", "closes": "09:00"}], "must open first"),
        ([{"do": "cap", "most": 2}], 'either "within"'),
        ([{"do": "move", "campaign": "win_back", "step": "coupon", "on_day": 2}], "in the order of time"),
        ([{"do": "move", "campaign": "win_back", "step": "cupon", "on_day": 20}], 'no step "cupon"'),
        ([{"do": "move", "campaign": "feedback_30d", "step": "ask", "on_day": 10, "in_flight": "migrate"}], "all of them would lose it"),
        ([{"do": "move", "campaign": "feedback_30d", "step": "ask", "on_day": 30, "at": "22:00"}], "outside the send window"),
        ([{"do": "offer", "id": "sale", "name": "Sale", "date": "2026-07-01", "until": "2026-06-30", "segment": "active",
           "template": "win_back/coupon"}], "before it is sent"),
        ([{"do": "card", "id": "xmas", "name": "Card", "date": "2026-12-25", "segment": "actve", "template": "win_back/x"}],
         "(?s)no segment.*no template.*no mail may go"),
        ([{"do": "card", "id": "win_back", "name": "<script>alert(1)</script>", "date": "2026-07-01", "segment": "active",
           "template": "win_back/miss_you"}], 'a campaign "win_back" already'),
        ([{"do": "paus", "campaign": "win_back"}], 'did you mean "pause"'),
        ([{"do": "pause", "campaign": "win_back", "from": "2026-06-02", "until": "2026-06-03", "colour": "red"}], "unknown key"),
        ([], "changes nothing"),
]  # fmt: skip


def test_what_cannot_be_is_refused_with_the_cure(world: World) -> None:
    for edits, told in IMPOSSIBLE:
        with db.transaction(world.engine) as conn, pytest.raises(InputError, match=told):
            calendar.propose(conn, edits, by="ana", why="x", base=0, now=at("2026-06-01"))


@pytest.mark.parametrize("choice", ["finish", "migrate", "stop"])
def test_a_moved_delay_holds_for_new_passages_and_does_with_those_in_flight_as_was_chosen(
    world: World, choice: str
) -> None:
    asks = campaign("feedback_30d")
    old, new = world.customer("Old"), world.customer("New")
    world.order(old, "2026-04-28", delivered="2026-05-03 12:00")
    world.plan(asks, "2026-05-10 06:00")
    change(
        world, "2026-05-11 08:00",
        {"do": "move", "campaign": "feedback_30d", "step": "ask", "on_day": 37, "in_flight": choice},
    )  # fmt: skip
    world.calendar = in_force(world, "2026-05-12 06:00")
    moved = calendar.steered(asks, world.calendar)
    world.order(new, "2026-05-01", delivered="2026-05-06 12:00")
    with db.transaction(world.engine) as conn:
        from postlude import enrolment

        assert enrolment.must_move(conn, moved, world.calendar) is (choice != "finish")
    counts = world.plan(moved, "2026-05-12 06:00")
    assert counts["planned"] == 1
    again = world.plan(moved, "2026-05-12 06:00")
    assert (again["planned"], again.get("moved", 0), again.get("stopped", 0)) == (0, 0, 0)
    due = dict(world.do("select customer_id, cast(due_at as date) from messages"))
    assert due[new] == date(2026, 6, 12)
    assert due[old] == {"finish": date(2026, 6, 2), "migrate": date(2026, 6, 9), "stop": date(2026, 6, 2)}[choice]
    for day in range(30):
        world.deliver(moved, now=at("2026-06-01 10:30") + days(day))
    assert world.received(new) == ["ask"]
    assert world.received(old) == ([] if choice == "stop" else ["ask"])
    if choice == "stop":
        assert world.states(old) == [("ask", "cancelled", "step_moved")]
    if choice == "migrate":  # what it looked like before is kept
        assert world.do("select cast(due_at as date), cast(at as date) from message_moves") == [
            (date(2026, 6, 2), date(2026, 5, 12))
        ]


def test_planning_and_hand_over_read_the_calendar_of_their_instant(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "default_engine", lambda: world.engine)
    monkeypatch.setattr(pipeline.delivery, "channel", lambda name: world.post)
    for _ in range(3):  # one of them is in the control group
        world.order(world.customer(), "2025-12-03")
    back = next(file for file in pipeline.campaign_files() if "win_back" in file)

    def plan(when: str) -> None:
        world.feed_complete_until(at(when))
        pipeline.derive_features(at(when), when, "test")
        pipeline.update_segments(at(when), when, "test")
        pipeline.enrol(back, at(when), when, "test")
        pipeline.schedule(back, at(when), when, "test")
        pipeline.release(back, at(when), when, "test")

    plan("2026-06-01 06:00")
    ana = world.one("select min(customer_id) from enrolments where arm = 'treated'")
    change(
        world, "2026-06-01 06:30", {"do": "pause", "campaign": "win_back", "from": "2026-06-01", "until": "2026-06-02"}
    )
    pipeline.deliver(lambda: at("2026-06-01 12:00"), "w", "r1", "test")
    assert world.received(ana) == []
    change(world, "2026-06-01 12:30", {"do": "resume", "campaign": "win_back", "on": "2026-06-01"})
    world.feed_complete_until(at("2026-06-01 13:00"))
    pipeline.deliver(lambda: at("2026-06-01 13:00"), "w", "r2", "test")
    assert world.received(ana) == ["miss_you"]
    # a delay moved in mid-flight: the next delivery already knows it
    change(
        world,
        "2026-06-02 08:00",
        {"do": "move", "campaign": "win_back", "step": "whats_new", "on_day": 9, "in_flight": "migrate"},
    )
    world.feed_complete_until(at("2026-06-07 12:00"))
    pipeline.deliver(lambda: at("2026-06-07 12:00"), "w", "r3", "test")
    assert world.received(ana) == ["miss_you"]
    assert world.one(
        "select cast(due_at as date) from messages where step_id = 'whats_new' and customer_id = :c", c=ana
    ) == date(2026, 6, 10)


def test_a_special_offer_of_the_calendar_goes_once_to_its_segment(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "default_engine", lambda: world.engine)
    monkeypatch.setattr(pipeline.delivery, "channel", lambda name: world.post)
    active, lapsed = world.customer("Ana"), world.customer("Ben")
    world.order(active, "2026-05-01")
    world.order(active, "2026-05-20")
    world.order(lapsed, "2025-01-01")
    change(
        world, "2026-05-25",
        {"do": "offer", "id": "june_sale", "name": "June sale", "date": "2026-06-01", "until": "2026-06-03", "segment": "active",
         "template": "win_back/whats_new", "at": "11:00"},
    )  # fmt: skip
    assert pipeline.one_off_campaigns(at("2026-05-28")) == []
    for day in range(4):
        now = at("2026-05-31 06:00") + timedelta(days=day)
        world.feed_complete_until(now)
        pipeline.derive_features(now, f"d{day}", "test")
        pipeline.update_segments(now, f"d{day}", "test")
        for name in pipeline.one_off_campaigns(now):
            pipeline.enrol(name, now, f"d{day}", "test")
            pipeline.schedule(name, now, f"d{day}", "test")
            pipeline.release(name, now, f"d{day}", "test")
        pipeline.deliver(lambda now=now: now + timedelta(hours=6), f"w{day}", f"d{day}", "test")
    assert (world.received(active), world.received(lapsed)) == (["offer"], [])
    assert world.do("select campaign_id, cast(handed_over_at as date), state from messages") == [
        ("june_sale", date(2026, 6, 1), "sent")
    ]
