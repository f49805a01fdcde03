"""The transactional rows of docs/flows.md, each walked: trigger, timing, content, what ends it, what cannot stop it."""

from __future__ import annotations

import re
from datetime import date
from html import unescape

import pytest

from flows.shop import Shop
from world import at, campaign

BEGIN = "2026-03-01 00:00"  # all of them ran once before anything happened


@pytest.fixture(scope="module", autouse=True)
def _running(shop: Shop) -> None:
    for name in ("order_confirmation", "order_shipped", "order_delivered"):
        shop.lane(campaign(name), BEGIN)


def steps(shop: Shop, customer: int) -> list[str]:
    return shop.received(customer)


# ------------------------------------------------------------------ order_confirmation


def test_the_confirmation_is_the_first_of_five_letters_that_fits(shop: Shop) -> None:
    shop.do("update products set cost = 5, price = 20")
    people = {name: shop.customer() for name in ("new", "far", "dear", "asked", "margin", "not_asked")}
    for name in ("far", "dear", "asked", "margin", "not_asked"):
        shop.sale(people[name], "2025-12-01 09:00")
    shop.do("delete from consents where customer_id = :c", c=people["not_asked"])
    shop.asks(people["asked"], "2025-12-09 09:00", topic="where_is_my_order", closed="2025-12-10 09:00")
    for name, customer in people.items():
        more = {"promised_on": date(2026, 3, 12)} if name == "far" else {"promised_on": date(2026, 3, 5)}
        shop.sale(customer, "2026-03-02 10:00", amount=180 if name == "dear" else 50, **more)
    shop.lane(campaign("order_confirmation"), "2026-03-02 10:05")
    got = {name: steps(shop, customer) for name, customer in people.items()}
    assert got == {
        "new": ["welcome"], "far": ["reassurance"], "dear": ["reassurance"], "asked": ["reassurance"], "margin": ["tempting"],
        "not_asked": ["plain"],
    }  # fmt: skip
    tempting = shop.mails(people["margin"])[0]
    assert re.search(r"\b[A-Z0-9]{10}\b", tempting.text), "a code of one's own"
    assert tempting.list_unsubscribe
    assert shop.mails(people["not_asked"])[0].list_unsubscribe is None


def test_the_confirmation_says_what_where_and_when_and_how_it_was_paid(shop: Shop) -> None:
    ana = shop.customer(consent=None)
    shop.sale(ana, "2025-11-01 09:00")
    order = shop.sale(
        ana, "2026-03-03 22:58", amount=50, promised_on=date(2026, 3, 7), paid_amount=54.9, shipping_amount=4.9,
        payment="Visa ending in 4242", address="Ana Sample\n4 Mill Row\nBath BA1 1AA", url="https://shop.example/orders/1",
    )  # fmt: skip
    shop.lane(campaign("order_confirmation"), "2026-03-03 23:03")
    assert shop.times(ana) == ["2026-03-03 23:03"], "in the night, within five minutes"
    mail = shop.mails(ana)[0]
    number = shop.one("select source_order_id from orders where order_id = :o", o=order)
    for said in (number, "Blue mug", "€50.00", "€4.90", "€54.90", "Visa ending in 4242", "4 Mill Row", "Saturday, March 7",
                 "https://shop.example/orders/1", "https://shop.example/returns"):  # fmt: skip
        assert said in mail.text, said
        assert said in unescape(mail.html) or "://" in said, said
    shop.lane(campaign("order_confirmation"), "2026-03-03 23:08")
    assert len(shop.mails(ana)) == 1


@pytest.mark.parametrize(("locale", "said"), [("ko", "주문해 주셔서 고마워요"), ("ja", "ご注文ありがとうございます")])
def test_the_confirmation_speaks_the_customers_language(shop: Shop, locale: str, said: str) -> None:
    someone = shop.customer("지우" if locale == "ko" else "葵", consent=None, locale=locale)
    shop.sale(someone, "2025-11-01 09:00")
    shop.sale(someone, "2026-03-04 10:00")
    shop.lane(campaign("order_confirmation"), "2026-03-04 10:05")
    assert said in shop.mails(someone)[0].text


