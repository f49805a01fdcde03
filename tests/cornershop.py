"""A small shop for the tests of the intake: it delivers files, and is asked what Postlude knows of it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from postlude import db, intake
from postlude.sources import Source, load_source

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)

YAML = """\
id: corner_shop
shop: The Corner Shop
kind: files
currency: EUR
time_zone: Europe/Berlin
mapping: {mapping}
entities:
  people:
    path: {folder}/people*
    columns: [id, mail, zone]
    optional: true
  sales:
    path: {folder}/sales*
    columns: [no, customer, at, changed, cancelled, currency]
  positions:
    path: {folder}/positions*
    columns: [no, article, pieces, price]
    optional: true
  parcels:
    path: {folder}/parcels*
    columns: [no, left, arrived]
    optional: true
"""
MAPPING = """\
-- The corner shop.

-- entity: customers
select id as source_customer_id, mail as email, zone as time_zone, _file, _line from people

-- entity: orders
select no as source_order_id, customer as source_customer_id, at as placed_at, changed as updated_at,
    cancelled as cancelled_at, coalesce(currency, 'EUR') as currency, _file, _line
from sales;

-- entity: order_lines
select no as source_order_id, article as sku, pieces as quantity, price as unit_price, _file, _line from positions

-- entity: shipments
select no as source_order_id, '1' as shipment_key, "left" as shipped_at, arrived as delivered_at from parcels
"""
HEADS = {
    "people": "id,mail,zone",
    "sales": "no,customer,at,changed,cancelled,currency",
    "positions": "no,article,pieces,price",
    "parcels": "no,left,arrived",
}
TABLES = (
    "customers", "customer_identities", "orders", "order_lines", "shipments", "quarantine", "loads", "consents",
)  # fmt: skip


class Shop:
    """A small shop that delivers files, and what Postlude knows of it."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine, self.folder = engine, folder
        (folder / "in").mkdir()
        self.mapping = folder / "corner_shop.sql"
        self.yaml = folder / "corner_shop.yml"
        self.mapping.write_text(MAPPING)
        self.yaml.write_text(YAML.format(mapping=self.mapping, folder=folder / "in"))

    def deliver(self, name: str, *rows: str) -> Path:
        """A CSV file; its kind is the beginning of its name."""
        path = self.folder / "in" / f"{name}.csv"
        head = HEADS[name.rstrip("0123456789")]
        path.write_text("\n".join([head, *rows]) + "\n")
        return path

    def source(self) -> Source:
        return load_source(self.yaml)

    def extract(self, now: datetime = NOW) -> dict[str, int]:
        with db.transaction(self.engine) as conn:
            return intake.extract(conn, self.source(), now, "run")

    def load(self, now: datetime = NOW) -> dict[str, int]:
        with db.transaction(self.engine) as conn:
            return intake.load(conn, self.source(), now, "run")

    def ingest(self, now: datetime = NOW) -> dict[str, int]:
        self.extract(now)
        return self.load(now)

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        with self.engine.connect() as conn:
            return [tuple(row) for row in conn.execute(text(sql))]

    def everything(self) -> dict[str, list[tuple[Any, ...]]]:
        """All rows of all tables an intake may write, and all tables there are."""
        found = {table: self.ask(f"select * from {table} order by 1, 2, 3") for table in TABLES}
        found["sources"] = self.ask("select source_id, complete_until from sources")
        found["tables"] = self.ask("select relname from pg_class where relname like 'staging%' order by 1")
        return found

    def refused(self) -> dict[tuple[str, ...], int]:
        return {
            tuple(reasons): count for reasons, count in self.ask("select reasons, count(*) from quarantine group by 1")
        }
