"""`postlude identities list|apply|merge|split`: who is one person in several shops. Mounted by postlude.cli."""

from __future__ import annotations

import getpass
import json
from typing import Annotated

import typer
from rich.table import Table

from postlude import db, identities
from postlude.sources import load_sources

app = typer.Typer(help="One person in several shops: declared rules, merges and splits.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else, on standard output.")]
Why = Annotated[str, typer.Option("--why", help="The reason, kept for ever.")]
By = Annotated[str, typer.Option("--by", help="Who says so. Default: the user of this machine.")]


@app.command("list")
def list_(
    customer: Annotated[int | None, typer.Option("--customer", help="Only merges of this customer id.")] = None,
    as_json: AsJson = False,
) -> None:
    """Every merge and split: which records, by which rule, who said so."""
    from postlude import cli

    cli._ready()
    with db.transaction() as conn:
        found = identities.merges(conn, customer)
    if as_json:
        print(json.dumps(found, default=str))
    elif not found:
        cli.console.print("Nobody was merged.")
    else:
        table = Table(*found[0], box=None, padding=(0, 2, 0, 0))
        for one in found:
            table.add_row(*("" if value is None else str(value) for value in one.values()))
        cli.console.print(table)


@app.command()
def apply(as_json: AsJson = False) -> None:
    """Merge whom include/identities.yml declares to be one person; every load does the same."""
    from postlude import cli

    rules = identities.load_rules(known=[source.id for source in load_sources()])
    cli._ready()
    with db.transaction() as conn:
        cli.show({"rules": len(rules), **identities.apply(conn, rules, cli.instant(""))}, as_json)


@app.command()
def merge(
    kept: Annotated[int, typer.Argument(metavar="KEPT", help="Customer id of the person that stays.")],
    merged: Annotated[int, typer.Argument(metavar="MERGED", help="Customer id of the record that belongs to it.")],
    why: Why,
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """Say that two customers are one person."""
    from postlude import cli

    cli._ready()
    with db.transaction() as conn:
        done = identities.merge(
            conn, kept, merged, cli.instant(""), rule="by hand", by=by or getpass.getuser(), why=why
        )
    cli.show({"merge": done, "kept": kept, "merged": merged}, as_json)


@app.command()
def split(
    merged: Annotated[
        int, typer.Argument(metavar="MERGED", help="Customer id of the record that is a person of its own.")
    ],
    why: Why,
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """Undo a merge. No rule merges the two again; a "no" said meanwhile holds for both."""
    from postlude import cli

    cli._ready()
    with db.transaction() as conn:
        person = identities.split(conn, merged, cli.instant(""), by=by or getpass.getuser(), why=why)
    cli.show({"split": merged, "from": person}, as_json)