def test_a_cancelled_order_is_not_confirmed_and_a_suppressed_address_gets_nothing(shop: Shop) -> None:
    gone, bounced = shop.customer(), shop.customer()
    order = shop.sale(gone, "2026-03-05 10:00")
    shop.tell_order(order, cancelled_at=at("2026-03-05 10:02"))
    shop.sale(bounced, "2026-03-05 10:00")
    address = shop.one("select address from customers where customer_id = :c", c=bounced)
    shop.do(
        "insert into suppressions (address, scope, reason, since) values (:a, 'all', 'hard_bounce', '2026-01-01')",
        a=address,
    )
    shop.lane(campaign("order_confirmation"), "2026-03-05 10:05")
    assert (shop.refused(gone), shop.refused(bounced)) == (("order_cancelled",), ("hard_bounce",))
    assert shop.mails(gone) + shop.mails(bounced) == []


# ------------------------------------------------------------------ order_shipped, order_delivered


def test_a_split_order_is_told_parcel_by_parcel_with_what_follows(shop: Shop) -> None:
    ana = shop.customer()
    order = shop.sale(ana, "2026-03-06 09:00")
    shop.parcel(order, "a", "2026-03-06 14:00", carrier="DHL", tracking_number="JD01", eta=date(2026, 3, 9),
                tracking_url="https://carrier.example/t/JD01")  # fmt: skip
    shop.parcel(order, "b", eta=date(2026, 3, 12))
    shop.lane(campaign("order_shipped"), "2026-03-06 14:10")
    first = shop.mails(ana)[-1]
    assert first.subject == "Parcel 1 of 2 is on its way"
    for said in (
        "DHL",
        "JD01",
        "https://carrier.example/t/JD01",
        "Monday, March 9",
        "2 of 2: follows, expected Thursday, March 12",
    ):
        assert said in first.text, said
    shop.parcel(order, "b", "2026-03-10 08:00")
    shop.lane(campaign("order_shipped"), "2026-03-10 08:05")
    assert shop.mails(ana)[-1].subject == "Parcel 2 of 2 is on its way"
    assert shop.times(ana) == ["2026-03-06 14:10", "2026-03-10 08:05"]


def test_on_arrival_the_customer_hears_how_to_start_and_how_to_send_back(shop: Shop) -> None:
    ana, back = shop.customer(), shop.customer()
    for customer in (ana, back):
        order = shop.sale(customer, "2026-03-06 09:00")
        shop.parcel(order, "a", "2026-03-06 14:00", delivered_at=at("2026-03-09 11:00"))
    shop.takes_back(order, "2026-03-09 11:05")
    shop.lane(campaign("order_delivered"), "2026-03-09 11:10")
    assert steps(shop, ana) == ["arrived"]
    assert "https://shop.example/returns" in shop.mails(ana)[0].text
    assert "Monday to Friday" in shop.mails(ana)[0].text, "when somebody answers"
    assert shop.mails(back) == []


# ------------------------------------------------------------------ packed_today, delivery_delayed


def test_an_order_behind_the_cut_off_hears_in_the_morning_that_it_is_packed_unless_it_has_left(shop: Shop) -> None:
    ana, quick = shop.customer(), shop.customer()
    mine, left = shop.sale(ana, "2026-03-10 19:00"), shop.sale(quick, "2026-03-10 19:00")
    for customer, order in ((ana, mine), (quick, left)):
        shop.happens(customer, "packed_today", "2026-03-11 00:00", order, order_number="x", packs_on="2026-03-11")
    shop.lane(campaign("packed_today"), "2026-03-11 05:30")
    assert shop.mails(ana) == []
    shop.parcel(left, "a", "2026-03-11 06:00")
    shop.lane(campaign("packed_today"), "2026-03-11 07:30")
    assert shop.times(ana) == ["2026-03-11 07:30"]
    assert shop.mails(ana)[0].subject.startswith("Today we pack your order")
    assert shop.mails(quick) == []


