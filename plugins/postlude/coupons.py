"""Coupons: pools from include/coupons.yml, codes from the shop or made here, and who holds which.

The life of a code is kept by the database (`reserve_coupons`, `holds_coupon`, the trigger of revision 0007), because planning,
hand-over and settlement all touch it: reserved when a message is planned, bound in the transaction that commits the intent, given
back by whatever ends the message. A code hangs on a message and never on a person.
"""

from __future__ import annotations

import csv
import io
import logging
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator
from sqlalchemy import Connection, text

from postlude import db, tokens, yamlfile
from postlude.campaign import Campaign, Slug
from postlude.errors import Fault, InputError
from postlude.settings import settings
from postlude.yamlfile import Strict

log = logging.getLogger(__name__)

CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{2,63}")
FILE = "coupons.yml"
_CHUNK = 20_000
_MOST_FAULTS = 50


class Budget(Strict):
    """How much may be given away in one calendar period (UTC), counted when a code is reserved."""

    most_codes: int | None = Field(None, ge=0, description="so many codes in one period")
    most_value: float | None = Field(None, ge=0, description="so much money in one period; needs `worth`")
    per: Literal["day", "week", "month", "year", "ever"] = "ever"

    @model_validator(mode="after")
    def _says_something(self) -> Budget:
        if self.most_codes is None and self.most_value is None:
            raise ValueError('a budget needs "most_codes" or "most_value"')
        return self


class Pool(Strict):
    """One pool of codes."""

    kind: Literal["generated", "imported"] = Field(
        description="generated: made here, the shop is told by an export; imported: made by the shop, read from a CSV file"
    )
    worth: float | None = Field(
        None, gt=0, description="what one redeemed code costs, in the shop's currency; estimated"
    )
    budget: Budget | None = None
    low_at: int = Field(0, ge=0, description="alarm when fewer codes than this can still be given")
    least_days: int = Field(
        3,
        ge=0,
        le=366,
        description="imported: a code is given only if it lives so many days longer than its mail can wait",
    )

    @model_validator(mode="after")
    def _fits(self) -> Pool:
        if self.budget and self.budget.most_value is not None and self.worth is None:
            raise ValueError('a budget in money needs "worth": what one redeemed code costs')
        if self.kind == "generated" and self.low_at and not self.budget:
            raise ValueError('codes made here never run out; "low_at" needs a budget')
        return self

    def row(self, name: str) -> dict[str, Any]:
        budget = self.budget or Budget.model_construct(most_codes=None, most_value=None, per="ever")
        return {"pool": name, "kind": self.kind, "worth": self.worth, "low_at": self.low_at, "least_days": self.least_days,
                "most_codes": budget.most_codes, "most_value": budget.most_value, "per": budget.per}  # fmt: skip


class Pools(Strict):
    """include/coupons.yml"""

    pools: dict[Slug, Pool] = Field({}, description="pools by name, as campaigns call them")


def load_pools(path: Path | None = None) -> dict[str, Pool]:
    """The declared pools by name; none when there is no file. Raises InputError with file:line."""
    path = path or settings().include / FILE
    return dict(yamlfile.load(path, Pools).pools) if path.exists() else {}


def pool_faults(campaign: Campaign, pools: dict[str, Pool]) -> list[Fault]:
    """Pools the campaign names and nobody declared: a slip there would hand out codes that no shop knows."""
    shown = f"include/campaigns/{campaign.id}.yml"
    path = settings().include / "campaigns" / f"{campaign.id}.yml"
    return [
        Fault(
            shown, yamlfile.line_of(path, ["steps", at, "coupon", "pool"]), f"steps[{at}].coupon.pool",
            f'there is no pool "{step.coupon.pool}" in include/{FILE}{yamlfile.did_you_mean(step.coupon.pool, pools)}',
        )
        for at, step in enumerate(campaign.steps) if step.coupon and step.coupon.pool not in pools
    ]  # fmt: skip


def declare(conn: Connection, pools: dict[str, Pool], now: datetime) -> None:
    """Tell the database what the file says."""
    if pools:
        rows = [pool.row(name) for name, pool in sorted(pools.items())]
        db.run(conn, "48_declare_pools", pools=db.dumps(rows), now=now)


# ---------------------------------------------------------------- reserve, wake, watch


