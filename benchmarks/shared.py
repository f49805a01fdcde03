"""What several benchmarks do: fill tables by statements, and see how long each file of SQL takes."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from sqlalchemy import Engine, text

from postlude import db


def fill(engine: Engine, statements: tuple[str, ...], **params: Any) -> None:
    """Run each in a transaction of its own, with those params it names; then what autovacuum would do."""
    for statement in statements:
        with engine.begin() as conn:
            conn.execute(text(statement), {name: value for name, value in params.items() if f":{name}" in statement})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.execute(text("vacuum analyze"))


def watch(spent: Counter[str], times: Counter[str]) -> None:
    """Count from now on how long the statements of files take, seen from here: on a busy machine their share tells, not their seconds."""
    single, piped = db.run, db.Pipe.run

    def run(conn: Any, name: str, /, **params: Any) -> Any:
        began = time.perf_counter()
        try:
            return single(conn, name, **params)
        finally:
            spent[name] += time.perf_counter() - began
            times[name] += 1

    def pipe(self: db.Pipe, *statements: tuple[str, dict[str, Any]]) -> list[list[Any]]:
        began, name = time.perf_counter(), " + ".join(name for name, _ in statements)
        try:
            return piped(self, *statements)
        finally:
            spent[name] += time.perf_counter() - began
            times[name] += 1

    db.run, db.Pipe.run = run, pipe  # type: ignore[method-assign]
