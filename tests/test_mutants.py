# ruff: noqa: E501 - the statements are quoted as they stand
"""The engine with one rule broken must not live: every mutant is killed by the simulator, or by the named test of threads.

A mutant that lives means that the simulator looks away, not that the rule does not matter.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import Engine, TextClause, text

import test_pressure
from postlude import db
from postlude.settings import settings
from simulator import Setup, Violation, simulate
from simulator.crew import Hazards
from simulator.post import Mixture
from test_simulator import Fresh, fresh
from world import World

__all__ = ["fresh"]  # the fixture
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

ROUGH = {"mixture": Mixture(30, 30, 5, 40, 20), "hazards": Hazards(kill=8, stall=4, turn=150)}
# the same world for all: 60 days, the feed silent for six of them
WORLD = {"days": 60, "customers": 200, "quiet": 1, "outage_days": (6, 3), "unrest": 1500, "neglect": 1000}
SEEDS = ("1", "2", "3", "4", "5", "6")


@dataclass(frozen=True)
class Mutant:
    """What is broken: (file in include/sql, or `functions`; what stands there; what the mutant says). killed_by: by these invariants."""

    what: str
    changes: tuple[tuple[str, str, str], ...]
    killed_by: tuple[str, ...]
    world: tuple[tuple[str, int], ...] = ()  # where the common one shows it too rarely


MUTANTS = {
    "no_recheck": Mutant(
        "consent and suppressions are read at planning only",
        (
            ("42_claim", "u.reason as unreachable", "cast(null as text) as unreachable"),
            ("44_intend", "from suppressions_of_person(c.customer_id, m.channel, m.kind, :now)", "where false"),
        ),
        ("I3",),
    ),
    "requeue_all": Mutant(
        "recovery sends again what may have been accepted",
        (
            ("46_recover", "state = case when m.handed_over_at is null then 'scheduled' else 'unknown' end", "state = 'scheduled', handed_over_at = null"),
            ("46_recover", "max_attempts = m.max_attempts + case when m.handed_over_at is null then 1 else 0 end", "max_attempts = m.max_attempts + 1"),
        ),
        ("I1", "I2", "I4", "I8", "I12"),  # I2: what I1 is to marketing; I4: what was requeued takes no place under the cap
    ),
    "retry_ambiguous": Mutant(
        "a lost answer is tried again",
        (("45_settle", "state = t.state,", "state = case when t.state = 'unknown' then 'scheduled' else t.state end,"),
         ("45_settle", "handed_over_at = case when t.state in ('sent', 'unknown') then", "handed_over_at = case when t.state = 'sent' then")),
        ("I1", "I2", "I8"),  # I2: what I1 is to marketing, for transactional mail
    ),
    "no_freshness": Mutant(
        "a silent feed is believed",
        (("functions", "from limited as l", "from limited as l where false"),),
        ("I6",),
    ),
    "no_winback_recheck": Mutant(
        "what ends a passage is not read again at the claim",
        (("42_claim", "coalesce(x.fact, d.passage_fact) as fact", "d.passage_fact as fact"),),
        ("I6", "I7"),
    ),
    "no_cap": Mutant(
        "contact pressure is not counted",
        (("functions", "if reason is null and mine ->> 'kind' = 'marketing' and taken <> '[]' then", "if false then"),),
        ("I4",), (("most", 1),),
    ),
    "cap_ignores_unknown": Mutant(
        "what is unknown takes no place under the cap",
        (("functions", "r.state in ('sent', 'unknown') and r.handed_over_at > since", "r.state = 'sent' and r.handed_over_at > since"),),
        ("I4",), (("most", 1),),
    ),
    "utc_quiet": Mutant(
        "send windows are those of UTC",
        (("42_claim", "next_opening(:now, d.zone,", "next_opening(:now, 'UTC',"), ("33_plan_messages", "next_opening(d.due_at, d.zone,", "next_opening(d.due_at, 'UTC',")),
        ("I5",),
    ),
    "no_refund_check": Mutant(
        "who sent the item back is asked how it was",
        (("functions", "when rules ? 'returned' and exists", "when false and exists"), ("functions", "when rules ? 'return_open' and exists", "when false and exists")),
        ("I7",),
    ),
    "dup_orders": Mutant(
        "an older version of an order replaces a newer one",
        (("13_choose_orders", "else 'older'", "else 'newer'"),),
        ("I15",), (("again", 500),),
    ),
    "mark_before_send": Mutant(
        "a message counts as sent before it is handed over",
        (("44_intend", "set handed_over_at = :now, content_hash", "set state = 'sent', finalized_at = :now, handed_over_at = :now, content_hash"),),
        ("I8", "I12"),
    ),
    "no_intent": Mutant(
        "nothing is written down before the final dot",
        (("44_intend", "set handed_over_at = :now, content_hash = w.content_hash", "set content_hash = w.content_hash"),),
        ("I1", "I2", "I8", "I4"),  # I2: as above
    ),
}  # fmt: skip


def breaking(monkeypatch: pytest.MonkeyPatch, changes: tuple[tuple[str, str, str], ...]) -> Callable[[Engine], None]:
    """Breaks the statements at once; returns what breaks the functions of a database."""
    real, known = db.sql, dict[str, TextClause]()

    def sql(name: str) -> TextClause:
        if name not in known:
            body = real(name).text
            for file, old, new in changes:
                if file == name:
                    body = _replaced(body, old, new, name)
            known[name] = text(body)
        return known[name]

    monkeypatch.setattr(db, "sql", sql)
    monkeypatch.setattr(db, "_driver_sql", db._driver_sql.__wrapped__)  # it would keep the broken statement

    def functions(engine: Engine) -> None:
        rules = sorted((settings().sql / "schema" / "rules").glob("*.sql"))
        body = "\n".join(rule.read_text(encoding="utf-8") for rule in rules)
        for file, old, new in changes:
            if file == "functions":
                body = _replaced(body, old, new, file)
        raw = engine.raw_connection()
        try:
            raw.driver_connection.execute(body)  # type: ignore[union-attr]
            raw.commit()
        finally:
            raw.close()

    return functions


def _replaced(body: str, old: str, new: str, name: str) -> str:
    pattern = old if old.endswith("$") else re.escape(old)
    changed, times = re.subn(pattern, lambda _: new, body)
    assert times == 1, f"{name}: {times} places to break; the mutant must follow the engine"
    return changed


@pytest.mark.parametrize("name", MUTANTS)
def test_the_simulator_kills_the_mutant(
    name: str, fresh: Fresh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant = MUTANTS[name]
    functions = breaking(monkeypatch, mutant.changes)
    for seed in SEEDS:
        engine = fresh()
        functions(engine)
        try:
            simulate(Setup(seed, **WORLD, **ROUGH, **dict(mutant.world)), engine, tmp_path)  # type: ignore[arg-type]
        except Violation as death:
            print(f"\n{name}: {mutant.what}: {death}")
            assert str(death).partition(":")[0] in mutant.killed_by, "killed, but not for what it does"
            return
    pytest.fail(f"{name} lives: {mutant.what}, and nobody noticed in {len(SEEDS)} runs of {WORLD['days']} days")


def test_no_lock_is_killed_by_two_workers_who_want_the_same_people(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers that take turns never meet inside a transaction: this mutant outlives any simulated year (R107). Threads meet there by
    chance, on a busy machine hardly ever; two open transactions do so each time."""
    breaking(monkeypatch, (("40_lock_due", "for no key update skip locked", ""),))
    with pytest.raises(AssertionError):
        test_pressure.test_two_workers_never_hold_the_same_customer(World(engine))
