"""`postlude stop`, `postlude go`, `postlude switches`: the kill switch on the command line."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

from postlude import db, switch

app = typer.Typer()

Scope = Annotated[str, typer.Argument(metavar="all|campaign|channel|shop", help="What to stop.")]
Name = Annotated[str, typer.Argument(help="Campaign id, channel name or shop (source) id; nothing with all.")]
Why = Annotated[str, typer.Option("--why", help="The reason, kept for ever.")]
By = Annotated[str, typer.Option("--by", help="Who says so. Default: the user of this machine.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else, on standard output.")]


@app.command()
def stop(
    scope: Scope,
    why: Why,
    name: Name = "",
    transactional_too: Annotated[
        bool, typer.Option("--transactional-too", help="Stop order and delivery notices as well.")
    ] = False,
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """Stop mail at once: at most one more message per connection goes out. What is not sent waits, and expires in its time."""
    from postlude import cli

    cli._ready()
    with db.transaction() as conn:
        now = cli.instant("")
        thrown = switch.stop(conn, scope, name, why, by or getpass.getuser(), now, transactional_too)
    kinds = "all mail" if transactional_too or scope == "campaign" else "marketing; transactional mail goes on"
    cli.show({"stopped": f"{scope} {name}".strip(), "what": kinds, "was stopped already": not thrown}, as_json)


@app.command()
def go(scope: Scope, why: Why, name: Name = "", by: By = "", as_json: AsJson = False) -> None:
    """Lift a stop. What has expired meanwhile is never sent."""
    from postlude import cli

    cli._ready()
    with db.transaction() as conn:
        lifted = switch.go(conn, scope, name, why, by or getpass.getuser(), cli.instant(""))
        left = [str(left) for left in switch.in_force(conn)]
    cli.show({"lifted": lifted, "still in force": "; ".join(left) or "none"}, as_json)


@app.command("switches")
def list_switches(
    lifted_too: Annotated[bool, typer.Option("--all", help="Those lifted as well.")] = False, as_json: AsJson = False
) -> None:
    """Every stop in force, who threw it, when and why; the file STOP too."""
    from postlude import cli

    cli._ready()
    with db.transaction() as conn:
        rows = [dict(row._mapping) for row in switch.switches(conn, lifted_too)]
    found = [{"from": "table", **row} for row in rows]
    found += [{"from": "file", "scope": s.scope, "name": s.name, "transactional_too": s.transactional_too, "why": s.why}
              for s in switch.stops_in_file(switch.stop_file())]  # fmt: skip
    if as_json:
        cli.show({"switches": found}, True)
    elif not found:
        cli.console.print("Nothing is stopped.")
    for row in [] if as_json else found:
        cli.show({key: value for key, value in row.items() if value not in (None, "")}, False)
