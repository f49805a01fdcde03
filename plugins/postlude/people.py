"""One person: everything that is known, what happened, suppressing and lifting, and erasing.

A person may be several records (docs/identities.md); whatever is done here is done to all of them. Which tables speak of
somebody is asked of the database itself, so a new table is exported, and looked through when somebody is erased, by itself.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, text

from postlude import db
from postlude.errors import InputError

Counts = dict[str, int]
# what of an event names nobody
KEPT_OF_EVENTS = ("score", "hard", "permanent", "status", "channel")


def find(conn: Connection, wanted: str) -> list[Row[Any]]:
    """Customers with this id, source customer id, e-mail address or number, each with all its records in `records`.

    Raises InputError when there is none.
    """
    found = list(db.run(conn, "75_find_person", wanted=wanted.strip()))
    if not found:
        raise InputError("no customer has this id, source customer id, e-mail address or number")
    return found


def records(conn: Connection, customer: int) -> list[int]:
    """All records of the person a customer id stands for, the one that is kept first. Raises InputError when there is none."""
    found = list(conn.scalars(
        text("""with this as (select coalesce(merged_into, customer_id) as root from customers where customer_id = :c)
                select c.customer_id from customers as c, this
                where c.customer_id = this.root or c.merged_into = this.root
                order by c.customer_id <> this.root, c.customer_id"""),
        {"c": customer},
    ))  # fmt: skip
    if not found:
        raise InputError(f"there is no customer {customer}")
    return found


def timeline(conn: Connection, customer: int, now: datetime, limit: int = 500) -> list[Row[Any]]:
    """What happened, newest first: rows of at, what, name, state, reason, detail. Orders, passages, messages, events, consents ..."""
    return list(db.run(conn, "75_timeline", customers=records(conn, customer), now=now, most=limit))


def suppressions(conn: Connection, customer: int) -> list[Row[Any]]:
    """Suppressions of all addresses of the person, newest first, the lifted ones too."""
    return list(db.run(conn, "75_suppressions_of", customers=records(conn, customer)))


def suppress(conn: Connection, customer: int, scope: str, by: str, why: str, now: datetime) -> int:
    """Suppress every address of the person; scope: marketing, or all mail. Returns how many addresses were not suppressed before.

    Raises InputError without a reason, for an unknown scope, or when the person has no address.
    """
    if not why.strip() or not by.strip():
        raise InputError("say why; it is kept for whoever wonders later")
    if scope not in ("marketing", "all"):
        raise InputError('scope: write "marketing", or "all" for order and delivery notices too')
    found = db.run(
        conn, "75_suppress_person", customers=records(conn, customer), scope=scope, by=by.strip(), why=why.strip(), now=now
    ).one()  # fmt: skip
    if not found.addresses:
        raise InputError("this person has no address that could be suppressed")
    return int(found.added)


def lift(conn: Connection, customer: int, suppression: int, by: str, why: str, now: datetime) -> None:
    """Lift one suppression of the person. Raises InputError without a reason, or when it is not in force, or not theirs."""
    if not why.strip() or not by.strip():
        raise InputError("say why it may be lifted; it is kept for ever")
    theirs = {row.suppression_id for row in suppressions(conn, customer) if row.lifted_at is None}
    if suppression not in theirs:
        raise InputError("this person has no such suppression in force; load the page again")
    conn.execute(
        text("""update suppressions set lifted_at = :now, lifted_by = :by, lift_reason = :why
                where suppression_id = :id and lifted_at is null"""),
        {"id": suppression, "by": by.strip(), "why": why.strip(), "now": now},
    )


# ---------------------------------------------------------------- everything about one person


def export(conn: Connection, customer: int) -> dict[str, list[dict[str, Any]]]:
    """Table to rows: every row that speaks of the person, of their orders, of their messages, or of their addresses."""
    ids = records(conn, customer)
    keys: dict[str, list[Any]] = {"customer_id": ids}
    keys["order_id"] = list(conn.scalars(text("select order_id from orders where customer_id = any(:c)"), {"c": ids}))
    keys["message_id"] = list(
        conn.scalars(
            text("""select message_id from messages where customer_id = any(:c)
                    union select message_id from ghost_messages where customer_id = any(:c)"""),
            {"c": ids},
        )
    )
    keys["address"] = list(
        conn.scalars(
            text("""select a.address from customers as c cross join lateral (values (c.address), (c.phone)) as a (address)
                    where c.customer_id = any(:c) and a.address is not null"""),
            {"c": ids},
        )
    )
    found: dict[str, list[dict[str, Any]]] = {}
    for table, columns in _tables(conn).items():
        by = [name for name in keys if name in columns]
        if table == "customer_merges":
            condition = "t.kept = any(:customer_id) or t.merged = any(:customer_id)"
        elif by:
            condition = f"t.{by[0]} = any(:{by[0]})"  # the most direct of them: their own rows
        else:
            continue
        rows = conn.scalars(text(f"select to_jsonb(t) from {_quoted(table)} as t where {condition}"), keys)  # noqa: S608 - names from the catalogue
        if told := list(rows):
            found[table] = told
    return found


def _tables(conn: Connection) -> dict[str, dict[str, str]]:
    """Every table of ours with its columns and their types; staging too, no views."""
    rows = conn.execute(
        text("""select c.table_name, c.column_name, c.data_type from information_schema.columns as c
                inner join information_schema.tables as t using (table_schema, table_name)
                where c.table_schema = 'postlude' and t.table_type = 'BASE TABLE' order by 1, c.ordinal_position""")
    )
    found: dict[str, dict[str, str]] = {}
    for table, column, kind in rows:
        found.setdefault(table, {})[column] = kind
    return found


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


# ---------------------------------------------------------------- erasing


def erase(conn: Connection, customer: int, by: str, why: str, now: datetime) -> Counts:
    """Forget who the person is: personal data is removed or blanked, ids and counts stay, nothing is sent any more.

    Of the addresses a hash stays, so that they are not mailed when a shop delivers them again. Backups, the files a shop
    delivered and mail programs are not within reach. Returns rows touched per table. Raises InputError without a reason, when
    there is no such person, or when they were erased already.
    """
    if not why.strip() or not by.strip():
        raise InputError("say why; the record of the erasure keeps it")
    ids = records(conn, customer)
    theirs = list(conn.execute(
        text("select * from customers where customer_id = any(:c) order by customer_id for update"), {"c": ids}
    ))  # fmt: skip
    if all(row.erased_at for row in theirs):
        raise InputError(f"customer {customer} was erased already")
    names = _identifying(conn, list(theirs))
    counts: Counts = {}
    params = {"customers": ids, "now": now, "kept": list(KEPT_OF_EVENTS)}
    counts |= _quarantined(conn, ids)
    for step in (
        "passages",
        "messages",
        "letters",
        "attempts",
        "events",
        "inbox",
        "outside",
        "parcels",
        "suppressions",
        "records",
    ):
        statement = f"76_erase_{step}"
        wanted = {key: value for key, value in params.items() if key in db.sql(statement)._bindparams}
        counts |= {
            key: int(value) for key, value in db.run(conn, statement, **wanted).mappings().one().items() if value
        }
    for table, rows in _sweep(conn, names).items():
        counts[table] = counts.get(table, 0) + rows
    conn.execute(
        text(
            "insert into erasures (customer_id, at, by_whom, why, rows) values (:c, :now, :by, :why, cast(:rows as jsonb))"
        ),
        {"c": ids[0], "now": now, "by": by.strip(), "why": why.strip(), "rows": db.dumps(counts)},
    )
    return counts


def _identifying(conn: Connection, theirs: list[Any]) -> list[str]:
    """Texts that name this person and hardly anybody else: addresses, numbers, whole names, ids that are addresses.

    Not a last name alone: others have it too, and what names them stays.
    """
    found: set[str] = set()
    for row in theirs:
        found |= {row.email, row.address, row.phone, row.person_key}
        if row.first_name and row.last_name:
            found.add(f"{row.first_name} {row.last_name}")
    ids = conn.scalars(
        text("select source_customer_id from customer_identities where customer_id = any(:c)"),
        {"c": [row.customer_id for row in theirs]},
    )
    found |= {one for one in [*ids, *(row.source_customer_id for row in theirs)] if "@" in one}
    return sorted(one.strip() for one in found if one and len(one.strip()) > 3)


# tables in which nobody types or delivers a person's name, or where the erasure writes by itself
NEVER = frozenset(
    {"customers", "customer_identities", "time_zones", "countries", "country_names", "schema_version", "erased_addresses", "erasures",
     "products", "tallies", "segment_memberships", "refusals"}
)  # fmt: skip


def _quarantined(conn: Connection, ids: list[int]) -> Counts:
    """Rows refused at the door that the shop delivered about this person, and what lies in staging: before the ids are changed."""
    found = conn.execute(
        text("""select source_id, source_customer_id from customer_identities where customer_id = any(:c)
                union select source_id, source_customer_id from customers where customer_id = any(:c)"""), {"c": ids}
    ).all()  # fmt: skip
    rows = db.run(conn, "76_erase_quarantine", customers=ids).rowcount
    staged = 0
    for source, key in found:
        for table, columns in _tables(conn).items():
            if table.startswith(f"staging_{source}_") and "source_customer_id" in columns:
                gone = conn.execute(
                    text(f"delete from {_quoted(table)} where source_customer_id = :key"), {"key": key}  # noqa: S608
                ).rowcount  # fmt: skip
                staged += gone
    return {key: count for key, count in (("quarantine", rows), ("staging", staged)) if count}


def _sweep(conn: Connection, names: list[str]) -> Counts:
    """Look through every text of every table for what names the person, and blank it: notes, quarantine, staging, answers of relays."""
    if not names:
        return {}
    pattern = "|".join(re.sub(r"([^\w\s@])", r"\\\1", name) for name in names)
    counts: Counts = {}
    for table, columns in _tables(conn).items():
        if table in NEVER:
            continue
        texts = [name for name, kind in columns.items() if kind in ("text", "jsonb", "ARRAY", "character varying")]
        if not texts:
            continue
        where = " or ".join(f"cast(t.{_quoted(name)} as text) ~* :pattern" for name in texts)
        given = {"pattern": pattern}
        if table.startswith("staging_"):
            done = conn.execute(text(f"delete from {_quoted(table)} as t where {where}"), given).rowcount  # noqa: S608
        else:
            done = _blank(conn, table, {name: columns[name] for name in texts}, where, given)
        if done:
            counts[table] = counts.get(table, 0) + done
    return counts


def _blank(conn: Connection, table: str, texts: dict[str, str], where: str, given: dict[str, str]) -> int:
    """Put "(erased)" where the name stood, in texts and inside JSON alike."""
    append_only = conn.scalar(
        text("select exists (select from pg_trigger where tgrelid = to_regclass(:t) and tgname = 'append_only')"),
        {"t": f"postlude.{table}"},
    )
    if not conn.scalar(text(f"select exists (select from {_quoted(table)} as t where {where})"), given):  # noqa: S608
        return 0
    put = ", ".join(
        f"{_quoted(name)} = cast(regexp_replace(cast(t.{_quoted(name)} as text), :pattern, '(erased)', 'gi') as {KINDS[kind]})"
        for name, kind in texts.items()
        if kind in KINDS
    )
    if append_only:
        conn.execute(text(f"alter table {_quoted(table)} disable trigger append_only"))
    done = conn.execute(text(f"update {_quoted(table)} as t set {put} where {where}"), given).rowcount  # noqa: S608
    if append_only:
        conn.execute(text(f"alter table {_quoted(table)} enable trigger append_only"))
    return done


KINDS = {"text": "text", "character varying": "text", "jsonb": "jsonb", "ARRAY": "text[]"}
