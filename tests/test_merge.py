"""Late, doubled and disordered versions of an order end in the same rows, and take back what was planned because of it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import DBAPIError

from cornershop import HEADS, MAPPING, YAML, Shop
from postlude import intake
from postlude.errors import Unavailable
from world import World, at, campaign

# number, changed, cancelled, lines, parcel (left, arrived), return (asked, refunded, closed)
VERSIONS = {
    1: ("2026-11-01 10:00:00", "", ("tea,2,3.50", "cup,1,8"), None, None),
    2: ("2026-11-02 10:00:00", "", ("tea,2,3.50",), ("2026-11-02 09:00:00", ""), None),
    3: ("2026-11-05 10:00:00", "", ("tea,2,3.50",), ("2026-11-02 09:00:00", "2026-11-04 09:00:00"), ("2026-11-05 09:00:00", "", "")),
    4: ("2026-11-08 10:00:00", "", ("tea,1,3.50",), ("2026-11-02 09:00:00", "2026-11-04 09:00:00"),
        ("2026-11-05 09:00:00", "2026-11-08 09:00:00", "2026-11-08 09:30:00")),
    5: ("2026-11-09 10:00:00", "2026-11-09 09:00:00", ("tea,1,3.50",), ("2026-11-02 09:00:00", "2026-11-04 09:00:00"),
        ("2026-11-05 09:00:00", "2026-11-08 09:00:00", "2026-11-08 09:30:00")),
}  # fmt: skip
ENTITY = "  refunds:\n    path: {folder}/refunds*\n    columns: [no, asked, refunded, closed]\n    optional: true\n"
SELECT = """
-- entity: returns
select no as source_order_id, '1' as return_key, asked as requested_at, refunded as refunded_at, closed as closed_at from refunds
"""


class Versions(Shop):
    """The corner shop, with refunds; it delivers versions of orders."""

    def __init__(self, engine: Engine, folder: Path, name: str = "corner_shop") -> None:
        super().__init__(engine, folder)
        self.mapping.write_text(MAPPING + SELECT)
        words = (YAML + ENTITY).format(mapping=self.mapping, folder=folder / "in")
        self.yaml.write_text(words.replace("id: corner_shop", f"id: {name}"))
        self.number = itertools.count(1)

    def tell(self, versions: Sequence[tuple[str, int]], customer: str = "c1") -> dict[str, int]:
        """One delivery with these versions of orders, each (order number, version)."""
        number = next(self.number)
        rows: dict[str, list[str]] = {
            "people": [f"{customer},{customer}@customers.example,"],
            "sales": [],
            "positions": [],
            "parcels": [],
            "refunds": [],
        }
        for order, version in versions:
            changed, cancelled, lines, parcel, refund = VERSIONS[version]
            rows["sales"].append(f"{order},{customer},2026-11-01 10:00:00,{changed},{cancelled},EUR")
            rows["positions"] += [f"{order},{line}" for line in lines]
            rows["parcels"] += [f"{order},{','.join(parcel)}"] if parcel else []
            rows["refunds"] += [f"{order},{','.join(refund)}"] if refund else []
        heads = {**HEADS, "refunds": "no,asked,refunded,closed"}
        for old in (self.folder / "in").iterdir():
            old.unlink()
        for name, content in rows.items():
            (self.folder / "in" / f"{name}{number}.csv").write_text("\n".join([heads[name], *content]) + "\n")
        return self.ingest()

    def final(self) -> list[tuple[Any, ...]]:
        """One row per different state an order is in: its facts, lines, parcel, return; the number of orders in it."""
        return self.ask("""
            select o.placed_at, o.cancelled_at, cast(o.counted_amount as float), o.updated_at,
                (select string_agg(concat(l.sku, trim_scale(l.quantity)), ' ' order by l.sku) from order_lines as l
                 where l.order_id = o.order_id),
                (select concat(s.shipped_at, s.delivered_at) from shipments as s where s.order_id = o.order_id),
                (select concat(r.requested_at, r.refunded_at, r.closed_at) from returns as r where r.order_id = o.order_id),
                count(*)
            from orders as o group by 1, 2, 3, 4, 5, 6, 7 order by 1""")


def test_all_permutations_of_the_versions_of_an_order_end_in_the_same_rows(engine: Engine, tmp_path: Path) -> None:
    shop = Versions(engine, tmp_path)
    permutations = list(itertools.permutations(VERSIONS))
    for turn in range(len(VERSIONS)):
        shop.tell([(f"o{n}", sequence[turn]) for n, sequence in enumerate(permutations)])
    ((*_, lines, parcel, refund, orders),) = shop.final()
    assert (orders, lines) == (120, "tea1")
    assert "2026-11-04" in parcel and "2026-11-08" in refund
    before = shop.everything()
    counts = shop.tell([(f"o{n}", 2) for n in range(len(permutations))])  # an old version once more
    assert (
        counts["rows_loaded"] > 0
        and sum(counts[name] for name in ("orders", "order_lines", "shipments", "returns")) == 0
    )
    after = shop.everything()
    assert {name: rows for name, rows in before.items() if name != "loads"} == {
        name: rows for name, rows in after.items() if name != "loads"
    }


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None)
@given(
    st.lists(
        st.lists(st.sampled_from(list(VERSIONS)), min_size=0, max_size=6).map(lambda drawn: [*drawn, 5]).flatmap(st.permutations),
        min_size=5, max_size=30,
    )
)  # fmt: skip
def test_missing_doubled_and_disordered_versions_end_as_the_newest_alone(
    engine: Engine, tmp_path_factory: pytest.TempPathFactory, sequences: list[list[int]]
) -> None:
    """Whatever came before, after and again: an order is what its newest version says."""
    shop = Versions(engine, tmp_path_factory.mktemp("shop"))
    with engine.begin() as conn:
        conn.execute(text("truncate loads, orders, customers, quarantine cascade"))
    for turn in range(max(map(len, sequences))):
        shop.tell([(f"o{n}", sequence[turn]) for n, sequence in enumerate(sequences) if turn < len(sequence)])
    assert [(row[1] is not None, row[4], row[-1]) for row in shop.final()] == [(True, "tea1", len(sequences))]


def test_two_sources_with_the_same_numbers_do_not_mix(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, other = Versions(engine, tmp_path / "a"), Versions(engine, tmp_path / "b", "other_shop")
    one.tell([("o1", 5)])
    other.tell([("o1", 1)])
    assert one.ask("""
        select source_id, cancelled_at is not null, (select count(*) from order_lines as l where l.order_id = o.order_id),
            dense_rank() over (order by customer_id) from orders as o order by 1""") == [
        ("corner_shop", True, 1, 1), ("other_shop", False, 2, 2),
    ]  # fmt: skip


@pytest.mark.parametrize(("version", "reason"), [(5, "order_cancelled"), (4, "returned")])
def test_what_was_planned_because_of_an_order_is_cancelled_when_it_is(
    engine: Engine, tmp_path: Path, version: int, reason: str
) -> None:
    world, shop = World(engine), Versions(engine, tmp_path)
    arrived = (*VERSIONS[2][:3], ("2026-11-02 09:00:00", "2026-11-02 18:00:00"), None)
    feedback = campaign("feedback_30d")
    VERSIONS[0] = arrived
    shop.tell([("o1", 0)])
    del VERSIONS[0]
    ana = world.one("select customer_id from customers")
    world.consent(ana, True, "2026-01-01")
    assert world.plan(feedback, "2026-11-03")["enrolled"] == 1
    assert {state for _, state, _ in world.states(ana)} == {"scheduled"}
    shop.tell([("o1", version)])
    world.plan(feedback, "2026-11-10")
    assert {(state, why) for _, state, why in world.states(ana)} == {("cancelled", reason)}
    world.deliver(feedback, now="2026-12-20 10:00")
    assert world.post.taken == []


def test_an_order_cancelled_between_planning_and_hand_over_is_not_asked_about(engine: Engine, tmp_path: Path) -> None:
    world = World(engine)
    ana = world.customer()
    order = world.order(ana, "2026-10-01", delivered="2026-10-03")
    world.plan(campaign("feedback_30d"), "2026-10-10")
    world.do("update orders set cancelled_at = :at where order_id = :o", at=at("2026-11-01"), o=order)
    world.deliver(campaign("feedback_30d"), now="2026-11-02 10:00")
    assert world.post.taken == []
    assert "order_cancelled" in {why for _, _, why in world.states(ana)}


def test_an_order_placed_at_a_marketplace_counts_and_is_not_mailed_about(engine: Engine) -> None:
    world = World(engine)
    ana = world.customer()
    order = world.order(ana, "2026-10-01", delivered="2026-10-03")
    world.do("update orders set marketplace = 'bazaar' where order_id = :o", o=order)
    assert world.plan(campaign("feedback_30d"), "2026-10-10")["enrolled"] == 0
    assert world.do("select frequency from customer_features") == [(1,)]
    assert world.do("select reason from refusals") == [("marketplace",)]


# ---------------------------------------------------------------- killed on the way


class Killer:
    """Ends the database session of whoever runs the n-th statement of the intake: all of its transaction is gone."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engine, self.seen, self.at = engine, 0, -1
        plain = intake._run

        def run(conn: Any, statement: str) -> None:
            self._count(conn.connection.driver_connection)
            plain(conn, statement)

        monkeypatch.setattr(intake, "_run", run)
        event.listen(engine, "before_cursor_execute", lambda conn, *_: self._count(conn.connection.driver_connection))

    def _count(self, raw: Any) -> None:
        self.seen += 1
        if self.seen == self.at:
            self.at = -1
            with raw.connect(raw.info.dsn) as other:
                other.execute("select pg_terminate_backend(%s)", [raw.info.backend_pid])


