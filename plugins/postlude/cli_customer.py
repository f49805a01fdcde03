"""`postlude customer export|erase|suppress|lift`: everything about one person, and forgetting them."""

from __future__ import annotations

import getpass
import json
from typing import Annotated

import typer

from postlude import db

app = typer.Typer(help="One person: export everything, suppress, lift, erase.", no_args_is_help=True)

Customer = Annotated[
    str, typer.Argument(metavar="CUSTOMER", help="Customer id, the source's customer id, or an e-mail address.")
]
Why = Annotated[str, typer.Option("--why", help="The reason, kept for ever.")]
By = Annotated[str, typer.Option("--by", help="Who says so. Default: the user of this machine.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else, on standard output.")]


def _one(conn: db.Connection, wanted: str) -> int:
    from postlude import people
    from postlude.errors import InputError

    found = people.find(conn, wanted)
    if len(found) > 1:
        ids = ", ".join(str(row.customer_id) for row in found)
        raise InputError(f"several people answer to that; name one by its customer id: {ids}")
    return int(found[0].customer_id)


@app.command()
def export(customer: Customer) -> None:
    """Everything that is stored about one person, as JSON on standard output: table by table, for them to have."""
    from postlude import cli, people

    cli._ready()
    with db.transaction() as conn:
        print(json.dumps(people.export(conn, _one(conn, customer)), default=str, ensure_ascii=False, indent=1))


@app.command()
def erase(customer: Customer, why: Why, by: By = "", as_json: AsJson = False) -> None:
    """Forget who a person is, for good: names and addresses go, ids and counts stay, nothing is sent to them any more."""
    from postlude import cli, people

    cli._ready()
    with db.transaction() as conn:
        one = _one(conn, customer)
        counts = people.erase(conn, one, by or getpass.getuser(), why, cli.instant(""))
    cli.show({"customer": one, **counts}, as_json, "Erased")


@app.command()
def suppress(
    customer: Customer, why: Why, by: By = "",
    everything: Annotated[bool, typer.Option("--all", help="Order and delivery notices too.")] = False,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Write no more marketing (or, with --all, nothing) to any address of this person."""
    from postlude import cli, people

    cli._ready()
    with db.transaction() as conn:
        scope = "all" if everything else "marketing"
        one = _one(conn, customer)
        added = people.suppress(conn, one, scope, by or getpass.getuser(), why, cli.instant(""))
    cli.show({"customer": one, "suppressed": added}, as_json, "Suppressed")


@app.command()
def lift(
    customer: Customer, why: Why, by: By = "",
    number: Annotated[int, typer.Option("--number", help="Only this suppression; default: all that were made by hand.")] = 0,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Lift a suppression, with a reason. A complaint is lifted by its number only."""
    from postlude import cli, people
    from postlude.errors import InputError

    cli._ready()
    with db.transaction() as conn:
        one = _one(conn, customer)
        in_force = [row for row in people.suppressions(conn, one) if row.in_force]
        chosen = [row for row in in_force if row.suppression_id == number or (not number and row.reason == "manual")]
        if not chosen:
            there = ", ".join(f"{row.suppression_id} ({row.reason}, {row.scope})" for row in in_force) or "none"
            raise InputError(f"nothing to lift; in force: {there}")
        for row in chosen:
            people.lift(conn, one, row.suppression_id, by or getpass.getuser(), why, cli.instant(""))
    cli.show({"customer": one, "lifted": len(chosen)}, as_json, "Lifted")
