"""The feed's rows go through the real merge of the intake (include/sql/11_* to 18_*); only reading files is left out."""

from __future__ import annotations

from datetime import datetime
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Connection, Engine, text

from postlude import db, intake
from postlude.canonical import COLUMNS, ENTITIES
from simulator.shop import CATEGORIES, SHOP_ZONE, Fact, Shop

SOURCE: Any = SimpleNamespace(id="shop", monetary="lines", time_zone=SHOP_ZONE)


class Feed:
    """One connection with staging tables of its own, as the load finds them after an extract."""

    def __init__(self, engine: Engine) -> None:
        self._raw = engine.connect()
        with self._raw.begin():
            for entity in ENTITIES:
                columns = ", ".join(f"{column.name} {column.sql_type}" for column in COLUMNS[entity])
                self._raw.execute(text(
                    f"create temporary table staging_{entity} ({columns}, _file int, _line bigint, "
                    "_row bigint generated always as identity, problems text[] not null default '{}', raw jsonb)"
                ))  # fmt: skip
            self._raw.execute(
                text(
                    "create temporary table staging_files (number int, entity text, name text, checksum text, rows_read bigint, "
                    "cursor text, columns text[] not null)"
                )
            )
            self._raw.execute(
                text(
                    "insert into staging_files values (1, 'facts', '', '', 0, null, '{}'), (2, 'order_lines', '', '', 0, null, '{}')"
                )
            )
        self._filled: list[str] = []  # staging tables with rows of the last delivery

    def close(self) -> None:
        self._raw.close()

    def open_shop(self, shop: Shop, now: datetime) -> dict[str, int]:
        """The shop, its goods and its customers with what they agreed to; customer ids by the shop's own keys."""
        with self._raw.begin():
            self._raw.execute(
                text(
                    "insert into sources (source_id, shop, kind, currency, time_zone) values ('shop', 'Shop', 'files', 'EUR', :zone)"
                ),
                {"zone": SHOP_ZONE},
            )
            products = [{"sku": sku, "name": sku.title(), "category": category} for sku, category in CATEGORIES.items()]
            people = [
                {
                    "source_customer_id": p.key,
                    "email": p.email,
                    "first_name": "Ana",
                    "time_zone": p.zone,
                    "created_at": now,
                }
                for p in shop.people
            ]
            agreed = [
                {"source_customer_id": p.key, "channel": "email", "topic": "marketing", "granted": True, "at": now, "basis": "opt_in"}
                for p in shop.people if p.consents
            ]  # fmt: skip
            self._merge({"products": products, "customers": people, "consents": agreed}, now)
            ids = {
                key: number
                for key, number in self._raw.execute(text("select source_customer_id, customer_id from customers"))
            }
        self._plan_anew()
        return ids

    def land(self, facts: list[Fact], now: datetime) -> None:
        """One delivery of the feed, in one transaction."""
        rows: dict[str, list[dict[str, Any]]] = {entity: [] for entity in ENTITIES}
        for fact in facts:
            rows[fact.entity].append(fact.row | {"_file": 1})
            if fact.entity == "orders":
                order = fact.order
                rows["order_lines"].append({
                    "source_order_id": order.key, "line_key": "1", "sku": order.sku, "quantity": 1, "unit_price": order.amount,
                    "placed_at": order.placed, "_file": 2,
                })  # fmt: skip
        with self._raw.begin():
            self._merge(rows, now)
        if len(facts) > 1000:
            self._plan_anew()

    def _plan_anew(self) -> None:
        """After much at once: the plans that are kept were made for smaller tables."""
        with self._raw.begin():
            self._raw.execute(text("discard plans"))

    def _merge(self, rows: dict[str, list[dict[str, Any]]], now: datetime) -> None:
        conn: Connection = self._raw
        for entity in self._filled:  # a few hundred rows: to truncate would make new files
            conn.execute(text(f"delete from staging_{entity}"))
        self._filled = [entity for entity in ENTITIES if rows.get(entity)]
        for entity, delivered in rows.items():
            if delivered:
                names = ", ".join(dict.fromkeys(name for row in delivered for name in row))
                conn.execute(
                    text(
                        f"insert into staging_{entity} ({names}) "
                        f"select {names} from jsonb_populate_recordset(cast(null as staging_{entity}), :rows)"
                    ),
                    {"rows": db.dumps(delivered)},
                )
        intake._merge(conn, SOURCE, now, "simulated")
