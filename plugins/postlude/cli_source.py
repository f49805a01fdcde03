"""`postlude source`: which sources there are, and what one would bring. Mounted by postlude.cli."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from postlude import db
from postlude.errors import GateClosed, InputError

app = typer.Typer(help="Where orders come from: list the sources, check one against a sample.", no_args_is_help=True)
console = Console()

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else, on standard output.")]
WIDEST = 9  # columns of a table on the terminal


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """Every source file: its kind, its connection, when it was loaded last and how far it is complete."""
    from postlude import cli, source_checks

    cli._ready()
    with db.transaction() as conn:
        found = source_checks.overview(conn)
    if as_json:
        cli.show(found, True)
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("source", "kind", "shop", "scheduled", "connection", "last load (UTC)", "complete until (UTC)"):
        table.add_column(column)
    for row in found:
        state = {True: "set", False: "MISSING", None: ""}[row["connection_set"]]
        table.add_row(
            row["source"], row["kind"], row["shop"], "yes" if row["scheduled"] else "no",
            f"{row['connection']} ({state})" if row["connection"] else "none",
            *(f"{row[key]:%Y-%m-%d %H:%M}" if row[key] else "never" for key in ("loaded_at", "complete_until")),
        )  # fmt: skip
    console.print(table)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="A source file, or the name of one in include/sources.")],
    sample: Annotated[
        list[str] | None,
        typer.Option(help="Read this instead of the source: ENTITY=FILE, a folder, or a file named after an entity."),
    ] = None,
    limit: Annotated[
        int, typer.Option(help="At most so many rows of each raw entity; 0: everything that is new.", min=0)
    ] = 1000,
    rows: Annotated[int, typer.Option(help="Show so many rows of each kind.", min=0)] = 5,
    as_of: Annotated[str, typer.Option("--as-of", metavar="INSTANT", help="As of this instant. Default: now.")] = "",
    as_json: AsJson = False,
) -> None:
    """What a source and its mapping would load and what they would refuse, and why. Writes nothing.

    Exit status 3 when the load would stop because too much would be refused.
    """
    from postlude import cli, source_checks
    from postlude.settings import settings
    from postlude.sources import load_source

    path = file if file.is_file() else settings().include / "sources" / f"{file.stem}.yml"
    if not path.is_file():
        raise InputError(f'there is no source "{file}"; name a file, or one of include/sources')
    source = load_source(path)
    cli._ready()
    samples = source_checks.samples_of(source, sample) if sample else None
    with cli.progress(as_json) as report:
        found = source_checks.preview(
            db.default_engine(), source, cli.instant(as_of), samples, limit or None, rows, report
        )
    if as_json:
        cli.show(found, True)
    else:
        _print(found)
    if found["stops"]:
        if as_json:
            raise typer.Exit(3)
        raise GateClosed(found["stops"])


def _print(found: dict[str, Any]) -> None:
    read = ", ".join(f"{one['name']} {one['rows_read']:,}" for one in found["deliveries"]) or "nothing"
    console.print(f"{found['source']} ({found['kind']}) read: {read}", highlight=False)
    for name, entity in found["entities"].items():
        told = f"{entity['would_load']:,} of {entity['delivered']:,} rows would load ({entity['new_or_changed']:,} new or changed)"
        told += f", {entity['refused']:,} would be refused" if entity["refused"] else ""
        told += (
            f", {entity['unresolved']:,} belong to what is refused, or not in this sample"
            if entity["unresolved"]
            else ""
        )
        console.print(f"\n[bold]{name}[/bold]: {told}", highlight=False)
        if entity["rows"]:
            fullest: dict[str, Any] = max(entity["rows"], key=len)
            columns = list(fullest)[:WIDEST]
            table = Table(*columns, box=None, padding=(0, 2, 0, 0), header_style="dim")
            for row in entity["rows"]:
                table.add_row(*(_short(row.get(column, "")) for column in columns))
            console.print(table, highlight=False, markup=False)
        for bad in entity["refusals"]:
            place = f"{bad['delivery']}:{bad['line']}" if bad["delivery"] and bad["line"] else bad["delivery"] or name
            console.print(f"  ✗ {place}: {'; '.join(bad['reasons'])}", style="red", highlight=False, markup=False)
            console.print(
                f"    {json.dumps(bad['row'], ensure_ascii=False)}", style="dim", highlight=False, markup=False
            )
    console.print("\nNothing was written.")


def _short(value: Any) -> str:
    """A value as a table shows it: instants, which are in UTC, to the second."""
    return re.sub(r"^(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(\.\d+)?\+00:00$", r"\1 \2", str(value))