def test_a_late_parcel_is_told_in_office_hours_once_for_each_new_day(shop: Shop) -> None:
    ana = shop.customer()
    order = shop.sale(ana, "2026-03-02 09:00", promised_on=date(2026, 3, 12))
    late = campaign("delivery_delayed")
    shop.happens(ana, "delivery_delayed", "2026-03-14 00:00", order, order_number="x", promised_on="2026-03-12", eta=None,
                 days_late=2, cause=None, carrier="DHL", tracking_url=None)  # fmt: skip
    shop.lane(late, "2026-03-14 05:00")  # a Saturday
    shop.lane(late, "2026-03-15 12:00")
    assert shop.mails(ana) == []
    # the carrier tells a day before anybody was told: only that is said
    shop.happens(ana, "delivery_delayed", "2026-03-14 00:00", order, order_number="x", promised_on="2026-03-12", eta="2026-03-18",
                 days_late=4, cause="storm", carrier="DHL", tracking_url="https://carrier.example/t/9")  # fmt: skip
    shop.lane(late, "2026-03-16 08:30")
    shop.lane(late, "2026-03-16 09:00")
    assert shop.times(ana) == ["2026-03-16 09:00"]
    mail = shop.mails(ana)[0]
    for said in (
        "Thursday, March 12",
        "storm",
        "New date: Wednesday, March 18",
        "https://carrier.example/t/9",
        "cancel",
    ):
        assert said in mail.text, said
    shop.happens(ana, "delivery_delayed", "2026-03-17 10:00", order, order_number="x", promised_on="2026-03-12", eta="2026-03-20",
                 days_late=5, cause="storm", carrier="DHL", tracking_url=None)  # fmt: skip
    shop.lane(late, "2026-03-17 10:05")
    assert "New date: Friday, March 20" in shop.mails(ana)[1].text
    shop.parcel(order, "a", "2026-03-03 09:00", delivered_at=at("2026-03-18 09:00"))
    shop.happens(ana, "delivery_delayed", "2026-03-18 08:00", order, eta="2026-03-22")
    shop.lane(late, "2026-03-18 09:05")
    assert len(shop.mails(ana)) == 2, "it has arrived"


# ------------------------------------------------------------------ return_progress, refund_late


def test_a_return_is_told_with_its_label_then_its_refund_and_stops_promotions_meanwhile(shop: Shop) -> None:
    ana = shop.customer()
    order = shop.sale(ana, "2026-03-02 09:00")
    flow = campaign("return_progress")
    shop.takes_back(order, "2026-03-11 09:00", label_url="https://shop.example/label/7")
    shop.lane(flow, "2026-03-11 09:05")
    assert "https://shop.example/label/7" in shop.mails(ana)[0].text
    assert shop.one("select stop_fact('[\"return_open\"]', :c, '2026-03-12')", c=ana) == "return_open"
    shop.takes_back(
        order, "2026-03-11 09:00", received_at=at("2026-03-16 10:00"), refund_amount=50, refund_due_on=date(2026, 3, 30)
    )
    shop.lane(flow, "2026-03-16 10:05")
    assert "€50.00 by March 30" in shop.mails(ana)[1].text
    shop.takes_back(order, "2026-03-11 09:00", refunded_at=at("2026-03-18 09:00"), closed_at=at("2026-03-18 09:00"))
    shop.lane(flow, "2026-03-18 09:05")
    assert steps(shop, ana) == ["requested", "received", "refunded"]
    ben = shop.customer("Ben")
    shop.takes_back(shop.sale(ben, "2026-03-02 09:00"), "2026-03-18 08:00", exchanged_at=at("2026-03-18 09:00"))
    shop.lane(flow, "2026-03-18 09:10")
    assert steps(shop, ben) == ["exchanged"]


def test_a_late_refund_reaches_on_call_at_once_and_the_customer_after_a_business_day_unless_it_came(shop: Shop) -> None:
    ana, ben = shop.customer(), shop.customer("Ben")
    flow = campaign("refund_late")
    for customer in (ana, ben):
        order = shop.sale(customer, "2026-02-02 09:00")
        shop.takes_back(order, "2026-02-20 09:00", received_at=at("2026-03-06 18:00"))
        shop.happens(customer, "refund_late", "2026-03-20 18:00", order, **{"return": "r1"}, order_number="x", sku="mug",
                     received_on="2026-03-06", due_on="2026-03-20", days_late=0)  # fmt: skip
    shop.lane(flow, "2026-03-20 18:05")  # a Friday evening
    shop.deliver(flow, now="2026-03-20 18:06", channel_name="webhook")
    assert steps(shop, ana) == ["on_call"]
    shop.takes_back(order, "2026-02-20 09:00", refunded_at=at("2026-03-22 09:00"))
    shop.lane(flow, "2026-03-21 12:00")
    shop.lane(flow, "2026-03-23 09:00")  # Monday
    assert (steps(shop, ana), steps(shop, ben)) == (["on_call", "customer"], ["on_call"])
    mail = shop.mails(ana)[1]
    for said in ("Mara Lind", "mara@shop.example", "March 6", "March 20", "sorry"):
        assert said in mail.text, said


