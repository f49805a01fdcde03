"""`postlude approvals`: requests for a named approval, and the answer to one. The same decision as in the Airflow UI."""

from __future__ import annotations

import getpass
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from postlude import db
from postlude.errors import GateClosed

app = typer.Typer(help="Plans that wait for a named person's yes: list, show, approve, reject.", no_args_is_help=True)
console = Console()

Number = Annotated[int, typer.Argument(metavar="NUMBER", help="The number of the request.")]
By = Annotated[
    str, typer.Option("--by", help="Who decides; it is written down. Default: the name you are logged in with.")
]
Comment = Annotated[str, typer.Option("--comment", help="Why; written down with the decision.")]
AsOf = Annotated[
    str, typer.Option("--as-of", metavar="INSTANT", help="As of this instant (ISO 8601, UTC). Default: now.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else, on standard output.")]


def _now(as_of: str) -> datetime:
    from postlude import cli

    cli._ready()
    return cli.instant(as_of)


def _show(result: Any, as_json: bool, title: str) -> None:
    from postlude import cli

    cli.show(result, as_json, title)


@app.command("list")
def list_(
    every: Annotated[bool, typer.Option("--all", help="Also those that were decided or have expired.")] = False,
    as_of: AsOf = "",
    as_json: AsJson = False,
) -> None:
    """Requests that wait for an answer, newest first."""
    from postlude import volume

    now = _now(as_of)
    with db.transaction() as conn:
        found = [dict(row._mapping) for row in volume.approvals(conn, now, only_open=not every)]
    rows = [{key: value for key, value in row.items() if key != "facts"} for row in found]
    if as_json:
        _show(rows, True, "")
        return
    if not rows:
        console.print("Nothing waits for an approval." if not every else "Nobody was ever asked for an approval.")
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in (
        "number",
        "campaign",
        "messages",
        "customers",
        "asked (UTC)",
        "expires (UTC)",
        "because",
        "decision",
    ):
        table.add_column(column, justify="right" if column in ("number", "messages", "customers") else "left")
    for row in rows:
        decision = row["decision"] + (f" by {row['decided_by']}" if row["decided_by"] else "")
        table.add_row(
            str(row["approval_id"]), row["campaign_id"], f"{row['messages']:,}", f"{row['people']:,}",
            f"{row['asked_at']:%Y-%m-%d %H:%M}", f"{row['expires_at']:%Y-%m-%d %H:%M}",
            ", ".join(cause["cause"] for cause in row["causes"]), decision,
        )  # fmt: skip
    console.print(table)


@app.command()
def show(number: Number, as_of: AsOf = "", as_json: AsJson = False) -> None:
    """One request: counts, band, difference to the last release, twenty customers, and the decision if there is one."""
    from postlude import volume

    now = _now(as_of)
    with db.transaction() as conn:
        asked = volume.approvals(conn, now, number)[0]
    if as_json:
        _show(dict(asked._mapping), True, "")
        return
    subject, body = volume.in_words(asked)
    console.print(Markdown(f"# {subject}\n\n{body}"))
    if asked.decided_at:
        comment = f": {asked.comment}" if asked.comment else ""
        console.print(
            f"{asked.decision} by {asked.decided_by} ({asked.via}), {asked.decided_at:%Y-%m-%d %H:%M} UTC{comment}"
        )
    else:
        console.print(f"{asked.decision}; {asked.waiting:,} messages wait")


@app.command()
def approve(
    number: Number,
    by: By = "",
    comment: Comment = "",
    at_most: Annotated[
        int | None, typer.Option("--at-most", help="Release only so many messages; the others keep waiting.")
    ] = None,
    as_of: AsOf = "",
    as_json: AsJson = False,
) -> None:
    """Let exactly the messages of this request go. A large release begins with a small share that is watched first."""
    counts = _decide(number, True, by, comment, at_most, as_of)
    _show(counts, as_json, f"Request {number}")
    if counts["changed"]:
        raise GateClosed(
            f"the audience is no longer the one request {number} was about, so nothing was released; "
            f"look at request {counts['asked_again']}"
        )


@app.command()
def reject(number: Number, by: By = "", comment: Comment = "", as_of: AsOf = "", as_json: AsJson = False) -> None:
    """Cancel the messages of this request; nobody gets them."""
    _show(_decide(number, False, by, comment, None, as_of), as_json, f"Request {number}")


def _decide(number: int, yes: bool, by: str, comment: str, at_most: int | None, as_of: str) -> dict[str, Any]:
    from postlude import cli, pipeline

    now = _now(as_of)
    name = by or getpass.getuser()
    return pipeline.decide(
        number, yes, name, "cli", now, cli.new_run("approve"), "cli", comment=comment or None, at_most=at_most
    )
