"""One evaluation of one gate by Great Expectations: read-only, quiet, with a time limit, and without a row's value.

Great Expectations talks to PostgreSQL itself (psycopg2, one query asset per batch); a batch's SQL file is made literal
for that. It runs in a thread of its own, so that one that hangs cannot hold the stage longer than the limit.
"""

from __future__ import annotations

import json
import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from threading import Thread
from typing import Any

import psycopg
from sqlalchemy import Connection, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import URL

from postlude import db
from postlude.canonical import ENTITIES
from postlude.quality.suites import Batch, Expect, Gate, Param

RESULT_FORMAT = {"result_format": "BASIC", "partial_unexpected_count": 0, "include_unexpected_rows": False}
# what stands in for a staging table that a source does not have: the same columns, no rows
_ABSENT = {
    "staging_orders": "cast(null as text) as source_order_id, cast(null as text) as source_customer_id, "
    "cast(null as text) as currency, cast(null as timestamptz) as placed_at, "
    "cast(null as timestamptz) as cancelled_at, cast(null as text[]) as problems",
    "staging_order_lines": "cast(null as text) as source_order_id, cast(null as text) as line_key, "
    "cast(null as text) as sku, cast(null as text) as description, cast(null as numeric) as quantity, "
    "cast(null as numeric) as unit_price, cast(null as timestamptz) as placed_at, cast(null as int) as _file, "
    "cast(null as text[]) as problems",
    "staging_customers": "cast(null as text) as source_customer_id, cast(null as text) as email, "
    "cast(null as text) as first_name, cast(null as text[]) as problems",
    "staging_files": "cast(null as text) as entity, cast(null as bigint) as rows_read, cast(null as text[]) as columns",
    "staged_rows": "cast(null as text[]) as problems",
}
_MEASURED = "measured_rows"
_TEXT = 25  # the type's number in every PostgreSQL
# the first line of these errors names tables and columns, never values
_TELLING = ("UndefinedColumn", "UndefinedTable", "UndefinedFunction", "InsufficientPrivilege")


@dataclass
class Findings:
    """What an evaluation found: failures with counts, rows per batch, and the scrubbed results for Data Docs."""

    evaluated: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    abandoned: bool = False

    def fail(self, expectation: str, **more: Any) -> None:
        entry = dict.fromkeys(("batch", "expectation", "column", "unexpected", "of", "expected", "error"))
        self.failures.append(entry | {"severity": "stop", "expectation": expectation} | more)


def evaluate(gate: Gate, url: URL, selects: Mapping[str, str], values: Mapping[str, Any], limit: timedelta) -> Findings:
    """Every expectation of the gate on the rows of `selects` (batch name -> SQL). What fails or raises is a finding."""
    found = Findings()
    problem: list[BaseException] = []

    def work() -> None:
        try:
            _evaluate(gate, url, selects, values=values, limit=limit, found=found)
        except BaseException as error:
            problem.append(error)

    thread = Thread(target=work, name=f"gate-{gate.name}", daemon=True)
    with quiet():
        thread.start()
        thread.join(limit.total_seconds())
    if thread.is_alive():  # it may still write into its findings: leave them to it
        found.abandoned = True
        found = Findings()
        found.fail("finished_in_time", error=f"not finished within {limit.total_seconds():g} s")
    elif problem:
        found.fail("evaluated_without_error", error=kind_of(problem[0]))
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Great Expectations without its 200 log lines, its warnings, and any thought of telemetry."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    logger = logging.getLogger("great_expectations")
    logger.propagate = False  # for good: its messages quote SQL and values
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    warnings.filterwarnings("ignore", module="great_expectations")  # also where a thread was left behind
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def kind_of(error: BaseException | str) -> str:
    """An error without the data it speaks of: its class; its first line where that only names tables and columns."""
    message = str(error)
    match = re.search(r"\(psycopg2?\.errors\.(\w+)\) ([^\n]*)", message)
    if match:
        name, line = match.groups()
        return f"{name}: {line}" if name in _TELLING else str(name)
    return "error" if isinstance(error, str) else type(error).__name__


# ---------------------------------------------------------------- the rows


def selects_of(gate: Gate, conn: Connection, subject: str, values: Mapping[str, Any]) -> dict[str, str]:
    """The SQL of every batch with its parameters as literals and the subject's staging tables in place."""
    return {batch.name: _select(batch, conn, subject, {**values, **dict(batch.constants)}) for batch in gate.batches}


def rows_of(sql: str, conn: Connection) -> list[dict[str, Any]]:
    """What a literal statement gives; no parameter is looked for in it."""
    return _rows_and_types(sql, conn)[0]


