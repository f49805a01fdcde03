"""`postlude quarantine list|show|replay`: rows refused at the door, on the command line. Mounted by postlude.cli."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from postlude import db, quarantine
from postlude.errors import InputError

app = typer.Typer(help="Rows refused at the door: look at them, and try them again after a fix.", no_args_is_help=True)

SourceId = Annotated[str, typer.Option("--source", help="Only rows of this source (its id or file).")]
Entity = Annotated[str, typer.Option("--entity", help="Only rows of this entity, e.g. order_lines.")]
Reason = Annotated[str, typer.Option("--reason", help="Only rows with a reason that holds these words.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else, on standard output.")]


@app.command("list")
def list_(
    source: SourceId = "",
    entity: Entity = "",
    reason: Reason = "",
    rows: Annotated[bool, typer.Option("--rows", help="Each row with its number, instead of counts.")] = False,
    most: Annotated[int, typer.Option("--most", min=1, help="So many rows at most.")] = 50,
    released: Annotated[bool, typer.Option("--released", help="Those that were mended and loaded.")] = False,
    as_json: AsJson = False,
) -> None:
    """How many rows wait, by source, entity and reason."""
    from postlude import cli

    cli._ready()
    with db.transaction() as conn:
        if rows:
            found = quarantine.rows(conn, Path(source).stem, entity, reason, most)
        else:
            found = [
                one for one in quarantine.counts(conn, Path(source).stem, entity, released) if reason in one["reason"]
            ]
    if as_json:
        print(json.dumps(found, default=str))
        return
    if not found:
        cli.console.print("Nothing is in the quarantine." if not released else "Nothing was released.")
        return
    table = Table(*found[0], box=None, padding=(0, 2, 0, 0))
    for one in found:
        table.add_row(*(_told(value) for value in one.values()))
    cli.console.print(table)


@app.command()
def show(
    number: Annotated[int, typer.Argument(metavar="NUMBER", help="As `quarantine list --rows` tells.")],
    as_json: AsJson = False,
) -> None:
    """One row as it was delivered, why it was refused, when it was first and last seen. Holds a person's data."""
    from postlude import cli

    cli._ready()
    with db.transaction() as conn:
        found = quarantine.row(conn, number)
    found["reasons"] = "; ".join(found["reasons"])
    if as_json:
        print(json.dumps(found, default=str, ensure_ascii=False))
        return
    raw = found.pop("raw")
    cli.show({key: value for key, value in found.items() if value is not None and key != "row_hash"}, False)
    cli.console.print_json(json.dumps(raw, ensure_ascii=False))


@app.command()
def replay(
    numbers: Annotated[
        list[int] | None, typer.Argument(metavar="[NUMBER]...", help="Rows; else those chosen below.")
    ] = None,
    source: SourceId = "",
    entity: Entity = "",
    reason: Reason = "",
    correct: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="COLUMN=VALUE", help="A corrected value, for rows named by number."),
    ] = None,
    through_mapping: Annotated[
        bool, typer.Option("--through-mapping", help="Read their files again through the mapping as it is now.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put rows through the checks and the load again. What is good now is loaded; the rest stays, with its new reasons."""
    from postlude import cli, pipeline

    corrections = _corrections(correct or [])
    if corrections and (through_mapping or not numbers):
        raise InputError("--set is for rows named by their numbers, not with --through-mapping")
    if not (numbers or source or entity or reason):
        raise InputError("say which rows: their numbers, or --source, --entity, --reason")
    cli._ready()
    with db.transaction() as conn:
        if numbers:
            chosen = [(quarantine.row(conn, number)["source_id"], number) for number in numbers]
        else:
            chosen = [(one["source"], one["id"]) for one in quarantine.rows(conn, Path(source).stem, entity, reason)]
    done: dict[str, Any] = {}
    for name in dict.fromkeys(name for name, _ in chosen):
        ids = [number for of, number in chosen if of == name]
        with cli.progress(as_json) as report:
            done[name] = pipeline.replay(
                source if Path(source).is_file() else name, ids, cli.instant(""), cli.new_run("replay"), "cli",
                corrections=corrections, through_mapping=through_mapping, progress=report,
            )  # fmt: skip
    if as_json:
        print(json.dumps(done))
        return
    for name, counts in done.items():
        cli.show(counts, False, name)
    if not done:
        cli.console.print("No such row waits in the quarantine.")


def _corrections(given: list[str]) -> dict[str, str]:
    wrong = [one for one in given if "=" not in one]
    if wrong:
        raise InputError(f'--set {wrong[0]}: write COLUMN=VALUE, e.g. --set "unit_price=3.50"')
    return {name.strip(): value for name, _, value in (one.partition("=") for one in given)}


def _told(value: Any) -> str:
    if isinstance(value, list):
        return "; ".join(value)
    return f"{value:%Y-%m-%d %H:%M}" if hasattr(value, "strftime") else str(value)
