"""What every kind of source keeps to: everything once, the newest version, all or nothing, and it goes on where it was."""

from __future__ import annotations

import gzip
import json
import sqlite3
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

import fake_shops
from cornershop import NOW, TABLES
from postlude import db, intake
from postlude.errors import GateClosed, InputError, Unavailable
from postlude.settings import settings
from postlude.sources import Source, _http, kinds, load_source

DAY = timedelta(days=1)


class Case:
    """A shop behind one kind of source, read through the source file and mapping that are shipped for it."""

    shipped = ""

    def __init__(self, engine: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engine, self.folder, self.monkeypatch = engine, folder, monkeypatch

    def order(self, number: int, placed: datetime, changed: datetime | None = None, price: float = 3.5, cancelled: bool = False,
              currency: str = "EUR") -> None:  # fmt: skip
        """The shop has this order now (two pieces at `price`, of one customer), in this version."""
        raise NotImplementedError

    def damage(self) -> None:
        """What the shop gives breaks off in the middle, however often it is asked."""

    def mend(self) -> None:
        """What it gives is whole again."""

    def yaml(self) -> str:
        return (settings().include / "sources" / f"{self.shipped}.yml").read_text()

    def source(self, name: str = "") -> Source:
        path = self.folder / f"{name or 'shop'}.yml"
        words = self.yaml()
        path.write_text(words.replace(f"id: {self.shipped}", f"id: {name or 'shop'}"))
        return load_source(path)

    def ingest(self, now: datetime = NOW, name: str = "") -> dict[str, int]:
        source = self.source(name)
        with db.transaction(self.engine) as conn:
            intake.extract(conn, source, now, "run")
        with db.transaction(self.engine) as conn:
            return intake.load(conn, source, now, "run")

    def extract(self, now: datetime = NOW) -> dict[str, int]:
        with db.transaction(self.engine) as conn:
            return intake.extract(conn, self.source(), now, "run")

    def load(self, now: datetime = NOW) -> dict[str, int]:
        with db.transaction(self.engine) as conn:
            return intake.load(conn, self.source(), now, "run")

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        with self.engine.connect() as conn:
            return [tuple(row) for row in conn.execute(text(sql))]

    def everything(self) -> dict[str, list[tuple[Any, ...]]]:
        """All that a load may write, without the times at which it did."""
        found = {table: self.ask(f"select * from {table} order by 1, 2, 3") for table in TABLES if table != "loads"}
        found["source_cursors"] = self.ask("select source_id, entity, cursor from source_cursors order by 1, 2")
        return found

    def orders(self) -> list[tuple[Any, ...]]:
        """Number, money and whether it was cancelled, of every order; the shops write the number each in their way."""
        return [
            (int("".join(letter for letter in key if letter.isdigit())), amount, cancelled)
            for key, amount, cancelled in self.ask(
                "select source_order_id, cast(counted_amount as float), cancelled_at is not null from orders order by order_id"
            )
        ]


class Files(Case):
    """Each version of an order is a file of its own, named by its time."""

    shipped = "drop"
    YAML = """\
id: drop
shop: Drop
kind: files
currency: EUR
time_zone: UTC
mapping: {mapping}
entities:
  orders:
    path: {folder}/in/*.jsonl.gz
    columns: [no, at, changed, cancelled, price, currency]
    optional: true
"""
    MAPPING = """\
-- entity: customers
select distinct '7' as source_customer_id, 'ann@customers.example' as email from orders
-- entity: orders
select no as source_order_id, '7' as source_customer_id, at as placed_at, changed as updated_at, cancelled as cancelled_at,
    currency, _file, _line from orders
-- entity: order_lines
select no as source_order_id, '1' as line_key, 'TEA' as sku, 2 as quantity, price as unit_price, _file, _line from orders
"""

    def yaml(self) -> str:
        mapping = self.folder / "drop.sql"
        mapping.write_text(self.MAPPING)
        return self.YAML.format(mapping=mapping, folder=self.folder)

    def order(self, number, placed, changed=None, price=3.5, cancelled=False, currency="EUR"):  # type: ignore[no-untyped-def]
        (self.folder / "in").mkdir(exist_ok=True)
        row = {"no": f"{number}", "at": f"{placed}", "changed": f"{changed or placed}", "price": f"{price}", "currency": currency,
               "cancelled": f"{changed}" if cancelled else None}  # fmt: skip
        (self.folder / "in" / f"{changed or placed:%Y%m%d%H}-{number:03}.jsonl.gz").write_bytes(
            gzip.compress(json.dumps(row).encode())
        )

    def damage(self) -> None:
        self.whole = {path: path.read_bytes() for path in (self.folder / "in").iterdir()}
        last = max(self.whole)
        last.write_bytes(self.whole[last][:-9])

    def mend(self) -> None:
        for path, content in self.whole.items():
            path.write_bytes(content)


class Sql(Case):
    """SQLite; the connection is a URL, as for any database."""

    shipped = "database"
    TABLES = """
        create table customers (id, email, first_name, last_name, country, created_at, updated_at);
        create table newsletter_consents (customer_id, granted, agreed_at, double_opt_in);
        create table products (sku, name, category, price, in_stock);
        create table orders (id primary key, customer_id, status, currency, placed_at, paid_at, cancelled_at, total, updated_at);
        create table order_lines (order_id, position, sku, name, quantity, unit_price, primary key (order_id, position));
        create table parcels (id, order_id, carrier, tracking_url, shipped_at, delivered_at, updated_at);
        create table refunds (id, order_id, sku, requested_at, received_at, refunded_at, updated_at);
        insert into customers values (7, 'ann@customers.example', 'Ann', null, 'DE', null, '2026-11-01 00:00:00+00:00');
    """

    def __init__(self, engine: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(engine, folder, monkeypatch)
        self.file = folder / f"{fake_shops.SECRET}.db"
        self.do(self.TABLES)
        monkeypatch.setenv("POSTLUDE_CONN_SHOP_DATABASE", f"sqlite:///{self.file}")

    def do(self, script: str) -> None:
        with sqlite3.connect(self.file) as database:
            database.executescript(script)

    def yaml(self) -> str:
        mapping = (settings().sql / "sources" / "database.sql").read_text()
        (self.folder / "database.sql").write_text(
            mapping.replace("    status,\n    placed_at", "    status,\n    currency,\n    placed_at")
        )
        return super().yaml().replace("mapping: database.sql", f"mapping: {self.folder / 'database.sql'}")

    def order(self, number, placed, changed=None, price=3.5, cancelled=False, currency="EUR"):  # type: ignore[no-untyped-def]
        when = f"'{changed}'" if cancelled else "null"
        self.do(f"""
            insert or replace into orders values
                ({number}, 7, 'paid', '{currency}', '{placed}', null, {when}, {2 * price}, '{changed or placed}');
            insert or replace into order_lines values ({number}, 1, 'TEA', 'Tea', 2, {price});""")

    def damage(self) -> None:
        self.do("alter table refunds rename to gone")  # the last that is read: all others have come by then

    def mend(self) -> None:
        self.do("alter table gone rename to refunds")


class Http(Case):
    """A shop that is asked over the network, in small pages that overlap."""

    shop: fake_shops.FakeShop

    def __init__(self, engine: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(engine, folder, monkeypatch)
        self.shop.page_size, self.shop.overlap = 2, 1
        monkeypatch.setattr(_http, "PAUSE", 0.0)
        monkeypatch.setenv(f"POSTLUDE_CONN_{self.shipped.upper()}", self.shop.connection())

    def damage(self) -> None:
        self.shop.faults = ["", *["cut", "half", "500"] * 5]

    def mend(self) -> None:
        self.shop.faults = []


class Shopify(Http):
    shipped = "shopify"

    def order(self, number, placed, changed=None, price=3.5, cancelled=False, currency="EUR"):  # type: ignore[no-untyped-def]
        at = (changed or placed).isoformat()
        more = {"cancelled_at": at if cancelled else None, "currency": currency}
        self.shop.put("orders", fake_shops.shopify_order(number, placed.isoformat(), at, price, **more))


class WooCommerce(Http):
    shipped = "woocommerce"

    def order(self, number, placed, changed=None, price=3.5, cancelled=False, currency="EUR"):  # type: ignore[no-untyped-def]
        at = f"{changed or placed:%Y-%m-%dT%H:%M:%S}"
        more = {"status": "cancelled" if cancelled else "processing", "currency": currency}
        self.shop.put("orders", fake_shops.woo_order(number, f"{placed:%Y-%m-%dT%H:%M:%S}", at, price, **more))


class Stripe(Http):
    """A charge never changes in the list; what happens to it later is an event. It is refunded, never cancelled."""

    shipped = "stripe"

    def order(self, number, placed, changed=None, price=3.5, cancelled=False, currency="EUR"):  # type: ignore[no-untyped-def]
        at = int(placed.timestamp())
        charge = fake_shops.stripe_charge(number, at, price, currency=currency.lower())
        if changed is None:
            self.shop.put("charges", charge)
            return
        event = fake_shops.stripe_event(
            int(changed.timestamp()) + number, int(changed.timestamp()), "charge.updated", charge
        )
        self.shop.put("events", event)


CASES: dict[str, Any] = {
    "files": (Files, None),
    "sql": (Sql, None),
    "shopify": (Shopify, fake_shops.Shopify),
    "woocommerce": (WooCommerce, fake_shops.WooCommerce),
    "stripe": (Stripe, fake_shops.Stripe),
}
HTTP = ["shopify", "woocommerce", "stripe"]


@pytest.fixture
def case(
    request: pytest.FixtureRequest, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Case]:
    kind, shop = CASES[request.param]
    if shop is None:
        yield kind(engine, tmp_path, monkeypatch)
        return
    with shop().open() as opened:
        kind.shop = opened
        yield kind(engine, tmp_path, monkeypatch)


def test_every_kind_there_is_stands_in_this_suite() -> None:
    assert sorted(CASES) == kinds()


every = pytest.mark.parametrize("case", sorted(CASES), indirect=True)


@every
def test_orders_come_once_and_the_newest_version_stays_whatever_comes_in_which_sequence(case: Case) -> None:
    start = NOW - 10 * DAY
    for number in range(1, 8):
        case.order(number, start + number * timedelta(hours=1))
    counts = case.ingest()
    assert case.orders() == [(number, 7.0, False) for number in range(1, 8)]
    assert counts["rows_quarantined"] == 0
    assert case.ask("select address from customers") == [("ann@customers.example",)]
    # again, and again: nothing changes
    before = case.everything()
    case.ingest()
    case.extract()
    case.extract()
    case.load()
    assert set(case.load().values()) == {0}
    assert case.everything() == before
    # a change and a new order: only what lies near is read again
    case.order(2, start + timedelta(hours=2), NOW - 2 * DAY, price=4.0)
    case.order(8, NOW - 2 * DAY)
    counts = case.ingest()
    assert (2, 8.0, False) in case.orders()
    assert (8, 7.0, False) in case.orders()
    assert counts["orders"] == 2
    if case.shipped != "database":  # its customers have no newer time of change, and its products come whole
        assert counts["rows_read"] <= 8
    # an older version, late: it changes nothing
    before = case.everything()
    case.order(2, start + timedelta(hours=2), NOW - 3 * DAY, price=1.0)
    assert case.ingest()["orders"] == 0
    assert case.everything()["orders"] == before["orders"]
    if case.shipped != "stripe":
        case.order(2, start + timedelta(hours=2), NOW - DAY, price=4.0, cancelled=True)
        assert case.ingest()["orders"] == 1
        assert (2, 8.0, True) in case.orders()


@every
def test_a_run_that_dies_anywhere_ends_the_same_when_it_is_run_again(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, 6):
        case.order(number, NOW - 10 * DAY + number * timedelta(hours=1))
    case.damage()
    before = case.everything()
    with pytest.raises((InputError, Unavailable)) as caught:
        case.ingest()
    assert fake_shops.SECRET not in str(caught.value)
    assert case.everything() == before
    assert case.ask("select relname from pg_class where relname like 'staging%'") == []
    case.mend()
    case.extract()  # ... and dies before its load: the next one begins anew
    case.extract()
    run = db.run

    def dying(conn: Any, name: str, /, **params: Any) -> Any:
        result = run(conn, name, **params)
        if name == "18_move_cursors":
            raise RuntimeError("killed")
        return result

    with monkeypatch.context() as patch:
        patch.setattr(db, "run", dying)
        with pytest.raises(RuntimeError, match="killed"):
            case.load()
    assert case.everything() == before
    case.load()
    assert case.orders() == [(number, 7.0, False) for number in range(1, 6)]
    after = case.everything()
    case.ingest()
    assert case.everything() == after


@every
def test_what_was_refused_or_lies_in_the_future_hides_nothing_that_comes_after(case: Case) -> None:
    case.order(1, NOW - 10 * DAY)
    case.ingest()
    for number in range(100, 130):
        case.order(number, NOW - 9 * DAY, currency="USD")
    before = case.everything()["source_cursors"]
    with pytest.raises(GateClosed, match="not the currency of the shop 30"):
        case.ingest()
    assert case.everything()["source_cursors"] == before
    for number in range(100, 130):  # mended at the source
        case.order(number, NOW - 9 * DAY)
    case.order(200, NOW + 400 * DAY)
    assert case.ingest()["orders"] == 30
    case.order(3, NOW - 8 * DAY)
    assert case.ingest()["orders"] == 1
    assert case.ask("""
        select 'placed_at: in the future' = any(reasons) from quarantine where entity = 'orders' and released_at is null
    """) == [(True,)]


@every
def test_two_sources_with_the_same_numbers_do_not_mix(case: Case) -> None:
    case.order(1, NOW - 10 * DAY)
    case.ingest()
    case.order(1, NOW - 10 * DAY, None if case.shipped == "stripe" else NOW - 9 * DAY, price=9.0)
    case.ingest(name="other")
    assert case.ask("""
        select source_id, cast(counted_amount as float), (select source_id from customers as c where c.customer_id = o.customer_id)
        from orders as o order by 1""") == [("other", 18.0, "other"), ("shop", 7.0, "shop")]


# ---------------------------------------------------------------- over the network


@pytest.mark.parametrize("case", HTTP, indirect=True)
def test_what_passes_by_itself_is_asked_again_and_nothing_is_lost(case: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_http, "TIMEOUT", 0.3)
    for number in range(1, 10):
        case.order(number, NOW - 10 * DAY + number * timedelta(hours=1))
    case.shop.faults = ["429", "503", "", "cut", "", "half", "html", "", "drop", "500", "502", "", "slow", "429"]
    case.ingest()
    assert case.shop.faults == []
    assert sorted(case.orders()) == [(number, 7.0, False) for number in range(1, 10)]


@pytest.mark.parametrize("case", HTTP, indirect=True)
def test_no_secret_is_told_and_errors_say_who_must_act(
    case: Http, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    case.order(1, NOW - 10 * DAY)
    told = []
    for faults, kind, words in (
        (["401"], InputError, r"shop.yml:\d+: connection: the shop answers 401: it refuses the secret"),
        (["403"], InputError, "answers 403: it does not allow this"),
        (["404"], InputError, "answers 404: it knows no such address"),
        (["302"], InputError, "answers 302: it redirects; write its final address"),
        (["wait86400"], Unavailable, "asks for a pause of 86,400 seconds"),
        (["500"] * 9, Unavailable, "answers 500; asked 7 times"),
        (["half"] * 9, Unavailable, "cut off or is not JSON; asked 7 times"),
    ):
        case.shop.faults = list(faults)
        with pytest.raises(kind, match=words) as caught:
            case.extract()
        told.append(str(caught.value))
    case.shop.faults = []
    monkeypatch.setenv(f"POSTLUDE_CONN_{case.shipped.upper()}", f"http://user:{fake_shops.SECRET}@shop.example")
    with pytest.raises(InputError, match="secrets do not travel in the clear") as caught:
        case.extract()
    told.append(str(caught.value))
    monkeypatch.setenv(f"POSTLUDE_CONN_{case.shipped.upper()}", f"https://user:{fake_shops.SECRET}@shop.example:port")
    with pytest.raises(InputError, match="cannot be read; write scheme") as caught:
        case.extract()
    told.append(str(caught.value))
    monkeypatch.delenv(f"POSTLUDE_CONN_{case.shipped.upper()}")
    with pytest.raises(
        InputError, match=f'the connection "{case.shipped}" is not set; set POSTLUDE_CONN_{case.shipped.upper()}'
    ):
        case.extract()
    assert fake_shops.SECRET not in "\n".join(
        [*told, *(f"{r.getMessage()}{r.args}{r.exc_text}" for r in caplog.records)]
    )
    assert "customers.example" not in "\n".join([*told, *(r.getMessage() for r in caplog.records)])


@pytest.mark.parametrize("case", ["shopify"], indirect=True)
def test_the_token_goes_to_the_shop_only(case: Http) -> None:
    for number in range(1, 6):
        case.order(number, NOW - 10 * DAY)
    case.shop.next_host = "elsewhere.example"
    with pytest.raises(InputError, match="names a next page on another host; that is not followed"):
        case.extract()


@pytest.mark.parametrize("case", ["woocommerce"], indirect=True)
def test_an_order_that_changes_while_the_pages_are_turned_hides_no_other(case: Http) -> None:
    for number in range(1, 8):
        case.order(number, NOW - 10 * DAY + number * timedelta(hours=1))
    case.shop.overlap = 0

    def meanwhile(page: int) -> None:
        if page == 2:
            case.order(1, NOW - 10 * DAY, NOW - timedelta(minutes=1), price=5.0)

    case.shop.before_page = meanwhile
    case.ingest()
    assert {number for number, _, _ in case.orders()} >= set(range(2, 8))
    case.ingest()
    assert sorted(case.orders()) == [(1, 10.0, False), *[(number, 7.0, False) for number in range(2, 8)]]


@pytest.mark.parametrize("case", ["woocommerce"], indirect=True)
def test_a_list_that_is_shorter_than_the_shop_says_is_not_loaded(case: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    case.order(1, NOW - 10 * DAY)
    whole = case.shop.answer

    def lying(path: str, query: dict[str, list[str]]) -> Any:
        found, headers = whole(path, query)
        return found, headers | {"X-WP-Total": "40"}

    monkeypatch.setattr(case.shop, "answer", lying)
    with pytest.raises(Unavailable, match="1 of 40 records came"):
        case.ingest()
