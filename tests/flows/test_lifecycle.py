"""The lifecycle rows of docs/flows.md, each walked: when its mails come, in three languages, what ends it, what stops it."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from typing import Any

import pytest

from flows.shop import Shop
from postlude import db, enrolment
from postlude.campaign import Campaign
from postlude.event_kinds import EVENTS
from world import at, calendar, campaign

BEGIN = "2026-03-01 00:00"  # all of them ran once before anything happened
HAPPENS = "2026-03-02 09:00"  # a Monday, when the send window opens in London
HANGUL, KANA = re.compile(r"[\uac00-\ud7a3]"), re.compile(r"[\u3040-\u30ff]")

# campaign -> kind of event, and the step that comes so many days later
FROM_EVENTS: dict[str, tuple[str, dict[int, str]]] = {
    "replenishment": ("replenishment_due", {0: "refill"}),
    "back_in_stock": ("back_in_stock", {0: "tell"}),
    "price_drop": ("price_drop", {0: "tell"}),
    "abandoned_checkout": ("abandoned_checkout", {0: "hour", 1: "day", 3: "code"}),
    "loyalty_tier": ("tier_up", {0: "up"}),
    "loyalty_points": ("points_expiring", {0: "month", 23: "week"}),
    "club_renewal": ("renewal_due", {0: "soon", 11: "days", 14: "today", 17: "after"}),
    "referral_ask": ("promoter", {2: "ask"}),
    "service_recovery": ("recovery_opened", {0: "make_good"}),
    "community_invite": ("community_ready", {3: "invite"}),
    "survey": ("poll_opened", {0: "poll"}),
    "surprise_gift": ("surprise_gift", {0: "gift"}),
    "account_invite": ("guest_order", {1: "page"}),
    "account_return": ("unseen", {0: "page"}),
    "frustration_rescue": ("frustration", {0: "help"}),
    "lead_nurture": ("lead_created", {0: "hello", 2: "made", 5: "others", 9: "last"}),
    "trial_nudge": ("trial_started", {0: "start", 2: "next", 5: "half", 9: "end"}),
    "expert_call": ("high_value_bought", {1: "offer"}),
    "re_permission": ("disengaged", {0: "stay", 14: "last"}),
}
# what each first mail must say, made of what the event told
SAYS = {
    "replenishment": "Blue mug", "back_in_stock": "Blue mug", "price_drop": "€24.00", "abandoned_checkout": "https://shop.example/cart/abc",
    "loyalty_tier": "Gold", "loyalty_points": "150 points", "club_renewal": "€29.00", "service_recovery": "Mara Lind",
    "survey": "Clay: https://shop.example/poll?answer=2", "surprise_gift": "beeswax candle", "expert_call": "Espresso machine",
}  # fmt: skip
UNMOVED = {"service_recovery"}  # by an open ticket: it is about it


def told(kind: str, **more: Any) -> dict[str, Any]:
    """What such an event tells, as it comes: days as texts, and about a product the shop has."""
    detail = {
        **EVENTS[kind],
        **({"name": "Blue mug", "sku": "mug"} if "waiting_since" in EVENTS[kind] or "gap_of" in EVENTS[kind] else {}),
    }
    detail |= {"valid_until": None} if "valid_until" in detail else {}
    return {key: value.isoformat() if isinstance(value, date) else value for key, value in (detail | more).items()}


def stands(shop: Shop, customer: int, kind: str) -> dict[str, Any]:
    """What must be so for such an event not to be over; what the event tells of it."""
    if kind == "renewal_due":
        shop.do(
            "insert into loyalty_memberships (customer_id, kind, joined_at, known_at, how, renews_on) "
            "values (:c, 'paid', '2025-03-01', '2025-03-01', 'told', '2026-11-02')", c=customer,
        )  # fmt: skip
    if kind == "points_expiring":
        shop.do(
            "insert into loyalty_ledger (customer_id, kind, points, at, known_at, expires_at, reason, by, ref) "
            "values (:c, 'earned', 150, '2025-11-02', '2025-11-02', '2026-11-02 00:00Z', 'an order', 'test', :ref)",
            c=customer, ref=f"points-{customer}",
        )  # fmt: skip
    if kind == "recovery_opened":
        opened = shop.one(
            "insert into recoveries (customer_id, cause, fact, at, opened_at, owner, owner_email, make_good) "
            "values (:c, 'late', :fact, :at, :at, 'Mara Lind', 'mara@shop.example', true) returning recovery_id",
            c=customer, fact=f"late:{customer}", at=at(HAPPENS),
        )  # fmt: skip
        return {"recovery": opened}
    return {}


@pytest.fixture(scope="module", autouse=True)
def _begin(shop: Shop) -> None:
    """Whichever tests of this file a worker gets: its campaigns have run before anything happened, so it is news to them."""
    shop.do("update products set in_stock = true, price = 18 where sku = 'mug'")
    shop.calendar = calendar(blackout_days=())
    for name in FROM_EVENTS:
        shop.lane(campaign(name), BEGIN)


def passes(shop: Shop, walked: Campaign, days: list[int]) -> None:
    """The noons of these days after the event, and of the days between which something could go wrong."""
    first = at("2026-03-02 12:00")
    for day in sorted({0, *days, *(day + 1 for day in days)}):
        shop.feed_complete_until(first + timedelta(days=day))
        shop.lane(walked, first + timedelta(days=day))


def came(shop: Shop, customer: int) -> dict[int, str]:
    """Days after the event -> step of the mail the customer got."""
    rows = shop.do(
        "select handed_over_at, step_id from messages where customer_id = :c and state = 'sent' order by 1", c=customer
    )
    begin: datetime = at("2026-03-02")
    return {(row[0] - begin).days: row[1] for row in rows}


@pytest.mark.parametrize("name", FROM_EVENTS)
def test_an_event_is_followed_by_its_mails_on_their_days_in_the_customers_language(shop: Shop, name: str) -> None:
    kind, expected = FROM_EVENTS[name]
    walked = campaign(name)
    people = {locale: shop.customer(locale=locale) for locale in ("en", "ko", "ja")}
    over, asking, unwilling = shop.customer("Over"), shop.customer("Asking"), shop.customer("Not", consent=False)
    shop.asks(asking, "2026-03-01 09:00")
    for customer in (*people.values(), over, asking, unwilling):
        more = {"valid_until": "2026-03-01"} if customer == over else {}
        shop.happens(customer, kind, HAPPENS, **told(kind, **more | stands(shop, customer, kind)))
    passes(shop, walked, list(expected))
    for customer in people.values():
        assert came(shop, customer) == expected
    english, korean, japanese = (shop.mails(customer)[0] for customer in people.values())
    assert SAYS.get(name, "") in english.text
    assert HANGUL.search(korean.subject) and HANGUL.search(korean.text)
    assert KANA.search(japanese.subject) and KANA.search(japanese.text)
    assert english.list_unsubscribe
    if "over" in walked.exit_on:
        assert came(shop, over) == {}, "what began it was over already"
    assert came(shop, unwilling) == {} and "no_consent" in shop.refused(unwilling)
    assert came(shop, asking) == (expected if name in UNMOVED else {}), "nothing promotes while a ticket is open"


def test_an_order_ends_what_wants_an_order(shop: Shop) -> None:
    ana = shop.customer()
    walked = campaign("abandoned_checkout")
    shop.happens(ana, "abandoned_checkout", HAPPENS, **told("abandoned_checkout"))
    shop.lane(walked, "2026-03-02 12:00")
    shop.sale(ana, "2026-03-02 18:00")
    shop.lane(walked, "2026-03-03 12:00")
    shop.lane(walked, "2026-03-05 12:00")
    assert came(shop, ana) == {0: "hour"}


def test_only_the_third_mail_about_a_basket_carries_a_code(shop: Shop) -> None:
    ana = shop.customer()
    shop.happens(ana, "abandoned_checkout", HAPPENS, **told("abandoned_checkout"))
    passes(shop, campaign("abandoned_checkout"), [0, 1, 3])
    codes = [re.search(r"\b[A-Z0-9]{10}\b", mail.text) is not None for mail in shop.mails(ana)]
    assert codes == [False, False, True]


def test_a_gift_is_a_gift_a_code_or_thanks(shop: Shop) -> None:
    got = {}
    for gives in ("gift", "coupon", "thanks"):
        ana = shop.customer()
        shop.happens(ana, "surprise_gift", HAPPENS, **told("surprise_gift", gives=gives))
        shop.lane(campaign("surprise_gift"), "2026-03-02 12:00")
        got[gives] = came(shop, ana)[0]
    assert got == {"gift": "gift", "coupon": "code", "thanks": "thanks"}


def test_who_does_not_answer_whether_to_stay_is_written_to_no_more(shop: Shop) -> None:
    walked = campaign("re_permission")
    silent, clicks, orders = shop.customer(), shop.customer(), shop.customer()
    for customer in (silent, clicks, orders):
        shop.happens(customer, "disengaged", HAPPENS, **told("disengaged"))
    passes(shop, walked, [0, 14])
    assert [came(shop, who) for who in (silent, clicks, orders)] == [{0: "stay", 14: "last"}] * 3
    shop.happens(clicks, "visited", "2026-03-20 10:00")
    shop.sale(orders, "2026-03-25 10:00")

    def withdrawn(now: str) -> int:
        with db.transaction(shop.engine) as conn:
            return enrolment.withdraw_unanswered(conn, walked, at(now))

    mine = "select count(*) from consents where customer_id = :c and not granted and basis = 'unanswered'"
    assert withdrawn("2026-03-29 12:00") == 0, "two weeks are not over"
    withdrawn("2026-04-01 12:00")
    assert withdrawn("2026-04-02 12:00") == 0, "once"
    assert [shop.one(mine, c=who) for who in (silent, clicks, orders)] == [1, 0, 0]


def test_an_instant_that_is_told_is_a_day_on_the_customers_clock(shop: Shop) -> None:
    for zone, said in (("Europe/London", "Open until March 20"), ("Asia/Seoul", "Open until March 21")):
        ana = shop.customer(zone=zone)
        shop.happens(ana, "poll_opened", HAPPENS, **told("poll_opened", valid_until="2026-03-20T20:00:00Z"))
        shop.lane(campaign("survey"), "2026-03-03 03:00" if zone == "Asia/Seoul" else "2026-03-02 12:00")
        assert said in shop.mails(ana)[0].text


def test_without_a_make_good_the_apology_holds_no_coupon(shop: Shop) -> None:
    ana = shop.customer()
    shop.happens(
        ana,
        "recovery_opened",
        HAPPENS,
        **told("recovery_opened", make_good=False, **stands(shop, ana, "recovery_opened")),
    )
    shop.lane(campaign("service_recovery"), "2026-03-02 12:00")
    assert came(shop, ana) == {0: "sorry"}
    assert re.search(r"\b[A-Z0-9]{10}\b", shop.mails(ana)[0].text) is None


def test_two_polls_of_one_instant_are_two_and_the_answer_to_one_leaves_the_other(shop: Shop) -> None:
    ana, walked = shop.customer(), campaign("survey")
    shop.lane(walked, BEGIN)
    for poll in ("tea", "wool"):
        shop.happens(ana, "poll_opened", HAPPENS, **told("poll_opened", poll=poll, question=f"More {poll}?"))
    shop.happens(ana, "poll_answered", "2026-03-02 07:00", poll="tea")
    passes(shop, walked, [0])
    assert ["More wool?" in mail.text for mail in shop.mails(ana)] == [True]


def test_recommendations_need_something_to_recommend(shop: Shop) -> None:
    ana = shop.customer()
    shop.lane(campaign("recommendations"), BEGIN)
    shop.happens(ana, "next_order_expected", HAPPENS, **told("next_order_expected"))
    shop.lane(campaign("recommendations"), "2026-03-02 12:00")
    assert came(shop, ana) == {}
    assert ("picked", "skipped", "condition_not_met") in shop.states(ana)


# ------------------------------------------------------------------ about an order


def bought(shop: Shop, sku: str, amount: float = 50, **more: Any) -> tuple[int, int]:
    """A customer with an order delivered when the events happen."""
    ana = shop.customer()
    order = shop.sale(ana, "2026-03-01 09:00", amount=amount, sku=sku, **more)
    shop.parcel(order, "1", "2026-03-01 15:00", delivered_at=at("2026-03-02 08:00"))
    return ana, order


@pytest.mark.parametrize(
    ("name", "category", "expected"),
    [
        ("how_to_leather", "leather", {1: "start", 4: "more", 10: "known", 90: "care"}),
        ("how_to_electronics", "electronics", {1: "start", 4: "more", 10: "known", 120: "care"}),
        ("how_to_apparel", "apparel", {1: "start", 4: "more", 10: "known", 90: "care"}),
        ("how_to_makeup", "makeup", {1: "start", 4: "more", 10: "known", 120: "care"}),
        ("delivery_check", "home", {3: "check"}),
        ("review_request", "leather", {37: "review"}),
    ],
)
def test_a_delivery_is_followed_by_its_mails_until_it_goes_back(
    shop: Shop, name: str, category: str, expected: dict[int, str]
) -> None:
    sku = f"{category}-{name}"
    shop.do(
        "insert into products (source_id, sku, name, category) values ('shop', :sku, 'Field bag', :category)",
        sku=sku, category=category,
    )  # fmt: skip
    walked = campaign(name)
    shop.lane(walked, BEGIN)
    (ana, _), (back, returned), (other, _) = bought(shop, sku), bought(shop, sku), bought(shop, "soap")
    shop.takes_back(returned, "2026-03-02 10:00")
    passes(shop, walked, list(expected))
    assert came(shop, ana) == expected
    assert any("Field bag" in mail.subject + mail.text for mail in shop.mails(ana))
    assert came(shop, back) == {}
    if name.startswith("how_to"):
        assert came(shop, other) == {}, "tips are for the family of products they are about"


def test_a_gift_wants_no_tips_for_whoever_paid(shop: Shop) -> None:
    shop.do("insert into products (source_id, sku, name, category) values ('shop', 'given', 'Belt', 'leather')")
    ana, _ = bought(shop, "given", gift=True)
    passes(shop, campaign("how_to_leather"), [1])
    assert came(shop, ana) == {}


def test_nobody_is_asked_to_recommend_what_they_did_not_like(shop: Shop) -> None:
    ana, order = bought(shop, "mug")
    shop.do(
        "insert into reviews (order_id, review_key, sku, score, created_at) values (:o, 'r', 'mug', 2, '2026-03-05')",
        o=order,
    )
    passes(shop, campaign("review_request"), [37])
    assert came(shop, ana) == {}


def test_a_first_order_and_a_big_one_are_reassured_and_no_other(shop: Shop) -> None:
    walked = campaign("purchase_reassurance")
    shop.lane(walked, BEGIN)
    first, big, small = shop.customer(), shop.customer(), shop.customer()
    for customer in (big, small):
        shop.sale(customer, "2025-12-01 09:00")
    shop.sale(first, HAPPENS)
    shop.sale(big, HAPPENS, amount=200)
    shop.sale(small, HAPPENS)
    passes(shop, walked, [1])
    assert [came(shop, who) for who in (first, big, small)] == [{1: "good_choice"}, {1: "good_choice"}, {}]


# ------------------------------------------------------------------ days


def test_a_birthday_card_comes_in_the_local_morning(shop: Shop) -> None:
    ana, seoul, other = shop.customer(), shop.customer(zone="Asia/Seoul", locale="ko"), shop.customer()
    for customer, day in ((ana, "1990-03-04"), (seoul, "1990-03-04"), (other, "1990-03-05")):
        shop.do("update customers set birthday = :day where customer_id = :c", day=date.fromisoformat(day), c=customer)
    walked = campaign("birthday")
    for now in ("2026-03-03 23:30", "2026-03-04 00:30", "2026-03-04 09:30"):
        shop.lane(walked, now)
    assert shop.times(seoul) == ["2026-03-04 00:30"], "09:30 in Seoul"
    assert shop.times(ana) == ["2026-03-04 09:30"]
    assert shop.times(other) == []


def test_an_occasion_of_the_calendar_sends_its_card_and_its_offer(shop: Shop) -> None:
    for name, day, step in (("season_card", "2026-12-22", "card"), ("special_offer", "2027-01-14", "offer")):
        ana = shop.customer()
        shop.feed_complete_until(at(day))
        shop.lane(campaign(name), f"{day} 09:30")
        assert shop.received(ana) == [step]


def test_the_packing_table_hears_of_a_first_order_and_no_mail_goes_out(shop: Shop) -> None:
    walked = campaign("packing_note")
    assert {step.template for step in walked.steps} == {"packing_note/note"}
    assert walked.channel == "webhook" and walked.kind == "transactional"
    shop.lane(walked, BEGIN)
    first, again = shop.customer(consent=None), shop.customer(consent=None)
    shop.sale(again, "2025-12-01 09:00")
    for customer in (first, again):
        shop.sale(customer, HAPPENS)
    shop.lane(walked, "2026-03-02 09:05")
    count = "select count(*) from messages where customer_id = :c and channel = 'webhook'"
    planned = {who: shop.one(count, c=who) for who in (first, again)}
    assert planned == {first: 1, again: 0}