def test_a_kill_at_any_statement_of_extract_or_load_ends_the_same_after_another_run(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Versions(engine, tmp_path)
    shop.tell([(f"o{n}", 1 + n % 5) for n in range(20)])
    killer = Killer(engine, monkeypatch)
    shop.tell([(f"p{n}", 1) for n in range(20)])
    statements, expected, waiting = killer.seen, None, 0
    assert statements > 80
    for kill_at in range(1, statements, max(1, statements // 12)):
        facts = shop.final(), shop.ask("select count(*) from loads"), shop.ask("select complete_until from sources")
        killer.seen, killer.at = 0, kill_at
        versions = [(f"q{kill_at}-{n}", 1 + n % 5) for n in range(20)]
        try:
            shop.tell(versions)
            pytest.fail("was not killed")
        except (DBAPIError, psycopg.Error, Unavailable):
            pass
        assert killer.at == -1
        after = shop.final(), shop.ask("select count(*) from loads"), shop.ask("select complete_until from sources")
        assert after == facts, "a killed run left something behind"
        counts = shop.ingest()
        assert counts["orders"] == 20 and counts["rows_quarantined"] == 0
        told = shop.ask(f"""
            select count(*), count(cancelled_at), sum(counted_amount), count(distinct customer_id) from orders
            where source_order_id like 'q{kill_at}-%'""")
        assert expected in (None, told)
        expected = told
        waiting += 1
    assert waiting >= 12
    assert shop.ask("select count(*) from quarantine") == [(0,)]