# ------------------------------------------------------------------ bills


def test_a_failed_payment_is_asked_for_three_times_until_it_is_paid_and_never_for_the_lender(shop: Shop) -> None:
    ana, pays, later = shop.customer(consent=None), shop.customer(), shop.customer()
    flow = campaign("payment_failed")
    bill = {"amount": 9.9, "currency": "EUR", "due_on": "2026-03-09", "url": "https://shop.example/pay/1"}
    for customer in (ana, pays, later):
        method = {"method": "pay_later"} if customer == later else {}
        shop.happens(customer, "payment_failed", "2026-03-02 10:00", invoice=f"i{customer}", **bill, **method)
    for day in (2, 5, 9):
        shop.lane(flow, f"2026-03-0{day} 10:05")
        if day == 2:
            shop.happens(pays, "payment_succeeded", "2026-03-03 10:00", invoice=f"i{pays}")
    assert steps(shop, ana) == ["first", "second", "last"]
    assert steps(shop, pays) == ["first"]
    assert (steps(shop, later), shop.refused(later)) == ([], ("not_for_them",))
    for mail in shop.mails(ana):
        assert "https://shop.example/pay/1" in mail.text
        assert "€9.90" in mail.text


def test_a_renewal_is_told_two_weeks_and_three_days_before_on_the_day_and_after_it_failed(shop: Shop) -> None:
    ana, done = shop.customer(), shop.customer()
    flow = campaign("renewal_due")
    for customer in (ana, done):
        shop.do("update customers set renews_on = '2026-03-16' where customer_id = :c", c=customer)
        shop.happens(customer, "renewal_due", "2026-03-02 00:00", what="subscription", renews_on="2026-03-16", amount=12,
                     currency="EUR", url="https://shop.example/pay/2")  # fmt: skip
    for now in ("2026-03-02 09:00", "2026-03-13 09:00", "2026-03-16 09:00", "2026-03-19 09:00"):
        shop.lane(flow, now)
        if now.startswith("2026-03-13"):
            shop.do("update customers set renews_on = '2027-03-16' where customer_id = :c", c=done)
    assert steps(shop, ana) == ["soon", "near", "today", "passed"]
    assert steps(shop, done) == ["soon", "near"]
    assert "March 16" in shop.mails(ana)[0].text
    assert "https://shop.example/pay/2" in shop.mails(ana)[3].text


# ------------------------------------------------------------------ service_notice


def test_a_notice_reaches_the_affected_order_and_is_not_sent_once_it_is_no_longer_true(shop: Shop) -> None:
    ana, late = shop.customer(), shop.customer()
    flow = campaign("service_notice")
    for customer, until in ((ana, "2026-12-24"), (late, "2026-03-09 06:00:00+00")):
        order = shop.sale(customer, "2026-03-06 09:00")
        shop.happens(customer, "service_notice", "2026-03-07 10:00", order, order_number="x", title="Earlier cut-off this week",
                     text="Orders paid after noon leave the next day.", valid_until=until)  # fmt: skip
    shop.lane(flow, "2026-03-07 10:05")  # Saturday: waits for the office
    shop.lane(flow, "2026-03-09 09:00")
    assert shop.times(ana) == ["2026-03-09 09:00"]
    mail = shop.mails(ana)[0]
    assert mail.subject == "Earlier cut-off this week"
    assert "Orders paid after noon leave the next day." in mail.text
    assert shop.mails(late) == []
    assert ("notice", "cancelled", "over") in shop.states(late)
