"""One person in several shops counts as one by declared rules only, and can be told apart again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from postlude import audience, db, identities
from postlude.errors import InputError
from postlude.identities import Rule
from world import World, at, campaign

LOYALTY = Rule(id="loyalty", match="person_key", across=("shop", "second"))
ADDRESS = Rule(id="address", match="email", across=("shop", "second"))
NOW = "2026-06-01"


@pytest.fixture
def world(engine: Engine) -> World:
    world = World(engine)
    world.do(
        "insert into sources (source_id, shop, kind, currency, time_zone) values ('second', 'Second', 'files', 'EUR', 'UTC')"
    )
    return world


def person(world: World, shop: str, email: str, consent: bool | None = True, **columns: Any) -> int:
    customer = world.customer(email=email, consent=consent)
    columns |= {"source_id": shop}
    world.do(
        f"update customers set {', '.join(f'{name} = :{name}' for name in columns)} where customer_id = :c",
        c=customer,
        **columns,
    )
    world.do("insert into customer_identities select source_id, source_customer_id, customer_id from customers where customer_id = :c",
             c=customer)  # fmt: skip
    return customer


def ordered(world: World, customer: int, placed: str, **more: Any) -> int:
    """An order under the name the shop gave this customer, as a load stores it."""
    order = world.order(customer, placed, **more)
    world.do("update orders as o set source_id = c.source_id, source_customer_id = c.source_customer_id from customers as c "
             "where o.order_id = :o and c.customer_id = :c", o=order, c=customer)  # fmt: skip
    return order


def apply(world: World, *rules: Rule) -> dict[str, int]:
    with db.transaction(world.engine) as conn:
        return identities.apply(conn, rules, at(NOW))


def persons(world: World) -> dict[int, int]:
    return {row[0]: row[1] for row in world.do("select customer_id, coalesce(merged_into, customer_id) from customers")}


def test_equal_addresses_alone_make_nobody_one_person(world: World) -> None:
    ana = person(world, "shop", "ana@customers.example")
    other = person(world, "second", "Ana@customers.example ")
    assert apply(world)["merged"] == apply(world, ADDRESS)["merged"] == 0
    world.do("update customers set email_verified = true where customer_id = :c", c=ana)
    assert apply(world, ADDRESS)["merged"] == 0, "the other shop has not had it confirmed"
    assert apply(world, ADDRESS.model_copy(update={"verified_by": ("second",)}))["merged"] == 1
    assert persons(world) == {ana: ana, other: ana}
    assert apply(world, ADDRESS.model_copy(update={"verified_by": ("second",)}))["merged"] == 0
    assert world.one("select count(*) from public.customers") == len(set(persons(world).values())), "a row per person"


def test_a_person_in_two_shops_is_one_in_features_and_audience_and_gets_one_mail(world: World) -> None:
    ana = person(world, "shop", "ana@customers.example", person_key="L7")
    twin = person(world, "second", "a.na@customers.example", person_key="L7")
    ordered(world, ana, "2025-12-01")
    ordered(world, twin, "2025-12-02")
    win_back = campaign("win_back")
    before = world.plan(win_back, "2026-06-01")
    assert before["enrolled"] == 2
    apply(world, LOYALTY)
    with db.transaction(world.engine) as conn:
        audience.derive_features(conn, at(NOW), "test")
    assert world.do("select customer_id, frequency from customer_features") == [(ana, 2)]
    assert world.do("select customer_id, exited_at is null from enrolments order by 2") == [(ana, False), (ana, True)]
    assert world.do("select distinct reason from messages where state = 'cancelled'") == [("same_person",)]
    assert world.plan(win_back, "2026-06-02")["enrolled"] == 0
    world.deliver(win_back, now="2026-06-02 10:00")
    assert len(world.received(ana)) == len(world.post.taken) == 1


def test_a_lapsed_person_who_orders_in_the_other_shop_is_not_missed(world: World) -> None:
    ana = person(world, "shop", "ana@customers.example", person_key="L7")
    twin = person(world, "second", "twin@customers.example", person_key="L7")
    ordered(world, ana, "2025-12-01")
    ordered(world, twin, "2026-05-20")
    apply(world, LOYALTY)
    assert world.plan(campaign("win_back"), NOW)["enrolled"] == 0


def test_who_said_no_in_one_shop_has_said_no(world: World) -> None:
    ana = person(world, "shop", "ana@customers.example", person_key="L7")
    twin = person(world, "second", "twin@customers.example", person_key="L7")
    world.consent(twin, False, "2026-01-01")
    world.consent(ana, True, "2026-03-01")
    apply(world, LOYALTY)
    assert world.one("select consented(:c, 'email', 'marketing', :now)", c=ana, now=at("2026-06-02")) is False
    world.consent(ana, True, "2026-06-03")
    assert world.one("select consented(:c, 'email', 'marketing', :now)", c=ana, now=at("2026-06-04")) is True


@pytest.mark.parametrize(("reason", "reached"), [("unsubscribed", False), ("complained", False), ("hard_bounce", True)])
def test_suppressions_of_all_addresses_hold_for_the_person_except_a_dead_address(
    world: World, reason: str, reached: bool
) -> None:
    ana = person(world, "shop", "ana@customers.example", person_key="L7")
    person(world, "second", "twin@customers.example", person_key="L7")
    ordered(world, ana, "2025-12-01")
    apply(world, LOYALTY)
    win_back = campaign("win_back")
    world.plan(win_back, NOW)
    world.do("insert into suppressions (address, scope, reason, since) values ('twin@customers.example', 'marketing', :r, :now)",
             r=reason, now=at(NOW))  # fmt: skip
    world.deliver(win_back, now="2026-06-01 10:00")
    assert bool(world.post.taken) is reached


def test_caps_and_the_ledger_move_with_the_person(world: World) -> None:
    ana = person(world, "shop", "ana@customers.example", person_key="L7")
    twin = person(world, "second", "twin@customers.example", person_key="L7")
    ordered(world, twin, "2025-12-01")
    win_back = campaign("win_back")
    world.plan(win_back, NOW)
    world.deliver(win_back, now="2026-06-01 10:00")
    assert len(world.post.taken) == 1
    apply(world, LOYALTY)
    assert (
        world.one("select jsonb_array_length(recent) from recent_messages(:c, '2026-05-01', '2026-06-02')", c=ana) == 1
    )
    assert (
        world.one("select jsonb_array_length(recent) from recent_messages(:c, '2026-05-01', '2026-06-02')", c=twin)
        is None
    )


def test_a_split_gives_back_what_was_brought_and_no_rule_merges_them_again(world: World) -> None:
    ana = person(world, "shop", "ana@customers.example", person_key="L7")
    twin = person(world, "second", "twin@customers.example", person_key="L7", consent=None)
    first, brought = ordered(world, ana, "2025-12-01"), ordered(world, twin, "2025-12-02")
    apply(world, LOYALTY)
    since = ordered(world, twin, "2026-05-01")  # comes in under the second shop's name, for the person
    world.do("update orders set customer_id = :a where order_id = :o", a=ana, o=since)
    world.consent(ana, False, "2026-05-15")
    with db.transaction(world.engine) as conn:
        assert identities.split(conn, twin, at("2026-06-02"), by="eva", why="mother and daughter share a card") == ana
    assert dict(world.do("select order_id, customer_id from orders")) == {first: ana, brought: twin, since: twin}
    assert dict(world.do("select source_id, customer_id from customer_identities")) == {"shop": ana, "second": twin}
    assert world.one("select consented(:c, 'email', 'marketing', :now)", c=twin, now=at("2026-06-03")) is False
    assert apply(world, LOYALTY) == {"merged": 0, "kept_apart": 1, "too_many": 0}
    assert persons(world) == {ana: ana, twin: twin}
    with db.transaction(world.engine) as conn:
        (told,) = identities.merges(conn, twin)
    assert (told["rule"], told["kept"], told["split_by"]) == ("loyalty", ana, "eva")


def test_a_marketplace_record_counts_for_the_person_and_is_never_the_one_that_is_mailed(world: World) -> None:
    market = person(world, "second", "masked@customers.example", person_key="L7", marketplace=True)
    ana = person(world, "shop", "ana@customers.example", person_key="L7")
    ordered(world, market, "2025-12-01")
    win_back = campaign("win_back")
    assert world.plan(win_back, "2026-05-31")["enrolled"] == 0
    apply(world, LOYALTY)
    assert persons(world) == {market: ana, ana: ana}
    world.plan(win_back, NOW)
    world.deliver(win_back, now="2026-06-01 10:00")
    assert len(world.received(ana)) == len(world.post.taken) == 1
    assert b"masked@" not in world.post.taken[0][1]


def test_a_key_of_too_many_records_is_nobodys(world: World) -> None:
    for number in range(6):
        person(world, "shop", f"{number}@customers.example", person_key="0000")
    assert apply(world, LOYALTY) == {"merged": 0, "kept_apart": 0, "too_many": 1}


def test_a_wrong_rule_and_a_wrong_merge_say_what_to_mend(world: World, tmp_path: Path) -> None:
    file = tmp_path / "identities.yml"
    file.write_text("rules:\n  - id: a\n    match: name\n    across: [shop]\n")
    with pytest.raises(InputError, match=r"identities.yml:3: rules\[0\].match"):
        identities.load_rules(file)
    file.write_text("rules:\n  - id: a\n    match: email\n    across: [shop, secnd]\n")
    with pytest.raises(
        InputError, match=r'identities.yml:4: rules\[0\].across: there is no source "secnd"; did you mean "second"'
    ):
        identities.load_rules(file, known=["shop", "second"])
    assert identities.load_rules() == ()
    ana, twin = person(world, "shop", "a@customers.example"), person(world, "second", "b@customers.example")
    with db.transaction(world.engine) as conn:
        identities.merge(conn, ana, twin, at(NOW), rule="by hand", by="eva", why="called us")
        for wrong, message in (
            ((ana, ana), "itself"),
            ((twin, ana), f"belongs to person {ana}"),
            ((ana, 999), "no customer 999"),
        ):
            with pytest.raises(InputError, match=message):
                identities.merge(conn, *wrong, at(NOW), rule="by hand", by="eva", why="x")
        with pytest.raises(InputError, match="of its own already"):
            identities.split(conn, ana, at(NOW), by="eva", why="x")