def _rows_and_types(sql: str, conn: Connection) -> tuple[list[dict[str, Any]], dict[str, int]]:
    raw = conn.connection.driver_connection
    assert raw is not None
    cursor = raw.execute(sql)  # without a list of parameters a % is a %
    types = {column.name: column.type_code for column in cursor.description}
    return [dict(zip(types, row, strict=True)) for row in cursor], types


def _as_values(sql: str, conn: Connection) -> str:
    """The few rows of a measured batch as values, so that every expectation sees the same and none measures again."""
    rows, types = _rows_and_types(sql, conn)
    # whatever is no text is a count or a share
    columns = ", ".join(f"{name} {'text' if code == _TEXT else 'numeric'}" for name, code in types.items())
    # spaces after the colons: without them `:1` inside the literal would be taken for a parameter
    told = json.dumps(rows, default=str, separators=(", ", ": ")).replace("'", "''")
    return f"select * from jsonb_to_recordset('{told}') as {_MEASURED} ({columns})"  # noqa: S608 - our own rows


def measured(gate: Gate, selects: Mapping[str, str], conn: Connection) -> dict[str, list[dict[str, Any]]]:
    """The rows of the measured batches, for the record; a batch that cannot be measured is left out."""
    found = {}
    for batch in gate.batches:
        if batch.measured and _MEASURED in selects[batch.name]:
            found[batch.name] = rows_of(selects[batch.name], conn)
    return found


def refusals(conn: Connection, subject: str, most: int = 5) -> dict[str, dict[str, int]]:
    """Of each staged entity the most frequent reasons for refusing a row, with their counts."""
    found: dict[str, dict[str, int]] = {}
    for entity in ENTITIES:
        if table := _table(conn, f"staging_{subject}_{entity}"):
            told = rows_of(literal("90_refusals", {"entity": entity}, {"staged_rows": table}), conn)
            told.sort(key=lambda row: (-row["found"], row["reason"]))
            if told:
                found[entity] = {row["reason"]: row["found"] for row in told[:most]}
    return found


def _select(batch: Batch, conn: Connection, subject: str, values: Mapping[str, Any]) -> str:
    if batch.per_entity:
        tables = {entity: _table(conn, f"staging_{subject}_{entity}") for entity in ENTITIES}
        parts = [
            literal(batch.sql, {**values, "entity": entity}, {"staged_rows": table or _absent("staged_rows")})
            for entity, table in tables.items()
            if table or (entity == "orders" and not any(tables.values()))
        ]
        sql = "\nunion all\n".join(parts)
    else:
        tables = {name: _table(conn, name.replace("staging_", f"staging_{subject}_", 1)) for name in batch.staged}
        sql = literal(batch.sql, values, {name: table or _absent(name) for name, table in tables.items()})
    if batch.measured:
        try:
            with conn.begin_nested():
                sql = _as_values(sql, conn)
        except psycopg.Error:
            pass  # left as it is, every expectation on it raises, and the gate names the batch
    return f"select * from (\n{sql}\n) as {batch.name}_rows"  # noqa: S608 - wants SELECT first


def _table(conn: Connection, name: str) -> str | None:
    """The table's quoted name; None when there is no such table."""
    quoted = conn.dialect.identifier_preparer.quote(name)
    return quoted if conn.scalar(text("select to_regclass(:name)"), {"name": quoted}) else None


def _absent(name: str) -> str:
    return f"(select {_ABSENT[name]} where false)"


def literal(name: str, values: Mapping[str, Any], tables: Mapping[str, str]) -> str:
    """The statement of a SQL file with its parameters as quoted literals: Great Expectations binds none."""
    statement = db.sql(name)
    needed = {key: values[key] for key in statement.compile().params}
    compiled = statement.bindparams(**needed).compile(
        dialect=postgresql.dialect(paramstyle="named"),
        compile_kwargs={"literal_binds": True},
    )
    sql = str(compiled).strip()
    for plain, table in tables.items():
        sql = re.sub(rf"\bfrom {plain}\b", lambda _, t=table, p=plain: f"from {t} as {p}", sql)  # type: ignore[misc]
    return sql


# ---------------------------------------------------------------- Great Expectations


