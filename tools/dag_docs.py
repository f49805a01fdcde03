"""Write docs/dags.md from the docstrings of the DAG files, or with --check fail when it is not up to date."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "dags.md"
ORDER = ("ingest", "segment", "campaigns", "one_offs", "transactional", "deliver", "feedback", "report", "maintenance")
HEAD = """# The DAGs

Written by `python tools/dag_docs.py` from the docstrings in `dags/`; the Airflow UI shows the same text. Do not edit
it here.

`ingest → segment → campaign__<id>` are tied by the assets `orders` and `segments`, partitioned by business date; each
event carries the instant (`as_of`) and the origin (`scheduled`, `manual`, `backfill`) of the run that began the chain.
A run that got no partition key (started from the UI, or through the API without one) takes the UTC date of its instant.
The other DAGs run on their own clocks and find their work by its state.

Errors decide about retries: what a person must mend and what failed a gate is red at once; what was only unavailable is
tried four more times with growing pauses. A retried or cleared task sees the same instant as its first try.
"""


def page() -> str:
    """The whole page. Exits with a message when a DAG file is not listed here or has no docstring."""
    files = {path.stem: path for path in (ROOT / "dags").glob("*.py")}
    if set(files) != set(ORDER):
        sys.exit(f"dags/ holds {sorted(files)}, tools/dag_docs.py lists {sorted(ORDER)}: make them equal")
    parts = [HEAD]
    for stem in ORDER:
        doc = ast.get_docstring(ast.parse(files[stem].read_text(encoding="utf-8")))
        if not doc:
            sys.exit(f"dags/{stem}.py has no docstring: it is the operator manual")
        parts.append(f"#{doc}\n")
    return "\n".join(parts)


def main() -> None:
    text = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        sys.exit("docs/dags.md is not up to date: run python tools/dag_docs.py")


if __name__ == "__main__":
    main()
