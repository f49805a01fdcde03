"""`postlude coupons`: what is in the pools, codes in and out. Mounted by postlude.cli."""

from __future__ import annotations

import csv
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from postlude import coupons, db

app = typer.Typer(help="Coupon pools: what is left, codes in and out.", no_args_is_help=True)
console = Console()
err = Console(stderr=True)

PoolName = Annotated[str, typer.Argument(metavar="POOL", help="A pool of include/coupons.yml.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else, on standard output.")]


def _now() -> datetime:
    return datetime.now(UTC)


def _show(result: dict[str, int], as_json: bool) -> None:
    if as_json:
        print(json.dumps(result))
    else:
        console.print(", ".join(f"{key.replace('_', ' ')} {value:,}" for key, value in result.items()))


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """Every pool: codes free, reserved for planned messages, bound to sent ones, and what can still be given."""
    with db.transaction() as conn:
        coupons.declare(conn, coupons.load_pools(), _now())
        rows = coupons.stock(conn, _now())
    if as_json:
        print(json.dumps(rows, default=str))
        return
    columns = ("kind", "free", "reserved", "bound", "released", "void", "left", "waiting")
    table = Table("pool", *columns, "", box=None, padding=(0, 2, 0, 0))
    for row in rows:
        cells = [
            "no limit" if row[c] is None else f"{row[c]:,}" if isinstance(row[c], int) else str(row[c]) for c in columns
        ]
        table.add_row(row["pool"], *cells, "LOW" if row["low"] else "")
    console.print(table)


@app.command("import")
def import_(
    pool: PoolName,
    file: Annotated[Path, typer.Argument(help='CSV whose first line is "code" or "code,valid_until".')],
    good_rows: Annotated[bool, typer.Option("--good-rows", help="Take the good rows although others are bad.")] = False,
    as_json: AsJson = False,
) -> None:
    """Read codes that the shop made. One bad row, and nothing is imported: every one is named by its line."""
    with db.transaction() as conn:
        coupons.declare(conn, coupons.load_pools(), _now())
        counts, faults = coupons.import_codes(conn, pool, file, _now(), good_rows)
        counts |= coupons.wake(conn, _now())
    for fault in faults:
        err.print(str(fault), style="yellow", markup=False, highlight=False, soft_wrap=True)
    _show(counts, as_json)


@app.command()
def export(
    pool: PoolName,
    state: Annotated[str | None, typer.Option(help="Only free, reserved, bound, released or void codes.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write to this file. Default: standard output.")] = None,
) -> None:
    """CSV of a pool's codes, for the shop that has to accept (bound) or refuse (released, void) them."""
    with db.transaction() as conn:
        rows = list(coupons.export(conn, pool, state))
    target = out.open("w", encoding="utf-8", newline="") if out else sys.stdout
    try:
        writer = csv.writer(target)
        writer.writerow(("code", "state", "valid_until", "reserved_at", "bound_at", "message_id"))
        writer.writerows([[v.isoformat() if isinstance(v, datetime) else v for v in row] for row in rows])
    finally:
        if out:
            target.close()
    if out:
        err.print(f"{len(rows):,} codes")


@app.command()
def void(
    pool: PoolName,
    codes: Annotated[list[str] | None, typer.Argument(metavar="[CODE]...")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All codes of the pool that nobody has been sent.")] = False,
    as_json: AsJson = False,
) -> None:
    """Withdraw codes. A planned message gets another one; what was sent stays sent: tell the shop (`export --state void`)."""
    if bool(codes) == everything:
        raise typer.BadParameter("name the codes, or say --all")
    with db.transaction() as conn:
        _show(coupons.void(conn, pool, codes or [], _now(), everything), as_json)
