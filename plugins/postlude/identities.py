# ruff: noqa: S608 - names of tables come from the lists below; values are bound
"""One person in several shops: declared rules (include/identities.yml), merges and splits with a history.

`customers.customer_id` is the person. A record found to be the same person stays as a row with `merged_into`, and
everything that spoke of it (identities, orders, tickets, consents, enrolments, messages, events) speaks of the person
kept: caps, ledger, features and audiences count one. Who said no in one shop has said no; who is suppressed under one
address is suppressed under all (`suppression_of_person`), except that a dead address says nothing about another.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from sqlalchemy import Connection, text

from postlude import db, yamlfile
from postlude.errors import Fault, InputError
from postlude.settings import settings
from postlude.yamlfile import Strict, did_you_mean

# table: the expression that names a row of it in the history
_OWNED = {
    "customer_identities": "to_jsonb(array[source_id, source_customer_id])",
    "orders": "to_jsonb(order_id)",
    "tickets": "to_jsonb(array[source_id, ticket_key])",
    "external_events": "to_jsonb(array[source_id, event_key])",
    "loyalty_ledger": "to_jsonb(entry_id)",
    "recoveries": "to_jsonb(recovery_id)",
    "events": "to_jsonb(event_id)",
    "messages": "to_jsonb(message_id)",
}


class Rule(Strict):
    """One way to know that two customers are the same person."""

    id: str = Field(pattern=r"^[a-z][a-z0-9_]{0,29}$")
    match: Literal["email", "person_key"] = Field(description="a verified address, or an id the shops share on purpose")
    across: tuple[str, ...] = Field(min_length=1, description="the shops (source ids) whose customers are compared")
    verified_by: tuple[str, ...] = Field((), description="shops that have every address confirmed")
    at_most: int = Field(5, ge=2, le=50, description="more records under one key are nobody: left alone and counted")


class Identities(Strict):
    """include/identities.yml."""

    rules: tuple[Rule, ...] = ()


def load_rules(path: Path | None = None, known: Sequence[str] | None = None) -> tuple[Rule, ...]:
    """The rules in force; none without a file. known: source ids there are. Raises InputError with every fault."""
    path = path or settings().include / "identities.yml"
    if not path.is_file():
        return ()
    words, file = yamlfile.read_text(path), yamlfile.shown(path)
    rules = yamlfile.parse(words, file, Identities).rules
    faults = []
    for number, rule in enumerate(rules):
        for key in ("across", "verified_by"):
            for name in getattr(rule, key):
                if known is not None and name not in known:
                    loc = ("rules", number, key)
                    what = f'there is no source "{name}"{did_you_mean(name, known)}'
                    faults.append(Fault(file, yamlfile.line_of(file, loc), yamlfile.key_of(loc), what))
    if faults:
        raise InputError(faults)
    return rules


def apply(conn: Connection, rules: Sequence[Rule], now: datetime) -> dict[str, int]:
    """Merge whom the rules declare to be one person. Returns merged, kept_apart (split before), too_many (groups left alone)."""
    counts = dict.fromkeys(("merged", "kept_apart", "too_many"), 0)
    for rule in rules:
        asked = {"match": rule.match, "across": list(rule.across), "verified_by": list(rule.verified_by)}
        for people in db.run(conn, "19_same_person", **asked).scalars().all():
            if len(people) > rule.at_most:
                counts["too_many"] += 1
                continue
            kept, *others = list(dict.fromkeys(_person(conn, one) for one in people))
            for other in others:
                if _apart(conn, kept, other):
                    counts["kept_apart"] += 1
                    continue
                merge(conn, kept, other, now, rule=rule.id, by="identities.yml", why=f"the same {rule.match}")
                counts["merged"] += 1
    return counts


def merge(conn: Connection, kept: int, merged: int, now: datetime, *, rule: str, by: str, why: str) -> int:
    """From now on the customer `merged` is the person `kept`; the number of the merge.

    Raises InputError when one of them does not exist, belongs to somebody already, or when they are one.
    """
    _lock(conn, kept, merged)
    pair = {"kept": kept, "merged": merged}
    said_no = db.run(conn, "19_withdrawn", now=now, **pair).all()
    moved: dict[str, list[Any]] = {}
    _end_doubled(conn, pair, now)
    # the same anchor of the same campaign twice: both rows stay, told apart by whose the second one was
    moved["enrolments"] = _moved(
        conn,
        """update enrolments as e set customer_id = :kept, anchor_key = e.anchor_key || case when exists (
                select from enrolments as k
                where k.campaign_id = e.campaign_id and k.customer_id = :kept and k.anchor_key = e.anchor_key
            ) then '#' || :merged else '' end
            where e.customer_id = :merged returning to_jsonb(enrolment_id)""",
        pair,
    )
    for table, key in _OWNED.items():
        moved[table] = _moved(
            conn, f"update {table} set customer_id = :kept where customer_id = :merged returning {key}", pair
        )
    moved["consents"] = _moved(
        conn,
        """insert into consents select :kept, channel, topic, granted, at, basis, known_at from consents
           where customer_id = :merged on conflict do nothing returning to_jsonb(consents)""",
        pair,
    )
    for said in said_no:
        conn.execute(
            text("""insert into consents (customer_id, channel, topic, granted, at, basis, known_at)
                    values (:kept, :channel, :topic, false, :now, 'unsubscribe', :now) on conflict do nothing"""),
            pair | {"channel": said.channel, "topic": said.topic, "now": now},
        )
    for statement in (
        # who was drawn stays on the side of the person kept
        "update holdouts as h set customer_id = :kept where customer_id = :merged and not exists "
        "(select from holdouts as k where k.customer_id = :kept and k.campaign_id = h.campaign_id)",
        "update loyalty_memberships as m set customer_id = :kept where customer_id = :merged and not exists "
        "(select from loyalty_memberships as k where k.customer_id = :kept and (k.left_at is null or k.joined_at = m.joined_at))",
        "update loyalty_memberships set left_at = greatest(joined_at, cast(:now as timestamptz)), left_why = 'the same person' "
        "where customer_id = :merged and left_at is null",
        "update segment_memberships set left_at = greatest(seen_at, cast(:now as timestamptz)) "
        "where customer_id = :merged and left_at is null",
        "delete from customer_facts where customer_id = :merged",
        "update customers set merged_into = :kept where customer_id = :merged or merged_into = :merged",
    ):
        conn.execute(text(statement), pair | ({"now": now} if ":now" in statement else {}))
    done = {"rule": rule, "by_whom": by, "why": why, "now": now, "moved": db.dumps(moved)}
    return int(db.run(conn, "19_record_merge", **pair, **done).scalar_one())


def split(conn: Connection, merged: int, now: datetime, *, by: str, why: str) -> int:
    """Undo the merge of the record `merged`: it is a person of its own again; the number of the person it is taken from.

    It gets back what it brought and what came in under its names since. Every "no" said meanwhile holds for both. No rule
    merges the two again. Raises InputError when it is not merged.
    """
    found = conn.execute(
        text(
            "select merge_id, kept, moved from customer_merges where merged = :merged and split_at is null for update"
        ),
        {"merged": merged},
    ).one_or_none()
    if found is None:
        raise InputError(f"customer {merged} is a person of its own already; see `postlude identities list`")
    person = _person(conn, merged)
    pair = {"merged": merged, "person": person}
    names = found.moved["customer_identities"]
    for table, key in _OWNED.items():
        conn.execute(
            text(f"""update {table} set customer_id = :merged
                     where customer_id = :person and {key} in (select jsonb_array_elements(cast(:rows as jsonb)))"""),
            pair | {"rows": db.dumps(found.moved.get(table, []))},  # a merge of long ago knows fewer tables
        )
    for table in ("orders", "tickets"):
        conn.execute(
            text(f"""update {table} set customer_id = :merged where customer_id = :person
                     and to_jsonb(array[source_id, source_customer_id])
                         in (select jsonb_array_elements(cast(:names as jsonb)))"""),
            pair | {"names": db.dumps(names)},
        )
    own = """enrolment_id in (select cast(value as uuid) from jsonb_array_elements_text(cast(:rows as jsonb)))
             or order_id in (select o.order_id from orders as o where o.customer_id = :merged)"""
    conn.execute(
        text(f"""update enrolments as e set customer_id = :merged, anchor_key = replace(e.anchor_key, '#' || :merged, '')
                 where customer_id = :person and ({own})"""),
        pair | {"rows": db.dumps(found.moved["enrolments"])},
    )
    for statement in (
        "update messages set customer_id = :merged where customer_id = :person "
        "and enrolment_id in (select enrolment_id from enrolments where customer_id = :merged)",
        "insert into consents select :merged, channel, topic, granted, at, basis, known_at from consents "
        "where customer_id = :person and not granted on conflict do nothing",
        "delete from customer_facts where customer_id = :person",
        "update customers set merged_into = null where customer_id = :merged",
    ):
        conn.execute(text(statement), pair)
    # a yes goes back to who said it
    conn.execute(
        text(
            """delete from consents as c using jsonb_populate_recordset(null::consents, cast(:rows as jsonb)) as r
                where c.customer_id = :person and c.granted and r.granted and c.channel = r.channel
                    and c.topic = r.topic and c.at = r.at""".replace("null::consents", "cast(null as consents)")
        ),
        pair | {"rows": db.dumps(found.moved["consents"])},
    )
    conn.execute(
        text("update customer_merges set split_at = :now, split_by = :by, split_why = :why where merge_id = :id"),
        {"now": now, "by": by, "why": why, "id": found.merge_id},
    )
    return person


def merges(conn: Connection, customer: int | None = None) -> list[dict[str, Any]]:
    """Every merge and split, or those of one customer; ids only."""
    return [dict(row) for row in db.run(conn, "19_list_merges", customer=customer).mappings()]


def _moved(conn: Connection, statement: str, pair: dict[str, int]) -> list[Any]:
    return list(conn.scalars(text(statement), pair))


def _person(conn: Connection, customer: int) -> int:
    found = conn.scalar(
        text("select coalesce(merged_into, customer_id) from customers where customer_id = :id"), {"id": customer}
    )
    if found is None:
        raise InputError(f"there is no customer {customer}")
    return int(found)


def _lock(conn: Connection, kept: int, merged: int) -> None:
    if kept == merged:
        raise InputError(f"customer {kept} cannot be merged with itself; name two")
    conn.execute(
        text("select 1 from customers where customer_id in (:kept, :merged) order by customer_id for update"),
        {"kept": kept, "merged": merged},
    )
    for one in (kept, merged):
        if (person := _person(conn, one)) != one:
            raise InputError(f"customer {one} belongs to person {person} already; name that one, or split them first")


def _apart(conn: Connection, one: int, other: int) -> bool:
    """Has somebody said that these two, or records of them, are not one person?"""
    return bool(
        conn.scalar(
            text("""select exists (
                select from customer_merges as m
                inner join customers as a on m.kept = a.customer_id
                inner join customers as b on m.merged = b.customer_id
                where m.split_at is not null
                    and (coalesce(a.merged_into, a.customer_id), coalesce(b.merged_into, b.customer_id))
                        in ((:one, :other), (:other, :one)))"""),
            {"one": one, "other": other},
        )
    )


def _end_doubled(conn: Connection, pair: dict[str, int], now: datetime) -> None:
    """Both are in the same campaign that is not about an order: the passage that knew of fewer orders ends.

    Its `watch_from` is the earlier one: after it lies an order of the same person, which would end it as "ordered".
    """
    ended = conn.scalars(
        text("""update enrolments as e set exited_at = :now, exit_reason = 'stopped'
                where e.customer_id in (:kept, :merged) and e.exited_at is null and e.order_id is null and exists (
                    select from enrolments as k
                    where k.campaign_id = e.campaign_id and k.customer_id in (:kept, :merged)
                        and k.customer_id <> e.customer_id and k.exited_at is null
                        and (k.watch_from, k.customer_id = :kept) > (e.watch_from, e.customer_id = :kept))
                returning e.enrolment_id"""),
        pair | {"now": now},
    ).all()
    conn.execute(
        text("""update messages set state = 'cancelled', reason = 'same_person', finalized_at = :now
                where enrolment_id = any(:ended) and state in ('scheduled', 'held')"""),
        {"ended": list(ended), "now": now},
    )
