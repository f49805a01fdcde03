"""`postlude loyalty`: a customer's points and tier; joining, correcting and redeeming by hand, always with a reason."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer
from rich.table import Table

from postlude import db, loyalty
from postlude.errors import InputError
from postlude.loyalty_rules import load_loyalty

app = typer.Typer(help="The loyalty club: points, tiers, memberships.", no_args_is_help=True)

Customer = Annotated[int, typer.Argument(metavar="CUSTOMER", help="Number of a customer.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is kept in the ledger.")]
By = Annotated[str, typer.Option("--by", help="Who says so. Default: the name you are logged in with.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else, on standard output.")]


def _by(by: str) -> str:
    return by.strip() or getpass.getuser()


@app.command()
def show(
    customer: Customer, most: Annotated[int, typer.Option("--most", min=1, max=1000)] = 20, as_json: AsJson = False
) -> None:
    """Points, tier, membership, what goes next, and the newest entries of the ledger."""
    from postlude import cli

    cli._ready()
    with db.transaction() as conn:
        account = loyalty.account(conn, customer, cli.instant(""), load_loyalty())
        entries = loyalty.entries(conn, customer, most)
    if as_json:
        cli.show({"account": account, "entries": entries}, True)
        return
    goes = f", {account['expiring']:,} of them go on {account['expires_at']:%Y-%m-%d}" if account["expiring"] else ""
    member = {"no": "no member", "free": "member", "paid": f"paid club, renews on {account['renews_on']}"}[
        account["member"]
    ]
    cli.console.print(
        f"Customer {customer}: {account['points']:,} points{goes}; {member}, tier {account['tier_name'] or '–'}"
    )
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("when (UTC)", "what", "points", "balance", "order", "reason", "by"):
        table.add_column(name, justify="right" if name in ("points", "balance") else "left")
    for row in entries:
        table.add_row(
            f"{row['at']:%Y-%m-%d %H:%M}", row["kind"].replace("_", " "), f"{row['points']:+,}", f"{row['balance']:,}",
            row["order_number"] or "–", row["reason"], row["by"],
        )  # fmt: skip
    cli.console.print(table)


@app.command()
def adjust(customer: Customer, points: int, reason: Reason, by: By = "", as_json: AsJson = False) -> None:
    """Give POINTS, or take them (write `-- -50`). The ledger keeps who and why; nothing in it is ever changed."""
    from postlude import cli

    cli._ready()
    with db.transaction() as conn:
        balance = loyalty.adjust(conn, customer, points, cli.instant(""), _by(by), reason)
    cli.show({"customer": customer, "points": balance}, as_json)


@app.command()
def redeem(
    customer: Customer, points: int, reason: Reason,
    ref: Annotated[str, typer.Option("--ref", help="The till's own number of it: given again, it is spent once.")],
    by: By = "", as_json: AsJson = False,
) -> None:  # fmt: skip
    """Spend points. Refused when there are not enough."""
    from postlude import cli

    cli._ready()
    with db.transaction() as conn:
        done = loyalty.redeem(conn, customer, points, cli.instant(""), _by(by), reason, f"redeem:{ref}")
        left = loyalty.account(conn, customer, cli.instant(""))["points"]
    cli.show({"customer": customer, "redeemed": points if done else 0, "points": left}, as_json)


@app.command()
def join(
    customer: Customer,
    paid: Annotated[bool, typer.Option("--paid", help="The paid club.")] = False,
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """Make somebody a member from now on."""
    from postlude import cli

    cli._ready()
    with db.transaction() as conn:
        if not loyalty.join(conn, customer, cli.instant(""), _by(by), "paid" if paid else "free"):
            raise InputError(f"customer {customer} is a member already; see `postlude loyalty show {customer}`")
    cli.show({"customer": customer, "member": "paid" if paid else "free"}, as_json)


@app.command()
def leave(customer: Customer, reason: Reason, as_json: AsJson = False) -> None:
    """End a membership; the points stay."""
    from postlude import cli

    cli._ready()
    with db.transaction() as conn:
        if not loyalty.leave(conn, customer, cli.instant(""), reason):
            raise InputError(f"customer {customer} is no member")
    cli.show({"customer": customer, "member": "no"}, as_json)
