"""What the engine has for the flow library: parcels and states of a return as anchors, office hours, letters that may promote."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.shop import Shop
from postlude import campaign_checks, flows, pipeline, yamlfile
from postlude.campaign import Campaign, load_campaign
from postlude.errors import InputError
from postlude.settings import settings
from world import at

HEAD = "id: probe\nname: Probe\nowner: lifecycle\nkind: transactional\nwhy: You get this mail because of your order.\n"


def probe(rest: str, **changes: str) -> Campaign:
    """A campaign of a few lines; its letters are those of the win-back, which ask nothing of an order."""
    head = HEAD
    for key, value in changes.items():
        head = "\n".join(f"{key}: {value}" if line.startswith(f"{key}:") else line for line in head.splitlines()) + "\n"
    return yamlfile.parse(head + rest, "probe.yml", Campaign)


NOW = "{id: tell, template: win_back/miss_you, after: 0 minutes, expires_after: 2 days}"
PARCELS = f"trigger: {{event: shipped, once_per: parcel, entry: existing, max_age: 2 days}}\nexit_on: [delivered]\nsteps:\n  - {NOW}\n"
RETURNS = (
    "trigger: {event: return_moved, once_per: state, entry: existing, max_age: 2 days}\nexit_on: [superseded]\nsteps:\n"
    "  - {id: received, branch: state, only_if: {feature: return_state, is: received}, template: win_back/miss_you, after: 0 minutes, "
    "expires_after: 2 days}\n"
    "  - {id: other, branch: state, template: win_back/whats_new, after: 0 minutes, expires_after: 2 days}\n"
)


def test_each_parcel_is_told_of_when_it_leaves_and_those_that_leave_together_once(shop: Shop) -> None:
    ana = shop.customer()
    order = shop.sale(ana, "2026-03-02 09:00")
    shop.parcel(order, "a", "2026-03-02 12:00")
    shop.parcel(order, "b", "2026-03-02 12:00")
    shop.parcel(order, "c")
    campaign = probe(PARCELS)
    shop.lane(campaign, "2026-03-02 12:05")
    shop.lane(campaign, "2026-03-02 12:10")
    assert len(shop.mails(ana)) == 1
    shop.parcel(order, "c", "2026-03-03 10:00")
    shop.lane(campaign, "2026-03-03 10:05")
    assert shop.times(ana) == ["2026-03-02 12:05", "2026-03-03 10:05"]


def test_a_parcel_that_has_arrived_is_no_news(shop: Shop) -> None:
    ana = shop.customer()
    order = shop.sale(ana, "2026-03-02 09:00")
    shop.parcel(order, "a", "2026-03-02 12:00", delivered_at=at("2026-03-02 18:00"))
    shop.parcel(order, "b", "2026-03-02 13:00")
    shop.lane(probe(PARCELS), "2026-03-02 19:00")
    assert len(shop.mails(ana)) == 1, "the other parcel is still under way"


def test_a_return_is_told_state_by_state_and_what_was_overtaken_is_left_out(shop: Shop) -> None:
    ana, ben = shop.customer(), shop.customer("Ben")
    order, other = shop.sale(ana, "2026-03-01 09:00"), shop.sale(ben, "2026-03-01 09:00")
    campaign = probe(RETURNS)
    shop.takes_back(order, "2026-03-04 09:00")
    shop.takes_back(other, "2026-03-04 09:00", received_at=at("2026-03-04 16:00"))
    shop.lane(campaign, "2026-03-04 17:00")
    assert shop.received(ana) == ["other"]
    assert shop.received(ben) == ["received"], "asked for and received in one delivery: the newest state is told"
    shop.takes_back(order, "2026-03-04 09:00", received_at=at("2026-03-06 09:00"))
    shop.lane(campaign, "2026-03-06 09:05")
    assert shop.received(ana) == ["other", "received"]


def test_a_bad_message_waits_for_office_hours_on_the_customers_clock(shop: Shop) -> None:
    campaign = probe(
        "trigger: {event: paid, entry: existing, max_age: 5 days}\nsteps:\n"
        "  - {id: soon, template: win_back/miss_you, after: 0 minutes, office_hours: true, expires_after: 5 days}\n"
        "  - {id: next_day, template: win_back/whats_new, on_day: 1, office_hours: true, expires_after: 5 days}\n"
    )
    ana = shop.customer(zone="Asia/Seoul")  # UTC+9
    shop.sale(ana, "2026-03-06 12:00")  # Friday, 21:00 in Seoul
    for now in ("2026-03-06 12:00", "2026-03-07 03:00", "2026-03-08 23:59", "2026-03-09 00:00"):
        shop.lane(campaign, now)
    assert shop.times(ana) == ["2026-03-09 00:00", "2026-03-09 00:00"], "Monday at nine in Seoul"


def test_a_customer_with_two_orders_is_told_twice_and_a_ticket_does_not_stop_it(shop: Shop) -> None:
    campaign = probe(f"trigger: {{event: paid, entry: existing, max_age: 2 days}}\nsteps:\n  - {NOW}\n")
    ana = shop.customer(consent=False)
    shop.asks(ana, "2026-03-09 09:00")
    shop.sale(ana, "2026-03-10 23:00")
    shop.sale(ana, "2026-03-10 23:30")
    shop.lane(campaign, "2026-03-10 23:35", fresh=False)
    assert len(shop.mails(ana)) == 2


PROMOTING = (
    "trigger: {event: paid, entry: existing, max_age: 2 days}\nexit_on: [cancelled]\nsteps:\n"
    "  - {id: more, branch: letter, promotes: true, template: win_back/whats_new, after: 0 minutes, expires_after: 1 day}\n"
    "  - {id: plain, branch: letter, template: win_back/miss_you, after: 0 minutes, expires_after: 1 day}\n"
)


def test_a_letter_that_promotes_goes_only_to_who_agreed_and_is_written_like_marketing(shop: Shop) -> None:
    agreed, not_asked, returning = shop.customer(), shop.customer(consent=None), shop.customer()
    old = shop.sale(returning, "2026-02-20 09:00")
    shop.takes_back(old, "2026-03-10 09:00")
    for customer in (agreed, not_asked, returning):
        shop.sale(customer, "2026-03-11 10:00")
    shop.lane(probe(PROMOTING), "2026-03-11 10:05")
    assert [shop.received(c) for c in (agreed, not_asked, returning)] == [["more"], ["plain"], ["plain"]]
    raw = {message.message_id: raw for message, raw in shop.post.taken}
    mail, plain = shop.mails(agreed)[0], shop.mails(not_asked)[0]
    assert b"List-Unsubscribe-Post" in raw[mail.message_id]
    assert b"List-Unsubscribe-Post" not in raw[plain.message_id]
    assert ("more", "skipped", "may_not_promote") in shop.states(not_asked)


def test_only_who_fulfils_the_condition_of_the_audience_begins(shop: Shop) -> None:
    campaign = probe(
        "trigger: {event: paid, entry: existing, max_age: 2 days}\n"
        "audience: {only_if: {all: [{feature: order_nth, is: 1}, {feature: gift, is: false}, {feature: promise_days, more_than: 7}]}}\n"
        f"steps:\n  - {NOW}\n"
    )
    first, gift, second, soon = (shop.customer() for _ in range(4))
    shop.sale(second, "2026-02-01 09:00")
    for customer, promised, present in ((first, 21, False), (gift, 21, True), (second, 21, False), (soon, 14, False)):
        shop.sale(customer, "2026-03-12 09:00", promised_on=f"2026-03-{promised}", gift=present)
    shop.lane(campaign, "2026-03-12 09:05")
    assert [len(shop.mails(c)) for c in (first, gift, second, soon)] == [1, 0, 0, 0]
    assert {shop.refused(c) for c in (gift, second, soon)} == {("not_for_them",)}


def test_a_campaign_is_off_until_a_source_delivers_what_it_needs(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = probe(PARCELS + "needs: [shipments, tickets]\n")
    (tmp_path / "a.yml").write_text("id: a\nmapping: sample_shop.sql\n")
    (tmp_path / "b.yml").write_text("id: b\nscheduled: false\nmapping: sample_shop.sql\n")
    assert flows.lacking(campaign, flows.delivered(tmp_path)) == ""
    (tmp_path / "a.yml").unlink()
    told = flows.lacking(campaign, flows.delivered(tmp_path))
    assert told.startswith("needs shipments and tickets, and no scheduled source")
    file = tmp_path / "win_back.yml"
    file.write_text((settings().include / "campaigns" / "win_back.yml").read_text() + "needs: [tickets]\n")
    monkeypatch.setattr(flows, "delivered", lambda: frozenset({"orders"}))
    monkeypatch.setattr(pipeline.campaigns, "calendar", lambda now: shop.calendar)
    assert pipeline.enrol(str(file), at("2026-03-12"), "test", "test") == {"off": 1, "enrolled": 0}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (PARCELS + "audience: {holdout: 0.1}\n", "kept from nobody"),
        (PARCELS + "stop_while: [ticket_open]\n", "stops for nothing"),
        (
            PARCELS.replace("expires_after", "coupon: {pool: club, percent: 5, valid: 9 days}, expires_after"),
            "promotes: true",
        ),
        (PARCELS.replace("after: 0", "promotes: true, after: 0"), "would get nothing"),
        (PARCELS.replace("once_per: parcel", "once_per: state"), "go together"),
        (PARCELS + "audience: {only_if: {happened: clicked}}\n", "none has begun"),
        (PARCELS + "audience: {only_if: {feature: event.cause, is: damaged}}\n", "this trigger is none"),
        (PARCELS + "audience: {only_if: {feature: gift, at_least: 1}}\n", "true or false"),
        (PARCELS + "needs: [parcels]\n", "needs"),
    ],
)
def test_a_transactional_file_that_would_promote_or_wait_is_refused(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "campaigns" / "probe.yml"
    file.parent.mkdir()
    file.write_text(HEAD + text)
    with pytest.raises(InputError, match=told):
        spec = load_campaign(file)
        raise InputError(campaign_checks.faults_of(file, spec))
