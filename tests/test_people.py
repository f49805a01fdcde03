"""One person: everything about them is exported, and nothing that names them is left in any table when they are erased."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.engine import URL

from paged import EVIL, Pages
from postlude import db, people
from postlude.errors import InputError
from postlude.message import Outcome
from test_cli import Shell
from test_flow import lapsing
from world import World, at, campaign

NOW = at("2026-06-05 12:00")
EMAIL, NAME, PHONE = "grete.nussbaum@customers.example", "Grete Nussbaumer", "+4915112345678"

STAYING = ("messages", "orders", "events", "customers", "suppressions", "quarantine", "enrolments", "consents")


@pytest.fixture
def world(engine: Engine) -> Iterator[World]:
    yield World(engine)


def grete(world: World) -> int:
    """A customer of whom traces lie in every corner: mails, answers of relays, reports, quarantine, notes, a second record."""
    customer = lapsing(world, name="Grete", email=EMAIL, key=EMAIL)
    world.do("update customers set last_name = 'Nussbaumer', phone = :p, birthday = '1980-02-03', "
             "person_key = 'crm-grete-77', country = 'DE' where customer_id = :c", c=customer, p=PHONE)  # fmt: skip
    world.do("insert into customer_identities values ('shop', :k, :c)", k=EMAIL, c=customer)
    second = world.customer(name="Grete", email="g.nussbaumer@customers.example", key="old-7")
    world.do("update customers set merged_into = :c where customer_id = :s", c=customer, s=second)
    world.post.answer = lambda m: Outcome("refused", scope="policy", reply=f"550 5.7.1 <{EMAIL}>: no, {NAME}")
    back = campaign("win_back")
    world.plan(back, "2026-06-01 08:30")
    world.deliver(back, now="2026-06-01 09:30")
    message = world.one("select message_id from messages where customer_id = :c order by due_at limit 1", c=customer)
    order = world.order(customer, "2026-03-01", delivered="2026-03-03")
    statements = {
        "insert into events (event_id, message_id, customer_id, kind, at, known_at, source, detail) values (gen_random_uuid(), :m, :c, "
        "'rated', '2026-06-02', '2026-06-02', 'web', cast(:detail as jsonb))": {"detail": json.dumps({"score": 9, "says": f"I am {NAME}"})},
        "insert into event_inbox (received_at, source, dedupe_key, payload, raw) values ('2026-06-02', 'ses', 'k', "
        "jsonb_build_object('kind', 'opened', 'message_id', :m, 'from', :email), jsonb_build_object('to', :email))": {"email": EMAIL},
        "insert into quarantine (source_id, entity, row_hash, reasons, raw, first_seen, last_seen, run_id) "
        "values ('shop', 'customers', 'h', "
        "'{no_id}', jsonb_build_object('Email', :email, 'First', 'Grete', 'Last', 'Nussbaumer'), now(), now(), 'x')": {"email": EMAIL},
        "insert into quarantine (source_id, entity, row_hash, reasons, raw, first_seen, last_seen, run_id) values ('shop', 'orders', 'h2', "
        "'{no_date}', jsonb_build_object('customer_id', 'old-7', 'note', 'for Grete Nussbaumer'), now(), now(), 'x')": {},
        "insert into kept_letters values (:m, now(), jsonb_build_object('to', :email), convert_to(:email, 'UTF8'))": {"email": EMAIL},
        "insert into banners values (:m, gen_random_uuid(), 'win_back', 'Hello Grete', 'Dear Grete Nussbaumer', null, now(), "
        "now() + interval '1 day')": {},
        "insert into interventions (message_id, at, action, from_state, to_state, decided_by, why, evidence) values (:m, now(), 'settled', "
        "'unknown', 'sent', 'kim', :why, :why)": {"why": f"{NAME} wrote from {EMAIL}"},
        "insert into external_events values ('shop', 'e1', :c, 'quiz_done', '2026-06-01', '2026-06-01', cast(:detail as jsonb))": {
            "detail": json.dumps({"name": NAME})
        },
        "update shipments set tracking_url = 'https://parcels.example/' || :email where order_id = :o": {"email": EMAIL, "o": order},
        "update orders set address = 'Lindenallee 17, Grimma', url = 'https://shop.example/o/grete' where order_id = :o": {"o": order},
        "update order_lines set description = :words where order_id = :o": {"words": f"Mug, engraved “{NAME}”", "o": order},
        "insert into suppressions (address, scope, reason, since) values (:email, 'marketing', 'complained', '2026-06-03')": {
            "email": EMAIL
        },
        "create table staging_shop_customers (source_customer_id text, email text)": {},
        "insert into staging_shop_customers values ('old-7', 'x'), ('other', :email), ('bo', 'bo@customers.example')": {"email": EMAIL},
    }  # fmt: skip
    for statement, more in statements.items():
        every = {"m": str(message), "c": customer, **more}
        bound, used = statement, {key: value for key, value in every.items() if f":{key}" in statement}
        for name, kind in (("m", "uuid"), ("email", "text"), ("why", "text"), ("words", "text")):
            bound = re.sub(rf":{name}\b", f"cast(:{name} as {kind})", bound)
        world.do(bound, **used)
    return customer


def places(world: World, *words: str) -> set[str]:
    """table.column wherever one of the words stands, in any text, JSON, list or bytes of any table."""
    found = set()
    for table, column, kind in world.do(
        """select c.table_name, c.column_name, c.data_type from information_schema.columns c
           join information_schema.tables t using (table_schema, table_name)
           where c.table_schema = 'postlude' and t.table_type = 'BASE TABLE'"""
    ):
        value = f"convert_from(\"{column}\", 'LATIN1')" if kind == "bytea" else f'cast("{column}" as text)'
        for word in words:
            if world.one(f'select exists (select from "{table}" where {value} ilike :w)', w=f"%{word}%"):
                found.add(f"{table}.{column}")
    return found


def test_nothing_names_an_erased_person_and_nobody_else_is_touched(world: World) -> None:
    customer = grete(world)
    bo = world.customer(name="Bo", email="bo@customers.example")
    world.do("update customers set last_name = 'Nussbaumer' where customer_id = :c", c=bo)
    words = (EMAIL, "nussbaumer", PHONE, "crm-grete", "g.nussbaum", "Grete", "Lindenallee")
    everywhere = places(world, *words)
    assert len(everywhere) > 18, everywhere  # the test is worth something
    counts = {table: world.one(f"select count(*) from {table}") for table in STAYING}
    with db.transaction(world.engine) as conn:
        done = people.erase(conn, customer, "kim", "asked for it", NOW)
    assert (
        done["customers"] == 2 and done["kept_letters"] == 1 and done["suppressions"] == 1 and done["quarantine"] == 2
    )
    assert places(world, *words) == {"customers.last_name"}  # of Bo, who has the same name
    assert world.do("select customer_id from customers where last_name is not null") == [(bo,)]
    assert counts == {table: world.one(f"select count(*) from {table}") for table in STAYING}
    assert world.do("select detail from events where customer_id = :c", c=customer) == [({"score": 9},)]
    assert world.do("select email from staging_shop_customers") == [("bo@customers.example",)]
    # the shop delivers the order once more: where it went is not taken over
    world.do("update orders set address = 'Lindenallee 17, Grimma' where customer_id = :c", c=customer)
    assert places(world, "Lindenallee") == set()
    # nothing is under way, and who asks later learns by whom and why
    assert (
        world.one("select count(*) from messages where state in ('scheduled', 'held') and customer_id = :c", c=customer)
        == 0
    )
    assert world.do("select customer_id, by_whom, why from erasures") == [(customer, "kim", "asked for it")]
    with db.transaction(world.engine) as conn, pytest.raises(InputError, match="erased already"):
        people.erase(conn, customer, "kim", "again", NOW)


def test_who_was_erased_gets_nothing_when_a_shop_delivers_the_address_again(world: World) -> None:
    ana = lapsing(world, name="Ana", email="ana@customers.example", key="17")
    with db.transaction(world.engine) as conn:
        people.erase(conn, ana, "kim", "asked for it", NOW)
    # the same account once more: nothing of it is taken over
    world.do("update customers set email = 'ana@customers.example', first_name = 'Ana' where customer_id = :c", c=ana)
    assert world.do("select email, first_name from customers where customer_id = :c", c=ana) == [(None, None)]
    # a new account with the old address, which agrees to everything: known, and left alone
    again = lapsing(world, name="Ana", email=" ANA@customers.example ", key="99")
    bo = lapsing(world, name="Bo")
    back = campaign("win_back")
    world.plan(back, "2026-06-01 08:30")
    world.deliver(back, now="2026-06-01 09:30")
    assert (world.received(again), world.received(ana), world.received(bo)) == ([], [], ["miss_you"])
    assert world.do("select reason from refusals where customer_id = :c", c=again) == [("erased",)]
    # she comes back and says so: lifted once, it stays lifted
    with db.transaction(world.engine) as conn:
        stop = people.suppressions(conn, again)[0]
        people.lift(
            conn, again, stop.suppression_id, "kim", "has a new account, asked for mail", at("2026-06-01 10:00")
        )
    world.do("update customers set email = 'Ana@customers.example' where customer_id = :c", c=again)
    world.plan(back, "2026-06-01 10:30")
    world.deliver(back, now="2026-06-01 11:30")
    assert world.received(again) == ["miss_you"]


def test_an_export_holds_every_row_that_speaks_of_the_person(world: World) -> None:
    customer = grete(world)
    lapsing(world, name="Bo")
    with db.transaction(world.engine) as conn:
        found = people.export(conn, customer)
    told = {name.split(".")[0] for name in places(world, EMAIL, "nussbaumer", PHONE)}
    # rows that were refused at the door, or lie unread, belong to nobody yet
    assert told - set(found) == {"quarantine", "event_inbox", "staging_shop_customers"}
    assert {"orders", "order_lines", "messages", "attempts", "events", "enrolments", "consents", "suppressions"} <= set(
        found
    )
    assert len(found["customers"]) == 2 and "Bo" not in json.dumps(found["customers"])
    assert {row["customer_id"] for row in found["orders"]} == {customer}


def test_the_customer_page_names_people_only_to_those_who_may_know_them(world: World, tmp_path: Path) -> None:
    customer = grete(world)
    pages = Pages(world, tmp_path, NOW)
    bodies: dict[str, Any] = {
        "find": {"customer": EMAIL}, "story": {"customer": customer}, "why": {"customer": str(customer), "campaign": "win_back"},
        "suppress": {"customer": customer, "scope": "marketing", "why": "asked on the phone"},
        "lift": {"customer": customer, "suppression": 1, "why": "x"}, "export": {"customer": customer},
        "erase": {"customer": customer, "why": "x", "sure": str(customer)},
    }  # fmt: skip
    for who, status in ((None, 401), ("viewer", 403), ("user", 403)):
        for act, body in bodies.items():
            told = pages.post(who, f"api/customer/{act}", body)
            assert pages.status == status and "Grete" not in str(told), act
    assert pages.get("user", "api/customer/may")["may_know"] is False
    found = pages.post("op", "api/customer/find", bodies["find"])["people"]
    assert [(one["customer_id"], one["email"]) for one in found] == [(customer, EMAIL)]
    # the second record, a number, the id: the same person
    for wanted in ("old-7", PHONE, str(customer), "g.nussbaumer@customers.example"):
        assert [
            one["customer_id"] for one in pages.post("op", "api/customer/find", {"customer": wanted})["people"]
        ] == [customer]
    story = pages.post("op", "api/customer/story", {"customer": customer})
    assert {"order", "delivery", "campaign begun", "message", "event", "consent", "suppressed"} <= {
        one["what"] for one in story["timeline"]
    }
    instants = [one["at"] for one in story["timeline"]]
    assert instants == sorted(instants, reverse=True)
    traced = pages.post("op", "api/customer/why", bodies["why"])["people"]
    assert any(one["campaigns"][0]["lines"] for one in traced)


def test_suppressing_and_lifting_keep_who_and_why(world: World, tmp_path: Path) -> None:
    ana = lapsing(world)
    pages = Pages(world, tmp_path, "2026-06-01 09:00")
    stopped = pages.post("op", "api/customer/suppress", {"customer": ana, "scope": "marketing", "why": EVIL})
    assert stopped["changed"] == 1 and stopped["suppressions"][0]["why"] == EVIL
    back = campaign("win_back")
    world.plan(back, "2026-06-01 08:30")
    assert world.do("select reason from refusals") == [("manual",)]
    number = stopped["suppressions"][0]["suppression_id"]
    wrong = {
        "say why": ("lift", {"customer": ana, "suppression": number, "why": " "}),
        "no such suppression": ("lift", {"customer": ana, "suppression": number + 1, "why": "x"}),
        'write "marketing"': ("suppress", {"customer": ana, "scope": "everything", "why": "x"}),
        "cannot be stored": ("suppress", {"customer": ana, "why": "a\0b"}),
        "to say that you are sure": ("erase", {"customer": ana, "why": "x", "sure": "1x"}),
        "there is no customer": ("export", {"customer": 10**12}),
        "no customer has this": ("find", {"customer": EVIL}),
    }
    for words, (act, body) in wrong.items():
        told = pages.post("op", f"api/customer/{act}", body)
        assert pages.status == 422 and words in told["detail"], told
    lifted = pages.post("op", "api/customer/lift", {"customer": ana, "suppression": number, "why": "a mistake"})
    assert [(one["lifted_by"], one["lift_reason"]) for one in lifted["suppressions"]] == [("op", "a mistake")]
    world.plan(back, "2026-06-01 10:30")
    world.deliver(back, now="2026-06-01 11:30")
    assert world.received(ana) == ["miss_you"]


def test_the_command_line_exports_and_erases(world: World, database: URL, tmp_path: Path) -> None:
    ana = lapsing(world, name="Ana Secretperson", email="ana@customers.example")
    shell = Shell(database, tmp_path)
    told = json.loads(shell("customer", "export", "ana@customers.example"))
    assert told["customers"][0]["first_name"] == "Ana Secretperson" and len(told["orders"]) == 1
    assert shell.json("customer", "erase", str(ana), "--why", "asked for it", "--by", "kim")["customers"] == 1
    assert "no customer has this" in shell("customer", "export", "ana@customers.example", code=2)
    assert world.do("select by_whom, why from erasures") == [("kim", "asked for it")]
