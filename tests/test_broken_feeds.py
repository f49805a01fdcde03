"""Every kind of broken feed gets its verdict, says why without a value, and loses nothing. docs/feeds.md has the table."""

from __future__ import annotations

import csv
import gzip
import io
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import URL

from cornershop import Shop
from postlude import db, quality, quarantine
from postlude.errors import GateClosed, InputError

ROOT = Path(__file__).resolve().parents[1]
TODAY = datetime(2026, 12, 2, 6, tzinfo=UTC)
LAST = datetime(2026, 11, 30)  # the day before the one under test, on the shop's clock
PRICES = {f"a{n}": f"{1.5 + 2 * n:.2f}" for n in range(20)}
HEADS = {
    "people": ["id", "mail", "first", "zone"],
    "sales": ["no", "customer", "at", "changed", "cancelled", "currency", "status"],
    "positions": ["no", "article", "pieces", "price"],
}
YAML = """\
id: corner_shop
shop: The Corner Shop
kind: files
currency: EUR
time_zone: Europe/Berlin
mapping: {mapping}
statuses: [paid, shipped]
entities:
  people: {{path: "{folder}/people*", columns: [id, mail, first, zone], optional: true}}
  sales: {{path: "{folder}/sales*", columns: [no, customer, at, changed, cancelled, currency, status], optional: true}}
  positions: {{path: "{folder}/positions*", columns: [no, article, pieces, price], optional: true}}
"""
MAPPING = """\
-- entity: customers
select id as source_customer_id, mail as email, first as first_name, zone as time_zone, _file, _line from people

-- entity: orders
select no as source_order_id, customer as source_customer_id, at as placed_at, changed as updated_at,
    cancelled as cancelled_at, currency, status, _file, _line
from sales

-- entity: order_lines
select no as source_order_id, article as sku, pieces as quantity, price as unit_price, _file, _line from positions
"""
Rows = dict[str, list[list[str]]]


def day(date: datetime, orders: int = 60) -> Rows:
    """An ordinary day: orders between 8 and 20 o'clock, most around noon; returns, guests and gifts as in any shop."""
    draw = random.Random(date.isoformat())
    rows: Rows = {"people": [], "sales": [], "positions": []}
    for n in range(orders):
        at = date + timedelta(minutes=int(draw.triangular(8 * 60, 20 * 60, 12 * 60)))
        number = f"{date:%m%d}-{n:03}"
        customer = draw.randrange(150)
        rows["people"].append([f"c{customer}", f"c{customer}@customers.example", f"Zoé {customer}", ""])
        cancelled = f"{at + timedelta(minutes=30):%Y-%m-%d %H:%M:%S}" if n % 20 == 7 else ""
        guest = "" if n % 9 == 4 else f"c{customer}"
        rows["sales"].append(
            [number, guest, f"{at:%Y-%m-%d %H:%M:%S}", f"{at:%Y-%m-%d %H:%M:%S}", cancelled, "EUR", "paid"]
        )
        for article in draw.sample(sorted(PRICES), draw.randint(1, 3)):
            pieces = "-1" if cancelled else str(draw.randint(1, 3))
            rows["positions"].append([number, article, pieces, "0.00" if draw.random() < 0.02 else PRICES[article]])
    rows["people"] = [list(row) for row in sorted({tuple(row) for row in rows["people"]})]
    return rows


