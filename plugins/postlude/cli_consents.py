"""`postlude consents`: who must be told that their consent stands, and that they were told (docs/law.md)."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from postlude import consents, db
from postlude.errors import InputError

app = typer.Typer(
    no_args_is_help=True, help="Consents that the law of a country lets end, and the notices that keep them."
)

AsOf = Annotated[str, typer.Option("--as-of", metavar="INSTANT", help="Act as if it were this instant. Default: now.")]
Channel = Annotated[str, typer.Option(help="The channel of the consent.")]


@app.command()
def due(
    within: Annotated[int, typer.Option(min=0, help="How many days ahead.")] = 30,
    channel: Channel = "email",
    topic: Annotated[str, typer.Option(help="The topic of the consent.")] = "marketing",
    as_of: AsOf = "",
) -> None:
    """Customers to be told that their consent stands, as CSV on standard output: ids and days, no names."""
    from postlude import cli

    cli._ready()
    now = cli.instant(as_of)
    with db.transaction() as conn:
        consents.remember_terms(conn)
        rows = consents.due(conn, now, timedelta(days=within), channel, topic)
    typer.echo("customer,shop,shop_customer,country,agreed_on,due_on")
    for row in rows:
        days = f"{row.agreed_at:%Y-%m-%d},{row.due_at:%Y-%m-%d}"
        typer.echo(f"{row.customer_id},{row.source_id},{row.source_customer_id},{row.country},{days}")


@app.command()
def told(
    file: Annotated[
        Path, typer.Argument(help="A file as `consents due` writes it, or one customer a line.", exists=True)
    ],
    by: Annotated[str, typer.Option(help="Who vouches for it.")],
    at: Annotated[str, typer.Option(metavar="INSTANT", help="When they were told. Default: now.")] = "",
    channel: Channel = "email",
    as_of: AsOf = "",
) -> None:
    """Record that these customers were told to what they agreed, when, and how to withdraw it."""
    from postlude import cli

    customers = _customers(file)
    cli._ready()
    now = cli.instant(as_of)
    with db.transaction() as conn:
        recorded = consents.told(conn, customers, cli.instant(at) if at else now, by, now, channel)
    typer.echo(f"{recorded:,} notices recorded, {len(customers) - recorded:,} were known")


def _customers(file: Path) -> list[int]:
    found = []
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), 1):
        first = line.partition(",")[0].strip()
        if not first or (number == 1 and first == "customer"):
            continue
        if not first.isdecimal():
            raise InputError(f'{file.name}:{number}: "{first}" is not the number of a customer')
        found.append(int(first))
    return list(dict.fromkeys(found))
