"""`postlude recommend`: what is recommended to a customer, or goes with an article, and why."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from postlude import db
from postlude.errors import InputError

app = typer.Typer()

AsOf = Annotated[str, typer.Option("--as-of", metavar="INSTANT", help="As of this instant. Default: now.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else, on standard output.")]


@app.command()
def recommend(
    customer: Annotated[int | None, typer.Argument(help="Number of a customer.")] = None,
    product: Annotated[str, typer.Option("--product", metavar="SKU", help="What goes with this article.")] = "",
    count: Annotated[bool, typer.Option("--count", help="Count first what is bought together.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Count from scratch, not only what changed.")] = False,
    most: Annotated[int, typer.Option("--most", min=1, max=50)] = 8,
    as_of: AsOf = "",
    as_json: AsJson = False,
) -> None:
    """What would be recommended to CUSTOMER now, or what goes with --product, each with its reason."""
    from postlude import cli, pipeline
    from postlude import recommend as stage

    cli._ready()
    now = cli.instant(as_of)
    if not count and (customer is None) == (not product):
        raise InputError("name a customer, or --product SKU, or say --count")
    result: dict[str, Any] = {"as_of": now}
    if count:
        result |= pipeline.recommend(now, cli.new_run("recommend"), "cli", full)
        if customer is None and not product:
            cli.show(result, as_json, f"Bought together as of {now:%Y-%m-%d %H:%M} UTC")
            return
    with db.transaction() as conn:
        rows = (
            stage.for_product(conn, product)[: 2 * most]
            if product
            else stage.for_customer(conn, customer or 0, now, most)
        )
    if as_json:
        cli.show(result | {"recommendations": rows}, True)
        return
    title = (
        f"What goes with {product}" if product else f"Recommended to customer {customer} at {now:%Y-%m-%d %H:%M} UTC"
    )
    table = Table(box=None, padding=(0, 2, 0, 0), title=title, title_justify="left")
    for name in ("article", "name", "category", "why"):
        table.add_column(name, no_wrap=name == "article")
    for row in rows:
        why = row.get("why") or (
            f"{row['kind']}: in {row['orders']:,} of {row['of_orders']:,} orders with it (score {row['score']:.3f})"
            f"{', out of stock' if row['in_stock'] is False else ''}"
        )
        table.add_row(row["sku"], row["name"], row["category"] or "–", why)
    cli.console.print(table)
