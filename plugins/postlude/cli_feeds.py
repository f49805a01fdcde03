"""`postlude feeds`: every feed with its newest row, what is usual, and the verdict of the freshness gate."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from postlude import db, freshness

app = typer.Typer()

AsOf = Annotated[str, typer.Option("--as-of", metavar="INSTANT", help="Judge as of this instant. Default: now.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else, on standard output.")]


@app.command()
def feeds(as_of: AsOf = "", as_json: AsJson = False) -> None:
    """Every feed: its newest row, how much it usually brings, and whether campaigns that rest on absence wait for it."""
    from postlude import cli

    cli._ready()
    now = cli.instant(as_of)
    with db.transaction() as conn:
        found = freshness.verdicts(conn, now)
    if as_json:
        cli.show({"as_of": now, "feeds": [asdict(feed) | {"fresh": feed.reason is None} for feed in found]}, True)
        return
    table = Table(box=None, padding=(0, 2, 0, 0), title_justify="left", title=f"Feeds as of {now:%Y-%m-%d %H:%M} UTC")
    for column in ("feed", "newest (UTC)", "hours ago", "rows of the day", "verdict"):
        table.add_column(column, no_wrap=column in ("feed", "verdict"))
    for feed in found:
        lag, limit = (f"{s.total_seconds() / 3600:,.0f}" if s is not None else "-" for s in (feed.lag, feed.lag_limit))
        usual = "no history yet" if feed.usual is None else f"usual {feed.usual:,.0f}"
        table.add_row(
            feed.name,
            f"{feed.newest:%Y-%m-%d %H:%M}" if feed.newest else "never",
            f"{lag}, at most {limit}",
            usual if feed.found is None else f"{feed.found:,} on {feed.day:%d %b}, {usual}",
            (feed.reason or "fresh") + ("" if feed.scheduled else " (not scheduled)"),
            style="red" if feed.reason and feed.scheduled else None,
        )
    cli.console.print(table)
    if not found:
        cli.console.print("No source has been loaded yet.")