def reserve(conn: Connection, campaign: Campaign, now: datetime) -> dict[str, int]:
    """A code for every planned message of the campaign's coupon steps, as far as stock and budget go.

    Counts `coupons_reserved` and `coupons_short`; what is short is looked for again at hand-over, and held there if need be.
    """
    offers = {step.coupon.pool for step in campaign.steps if step.coupon}
    counts = {"referral_codes": give_referral_codes(conn, campaign, now)} if names_referral(campaign) else {}
    if not offers:
        return counts
    got = wanted = 0
    for row in db.run(conn, "48_reserve_coupons", campaign=campaign.id, ids=None, now=now):
        got, wanted = got + row.reserved, wanted + row.wanted
        if row.reserved < row.wanted:
            log.warning("coupon pool %s: %d messages planned, codes for %d", row.pool, row.wanted, row.reserved)
    watch(conn, now, offers)
    return counts | {"coupons_reserved": got, "coupons_short": wanted - got}


def wake(conn: Connection, now: datetime) -> dict[str, int]:
    """Messages held for want of a code: try again; those that got one go on, those out of time expire. Cheap when none is held."""
    held = text(
        "select message_id from messages where state = 'held' and reason = 'coupon_exhausted' for update skip locked"
    )
    if not (ids := list(conn.execute(held).scalars())):
        return {}
    db.run(conn, "48_reserve_coupons", campaign=None, ids=ids, now=now)
    return {f"coupon_{key}": n for key, n in db.run(conn, "48_wake_held", now=now).mappings().one().items()}


def stock(conn: Connection, now: datetime) -> list[dict[str, Any]]:
    """Every pool: kind, free, reserved, bound, released, void, budget, left, waiting, low (alarm)."""
    return [dict(row) for row in db.run(conn, "48_coupon_stock", now=now).mappings()]


def watch(conn: Connection, now: datetime, only: Iterable[str] | None = None) -> list[str]:
    """One line for every pool that runs low, logged as a warning and returned."""
    told = []
    for row in stock(conn, now):
        if row["low"] and (only is None or row["pool"] in only):
            more = "postlude coupons import" if row["kind"] == "imported" else f"raise its budget in include/{FILE}"
            line = (
                f"coupon pool {row['pool']}: {row['told_left']} codes left (alarm below {row['low_at']:,}), "
                f"{row['waiting']:,} messages wait for one; {more}"
            )
            log.warning("%s", line)
            told.append(line)
    return told


# ---------------------------------------------------------------- codes in and out


