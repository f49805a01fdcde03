"""Where a customer is reached: the preferred channel, else the next one offered, else a stored reason."""

from __future__ import annotations

from dataclasses import replace
from datetime import time, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from fake_providers import Provider
from postlude import campaign_checks, db, pipeline
from postlude.campaign import Campaign
from postlude.channels import channel
from postlude.errors import InputError
from postlude.rendering import RenderError, short
from postlude.settings import settings
from test_ghosts import passage, schedule
from world import World, at, calendar, campaign

LAPSED, NOW = "2025-09-02", "2026-03-02 10:00"


def offering(*channels: str, **changes: object) -> Campaign:
    """The first mail of the win-back campaign, on these channels."""
    loaded = campaign("win_back")
    step = loaded.steps[0].model_copy(update={"channels": channels})
    trigger = loaded.trigger.model_copy(update={"max_age": timedelta(days=400)})
    return loaded.model_copy(update={"steps": (step,), "trigger": trigger, **changes})


@pytest.fixture
def world(engine: Engine) -> World:
    return World(engine)


def lapsed(world: World, phone: str | None = None, sms: bool | None = None, prefers: str | None = None) -> int:
    customer = world.customer()
    world.order(customer, LAPSED)
    world.do(
        "update customers set phone = :p, preferred_channel = :w where customer_id = :c", p=phone, w=prefers, c=customer
    )
    if sms is not None:
        world.do(
            "insert into consents values (:c, 'sms', 'marketing', :g, '2020-01-01', 'opt_in', '2020-01-01')",
            c=customer,
            g=sms,
        )
    return customer


def planned(world: World, customer: int) -> list[str]:
    return [row[0] for row in world.do("select channel from messages where customer_id = :c", c=customer)]


def test_each_customer_gets_the_message_where_it_can_reach_them(world: World) -> None:
    by_phone = lapsed(world, "+4915112345678", sms=True)
    no_phone = lapsed(world, None, sms=True)
    said_no = lapsed(world, "+4915112345679", sms=False)
    never_asked = lapsed(world, "+4915112345670")
    likes_mail = lapsed(world, "+4915112345671", sms=True, prefers="email")
    likes_what_is_not_offered = lapsed(world, "+4915112345672", sms=True, prefers="banner")
    offer = offering("sms", "email")
    world.plan(offer, NOW)
    people = (by_phone, no_phone, said_no, never_asked, likes_mail, likes_what_is_not_offered)
    assert [planned(world, c) for c in people] == [["sms"], ["email"], ["email"], ["email"], ["email"], ["sms"]]

    world.deliver(offer, now=NOW, channel_name="sms")
    texts = [m for m, _ in world.post.taken]
    assert sorted(m.phone or "" for m in texts) == ["+4915112345672", "+4915112345678"]
    assert all(m.text.endswith("Reply STOP to opt out.") and not m.html for m in texts)
    world.deliver(offer, now=NOW)
    assert len(world.post.taken) == 6
    assert {m.channel for m, _ in world.post.taken} == {"sms", "email"}


def test_who_can_be_reached_on_no_channel_is_refused_with_the_reason_of_the_first(world: World) -> None:
    nobody = lapsed(world)
    world.do("update customers set email = null where customer_id = :c", c=nobody)
    world.plan(offering("sms", "email"), NOW)
    assert planned(world, nobody) == []
    assert world.one("select reason from refusals where customer_id = :c", c=nobody) == "no_address"


def test_a_number_lost_before_the_hand_over_is_told_as_no_address(world: World) -> None:
    customer = lapsed(world, "+4915112345678", sms=True)
    offer = offering("sms")
    world.plan(offer, NOW)
    world.do("update customers set phone = null where customer_id = :c", c=customer)
    world.deliver(offer, now=NOW, channel_name="sms")
    assert world.states(customer) == [("miss_you", "skipped", "no_address")]


def test_a_bounced_mailbox_says_nothing_about_the_phone_and_a_complaint_says_everything(world: World) -> None:
    bounced, complained = (lapsed(world, f"+491511234567{n}", sms=True) for n in (1, 2))
    for customer, reason, scope in ((bounced, "hard_bounce", "all"), (complained, "complained", "marketing")):
        world.do("insert into suppressions (address, scope, reason, since) select address, :s, :r, '2026-01-01' from customers "
                 "where customer_id = :c", c=customer, r=reason, s=scope)  # fmt: skip
    world.plan(offering("sms", "email"), NOW)
    assert (planned(world, bounced), planned(world, complained)) == (["sms"], [])