def _evaluate(
    gate: Gate, url: URL, selects: Mapping[str, str], *, values: Mapping[str, Any], limit: timedelta, found: Findings
) -> None:
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    source = context.data_sources.add_sql(name="postlude", connection_string=_connection_string(url, limit))
    _only_columns(source.get_execution_engine().engine, set(selects.values()))
    try:
        for batch in gate.batches:
            if found.abandoned:
                return
            asset = source.add_query_asset(name=batch.name, query=selects[batch.name])
            # all at once: one by one, the whole suite is written down anew for each
            expectations = [_expectation(expect, number, values) for number, expect in enumerate(batch.expectations)]
            suite = context.suites.add(gx.ExpectationSuite(name=f"{gate.name}.{batch.name}", expectations=expectations))
            definition = context.validation_definitions.add(
                gx.ValidationDefinition(
                    name=f"{gate.name}.{batch.name}", data=asset.add_batch_definition_whole_table("all"), suite=suite
                )
            )
            result = definition.run(result_format=RESULT_FORMAT)
            _read(batch, result, values, found)
            found.results[batch.name] = result
    finally:
        source.get_execution_engine().close()
        source.get_engine().dispose()


def _only_columns(engine: Any, wholes: set[str]) -> None:
    """Great Expectations runs each batch's own select once, to see its columns; the driver would fetch every row for that.

    Expectations are evaluated on it as a subquery and are not touched.
    """
    from sqlalchemy import event

    @event.listens_for(engine, "before_cursor_execute", retval=True)
    def no_rows(_conn: Any, _cursor: Any, sql: str, parameters: Any, _context: Any, _many: bool) -> tuple[str, Any]:
        return (f"{sql} limit 0" if sql in wholes else sql), parameters


def _connection_string(url: URL, limit: timedelta) -> str:
    options = (
        f"-csearch_path=postlude,public -ctimezone=UTC -cdefault_transaction_read_only=on "
        f"-cstatement_timeout={max(1, int(limit.total_seconds() * 800))}"  # the statement gives up before the thread
    )
    full = url.set(drivername="postgresql+psycopg2").update_query_dict({"options": options})
    return full.render_as_string(hide_password=False).replace("$", r"\$")  # a bare $ would be looked up as a variable


def _expectation(expect: Expect, number: int, values: Mapping[str, Any]) -> Any:
    import great_expectations.expectations as gxe

    made = getattr(gxe, "".join(word.capitalize() for word in expect.type.split("_")))
    severity = "critical" if expect.severity == "stop" else "warning"
    return made(**arguments(expect, values), severity=severity, meta={"number": number})


def arguments(expect: Expect, values: Mapping[str, Any]) -> dict[str, Any]:
    """The expectation's arguments with the run's values in place of their names."""
    return {key: values[value.name] if isinstance(value, Param) else value for key, value in expect.arguments.items()}


def _read(batch: Batch, result: Any, values: Mapping[str, Any], found: Findings) -> None:
    """Turn a result into findings, and take out of it whatever could quote a row."""
    by_number = {one.expectation_config.meta.get("number"): one for one in result.results}
    for number, expect in enumerate(batch.expectations):
        about: dict[str, Any] = {"batch": batch.name, "column": expect.column, "severity": expect.severity}
        one = by_number.get(number)
        if one is None:
            found.fail(expect.type, **about | {"severity": "stop", "error": "was not evaluated"})
            continue
        raised = _raised(one)
        if raised is not None or one.success not in (True, False):
            about |= {"severity": "stop", "error": kind_of(raised or "") if raised else "gave no verdict"}
            found.fail(expect.type, **about)
            one.exception_info = {
                "raised_exception": True,
                "exception_message": about["error"],
                "exception_traceback": "",
            }
            continue
        found.evaluated += 1
        observed = _number(one.result.get("observed_value"))
        if expect.type.startswith("expect_table_row_count") and isinstance(observed, int):
            found.rows[batch.name] = observed
        if not one.success:
            unexpected = one.result.get("unexpected_count", observed)
            of = one.result.get("element_count")
            found.fail(
                expect.type, **about, unexpected=unexpected, of=of, expected=_expected(arguments(expect, values))
            )


def _raised(one: Any) -> str | None:
    """Message of what an expectation raised; Great Expectations keeps it flat or by metric."""
    info = one.exception_info or {}
    for part in (info, *info.values()):
        if isinstance(part, dict) and part.get("raised_exception"):
            return str(part.get("exception_message") or "error")
    return None


def _number(value: Any) -> int | float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    return int(value) if value == int(value) else float(value)


def _expected(given: Mapping[str, Any]) -> str:
    """The limit in a few characters: `0`, `>= 1`, `98 % of rows`."""
    if "value" in given:
        return str(given["value"])
    if "mostly" in given:
        return f"{100 * given['mostly']:g} % of rows"
    if "column" in given and "column_A" not in given and set(given) - {"column", "min_value"}:
        return "all rows"
    return f">= {given['min_value']}" if "min_value" in given and "column" not in given else "all rows"