def read_codes(path: Path, now: datetime) -> tuple[list[dict[str, Any]], list[Fault]]:
    """Codes of a CSV file with the header `code` or `code,valid_until`, and what is wrong, by line.

    valid_until: a date (valid to its end, UTC) or an instant. The code itself is not repeated in messages: it is money.
    """
    shown = yamlfile.shown(path)
    try:
        content = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError([Fault(shown, 0, "", "there is no such file; check the name")]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError([Fault(shown, 0, "", f"cannot be read as UTF-8 text ({type(error).__name__})")]) from None
    reader = csv.reader(io.StringIO(content, newline=""))
    head = [name.strip().lower() for name in next(reader, [])]
    if head not in (["code"], ["code", "valid_until"]):
        told = 'the first line must be "code" or "code,valid_until"'
        raise InputError([Fault(shown, 1, "", told)])
    rows: list[dict[str, Any]] = []
    faults: list[Fault] = []
    lines: dict[str, int] = {}
    for given in reader:
        line = reader.line_num
        cells = [cell.strip() for cell in given]
        if not any(cells):
            continue
        code, until, wrong = cells[0], None, ""
        if len(cells) != len(head):
            wrong = f"has {len(cells)} cells, the header has {len(head)}"
        elif not CODE.fullmatch(code):
            wrong = "is no code: 3 to 64 letters, digits, - and _, no spaces"
        elif code.lower() in lines:
            wrong = f"is the same code as line {lines[code.lower()]}; codes are used once"
        elif len(cells) > 1 and cells[1]:
            until = _until(cells[1])
            wrong = "valid_until is no date; write e.g. 2027-01-31" if until is None else ""
            wrong = "has run out already" if until and until <= now else wrong
        if wrong:
            faults.append(Fault(shown, line, "", wrong))
        else:
            lines[code.lower()] = line
            rows.append({"code": code, "valid_until": until, "line": line})
    if not rows and not faults:
        faults.append(Fault(shown, 1, "", "holds no code"))
    return rows, faults


def _until(given: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(given)
    except ValueError:
        return None
    if len(given) == len("2027-01-31"):
        return datetime.combine(found.date() + timedelta(days=1), time(), UTC)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)


def import_codes(
    conn: Connection, pool: str, path: Path, now: datetime, good_rows: bool = False
) -> tuple[dict[str, int], list[Fault]]:
    """Store the codes of a CSV file; returns counts and the rows refused.

    Nothing is stored when a row is bad, unless `good_rows`: then the rest is. Raises InputError with every bad row's line.
    """
    kind = conn.scalar(text("select kind from coupon_pools where pool = :pool"), {"pool": pool})
    if kind != "imported":
        known = conn.execute(text("select pool from coupon_pools where kind = 'imported'")).scalars().all()
        why = "makes its codes itself" if kind else f"is not declared in include/{FILE}"
        raise InputError(
            f'pool "{pool}" {why}; declare it there with "kind: imported"{yamlfile.did_you_mean(pool, known)}'
        )
    rows, faults = read_codes(path, now)
    shown, refused = yamlfile.shown(path), len(faults)
    fresh: list[dict[str, Any]] = []
    for chunk in _chunks(rows):
        taken = db.run(conn, "48_known_coupons", codes=[row["code"].lower() for row in chunk])
        pools = {row.code: row.pool for row in taken}
        for row in chunk:
            if where := pools.get(row["code"].lower()):
                faults.append(Fault(shown, row["line"], "", f'is in pool "{where}" already'))
            else:
                fresh.append(row)
    faults.sort(key=lambda fault: fault.line)
    if faults and not good_rows:
        more = (
            [Fault(shown, 0, "", f"and {len(faults) - _MOST_FAULTS:,} more rows")] if len(faults) > _MOST_FAULTS else []
        )
        last = Fault(shown, 0, "", "nothing was imported; mend the file, or take the good rows with --good-rows")
        raise InputError([*faults[:_MOST_FAULTS], *more, last])
    stored = 0
    for chunk in _chunks(fresh):
        given = db.dumps([{"code": row["code"], "valid_until": row["valid_until"]} for row in chunk])
        stored += len(db.run(conn, "48_import_coupons", pool=pool, rows=given, now=now).all())
    return {"read": len(rows) + refused, "imported": stored, "refused": len(rows) + refused - stored}, faults


def void(conn: Connection, pool: str, codes: Iterable[str], now: datetime, everything: bool = False) -> dict[str, int]:
    """Withdraw codes: the named ones, or all that nobody has been sent. Counts by the state they had."""
    wanted = sorted({code.lower() for code in codes})
    rows = db.run(conn, "48_void_coupons", pool=pool, codes=wanted, everything=everything, now=now).all()
    counts = {f"were_{state}": sum(row.state == state for row in rows) for state in ("free", "reserved", "bound")}
    return {"void": len(rows), **counts} | ({} if everything else {"not_found": len(wanted) - len(rows)})


def export(conn: Connection, pool: str, state: str | None = None) -> Iterator[tuple[Any, ...]]:
    """Rows (code, state, valid_until, reserved_at, bound_at, message_id) of a pool; raises InputError when there is none."""
    known = conn.execute(text("select pool from coupon_pools")).scalars().all()
    if pool not in known:
        raise InputError(f'there is no pool "{pool}"{yamlfile.did_you_mean(pool, known)}')
    yield from map(tuple, db.run(conn, "48_export_coupons", pool=pool, state=state))


def _chunks(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(rows), _CHUNK):
        yield rows[start : start + _CHUNK]


# ---------------------------------------------------------------- referral codes


def names_referral(campaign: Campaign) -> bool:
    """Does one of the campaign's own template files show a referral code? (Not looked for in what they include.)"""
    folder = settings().include / "templates"
    files = [file for step in campaign.steps for file in folder.glob(f"{step.template}.*.j2")]
    return any(re.search(r"\breferral\.code\b", file.read_text(encoding="utf-8")) for file in files)


def give_referral_codes(conn: Connection, campaign: Campaign, now: datetime) -> int:
    """A code for every customer of the campaign's waiting messages who has none; returns how many were given."""
    wanted = list(db.run(conn, "49_referral_wanted", campaign=campaign.id).scalars())
    given = 0
    for attempt in range(20):  # two customers share a code once in 10 million: the unique key shows it
        rows = [{"customer_id": who, "code": tokens.coupon_code("referral", str(who), attempt)} for who in wanted]
        done: set[int] = set()
        for chunk in _chunks(rows):
            done |= set(db.run(conn, "49_give_referrals", rows=db.dumps(chunk), now=now).scalars())
        given += len(done)
        wanted = [who for who in wanted if who not in done]
        if not wanted:
            break
    return given