def test_a_complaint_about_a_text_holds_for_mail_and_a_stop_does_not(world: World) -> None:
    complained, stopped = (lapsed(world, f"+491511234567{n}", sms=True) for n in (1, 2))
    for customer, reason in ((complained, "complained"), (stopped, "unsubscribed")):
        world.do("insert into suppressions (address, scope, reason, since) select phone, 'marketing', :r, '2026-01-01' "
                 "from customers where customer_id = :c", c=customer, r=reason)  # fmt: skip
    world.plan(offering("sms", "email"), NOW)
    assert (planned(world, complained), planned(world, stopped)) == ([], ["email"])


def test_a_stop_under_one_number_of_a_person_holds_for_their_other_number_and_not_for_mail(world: World) -> None:
    person, other = lapsed(world, "+4915112345671", sms=True), world.customer()
    world.do(
        "update customers set phone = '+4915112345672', merged_into = :p where customer_id = :c", p=person, c=other
    )
    world.do("insert into suppressions (address, scope, reason, since) values ('+4915112345672', 'marketing', 'unsubscribed', "
             "'2026-01-01')")  # fmt: skip
    asked = "select suppression_of_person(:c, :on, 'marketing', '2026-03-02')"
    told = {name: world.one(asked, c=person, on=name) for name in ("sms", "email", "banner")}
    assert told == {"sms": "unsubscribed", "email": None, "banner": None}
    world.plan(offering("sms", "email"), NOW)
    assert planned(world, person) == ["email"]


def test_the_control_group_has_its_turn_on_the_channel_the_others_get(world: World) -> None:
    offer = offering("sms", "email")
    people = [
        (lapsed(world, phone, sms=sms, prefers=prefers), arm)
        for phone, sms, prefers in (
            ("+4915112345671", True, None), (None, True, None), ("+4915112345672", False, None),
            ("+4915112345673", True, "email"), ("+4915112345674", True, "banner"),
        )
        for arm in ("treated", "holdout")
    ]  # fmt: skip
    for customer, arm in people:
        passage(world, offer, customer, "2026-02-28 10:00", arm)
    schedule(world, offer, at(NOW))
    found = dict(world.do("select customer_id, channel from turns"))
    assert [found[c] for c, _ in people] == ["sms", "sms", *["email"] * 6, "sms", "sms"]
    assert world.do("select distinct e.arm, g.ghost from turns as g join enrolments as e using (enrolment_id) order by 1") == [
        ("holdout", True), ("treated", False),
    ]  # fmt: skip


def test_a_channel_on_which_only_ghosts_are_due_is_served_and_nobody_is_said_to_wait(world: World) -> None:
    offer = offering("sms")
    passage(world, offer, lapsed(world, "+4915112345671", sms=True), "2026-02-28 10:00", "holdout")
    schedule(world, offer, at(NOW))
    with db.transaction(world.engine) as conn:
        assert db.run(conn, "40_channels_due", now=at("2026-03-06 12:00")).all() == [("sms", False)]


def test_a_number_that_does_not_exist_is_suppressed_and_the_mailbox_is_not(world: World) -> None:
    customer = lapsed(world, "+4915112345678", sms=True)
    offer = offering("sms")
    world.plan(offer, NOW)
    with Provider("sms", errors=[(400, {"code": 21211, "message": "not a valid number"})]) as provider:
        world.post = channel("sms")  # type: ignore[assignment]
        box_url = provider.url
        from postlude import outbox

        box = outbox.Outbox(
            engine=world.engine, channel=channel("sms"), url=box_url, campaigns=[offer], calendar=world.calendar,
            clock=lambda: at(NOW), worker="w", channel_name="sms",
        )  # fmt: skip
        box.deliver()
    assert world.states(customer) == [("miss_you", "failed", "refused_recipient")]
    assert world.do("select address, scope, reason from suppressions") == [("+4915112345678", "all", "hard_bounce")]


def test_a_text_keeps_to_legal_hours_even_where_mail_may_go_at_night(world: World) -> None:
    text, mail = lapsed(world, "+4915112345678", sms=True), lapsed(world)
    window = world.calendar.window.model_copy(update={"opens": time(0), "closes": time(23, 59)})
    world.calendar = calendar(window=window, windows={})
    offer = offering("sms", "email")
    world.plan(offer, "2026-03-02 06:30")
    for name in ("sms", "email"):
        world.deliver(offer, now="2026-03-02 07:30", channel_name=name)
    assert world.states(text) == [("miss_you", "scheduled", "outside_window")]
    assert world.states(mail) == [("miss_you", "sent", None)]
    world.deliver(offer, now="2026-03-02 12:00", channel_name="sms")
    assert world.states(text) == [("miss_you", "sent", None)]


