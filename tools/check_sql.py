"""Every SQL file parses as PostgreSQL, is one statement, and has a header that tells the truth about its parameters."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path

import sqlglot
from sqlglot.errors import SqlglotError

from postlude import db
from postlude.errors import InputError
from postlude.settings import PROJECT

SQL = PROJECT / "include" / "sql"
WANTED = ("purpose", "re-run")


def faults(path: Path) -> list[str]:
    """What is wrong with one file."""
    body = path.read_text(encoding="utf-8")
    where = path.relative_to(SQL)
    if where.parts[0] == "sources":  # one select per entity
        parts = re.split(r"^-- entity: (\w+)$", body, flags=re.MULTILINE)
        return [
            f"entity {name}: {told}"
            for name, part in zip(parts[1::2], parts[2::2], strict=True)
            for told in _parse(part)
        ]
    definitions = where.parts[0] == "schema" or re.search(r"^create (or replace )?function", body, re.MULTILINE)
    found = _parse(body, statements=None if definitions else 1)
    if where.parts[0] == "schema":
        return found
    header, name = db.header(body), path.stem.partition("_")[2] or path.stem
    found += [f'the header has no line "{key}"' for key in WANTED if key not in header]
    if not {"reads", "writes"} & header.keys():
        found.append('the header has neither a line "reads" nor "writes"')
    if not header.get("purpose", "").startswith(f"{name}:"):
        found.append(f"the header does not begin with the file's name: -- {name}: purpose")
    if not definitions:
        try:
            db.sql(where.with_suffix("").as_posix())
        except InputError as error:
            found.append(str(error))
    return found


def _parse(body: str, statements: int | None = 1) -> list[str]:
    # PostgreSQL itself reads the bodies of functions when they are created; literals over several lines are one literal
    plain = re.sub(r"'\s*\n\s*'", "", re.sub(r"\$\$.*?\$\$", "''", body, flags=re.DOTALL))
    try:
        found = [statement for statement in sqlglot.parse(plain, read="postgres") if statement]
    except SqlglotError as error:
        return [f"does not parse: {str(error).splitlines()[0]}"]
    if not found:
        return ["is empty"]
    return [f"holds {len(found)} statements; write one a file"] if statements not in (None, len(found)) else []


def main() -> int:
    logging.getLogger("sqlglot").setLevel(logging.ERROR)  # it says so of every statement it keeps as it is
    files = sorted(SQL.rglob("*.sql"))
    told = [f"{path.relative_to(PROJECT)}: {fault}" for path in files for fault in faults(path)]
    print("\n".join(told) or f"{len(files)} SQL files parse and have true headers")
    return 1 if told or not files else 0


if __name__ == "__main__":
    sys.exit(main())
