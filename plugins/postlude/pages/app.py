"""The web app behind /postlude. It knows nothing of Airflow: who may do what is asked of `Deps`.

Every route is closed to who is not signed in. What changes something is a POST with a JSON body from a page of the same
origin, by somebody who may steer. Whom a question is about stands in its body, never in an address: addresses are logged.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from postlude.errors import InputError, Unavailable
from postlude.pages import PAGES

log = logging.getLogger(__name__)

STATIC = Path(__file__).with_name("static")
KINDS = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
GUARDED = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-src 'self'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'self'"
)

FRAME = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} · Postlude</title>
<link rel="stylesheet" href="static/page.css">
<script src="static/page.js" defer></script>
<script src="static/{page}.js" defer></script>
</head>
<body>
<svg hidden></svg>
<nav aria-label="Postlude">{menu}</nav>
<main>
<h1>{title}</h1>
{body}</main>
<noscript>This page needs JavaScript; `postlude --help` does the same on the command line.</noscript>
</body>
</html>
"""


@dataclass(frozen=True)
class Deps:
    """What the pages need from where they are shown.

    see: a FastAPI dependency that raises 401 or 403 unless the reader is signed in and may see these pages.
    steering: a FastAPI dependency, the reader's name if he may stop mail and look people up by id, else None.
    knowing: a FastAPI dependency, the reader's name if he may see who people are, change and erase them, else None.
    """

    see: Callable[..., Any]
    steering: Callable[..., Any]
    engine: Callable[[], Engine]
    clock: Callable[[], datetime]
    home: Path
    knowing: Callable[..., Any] = lambda: None  # nobody

    def steer(self) -> Any:
        """A dependency: the name of a reader who may steer; 403 for others."""

        def steer(name: str | None = Depends(self.steering)) -> str:
            if name is None:
                raise HTTPException(403, "you may look at this page, but not do this; ask for the right to edit DAGs")
            return name

        return Depends(steer)

    def know(self) -> Any:
        """A dependency: the name of a reader who may see people's names and addresses; 403 for others."""

        def know(name: str | None = Depends(self.knowing)) -> str:
            if name is None:
                raise HTTPException(403, "you may not see who people are; docs/pages.md tells which right that takes")
            return name

        return Depends(know)


def same_origin(request: Request) -> None:
    """Refuse what another site, or a plain form, makes the reader's browser send; a bearer token is no browser's."""
    if request.method in ("GET", "HEAD"):
        return
    if not request.headers.get("content-type", "").startswith("application/json"):
        raise HTTPException(415, "send JSON")
    if request.headers.get("authorization"):
        return
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is None:  # a browser too old to say: then the origin must be ours
        site = "same-origin" if origin and urlsplit(origin).netloc == request.headers.get("host") else "unknown"
    if site != "same-origin":
        raise HTTPException(403, "this came from another site")


def make(deps: Deps) -> FastAPI:
    """The app: the pages of PAGES, their data, the report and Data Docs."""
    from postlude.pages import approvals, calendar, campaigns, customers, reading, segments, stop, why, wizard

    app = FastAPI(
        dependencies=[Depends(deps.see), Depends(same_origin)], docs_url=None, redoc_url=None, openapi_url=None
    )
    app.add_exception_handler(RequestValidationError, _told)
    app.add_exception_handler(InputError, _told)
    app.add_exception_handler(Unavailable, _told)
    app.add_exception_handler(SQLAlchemyError, _told)
    app.include_router(_frames())
    for part in (calendar, approvals, campaigns, wizard, segments, customers, stop, why, reading):
        app.include_router(part.routes(deps))
    return app


def _frames() -> APIRouter:
    router = APIRouter()
    for page in PAGES:
        router.add_api_route(f"/{page}", _shower(page), methods=["GET"])

    @router.get("/static/{name}")
    def static(name: str) -> Response:
        if (found := _static().get(name)) is None:
            raise HTTPException(404, "no such file")
        return Response(found, media_type=KINDS[Path(name).suffix], headers=GUARDED)

    return router


def _shower(page: str) -> Callable[[], HTMLResponse]:
    def show() -> HTMLResponse:
        menu = "".join(
            f'<a href="{name}"{" aria-current=page" if name == page else ""}>{escape(title)}</a>'
            for name, (title, _) in PAGES.items()
        )
        body = (STATIC / f"{page}.html").read_text(encoding="utf-8")
        frame = FRAME.format(page=page, title=escape(PAGES[page][1]), menu=menu, body=body)
        return HTMLResponse(frame, headers=GUARDED | {"Content-Security-Policy": PAGE_POLICY})

    return show


@lru_cache
def _static() -> dict[str, bytes]:
    """Files that may be asked for by name: these and no others."""
    return {path.name: path.read_bytes() for path in STATIC.iterdir() if path.suffix in KINDS}


def answer(value: Any) -> JSONResponse:
    """Data of a page: never kept by a browser or a proxy."""
    return JSONResponse(value, headers=GUARDED)


def _told(request: Request, error: Exception) -> JSONResponse:
    """A mistake of the reader in our words; of anything else the class alone, since a driver's text may hold row values."""
    if isinstance(error, RequestValidationError):  # without the values, which FastAPI would send back
        told = "; ".join(f"{fault['loc'][-1]}: {fault['msg']}" for fault in error.errors())
        return JSONResponse({"detail": told}, 422, headers=GUARDED)
    if isinstance(error, InputError):
        return JSONResponse({"detail": str(error)}, 422, headers=GUARDED)
    log.error("%s %s failed with %s", request.method, request.url.path, type(error).__name__)
    return JSONResponse({"detail": "the database does not answer; look at the api-server's log"}, 503, headers=GUARDED)
