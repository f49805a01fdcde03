"""`postlude flows`: every campaign, whether it is on, and why not."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from postlude import flows

app = typer.Typer()

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else, on standard output.")]


@app.command("flows")
def show(as_json: AsJson = False) -> None:
    """Every campaign file: on, off (what it needs and no source delivers), or broken; and when it is planned."""
    from postlude import cli

    rows = []
    for flow in flows.all_flows():
        campaign = flow.campaign
        starts = campaign.trigger.in_words() if campaign else ""
        rows.append(
            {"campaign": flow.name, "kind": campaign.kind if campaign else "", "state": flow.state, "starts when": starts,
             "why": flow.why}
        )  # fmt: skip
    if as_json:
        cli.show({"flows": rows}, True)
        return
    table = Table("campaign", "kind", "state", "starts when", "why", box=None, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*row.values())
    cli.console.print(table)