class Feed(Shop):
    """The corner shop with six weeks behind it, which delivers one day more."""

    def __init__(self, engine: Engine, url: URL, folder: Path) -> None:
        super().__init__(engine, folder)
        self.url = url
        self.mapping.write_text(MAPPING)
        self.yaml.write_text(YAML.format(mapping=self.mapping, folder=folder / "in"))

    def put(self, rows: Rows, **raw: bytes) -> None:
        """Today's files instead of whatever lies there; `raw` replaces a whole file (name without dot: sales_csv)."""
        for old in (self.folder / "in").iterdir():
            old.unlink()
        for name, content in rows.items():
            (self.folder / "in" / f"{name}.csv").write_bytes(text_of(name, content))
        for name, content_ in raw.items():
            kind, _, ending = name.partition("_")
            (self.folder / "in" / f"{kind}.csv").unlink(missing_ok=True)
            (self.folder / "in" / f"{kind}.{ending.replace('_', '.')}").write_bytes(content_)

    def take_in(self, now: datetime = TODAY, gate: bool = True) -> tuple[dict[str, int], quality.Verdict | None]:
        """extract, check, load as the DAG does."""
        files = self.extract(now)["files"]
        verdict = None
        if gate:
            minimum = None if files else 0
            verdict = quality.check(
                self.url, "orders", subject="corner_shop", now=now, run_id="run", minimum_rows=minimum
            )
        return self.load(now), verdict

    def facts(self) -> list[tuple[Any, ...]]:
        return self.ask("""
            select o.source_order_id, o.placed_at, o.cancelled_at, o.counted_amount, c.source_customer_id, c.email,
                (select count(*) from order_lines as l where l.order_id = o.order_id)
            from orders as o left join customers as c using (customer_id) order by 1""")

    def watermark(self) -> Any:
        return self.ask("select complete_until from sources")[0][0]


def text_of(name: str, rows: list[list[str]], head: list[str] | None = None) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([head or HEADS[name], *rows])
    return out.getvalue().encode()


