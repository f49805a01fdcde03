"""`postlude quotas`: what is used and left of today's quotas, per channel and provider."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from postlude import db, quotas

app = typer.Typer()

AsOf = Annotated[str, typer.Option("--as-of", metavar="INSTANT", help="The day of this instant. Default: today.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else, on standard output.")]


@app.command("quotas")
def show(as_of: AsOf = "", as_json: AsJson = False) -> None:
    """Today's quotas and warm-up plans (include/warmup.yml): used, left, and how many messages were put off."""
    from postlude import cli

    cli._ready()
    now = cli.instant(as_of)
    plan = quotas.load_quotas()
    with db.transaction() as conn:
        rows = quotas.used(conn, plan, now)
    if as_json:
        cli.show({"day": plan.day(now), "zone": plan.zone, "quotas": rows}, True)
        return
    columns = ("channel", "provider", "most", "used", "left", "put off")
    table = Table(*columns, title=f"{plan.day(now)}, {plan.zone}", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*(f"{row[c]:,}" if isinstance(row[c], int) else str(row[c]) for c in columns))
    cli.console.print(table if rows else "No quota is in force today (include/warmup.yml).")
