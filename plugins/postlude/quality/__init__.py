"""Gates between the stages: run a suite, keep the verdict, close when anything is not as it should be.

`check` evaluates one gate (suites.py) with Great Expectations on SQL batches. Great Expectations alone is no gate: it
passes an empty table, an all-null column and an empty suite. So a gate also closes when its suite is not the pinned one
(include/gates.json), when fewer expectations were evaluated than pinned, when anything raised, and when time ran out.

Nothing here carries a row's value: results are asked for without examples, errors are reduced to their kind, and Data
Docs are rendered from what is left. Great Expectations (seconds to import) is imported inside `check` only.
"""

from __future__ import annotations

import json
import logging
import re
import time
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from postlude import db, freshness
from postlude.errors import GateClosed, InputError
from postlude.quality import docs as pages
from postlude.quality import evaluation
from postlude.quality.evaluation import Findings
from postlude.quality.suites import GATES, Gate, size, suite_hash
from postlude.settings import Settings, settings

__all__ = ["GATES", "Verdict", "check", "latest", "pin", "pinned", "table_of_gates"]

log = logging.getLogger(__name__)

LIMIT = timedelta(minutes=5)
_LIMITS = (
    *("quarantine_share", "unknown_share", "volume_low", "volume_high", "moved_share", "changed_share"),
    *("unusable_share", "garbled_share", "negative_share", "lineless_share", "twice_share", "clock_gain"),
)
BASELINE = timedelta(days=14)  # an older good run is no measure of drift: shops change


@dataclass(frozen=True)
class Verdict:
    """What a gate found. `failures`: what closed it, and warnings; counts only, never a row's value."""

    gate: str
    subject: str
    run_id: str
    as_of: datetime
    success: bool
    suite_hash: str
    evaluated: int
    failures: tuple[dict[str, Any], ...] = ()
    metrics: dict[str, Any] = field(default_factory=dict)
    docs: Path | None = None

    def lines(self, severity: str = "stop") -> list[str]:
        """One line per failing expectation: batch, column, expectation, counts."""
        return [_line(failure) for failure in self.failures if failure["severity"] == severity]

    def __str__(self) -> str:
        about = f" for {self.subject}" if self.subject else ""
        state = "open" if self.success else "closed"
        told = "; ".join(self.lines()) or f"{self.evaluated} expectations hold"
        counts = self.metrics.get("staged", {}).items()
        staged = [f"{entity} {n['rows']:,} rows, {n['refused']:,} refused" for entity, n in counts if n["rows"]]
        for entity, reasons in self.metrics.get("reasons", {}).items():
            staged += [f"{entity} {reason} {found:,}" for reason, found in reasons.items()]
        return f"gate {self.gate} is {state}{about}: {told}{' [' + '; '.join(staged) + ']' if staged else ''}"


