"""What the DAGs wrote, to read: the newest report and Data Docs.

Both are shown on Airflow's own origin, where a script could use the reader's login. So: no way out to the network; the report
may run its plots' scripts but stands in a sandbox without that origin; Data Docs runs none.
"""

from datetime import UTC, datetime
from html import escape
from pathlib import Path
from urllib.parse import quote

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse, HTMLResponse, Response

from postlude.pages.app import GUARDED, Deps

HTML = """<!doctype html><html lang=en><meta charset=utf-8><title>Postlude</title><style>
body{font:15px/1.6 system-ui,sans-serif;margin:2rem}td,th{text-align:left;padding:.2rem 1.2rem .2rem 0}</style>"""

OWN_ONLY = "default-src 'none'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:"
REPORT_POLICY = f"{OWN_ONLY}; script-src 'unsafe-inline'; sandbox allow-scripts allow-popups allow-downloads"
DOCS_POLICY = f"{OWN_ONLY}; form-action 'none'; base-uri 'none'"


def routes(deps: Deps) -> APIRouter:
    router = APIRouter()

    @router.get("/report")
    def report() -> Response:
        headers = GUARDED | {"Content-Security-Policy": REPORT_POLICY}
        if page := newest(deps.home / "reports"):
            return FileResponse(page, media_type="text/html", headers=headers)
        return HTMLResponse(f"{HTML}<p>No report yet: the DAG <b>report</b> writes one every day.", headers=headers)

    @router.get("/docs/{name:path}")
    def docs(name: str) -> Response:
        headers = GUARDED | {"Content-Security-Policy": DOCS_POLICY}
        if not name:
            return HTMLResponse(listing(deps.home / "data_docs"), headers=headers)
        if found := inside(deps.home / "data_docs", name):
            return FileResponse(found, headers=headers)
        raise HTTPException(404, "no such page")

    return router


def newest(folder: Path) -> Path | None:
    """The report written last; None when there is none."""
    return max(folder.glob("*.html"), key=lambda page: page.stat().st_mtime, default=None)


def listing(folder: Path, limit: int = 300) -> str:
    """A page of links to the newest Data Docs below `folder`, which are in <gate>/<run>/index.html."""
    found = sorted(folder.glob("*/*/index.html"), key=lambda page: page.stat().st_mtime, reverse=True)[:limit]
    if not found:
        return f"{HTML}<p>No Data Docs yet: every check in the DAGs writes its own."
    rows = "".join(
        f"<tr><td>{escape(page.parts[-3])}</td>"
        f"<td>{datetime.fromtimestamp(page.stat().st_mtime, UTC):%Y-%m-%d %H:%M} UTC</td>"
        f"<td><a href='{quote(page.parent.relative_to(folder).as_posix())}/'>{escape(page.parts[-2])}</a></td></tr>"
        for page in found
    )
    return f"{HTML}<h1>Data Docs</h1><table><tr><th>gate</th><th>checked</th><th>run</th></tr>{rows}</table>"


def inside(folder: Path, name: str) -> Path | None:
    """The file `name` below `folder`, or that folder's index.html; None when there is none, or it lies elsewhere."""
    try:
        root = folder.resolve()
        found = (root / name).resolve()
        if found.is_dir():
            found = (found / "index.html").resolve()
        return found if found.is_relative_to(root) and found.is_file() else None
    except (OSError, ValueError):  # a name too long, or with a zero byte
        return None
