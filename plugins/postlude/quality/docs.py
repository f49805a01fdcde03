"""Data Docs: the pages Great Expectations' own renderer makes of a gate's results, as files that need nothing else.

The renderer's pages load style sheets, scripts and pictures from eight foreign hosts. These references are taken out
and a small style sheet put in: pages open without a network, run no script, and tell nobody who looks at them. The
results are already without row values when they come here.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

from postlude.quality.evaluation import quiet

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:68rem;padding:0 1rem;color:#1c2733;background:#fff}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid #d8dee4;vertical-align:top}
h5,h6,.h6{font-size:1rem;margin:.4rem 0;font-weight:600}
.alert{background:#f3f5f7;border-radius:6px;padding:.4rem .8rem;margin:1.2rem 0 .4rem}
.badge{background:#e6ebf0;border-radius:4px;padding:0 .35rem;font-family:ui-monospace,monospace;font-size:.9em}
.text-danger,.closed{color:#b3261e}.text-success,.open{color:#1b6e3c}.text-warning,.warn{color:#8a5a00}a{color:#0b57a4}
.fa-times:before{content:"\\2717"}.fa-check-circle:before{content:"\\2713"}.fa-exclamation-triangle:before{content:"!"}
body>nav,.sticky{display:none}
"""


def write(
    folder: Path,
    *,
    title: str,
    open_: bool,
    facts: Mapping[str, object],
    failures: Iterable[Mapping[str, Any]],
    results: Mapping[str, Any],
) -> Path:
    """Write index.html and one page per batch into `folder` (emptied first); the path of the index."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, result in results.items():
        (folder / f"{name}.html").write_text(_page(result), encoding="utf-8")
    state = "open" if open_ else "closed"
    head = "".join(f"<tr><th>{escape(k)}</th><td>{escape(str(v))}</td></tr>" for k, v in facts.items())
    pages = "".join(f'<li><a href="{n}.html">{escape(n)}</a>: {_score(r)}</li>' for n, r in results.items())
    index = folder / "index.html"
    index.write_text(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head><body>'
        f'<h1>{escape(title)} <span class="{state}">{state}</span></h1><table>{head}</table>{_table(failures)}'
        f"<h2>Batches</h2><ul>{pages or '<li>none was evaluated</li>'}</ul></body></html>\n",
        encoding="utf-8",
    )
    return index


def _table(failures: Iterable[Mapping[str, Any]]) -> str:
    columns = ("severity", "batch", "column", "expectation", "unexpected", "of", "expected", "error")
    rows = [
        f'<tr class="{"closed" if f["severity"] == "stop" else "warn"}">'
        + "".join(f"<td>{'' if f[c] is None else escape(str(f[c]))}</td>" for c in columns)
        + "</tr>"
        for f in failures
    ]
    head = "".join(f"<th>{c}</th>" for c in columns)
    return f"<h2>What does not hold</h2><table><tr>{head}</tr>{''.join(rows)}</table>" if rows else ""


def _score(result: Any) -> str:
    held = sum(1 for one in result.results if one.success is True)
    return f"{held} of {len(result.results)} expectations hold"


@lru_cache(maxsize=1)
def _view() -> Any:
    """One for all pages of a process: a new one compiles all its templates again, which takes longer than the page."""
    from great_expectations.render.view import DefaultJinjaPageView

    return DefaultJinjaPageView()


def _page(result: Any) -> str:
    with quiet():
        from great_expectations.render.renderer import ValidationResultsPageRenderer

        page = _view().render(ValidationResultsPageRenderer().render(result))
    for part in ("script", "style", "footer"):
        page = re.sub(rf"<{part}\b.*?</{part}>", "", page, flags=re.S | re.I)
    page = re.sub(r"<(?:img|link)\b[^>]*>|\son\w+=\"[^\"]*\"", "", page, flags=re.I)
    page = re.sub(r'<a\b[^>]*href="(?!#)[^"]*"[^>]*>(.*?)</a>', r"\1", page, flags=re.S | re.I)
    return page.replace("</head>", f"<style>{_STYLE}</style></head>").replace(
        "<body>", '<body><p><a href="index.html">back to the verdict</a></p>', 1
    )