def check(
    url: URL,
    gate: str,
    *,
    subject: str = "",
    now: datetime,
    run_id: str,
    docs: Path | None = None,
    minimum_rows: int | None = None,
    limit: timedelta = LIMIT,
    config: Settings | None = None,
) -> Verdict:
    """Evaluate a gate as of `now` and keep the verdict in gate_results, in a transaction of its own.

    subject: a source (gate orders), a campaign (plan), else empty.
    minimum_rows: instead of the gate's own; 0: a run that brought nothing may pass.
    docs: folder below which Data Docs go, <gate>/<run>[.<subject>]/index.html.
    limit: of each statement, and of Great Expectations as a whole.
    Raises GateClosed with every failing expectation; Unavailable when the verdict cannot be kept; InputError for an
    unknown gate.
    """
    if gate not in GATES:
        raise InputError(f'there is no gate "{gate}"; there are {", ".join(GATES)}')
    if not re.fullmatch(r"[\w.-]*", subject) or bool(subject) != bool(GATES[gate].subject):
        wanted = GATES[gate].subject
        raise InputError(f"gate {gate} needs {f'the id of a {wanted}' if wanted else 'no subject'}, not {subject!r}")
    started = time.monotonic()
    config = config or settings()
    asked, suite = GATES[gate], suite_hash(GATES[gate])
    values = {
        "now": now.isoformat(),
        "campaign": subject,
        "source": subject,
        "baseline": "[]",
        "seconds": int(2 * config.lease.total_seconds()),
        "free_rows": config.min_free_rows,
        "free_unknown": config.min_free_unknown,
        "enough": config.volume_enough,
        "grace_seconds": int(config.volume_grace.total_seconds()),
        "price_low": 1 / config.price_factor,
        "price_high": config.price_factor,
        **{name: getattr(config, name) for name in _LIMITS},
        "minimum_rows": asked.minimum_rows if minimum_rows is None else minimum_rows,
    }
    metrics: dict[str, Any] = {}
    engine = db.engine(url)
    try:
        try:
            with db.transaction(engine) as conn:
                selects, metrics = _prepare(conn, asked, subject, now=now, values=values, limit=limit)
            found = evaluation.evaluate(asked, url, selects, values, limit)
        except DBAPIError as error:
            found = Findings()
            found.fail("evaluated_without_error", error=evaluation.kind_of(error))
        success = _judge(asked, suite, found)
        metrics["rows"] = found.rows
        verdict = Verdict(gate, subject, run_id, now, success, suite, found.evaluated, tuple(found.failures), metrics)
        if docs:
            verdict = _with_docs(verdict, found, docs)
        _keep(engine, verdict, limit)
    finally:
        engine.dispose()
    seconds = time.monotonic() - started
    log.info("gate %s %s: %d expectations in %.1f s", gate, subject or "-", verdict.evaluated, seconds)
    for line in verdict.lines("warn"):
        log.warning("gate %s %s: %s", gate, subject or "-", line)
    if not verdict.success:
        where = f" Data Docs: {verdict.docs}" if verdict.docs else ""
        raise GateClosed(f"{verdict}. Nothing after it runs; mend the data and run the stage before it again.{where}")
    return verdict


def latest(conn: Connection, gate: str, subject: str, now: datetime, max_age: timedelta) -> bool:
    """Is the newest verdict up to `now` a success, not older than max_age, and of the suite pinned today?"""
    row = db.run(conn, "96_latest_verdict", gate=gate, subject=subject, since=now - max_age, now=now).one_or_none()
    return bool(row and row.success is True and row.suite_hash == pinned().get(gate, {}).get("hash"))


# ---------------------------------------------------------------- pins


