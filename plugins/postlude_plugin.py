"""Postlude's pages in the Airflow UI: the newest report, Data Docs, the mail catcher.

Every task process loads this file, so it registers a callable and imports FastAPI only when the api-server gets the
first request. Airflow does not guard what a plugin mounts: each route below depends on Airflow's login.
"""

import functools
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from airflow.plugins_manager import AirflowPlugin
from airflow.sdk import BaseOperatorLink

from postlude.settings import settings

HTML = """<!doctype html><html lang=en><meta charset=utf-8><title>Postlude</title><style>
body{font:15px/1.6 system-ui,sans-serif;margin:2rem}td,th{text-align:left;padding:.2rem 1.2rem .2rem 0}</style>"""

# The pages are shown on Airflow's own origin, where a script could use the reader's login. So: no way out to the
# network; the report may run its plots' scripts but stands in a sandbox without that origin; Data Docs runs none.
OWN_ONLY = "default-src 'none'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:"
REPORT_POLICY = f"{OWN_ONLY}; script-src 'unsafe-inline'; sandbox allow-scripts allow-popups allow-downloads"
DOCS_POLICY = f"{OWN_ONLY}; form-action 'none'; base-uri 'none'"


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


def pages(home: Path) -> Any:
    """The FastAPI app behind /postlude; every route asks for Airflow's login and the right to see plugins."""
    from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
    from airflow.api_fastapi.core_api.security import requires_access_view
    from fastapi import Depends, FastAPI, HTTPException
    from fastapi.responses import FileResponse, HTMLResponse, Response

    app = FastAPI(
        dependencies=[Depends(requires_access_view(AccessView.PLUGINS))],
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    guarded = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}

    @app.get("/report")
    def report() -> Response:
        headers = guarded | {"Content-Security-Policy": REPORT_POLICY}
        if page := newest(home / "reports"):
            return FileResponse(page, media_type="text/html", headers=headers)
        return HTMLResponse(f"{HTML}<p>No report yet: the DAG <b>report</b> writes one every day.", headers=headers)

    @app.get("/docs/{name:path}")
    def docs(name: str) -> Response:
        headers = guarded | {"Content-Security-Policy": DOCS_POLICY}
        if not name:
            return HTMLResponse(listing(home / "data_docs"), headers=headers)
        if found := inside(home / "data_docs", name):
            return FileResponse(found, headers=headers)
        raise HTTPException(404, "no such page")

    return app


class OnFirstRequest:
    """An ASGI app that is made when it is first called."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.app = functools.cache(make)

    async def __call__(
        self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        await self.app()(scope, receive, send)


class DataDocsLink(BaseOperatorLink):
    """A button on every check task: the Data Docs of this very run, once they are written."""

    name = "Data Docs"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        gate = re.search(r"(?:^|\.)check_(\w+)$", ti_key.task_id)
        if not gate:
            return ""  # Airflow shows no button
        run = re.sub(r"[^\w.-]", "-", f"{ti_key.dag_id}/{ti_key.run_id}")
        found = sorted((settings().home / "data_docs" / gate[1]).glob(f"{run}*/index.html"))
        # one page per source where the check is mapped: several of them are chosen from the list
        page = f"{gate[1]}/{found[0].parent.name}/" if len(found) == 1 else ""
        return f"/postlude/docs/{quote(page)}" if found else ""


class PostludePlugin(AirflowPlugin):
    name = "postlude"
    global_operator_extra_links = [DataDocsLink()]  # noqa: RUF012
    fastapi_apps = [  # noqa: RUF012
        {"app": OnFirstRequest(lambda: pages(settings().home)), "url_prefix": "/postlude", "name": "postlude"}
    ]
    external_views = [  # noqa: RUF012
        {"name": "Postlude report", "href": "postlude/report", "destination": "nav", "url_route": "postlude-report"},
        {"name": "Data Docs", "href": "postlude/docs/", "destination": "nav", "url_route": "postlude-docs"},
        {"name": "Mail catcher", "href": f"http://127.0.0.1:{settings().catcher_http_port}/", "destination": "nav"},
    ]