def test_a_banner_holds_nobodys_name_and_needs_a_consent_of_its_own(world: World) -> None:
    customer = lapsed(world)
    offer = offering("banner")
    world.plan(offer, NOW)
    assert planned(world, customer) == []
    world.do(
        "insert into consents values (:c, 'banner', 'marketing', true, '2020-01-01', 'opt_in', '2020-01-01')",
        c=customer,
    )
    world.plan(offer, NOW)
    world.deliver(offer, now=NOW, channel_name="banner")
    ((message, raw),) = world.post.taken
    assert message.subject == "Good to see you again"
    assert b"Ana" not in raw and message.person
    assert message.recipient.address == f"{message.person.hex}@banner.invalid"


@pytest.mark.parametrize("wrong", ["0151 1234567", "+0123456789", "+49", "4915112345678", "+49151123456789012"])
def test_a_phone_number_is_international_or_not_stored(world: World, wrong: str) -> None:
    customer = world.customer()
    with pytest.raises(Exception, match="customers_phone_check"):
        world.do("update customers set phone = :p where customer_id = :c", p=wrong, c=customer)


def test_a_delivered_number_is_taken_only_with_its_country(world: World) -> None:
    read = {
        "+49 (151) 123-456 78": "+4915112345678", "0049151 12345678": "+4915112345678", "0151 12345678": None,
        "+1.415.555.0100": "+14155550100", "call me": None, "": None,
    }  # fmt: skip
    assert {given: world.one("select to_phone(:g)", g=given) for given in read} == read


# ---------------------------------------------------------------- the words


def test_a_text_says_how_to_stop_in_the_customers_language_unless_its_words_do() -> None:
    ana = short.samples("win_back/miss_you")["ana"]
    assert short.render("win_back/miss_you", "sms", ana, "de").text.endswith("STOP antworten.")
    assert "STOP" not in short.render("win_back/miss_you", "sms", ana, "en", marketing=False).text


def test_a_text_that_costs_too_much_is_not_sent(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.sms.j2").write_text("{{ shop.name }} " + "안녕하세요 " * 60)
    ana = short.samples("a/b")["ana"]
    with pytest.raises(RenderError, match="needs 6 messages; at most 4"):
        short.render("a/b", "sms", ana, folder=tmp_path)


def test_words_for_a_channel_that_are_missing_or_wrong_are_told_at_validation(tmp_path: Path) -> None:
    path = settings().include / "campaigns" / "win_back.yml"
    told = campaign_checks.faults_of(path, offering("webhook", "email"))
    assert [str(fault) for fault in told if "webhook" in str(fault)]
    assert not campaign_checks.faults_of(path, offering("sms", "banner", "email"))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.sms.j2").write_text("{{ customer.frist_name }}")
    assert "frist_name" in str(short.check("a/b", "sms", tmp_path)[0])


def test_every_shipped_text_fits_and_is_cheap() -> None:
    for path in settings().include.glob("templates/*/*.sms.j2"):
        assert short.check(f"{path.parent.name}/{path.name.split('.')[0]}", "sms") == []


# ---------------------------------------------------------------- the way out


def test_all_channels_go_to_the_catcher_until_sending_is_switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {module for module, _ in pipeline.routes().values()} == {"smtp"}
    given = {"sending": True, "email_url": "ses://k:s@eu-west-1", "sms_url": "sms://a:b@?from=x"}
    monkeypatch.setattr(pipeline.ways, "settings", lambda: settings().model_copy(update=given))
    assert {name: module for name, (module, _) in pipeline.routes().items()} == {
        "email": "ses", "sms": "sms", "banner": "banner",
    }  # fmt: skip
    with pytest.raises(InputError, match="lies in the past"):
        pipeline.routes(at("2026-01-01"))


def test_a_message_of_another_channel_never_goes_to_somebodys_mailbox(world: World) -> None:
    """In the catcher a text stands for its number; nothing of it is a mail address of the customer."""
    customer = lapsed(world, "+4915112345678", sms=True)
    offer = offering("sms")
    world.plan(offer, NOW)
    world.deliver(offer, now=NOW, channel_name="sms")
    ((message, _),) = world.post.taken
    assert message.recipient.address == "4915112345678@sms.invalid"
    assert replace(message, phone=None).recipient.address.endswith(".invalid")
    assert world.states(customer) == [("miss_you", "sent", None)]