def pinned() -> dict[str, dict[str, Any]]:
    """Hash and number of expectations of every gate as reviewed: include/gates.json. Unreadable: nothing is pinned."""
    try:
        content = json.loads(_pins().read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    except (OSError, ValueError):
        return {}


def current() -> dict[str, dict[str, Any]]:
    """What `pinned` would say of the suites in the code."""
    return {name: {"hash": suite_hash(gate), "expectations": size(gate)} for name, gate in GATES.items()}


def pin() -> Path:
    """Accept the suites as they are in the code: `python -m postlude.quality --pin`, after a review of the change."""
    _pins().write_text(json.dumps(current(), indent=2) + "\n", encoding="utf-8")
    return _pins()


def _pins() -> Path:
    return settings().include / "gates.json"


def table_of_gates() -> str:
    """The gates as a Markdown table, for docs/gates.md."""
    head = "| gate | between | subject | expectations | stops when |\n|---|---|---|---|---|\n"
    return (
        head
        + "".join(
            f"| `{g.name}` | {g.between} | {g.subject or 'none'} | {size(g)} | {g.stops_when} |\n"
            for g in GATES.values()
        )
        + f"| `{freshness.GATE}` | load → campaigns, and at hand-over | source | none | {freshness.STOPS_WHEN} |\n"
    )


# ---------------------------------------------------------------- one check


def _prepare(
    conn: Connection, gate: Gate, subject: str, *, now: datetime, values: dict[str, Any], limit: timedelta
) -> tuple[dict[str, str], dict[str, Any]]:
    """The SQL of every batch, and what is measured for the next run to compare with."""
    _bound_by(conn, limit)
    metrics: dict[str, Any] = {}
    if gate.name == "features":
        metrics["mix"] = [dict(row) for row in db.run(conn, "92_feature_mix").mappings()]
        before = db.run(conn, "96_last_good_metrics", gate=gate.name, subject=subject, since=now - BASELINE, now=now)
        # spaces after the colons: without them `:1` inside the literal would be taken for a parameter
        values["baseline"] = json.dumps((before.scalar() or {}).get("mix", []), separators=(", ", ": "))
    selects = evaluation.selects_of(gate, conn, subject, values)
    if gate.name == "orders":
        counted = conn.execute(text(selects["staged"])).mappings()
        metrics["staged"] = {row["entity"]: {"rows": row["delivered"], "refused": row["refused"]} for row in counted}
        metrics["reasons"] = evaluation.refusals(conn, subject)
        metrics["measured"] = evaluation.measured(gate, selects, conn)
    return selects, metrics


def _judge(gate: Gate, hash_: str, found: Findings) -> bool:
    """Add what Great Expectations does not see to the findings; True when nothing closes the gate."""
    expected = pinned().get(gate.name, {})
    if size(gate) == 0:
        found.fail("suite_is_not_empty", unexpected=0)
    if hash_ != expected.get("hash"):
        found.fail("suite_is_the_pinned_one", error="its hash differs from include/gates.json")
    if found.evaluated < max(1, expected.get("expectations") or 1):
        found.fail("enough_was_evaluated", unexpected=found.evaluated, expected=f">= {expected.get('expectations', 1)}")
    return not any(failure["severity"] == "stop" for failure in found.failures)


def _with_docs(verdict: Verdict, found: Findings, docs: Path) -> Verdict:
    """The verdict with its Data Docs; without them when they cannot be written: a full disk must not hold good data."""
    name = ".".join(part for part in (verdict.run_id, verdict.subject) if part)
    folder = docs / verdict.gate / re.sub(r"[^\w.-]", "-", name)
    facts = {
        "between": GATES[verdict.gate].between,
        "subject": verdict.subject or "all",
        "as of": verdict.as_of.isoformat(),
        "run": verdict.run_id,
        "expectations evaluated": verdict.evaluated,
        "suite": verdict.suite_hash[:16],
        **{f"rows of {name}": count for name, count in found.rows.items()},
    }
    try:
        index = pages.write(
            folder,
            title=f"Gate {verdict.gate}",
            open_=verdict.success,
            facts=facts,
            failures=verdict.failures,
            results=found.results,
        )
    except Exception as error:
        log.warning("gate %s: Data Docs could not be written (%s)", verdict.gate, type(error).__name__)
        return verdict
    return replace(verdict, docs=index)


def _keep(engine: Engine, verdict: Verdict, limit: timedelta) -> None:
    with db.transaction(engine) as conn:
        _bound_by(conn, limit)
        db.run(
            conn,
            "96_keep_verdict",
            gate=verdict.gate,
            subject=verdict.subject,
            run_id=verdict.run_id,
            now=verdict.as_of,
            success=verdict.success,
            suite_hash=verdict.suite_hash,
            evaluated=verdict.evaluated,
            failures=json.dumps(verdict.failures),
            metrics=json.dumps(verdict.metrics, default=float),
            docs=str(verdict.docs) if verdict.docs else None,
        )


def _bound_by(conn: Connection, limit: timedelta) -> None:
    milliseconds = str(max(1, int(limit.total_seconds() * 1000)))
    conn.execute(text("select set_config('statement_timeout', :ms, true)"), {"ms": milliseconds})


def _line(failure: dict[str, Any]) -> str:
    """`order_lines.quantity expect_column_values_to_not_be_null: 12 of 1,000 (expected: all rows)`"""
    place = ".".join(part for part in (failure["batch"], failure["column"]) if part)
    counts = [f"{failure[key]:,}" for key in ("unexpected", "of") if failure[key] is not None]
    told = " of ".join(counts) + (f" (expected: {failure['expected']})" if failure["expected"] else "")
    return f"{place} {failure['expectation']}: {failure['error'] or told}".strip()
