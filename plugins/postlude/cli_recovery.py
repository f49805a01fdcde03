"""`postlude recovery`: what went wrong for customers, who answers for it, and when it is put right."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer
from rich.table import Table

from postlude import db
from postlude import recovery as stage

app = typer.Typer(help="Service recovery: open cases stop promotions until they are put right.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else, on standard output.")]


@app.command("list")
def list_(
    everything: Annotated[bool, typer.Option("--all", help="Also those that were resolved.")] = False,
    customer: Annotated[int | None, typer.Option("--customer", help="Of one customer only.")] = None,
    as_json: AsJson = False,
) -> None:
    """Open cases, the oldest first, with their owners."""
    from postlude import cli

    cli._ready()
    with db.transaction() as conn:
        rows = stage.cases(conn, everything, customer)
    if as_json:
        cli.show({"cases": rows}, True)
        return
    table = Table(box=None, padding=(0, 2, 0, 0), title=f"{len(rows):,} cases", title_justify="left")
    for name in ("case", "customer", "cause", "order", "opened (UTC)", "owner", "coupon", "resolved"):
        table.add_column(name)
    for row in rows:
        cause = row["cause"].replace("_", " ") + (f" {row['score']}" if row["score"] is not None else "")
        resolved = (
            f"{row['resolved_at']:%Y-%m-%d}, {row['resolved_by']}: {row['resolution']}" if row["resolved_at"] else "–"
        )
        table.add_row(
            str(row["recovery_id"]), str(row["customer_id"]), cause, row["order_number"] or "–",
            f"{row['opened_at']:%Y-%m-%d %H:%M}", row["owner"], "may be given" if row["make_good"] else "no more this year", resolved,
        )  # fmt: skip
    cli.console.print(table)


@app.command()
def resolve(
    case: Annotated[int, typer.Argument(help="Number of the case.")],
    why: Annotated[str, typer.Option("--why", help="What was done.")],
    score: Annotated[
        int | None, typer.Option("--score", min=1, max=5, help="The score the customer gave afterwards.")
    ] = None,
    by: Annotated[str, typer.Option("--by", help="Who resolves it. Default: the name you are logged in with.")] = "",
    as_json: AsJson = False,
) -> None:
    """Put a case right with the customer's good score; without an answer only after `close_after`."""
    from postlude import cli

    cli._ready()
    with db.transaction() as conn:
        stage.resolve(conn, case, cli.instant(""), by.strip() or getpass.getuser(), score=score, why=why)
    cli.show({"case": case, "resolved": "yes"}, as_json)
