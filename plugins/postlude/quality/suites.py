"""The suites as code: which rows each gate looks at, and what it expects of them.

A gate has batches (one SQL file each), a batch has expectations of Great Expectations, by their own names. Nothing here
imports Great Expectations: a suite is plain data, so that its hash can be pinned and compared in milliseconds.

What the library itself guarantees is expected of every row. What the outside world decides has room for its known
quirks: a fifth of the lines without a customer, returns as negative quantities, orders without lines are all real.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from postlude import db

Severity = Literal["stop", "warn"]


@dataclass(frozen=True)
class Param:
    """A value that is known only when the gate runs (a limit from the settings); its name, not its value, is hashed."""

    name: str


@dataclass(frozen=True)
class Expect:
    """One expectation: its name at Great Expectations, its arguments, and whether its failure stops the flow."""

    type: str
    arguments: dict[str, Any]
    severity: Severity = "stop"

    @property
    def column(self) -> str | None:
        """The column, or `a, b` for a pair or a key; None when it speaks of the whole batch."""
        given = self.arguments
        pair = [given[k] for k in ("column", "column_A", "column_B") if k in given] or given.get("column_list", [])
        return ", ".join(pair) or None


@dataclass(frozen=True)
class Batch:
    """The rows of one SQL file and what is expected of them.

    staged: names in the file that stand for staging tables; one that does not exist counts as empty.
    per_entity: the file is run once for every staged entity, and the rows put together.
    constants: parameters of the file that do not depend on the run.
    measured: the file gives a few rows of counts; it is run once, and the counts are kept with the verdict.
    """

    name: str
    sql: str
    expectations: tuple[Expect, ...]
    staged: tuple[str, ...] = ()
    per_entity: bool = False
    constants: tuple[tuple[str, int], ...] = ()
    measured: bool = False


@dataclass(frozen=True)
class Gate:
    """A check between two stages."""

    name: str
    before: str
    after: str
    subject: str
    stops_when: str
    batches: tuple[Batch, ...] = field(repr=False)
    minimum_rows: int = 0

    @property
    def between(self) -> str:
        return f"{self.before} → {self.after}"


# ---------------------------------------------------------------- words


def rows(at_least: int | Param = 0) -> Expect:
    """Every batch says how many rows it needs: all other expectations pass on an empty one."""
    return Expect("expect_table_row_count_to_be_between", {"min_value": at_least})


def one_row() -> Expect:
    return Expect("expect_table_row_count_to_equal", {"value": 1})


def no_rows() -> Expect:
    """The batch selects what must not exist."""
    return Expect("expect_table_row_count_to_equal", {"value": 0})


def present(*columns: str, share: float = 1.0) -> tuple[Expect, ...]:
    """Not null, in at least `share` of the rows."""
    return tuple(Expect("expect_column_values_to_not_be_null", _mostly({"column": c}, share)) for c in columns)


def unique(*columns: str) -> Expect:
    if len(columns) == 1:
        return Expect("expect_column_values_to_be_unique", {"column": columns[0]})
    return Expect("expect_compound_columns_to_be_unique", {"column_list": list(columns)})


def between(
    column: str,
    low: float | Param | None,
    high: float | Param | None = None,
    *,
    share: float = 1.0,
    above: bool = False,
    severity: Severity = "stop",
) -> Expect:
    """Values in [low, high] (above: greater than low); nulls are not judged."""
    limits: dict[str, Any] = {"column": column}
    limits |= {k: v for k, v in (("min_value", low), ("max_value", high)) if v is not None}
    limits |= {"strict_min": True} if above else {}
    return Expect("expect_column_values_to_be_between", _mostly(limits, share), severity)


def total(column: str, at_least: int | Param) -> Expect:
    return Expect("expect_column_sum_to_be_between", {"column": column, "min_value": at_least})


def one_of(column: str, *values: Any, share: float = 1.0, severity: Severity = "stop") -> Expect:
    return Expect(
        "expect_column_values_to_be_in_set", _mostly({"column": column, "value_set": list(values)}, share), severity
    )


def like(column: str, regex: str, severity: Severity = "stop") -> Expect:
    return Expect("expect_column_values_to_match_regex", {"column": column, "regex": regex}, severity)


def ordered(
    later: str, earlier: str, *, or_equal: bool = True, share: float = 1.0, severity: Severity = "stop"
) -> Expect:
    """later >= earlier (or_equal False: >) in every row that has both."""
    pair = {"column_A": later, "column_B": earlier, "or_equal": or_equal, "ignore_row_if": "either_value_is_missing"}
    return Expect("expect_column_pair_values_a_to_be_greater_than_b", _mostly(pair, share), severity)


def equal(one: str, other: str) -> Expect:
    pair = {"column_A": one, "column_B": other, "ignore_row_if": "both_values_are_missing"}
    return Expect("expect_column_pair_values_to_be_equal", pair)


def _mostly(arguments: dict[str, Any], share: float) -> dict[str, Any]:
    return arguments if share == 1.0 else {**arguments, "mostly": share}


# ---------------------------------------------------------------- the gates

THIRTY_YEARS = 10_958
RECENT = (("days", 90),)  # what the ledger gates look back

ORDERS = Gate(
    name="orders",
    before="extract",
    after="load",
    subject="source",
    stops_when=(
        "nothing usable came though files did; too many rows of an entity were refused; keys, currency or times are "
        "missing or impossible; prices, quantities or customers are missing far more often than in any real shop; "
        "against the source's own past a day lacks most of its orders, known orders moved, the clock is shifted, "
        "prices, pieces or addresses are others; totals are negative, lines missing or doubled (docs/feeds.md)"
    ),
    minimum_rows=1,
    batches=(
        Batch(
            "staged",
            "90_gate_staged",
            (
                rows(at_least=1),
                total("accepted", at_least=Param("minimum_rows")),
                *present("entity", "refused_share", "unknown_share"),
                between("refused_share", 0, Param("quarantine_share")),
                between("unknown_share", 0, Param("unknown_share")),
            ),
            per_entity=True,
        ),
        Batch(
            "orders",
            "91_gate_staged_orders",
            (
                rows(),
                *present("source_order_id", "currency", "placed_at"),
                like("currency", "^[A-Z]{3}$"),
                # a swap of day and month shows as future orders, a lost date as 1970
                between("placed_days_ago", -1, THIRTY_YEARS, share=0.98),
                between("placed_days_ago", -1 / 144, None, share=0.99, severity="warn"),
                *present("known_customer", share=0.5),
                one_of("cancelled", False, share=0.5),
                ordered("cancelled_at", "placed_at", share=0.98, severity="warn"),
            ),
            staged=("staging_orders",),
        ),
        Batch(
            "order_lines",
            "91_gate_staged_order_lines",
            (
                rows(),
                *present("source_order_id", "quantity", "unit_price"),
                between("unit_price_of_many", 0, share=0.8, above=True),
                between("quantity_of_many", 0, share=0.7, above=True),
                between("placed_days_ago", -1, THIRTY_YEARS, share=0.98),
                between("pieces", 0, 1_000_000, share=0.999, severity="warn"),
                between("unit_price", None, 1_000_000, share=0.999, severity="warn"),
                Expect("expect_column_values_to_not_be_null", {"column": "sku", "mostly": 0.95}, "warn"),
            ),
            staged=("staging_order_lines",),
        ),
        # the delivery beside the source's own past; without a past nothing is judged
        Batch(
            "files",
            "91_measure_files",
            (
                rows(),
                between("files_without_rows", None, 0, severity="warn"),
                between("new_columns", None, 0, severity="warn"),
                between("lost_columns", None, 0, severity="warn"),
            ),
            staged=("staging_files",),
            measured=True,
        ),
        Batch(
            "days",
            "91_measure_days",
            (
                rows(),
                between("share_of_usual", Param("volume_low"), None),
                between("share_of_usual", None, Param("volume_high"), severity="warn"),
            ),
            staged=("staging_orders",),
            measured=True,
        ),
        Batch(
            "clock",
            "91_measure_clock",
            (
                one_row(),
                between("gain", None, Param("clock_gain")),
                between("gain", None, 0.3, severity="warn"),
            ),
            staged=("staging_orders",),
            measured=True,
        ),
        Batch(
            "known",
            "91_measure_known",
            (
                one_row(),
                *present("known_orders", "known_customers"),
                between("moved_share", None, Param("moved_share")),
                between("changed_address_share", None, Param("changed_share")),
                between("unusable_address_share", None, Param("unusable_share")),
                between("garbled_share", None, Param("garbled_share")),
                between("garbled_share", None, 0, severity="warn"),
            ),
            staged=("staging_orders", "staging_customers"),
            measured=True,
        ),
        Batch(
            "totals",
            "91_measure_totals",
            (
                one_row(),
                *present("orders_with_lines"),
                between("negative_share", None, Param("negative_share")),
                between("lineless_share", None, Param("lineless_share")),
                between("lineless_share", None, 0.1, severity="warn"),
                between("twice_share", None, Param("twice_share")),
            ),
            staged=("staging_orders", "staging_order_lines"),
            measured=True,
        ),
        Batch(
            "prices",
            "91_measure_prices",
            (
                one_row(),
                *present("articles"),
                between("price_ratio", Param("price_low"), Param("price_high")),
                between("quantity_ratio", Param("price_low"), Param("price_high")),
            ),
            staged=("staging_order_lines",),
            measured=True,
        ),
        Batch(
            "freshness",
            "91_measure_freshness",
            (one_row(), between("hours_over", None, 0, severity="warn")),
            staged=("staging_orders",),
            measured=True,
        ),
    ),
)

FEATURES = Gate(
    name="features",
    before="segment",
    after="campaigns",
    subject="",
    stops_when=(
        "there are no customers, or not exactly those with counted orders; a value is missing, out of range or "
        "contradicts another; a source's customers shrink below 80 % or grow beyond three times the last good run, or "
        "a stage's share moves by more than 20 points (both against a run of the last 14 days, from 100 customers on)"
    ),
    minimum_rows=1,
    batches=(
        Batch(
            "features",
            "92_gate_features",
            (
                rows(at_least=Param("minimum_rows")),
                *present(
                    *("customer_id", "source_id", "first_order_at", "last_order_at", "recency_days", "frequency"),
                    *("monetary", "stage", "r_score", "f_score", "m_score", "days_since_last_order"),
                ),
                unique("customer_id"),
                between("recency_days", 0, THIRTY_YEARS),
                equal("recency_days", "days_since_last_order"),
                between("frequency", 1),
                between("monetary", 0),
                # vouchers can pay an order in full where the source counts what was paid
                between("monetary", 0, share=0.98, above=True),
                between("median_gap_days", 0),
                one_of("gap_fits_frequency", True),
                one_of("stage", "new", "active", "at_risk", "lapsed"),
                *(one_of(score, 1, 2, 3, 4, 5) for score in ("r_score", "f_score", "m_score")),
                ordered("last_order_at", "first_order_at"),
            ),
        ),
        Batch(
            "counts",
            "92_gate_feature_counts",
            (
                one_row(),
                *present("as_of"),
                between("age_hours", 0, severity="stop"),
                between("age_hours", None, 36, severity="warn"),
                equal("customers", "counted_customers"),
            ),
        ),
        Batch(
            "drift",
            "92_gate_feature_drift",
            (
                rows(at_least=1),
                *present("source_id"),
                between("growth", 0.8, 3.0),
                between("largest_move", 0, 20),
            ),
            constants=(("enough", 100),),  # below so many customers growth and mix move by chance
        ),
    ),
)

PLAN = Gate(
    name="plan",
    before="plan",
    after="deliver",
    subject="campaign",
    stops_when=(
        "a planned message is incomplete, planned twice, due after it expires or more than 400 days ahead, has nobody "
        "to go to, or goes to somebody who had not agreed or was suppressed when it was planned"
    ),
    batches=(
        Batch(
            "planned",
            "93_gate_plan",
            (
                rows(at_least=Param("minimum_rows")),
                *present(
                    *("message_id", "enrolment_id", "step_id", "customer_id", "channel", "kind", "template"),
                    *("due_at", "send_at", "expires_at", "planned_at"),
                ),
                unique("enrolment_id", "step_id"),
                one_of("kind", "marketing", "transactional"),
                ordered("expires_at", "due_at", or_equal=False),
                ordered("send_at", "due_at"),
                ordered("expires_at", "send_at", or_equal=False, severity="warn"),
                between("days_ahead", None, 400),
            ),
        ),
        Batch("unreachable", "93_gate_plan_unreachable", (no_rows(),)),
        Batch("unwanted", "93_gate_plan_unwanted", (no_rows(),)),
    ),
)

DELIVERIES = Gate(
    name="deliveries",
    before="deliver",
    after="report",
    subject="",
    stops_when=(
        "the ledger contradicts itself: sent without hand-over, attempt or content hash, sent after it expired, given "
        "up without a reason, accepted twice, a claim left lying, or counts that do not add up"
    ),
    batches=(
        Batch(
            "sent",
            "94_gate_sent",
            (
                rows(at_least=Param("minimum_rows")),
                *present("handed_over_at", "finalized_at", "content_hash", "attempt"),
                between("attempt", 1),
                like("content_hash", "^[0-9a-f]{64}$"),
                ordered("finalized_at", "handed_over_at"),
                ordered("expires_at", "handed_over_at"),
                ordered("handed_over_at", "send_at", severity="warn"),
            ),
            constants=RECENT,
        ),
        Batch(
            "not_sent",
            "94_gate_not_sent",
            (rows(), *present("reason"), like("reason", "^[a-z][a-z0-9_]*$")),
            constants=RECENT,
        ),
        Batch(
            "tally",
            "94_gate_tally",
            (rows(), equal("messages", "in_known_states"), equal("open_messages", "not_finalized")),
        ),
        Batch("stuck", "94_gate_stuck", (no_rows(),)),
        Batch("accepted_twice", "94_gate_accepted_twice", (no_rows(),)),
        Batch("unproven", "94_gate_unproven", (no_rows(),), constants=RECENT),
    ),
)

EVENTS = Gate(
    name="events",
    before="feedback",
    after="report",
    subject="",
    stops_when=(
        "an event is of no known kind, belongs to nobody, or speaks of a message that was never handed over; more "
        "than 2 % claim to be known before they happened. Shares of bounces, complaints and lost answers are "
        "told, not stopped"
    ),
    batches=(
        Batch(
            "events",
            "95_gate_events",
            (
                rows(at_least=Param("minimum_rows")),
                *present("event_id", "kind", "at", "known_at", "source"),
                one_of(
                    *(
                        "kind",
                        "delivered",
                        "deferred",
                        "bounced",
                        "complained",
                        "opened",
                        "clicked",
                        "scanned",
                        "replied",
                        "rated",
                    ),
                    "unsubscribed",
                ),
                one_of("has_subject", True),
                ordered("latest_at", "at", share=0.98),  # the clocks are other people's
            ),
            constants=RECENT,
        ),
        Batch("orphans", "95_gate_orphan_events", (no_rows(),), constants=RECENT),
        Batch(
            "shares",
            "95_gate_event_shares",
            (
                rows(),
                between("bounced_share", 0, 0.05, severity="warn"),
                between("complained_share", 0, 0.003, severity="warn"),
                between("unknown_share", 0, 0.02, severity="warn"),
            ),
            constants=(("days", 7), ("enough", 200)),  # one bounce of three is no share
        ),
    ),
)

GATES: dict[str, Gate] = {gate.name: gate for gate in (ORDERS, FEATURES, PLAN, DELIVERIES, EVENTS)}


# ---------------------------------------------------------------- identity of a suite


def suite_hash(gate: Gate) -> str:
    """SHA-256 of what the verdict rests on: rows selected, expectations, severities, limits (settings by name)."""
    content = [
        {
            "batch": batch.name,
            "sql": " ".join(str(db.sql(batch.sql)).split()),
            "staged": [*batch.staged, batch.per_entity, *(["measured"] if batch.measured else [])],
            "constants": batch.constants,
            "expectations": [[e.type, e.arguments, e.severity] for e in batch.expectations],
        }
        for batch in gate.batches
    ]
    canonical = json.dumps([gate.name, gate.minimum_rows, content], sort_keys=True, default=lambda p: {"$": p.name})
    return hashlib.sha256(canonical.encode()).hexdigest()


def size(gate: Gate) -> int:
    return sum(len(batch.expectations) for batch in gate.batches)
