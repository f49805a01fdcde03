"""What went wrong stops promotions until it is put right; gifts fall by lot within a budget; answers are counted honestly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import Engine

from postlude import db, recovery
from postlude.errors import InputError
from postlude.loyalty_rules import load_loyalty
from test_happenings import events, note, over, tell
from world import World, at, campaign
from written import written

EXTERNAL = "{external: quiz_done, entry: existing, max_age: 20 days, once_per: episode}"


@pytest.fixture
def world(engine: Engine) -> World:
    return World(engine)


def rate(world: World, order: int, score: int, when: str) -> None:
    world.do(
        "insert into reviews (order_id, review_key, score, created_at) values (:o, :key, :s, :at)",
        o=order,
        key=when,
        s=score,
        at=at(when),
    )


def test_a_bad_answer_opens_a_case_that_stops_promotions_until_a_good_one(world: World, tmp_path: Path) -> None:
    ana = world.customer()
    order = world.order(ana, "2026-02-10", delivered="2026-02-14")
    tell(world, ana, "quiz_done", "2026-02-20")
    promotion = written(tmp_path, EXTERNAL, more="exit_on: []", name="promo")
    letter = written(tmp_path, "{external: recovery_opened, entry: existing, max_age: 5 days, once_per: episode}",
                     more="stop_while: []\nexit_on: [over]\ngoal: over", name="sorry")  # fmt: skip
    world.plan(promotion, "2026-02-20 08:00")  # planned before anything was wrong
    rate(world, order, 2, "2026-02-20 09:00")
    assert [note(world, "2026-02-20 12:00")["recovery_opened"] for _ in "12"] == [1, 0]
    ((_, _, detail),) = events(world, "recovery_opened")
    assert (detail["cause"], detail["score"], detail["owner"], detail["make_good"]) == (
        "low_score",
        2,
        "Mira Sommer",
        True,
    )
    world.deliver(promotion, now="2026-02-20 12:30")
    assert world.states(ana) == [("one", "skipped", "recovery_open")]
    # at planning too, with the stored reason
    tell(world, ana, "quiz_done", "2026-02-21")
    world.plan(promotion, "2026-02-21 12:00")
    assert world.one("select reason from refusals where reason = 'recovery_open'")
    world.plan(letter, "2026-02-20 13:00")
    assert world.one("select count(*) from enrolments where campaign_id = 'sorry'") == 1
    rate(world, order, 5, "2026-02-22 09:00")
    note(world, "2026-02-22 12:00")
    assert over(world, "recovery_opened", "2026-02-22 12:00") == [True]
    assert world.plan(promotion, "2026-02-22 13:00")["enrolled"] == 1  # promotions go on


def test_late_damaged_and_unrefunded_open_cases_with_their_owners_and_few_coupons(world: World) -> None:
    ana = world.customer()
    world.order(ana, "2026-01-01", delivered="2026-01-03")
    late = world.order(ana, "2026-02-01", delivered="2026-02-20")
    world.do("update orders set promised_on = '2026-02-10', paid_at = placed_at where order_id = :o", o=late)
    good = world.order(ana, "2026-02-01", delivered="2026-02-14")
    world.do(
        "update orders set promised_on = '2026-02-10', paid_at = placed_at where order_id = :o", o=good
    )  # four days: bearable
    tell(world, ana, "damaged", "2026-02-21", order=good)
    world.do("insert into returns values (:o, 'r', 'mug', '2026-02-01', '2026-02-16')", o=good)
    note(world, "2026-03-01")
    note(world, "2026-03-01")
    rows = world.do("select cause, owner, make_good from recoveries order by at")
    assert rows == [("late", "Mira Sommer", True), ("damaged", "Mira Sommer", True), ("refund_late", "Jon Park", False)]


def test_a_case_is_put_right_by_hand_only_with_a_good_score_or_after_long_silence(world: World) -> None:
    ana = world.customer()
    tell(world, ana, "damaged", "2026-02-21")
    note(world, "2026-02-22")
    case = world.one("select recovery_id from recoveries")
    for score, when, words in ((3, "2026-02-23", "does not put it right"), (None, "2026-02-23", "from 2026-05-23 on")):
        with pytest.raises(InputError, match=words), db.transaction(world.engine) as conn:
            recovery.resolve(conn, case, at(when), "mira", score=score, why="called")
    with db.transaction(world.engine) as conn:
        recovery.resolve(conn, case, at("2026-02-24"), "mira", score=5, why="sent a new one")
        assert recovery.cases(conn) == []
        assert recovery.cases(conn, everything=True)[0]["resolution"] == "score 5 of 5: sent a new one"


# ---------------------------------------------------------------- surprise gifts


def test_gifts_fall_within_the_budget_on_a_day_of_the_month_to_people_in_good_standing(world: World) -> None:
    rules = load_loyalty()
    assert rules and rules.gifts
    people = [world.customer(f"P{n}") for n in range(90)]
    for person in people:
        world.order(person, "2026-02-10", delivered="2026-02-12")
    angry = world.one("select order_id from orders where customer_id = :c", c=people[0])
    rate(world, angry, 1, "2026-02-20")
    world.consent(people[1], False, "2026-02-20")
    note(world, "2026-03-01 06:00")
    month = world.do("select customers, eligible, left_out, budget, spent from gift_months")[0]
    assert (month.customers, month.eligible, month.left_out) == (90, 88, {"no_consent": 1, "recovery_open": 1})
    assert 240 < month.spent <= month.budget == 250
    first = world.do("select customer_id, place, gift, at from gift_draws order by place")
    assert len({row.at.date() for row in first}) > 10
    assert world.do("select 1 from gift_draws where at < '2026-03-01' or at >= '2026-04-01'") == []
    # drawn again from the same seed: the same
    world.do("delete from gift_draws")
    world.do("delete from gift_months")
    note(world, "2026-03-01 06:00")
    assert world.do("select customer_id, place, gift, at from gift_draws order by place") == first
    # on the day it is looked at once more
    unlucky = next(row.customer_id for row in first if row.at > at("2026-03-03"))
    tell(world, unlucky, "damaged", "2026-03-02 07:00")
    note(world, "2026-03-31 12:00")
    assert world.do("select state, reason from gift_draws where customer_id = :c", c=unlucky) == [
        ("withdrawn", "recovery_open")
    ]
    given = {row[0] for row in world.do("select customer_id from gift_draws where state = 'given'")}
    assert {person for person, _, _ in events(world, "surprise_gift")} == given and len(given) == len(first) - 1
    # and not again for half a year
    note(world, "2026-04-01 06:00")
    assert (
        given & {row[0] for row in world.do("select customer_id from gift_draws where month = '2026-04-01'")} == set()
    )
    assert world.one("select left_out ->> 'drawn_recently' from gift_months where month = '2026-04-01'") == str(
        len(given)
    )


# ---------------------------------------------------------------- answers


def test_very_good_answers_are_promoters_bad_ones_detractors_and_a_changed_one_counts_as_it_stands(
    world: World,
) -> None:
    ana, ben = world.customer(), world.customer("Ben")
    first, second = world.order(ana, "2026-02-10"), world.order(ben, "2026-02-10")
    rate(world, first, 5, "2026-02-20")
    rate(world, second, 1, "2026-02-20")
    rate(world, second, 9, "2026-02-21")
    note(world, "2026-02-22")
    assert [(c, d["score"], d["scale"], d["sku"]) for c, _, d in events(world, "promoter")] == [
        (ana, 5, 5, "mug"),
        (ben, 9, 10, "mug"),
    ]
    assert events(world, "detractor") == []
    assert {(c, d["why"]) for c, _, d in events(world, "community_ready")} == {(ana, "good_score"), (ben, "good_score")}
    rate(world, first, 2, "2026-02-23")
    note(world, "2026-02-24")
    assert [c for c, _, _ in events(world, "detractor")] == [ana]
    assert over(world, "promoter", "2026-02-24") == [True, False]


def test_a_bad_delivery_of_a_good_item_opens_a_case_and_says_nothing_of_the_item(world: World) -> None:
    ana = world.customer()
    world.order(ana, "2026-02-09", delivered="2026-02-10")
    check = campaign("delivery_check")
    world.plan(check, "2026-02-08")
    world.plan(check, "2026-02-11")
    world.deliver(check, now="2026-02-13 12:00")
    message = world.post.taken[0][0].message_id
    for key, about, score, at_ in (
        ("i", {}, 5, "13:00"),
        ("d", {"about": "delivery"}, 1, "13:01"),
        ("s", {"about": "shop", "scale": "10"}, 3, "13:02"),
    ):
        world.do(
            "insert into event_inbox (received_at, source, dedupe_key, payload) values (:at, 'web', :key, cast(:told as jsonb))",
            at=at(f"2026-02-13 {at_}"), key=key, told=json.dumps({"kind": "rated", "message_id": str(message), "score": score, **about}),
        )  # fmt: skip
    world.feedback("2026-02-13 14:00")
    note(world, "2026-02-14")
    assert world.do("select score from reviews") == [(5,)]
    assert [(d["score"], d["scale"]) for _, _, d in events(world, "promoter")] == [(5, 5)]
    assert sorted((d["score"], d["scale"]) for _, _, d in events(world, "detractor")) == [(1, 5), (3, 10)]
    assert world.do("select cause, score from recoveries order by score") == [("low_score", 1), ("low_score", 3)]
    assert world.do("select about, score, scale from ratings order by 1") == [
        ("delivery", 1, 5),
        ("item", 5, 5),
        ("shop", 3, 10),
    ]
    with db.transaction(world.engine) as conn:
        told = db.run(conn, "69_report_answers", now=at("2026-02-15"), least=1).all()
    assert {(r.scale, r.delivery, r.good) for r in told if r.dimension == "all"} == {
        (5, False, 1),
        (5, True, 0),
        (10, False, 0),
    }


def test_answers_are_told_with_their_number_and_uncertainty_and_small_cells_are_not(
    world: World, tmp_path: Path
) -> None:
    from postlude import answers, report

    people = [world.customer(f"P{n}") for n in range(30)]
    for n, person in enumerate(people):
        order = world.order(person, "2026-02-10", sku="mug" if n < 24 else "soap")
        rate(world, order, 5 if n % 3 else 2, "2026-02-20 09:00")
        rate(world, order, 10 if n % 2 else 6, "2026-02-21 09:00") if n < 12 else None
    with db.transaction(world.engine) as conn:
        found = answers.rows(conn, at("2026-03-01"))
        path, _ = report.write(conn, at("2026-03-01"), tmp_path)
    cells = {(c["scale"], c["dimension"], c["name"]): c for c in found["shown"]}
    # twelve of the thirty changed their answer, which counts once, as it stands
    assert [(key, cell["answers"]) for key, cell in cells.items() if key[0] == 10] == [
        ((10, "all", "all"), 12), ((10, "month", "2026-02"), 12), ((10, "category", "home"), 12), ((10, "product", "Blue mug"), 12),
    ]  # fmt: skip
    everybody = cells[5, "all", "all"]
    assert (everybody["answers"], everybody["share"]) == (18, 12 / 18)
    assert (round(everybody["low"], 4), round(everybody["high"], 4)) == (0.4375, 0.8372)
    assert cells[10, "all", "all"]["share"] == 0 and -0.6 < cells[10, "all", "all"]["low"] < -0.4
    assert (5, "product", "Lavender soap") not in cells and ("product", 1, 6) in found["hidden"]
    page = path.read_text()
    assert "What customers answered" in page and "Blue mug" in page and "Lavender soap" not in page


def test_the_intervals_are_wilsons_and_never_leave_what_is_possible() -> None:
    from scipy.stats import binomtest

    from postlude.answers import nps, wilson

    for hits, n in ((0, 12), (12, 18), (7, 300), (40, 40)):
        oracle = binomtest(hits, n).proportion_ci(method="wilson")
        assert wilson(hits, n)[1:] == pytest.approx((oracle.low, oracle.high), abs=1e-12)
    assert nps(5, 2, 10).low < 0.3 < nps(5, 2, 10).high
    assert nps(10, 0, 10) == pytest.approx((1, 0.6075, 1), abs=1e-4)