@pytest.fixture(scope="module")
def past(template: URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[URL]:
    """A database that knows six weeks of the shop."""
    url = template.set(database=f"{template.database}_feeds")
    admin = create_engine(db._psycopg(template.set(database="postgres")), isolation_level="AUTOCOMMIT")
    with admin.connect() as conn:
        conn.execute(text(f'create database "{url.database}" template "{template.database}"'))
    engine = db.engine(url)
    shop = Feed(engine, url, tmp_path_factory.mktemp("past"))
    whole: Rows = {"people": [], "sales": [], "positions": []}
    for back in range(41, -1, -1):
        for name, rows in day(LAST - timedelta(days=back)).items():
            whole[name] += [row for row in rows if name != "people" or row not in whole["people"]]
    shop.put(whole)
    shop.take_in(TODAY - timedelta(days=1), gate=False)
    engine.dispose()
    yield url
    with admin.connect() as conn:
        conn.execute(text(f'drop database if exists "{url.database}" with (force)'))
    admin.dispose()


@pytest.fixture
def feed(past: URL, tmp_path: Path) -> Iterator[Feed]:
    url = past.set(database=f"{past.database}_{tmp_path.name[-20:]}")
    admin = create_engine(db._psycopg(past.set(database="postgres")), isolation_level="AUTOCOMMIT")
    with admin.connect() as conn:
        conn.execute(text(f'create database "{url.database}" template "{past.database}"'))
    engine = db.engine(url)
    yield Feed(engine, url, tmp_path)
    engine.dispose()
    with admin.connect() as conn:
        conn.execute(text(f'drop database if exists "{url.database}" with (force)'))
    admin.dispose()


# ---------------------------------------------------------------- the broken feeds


@dataclass(frozen=True)
class Broken:
    """A kind of broken feed. verdict: stop, quarantine or pass; says: what the error, the reasons or the warning name."""

    what: str
    verdict: str
    says: str
    damage: Callable[[Feed, Rows], None]
    rows: int = 0
    quiet: bool = field(default=False)


def changed(name: str, column: int, value: Callable[[list[str], int], str], some: range | None = None) -> Any:
    """Damage: another value in one column, in all rows or in some."""

    def damage(feed: Feed, rows: Rows) -> None:
        for n, row in enumerate(rows[name]):
            if some is None or n in some:
                row[column] = value(row, n)
        feed.put(rows)

    return damage


def shifted(hours: int) -> Any:
    def other(row: list[str], _: int) -> str:
        return f"{datetime.fromisoformat(row[2]) + timedelta(hours=hours):%Y-%m-%d %H:%M:%S}"

    def damage(feed: Feed, rows: Rows) -> None:
        for row in rows["sales"]:
            row[2] = row[3] = other(row, 0)
        feed.put(rows)

    return damage


def with_head(name: str, head: list[str], more: list[str] | None = None) -> Any:
    def damage(feed: Feed, rows: Rows) -> None:
        feed.put(rows, **{f"{name}_csv": text_of(name, [row[: len(head)] + (more or []) for row in rows[name]], head)})

    return damage


def swapped(name: str, one: int, other: int) -> Any:
    def damage(feed: Feed, rows: Rows) -> None:
        for row in rows[name]:
            row[one], row[other] = row[other], row[one]
        feed.put(rows)

    return damage


def twice(feed: Feed, rows: Rows) -> None:
    feed.put({name: content * 2 for name, content in rows.items()})


def added(name: str, *more: list[str]) -> Any:
    def damage(feed: Feed, rows: Rows) -> None:
        feed.put({**rows, name: rows[name] + [list(row) for row in more]})

    return damage


def cut(feed: Feed, rows: Rows) -> None:
    feed.put(rows, sales_csv=text_of("sales", rows["sales"])[:-30])


def cut_gzip(feed: Feed, rows: Rows) -> None:
    packed = gzip.compress(text_of("sales", rows["sales"]))
    feed.put(rows, sales_csv_gz=packed[: len(packed) // 2])


def cut_between_rows(feed: Feed, rows: Rows) -> None:
    kept = {row[0] for row in rows["sales"][::5]}
    feed.put({**rows, "sales": rows["sales"][::5], "positions": [r for r in rows["positions"] if r[0] in kept]})


def lines_cut(feed: Feed, rows: Rows) -> None:
    feed.put({**rows, "positions": rows["positions"][: len(rows["positions"]) // 4]})


def latin(feed: Feed, rows: Rows) -> None:
    feed.put(rows, people_csv=text_of("people", rows["people"]).decode().encode("cp1252"))


def redelivered_moved(feed: Feed, rows: Rows) -> None:
    before = day(LAST)
    for row in before["sales"]:
        row[2] = f"{datetime.fromisoformat(row[2]) - timedelta(hours=1):%Y-%m-%d %H:%M:%S}"
    feed.put({name: before[name] + rows[name] for name in ("sales", "positions")} | {"people": rows["people"]})


def reused(feed: Feed, rows: Rows) -> None:
    numbers = {row[0]: f"1025-{n:03}" for n, row in enumerate(rows["sales"][:3])}
    for n, row in enumerate(rows["sales"][:3]):
        row[1] = f"new{n}"
    for row in [*rows["sales"], *rows["positions"]]:
        row[0] = numbers.get(row[0], row[0])
    rows["people"] += [[f"new{n}", f"new{n}@customers.example", "New", ""] for n in range(3)]
    feed.put(rows)


def nothing_new(feed: Feed, rows: Rows) -> None:
    feed.put(day(LAST))


def addresses_moved(feed: Feed, rows: Rows) -> None:
    addresses = [row[1] for row in rows["people"]]
    for row, address in zip(rows["people"], addresses[1:] + addresses[:1], strict=True):
        row[1] = address
    feed.put(rows)


FEW, ALL = range(3, 6), None
BROKEN = {
    "duplicates: rows twice": Broken("every row of every file is in it twice", "stop", "totals.twice_share", twice),
    "duplicates: one key, two rows": Broken(
        "an order number with two different rows of the same version", "quarantine",
        "source_order_id: two different rows in one delivery",
        added("sales", *(["x1", "", f"2026-12-01 1{n}:00:00", "2026-12-01 12:00:00", "", "EUR", "paid"] for n in (0, 1))), 2,
    ),
    "null keys": Broken("rows without an order number", "quarantine", "source_order_id: missing",
                        added("positions", *(["", "a1", str(n), "3.50"] for n in (1, 2, 3))), 3),
    "orphans": Broken("lines of an order nobody has delivered", "quarantine", "source_order_id: no such order",
                      added("positions", *(["x9", "a1", str(n), "3.50"] for n in (1, 2, 3))), 3),
    "renamed column": Broken("`customer` is called `client`", "stop", "customer: this column is missing",
                             with_head("sales", ["no", "client", *HEADS["sales"][2:]])),
    "missing column": Broken("`status` is not there", "stop", "status: this column is missing",
                             with_head("sales", HEADS["sales"][:-1])),
    "retyped column": Broken("prices like `EUR 3.50`", "stop", "unit_price: not a plain number",
                             changed("positions", 3, lambda row, _: f"EUR {row[3]}")),
    "extra column": Broken("a column nobody asked for", "pass", "files.new_columns",
                           with_head("positions", [*HEADS["positions"], "coupon"], ["x"])),
    "truncated file: inside a row": Broken("CSV that ends in the middle of a row", "stop", "missing data for column", cut),
    "truncated file: gzip": Broken("gzip that does not end", "stop", "the file is cut off", cut_gzip),
    "truncated file: between rows": Broken("a fifth of the day's orders", "stop", "days.share_of_usual", cut_between_rows),
    "truncated file: lines": Broken("a quarter of the day's lines", "stop", "totals.lineless_share", lines_cut),
    "decimal comma: some": Broken("some prices like `3,50`", "quarantine", "unit_price: not a plain number",
                                  changed("positions", 3, lambda row, _: row[3].replace(".", ","), FEW), 3),
    "decimal comma: all": Broken("all prices like `3,50`", "stop", "unit_price: not a plain number",
                                 changed("positions", 3, lambda row, _: row[3].replace(".", ","))),
    "date format": Broken("some times like `12/01/2026`", "quarantine", "placed_at: not a time like",
                          changed("sales", 2, lambda *_: "12/01/2026", FEW), 3),
    "future dates: some": Broken("some orders of 2099", "quarantine", "placed_at: in the future",
                                 changed("sales", 2, lambda *_: "2099-01-01 10:00:00", FEW), 3),
    "future dates: all": Broken("all orders of tomorrow", "stop", "placed_at: in the future", shifted(24)),
    "other zone": Broken("times of Tokyo without offset", "stop", "clock.gain", shifted(8)),
    "other zone: known orders": Broken("yesterday's orders again, an hour earlier", "stop", "known.moved_share",
                                       redelivered_moved),
    "swapped columns: numbers": Broken("pieces and price swapped", "stop", "prices.price_ratio", swapped("positions", 2, 3)),
    "swapped columns: words": Broken("mail and first name swapped", "stop", "known.unusable_address_share",
                                     swapped("people", 1, 2)),
    "empty file": Broken("no byte in the file", "stop", "the file is empty",
                         lambda feed, rows: feed.put(rows, sales_csv=b"")),
    "empty file: header only": Broken("column names and no row, in every file", "stop", "staged.accepted",
                                      lambda feed, rows: feed.put({name: [] for name in rows})),
    "other encoding": Broken("cp1252 instead of UTF-8", "stop", "is not utf-8", latin),
    "other encoding: misread upstream": Broken(
        "letters like `ZoÃ©`", "stop", "known.garbled_share",
        changed("people", 2, lambda row, _: row[2].encode().decode("latin-1")),
    ),
    "reused ids": Broken("new orders under numbers of October", "quarantine", "source_order_id: names another order already",
                         reused, 3),
    "reused customer ids": Broken("everybody has the address of another customer", "stop", "known.changed_address_share",
                                  addresses_moved),
    "negative totals": Broken("a tenth of the orders come to less than nothing", "stop", "totals.negative_share",
                              changed("positions", 2, lambda row, _: "-2" if row[0].endswith("5") else row[2])),
    "zero amounts": Broken("most prices are 0", "stop", "order_lines.unit_price",
                           changed("positions", 3, lambda row, n: "0" if n % 4 else row[3])),
    "currency mix": Broken("some orders in USD", "quarantine", "currency: not the currency of the shop",
                           changed("sales", 5, lambda *_: "USD", FEW), 3),
    "unknown word: some": Broken("a few orders with a status nobody knows", "quarantine", "status: not a known status",
                                 changed("sales", 6, lambda *_: "on_hold", FEW), 3),
    "unknown word: many": Broken("more than 0.5 % of them (and more than 3)", "stop", "staged.unknown_share",
                                 changed("sales", 6, lambda *_: "on_hold", range(5))),
    "stale feed": Broken("only what is known already, two days later", "pass", "freshness.hours_over", nothing_new),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_feed_gets_its_verdict_and_nothing_is_lost(feed: Feed, kind: str) -> None:
    broken, good = BROKEN[kind], day(LAST + timedelta(days=1))
    now = TODAY + timedelta(days=2) if kind == "stale feed" else TODAY
    before, watermark = feed.facts(), feed.watermark()
    broken.damage(feed, day(LAST + timedelta(days=1)))
    refused_before = feed.refused()
    assert refused_before == {}
    if broken.verdict == "stop":
        with pytest.raises((InputError, GateClosed)) as stopped:
            feed.take_in(now)
        told = str(stopped.value)
        assert broken.says in told
        assert (feed.facts(), feed.watermark()) == (before, watermark)
    else:
        counts, verdict = feed.take_in(now)
        assert verdict is not None
        told = str(verdict) + " ".join(verdict.lines("warn"))
        assert broken.says in told
        kept = feed.ask("select count(*) from quarantine where released_at is null and first_seen is not null")[0][0]
        assert counts["rows_loaded"] + counts["rows_quarantined"] == sum(
            n["rows"] for n in verdict.metrics["staged"].values()
        )
        assert kept == counts["rows_quarantined"] >= broken.rows
        assert any(broken.says in reason for reasons in feed.refused() for reason in reasons) == bool(broken.rows)
    assert "customers.example" not in told and "Zo" not in told
    if kind == "stale feed":
        assert feed.watermark() == watermark
        return
    # mended, or delivered again as it should have been: the same end as without the fault
    feed.put(good)
    feed.take_in(gate=False)
    with db.transaction(feed.engine) as conn:
        quarantine.adopt(conn, feed.source(), TODAY, "run")  # lines of an order that was refused at first
    ours = {row[0]: row for row in feed.facts() if row[0].startswith("1201")}
    assert sorted(ours) == sorted(row[0] for row in good["sales"])
    lines = {row[0]: 0 for row in good["sales"]}
    for row in good["positions"]:
        lines[row[0]] += 1
    assert {number: row[6] for number, row in ours.items()} == lines
    assert feed.watermark() > watermark


def test_an_ordinary_day_passes_without_a_word(feed: Feed) -> None:
    feed.put(day(LAST + timedelta(days=1)))
    counts, verdict = feed.take_in()
    assert verdict is not None and verdict.success and verdict.failures == ()
    assert counts["rows_quarantined"] == 0
    measured = verdict.metrics["measured"]
    assert [row["orders"] for row in measured["days"]] == [60, 60]
    assert measured["prices"][0]["price_ratio"] == pytest.approx(1, abs=0.1)
    assert measured["known"][0]["changed_address_share"] == 0


def test_a_quiet_day_is_declared_in_the_source_file(feed: Feed) -> None:
    cut_between_rows(feed, day(LAST + timedelta(days=1)))
    feed.yaml.write_text(feed.yaml.read_text().replace("entities:", 'quiet_days: ["12-01"]\nentities:', 1))
    counts, verdict = feed.take_in()
    assert verdict is not None and verdict.success and counts["orders"] == 12


def test_the_table_of_broken_feeds_in_the_docs_is_this_one() -> None:
    rows = "".join(f"| {kind} | {b.what} | {b.verdict} | `{b.says}` |\n" for kind, b in BROKEN.items())
    assert f"| feed | what comes | verdict | what the log names |\n|---|---|---|---|\n{rows}" in (
        ROOT / "docs" / "feeds.md"
    ).read_text(encoding="utf-8")
