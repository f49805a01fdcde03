"""The catcher's web page and JSON API. No scripts anywhere; a mail's HTML is shown in a sandbox of its own."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader
from starlette.middleware.trustedhost import TrustedHostMiddleware

from postlude.catcher.store import EPOCH, Mail, Store, opened

_HERE = Path(__file__).parent / "templates"
_PAGE = 50
_EVENTS = 1_000
_CSP = "default-src 'none'; style-src 'self'; img-src data:; frame-src 'self'; form-action 'self'; base-uri 'none'; "
_SANDBOX = "allow-popups allow-popups-to-escape-sandbox"  # links open beside; scripts and forms stay off
_Page = Annotated[int, Query(ge=1, le=1_000_000)]


def application(store: Store, hosts: list[str]) -> FastAPI:
    """The pages over a store; `hosts`: names under which it may be asked (a web site elsewhere may not)."""
    app = FastAPI(title="Postlude mail catcher", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)
    templates = Environment(loader=FileSystemLoader(_HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    templates.filters["instant"] = lambda at: f"{at:%Y-%m-%d %H:%M:%S}"
    style = (_HERE / "style.css").read_text(encoding="utf-8")

    @app.middleware("http")
    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        response.headers.setdefault("Content-Security-Policy", _CSP + "frame-ancestors 'none'")
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cache-Control"] = "no-store"
        return response

    def found(mail_id: str) -> Mail:
        mail = store.get(mail_id)
        if not mail:
            raise HTTPException(404, "there is no such mail")
        return mail

    def page(name: str, **context: Any) -> HTMLResponse:
        return HTMLResponse(templates.get_template(name).render(total_mails=len(store), **context))

    @app.get("/")
    def index(q: str = "", page_number: Annotated[int, Query(alias="page", ge=1, le=1_000_000)] = 1) -> HTMLResponse:
        mails = store.search(q)
        pages = max(1, -(-len(mails) // _PAGE))
        number = min(page_number, pages)
        rows = [(mail, store.copies(mail)) for mail in mails[(number - 1) * _PAGE : number * _PAGE]]
        return page("list.html", rows=rows, q=q, number=number, pages=pages, matches=len(mails))

    @app.get("/messages/{mail_id}")
    def one(mail_id: str, view: Literal["html", "text", "headers"] = "html", images: bool = False) -> HTMLResponse:
        mail = found(mail_id)
        parts = opened(store.raw(mail))
        others = [copy for copy in store.all() if copy.identity == mail.identity and copy.id != mail.id][:20]
        if view == "html" and not parts["html"]:
            view = "text"
        context = {"mail": mail, "copies": store.copies(mail), "others": others, "view": view, "images": images}
        return page("mail.html", sandbox=_SANDBOX, **context, **parts)

    @app.get("/messages/{mail_id}/html")
    def preview(mail_id: str, images: bool = False) -> HTMLResponse:
        body = opened(store.raw(found(mail_id)))["html"] or "<p>This mail has no HTML part.</p>"
        sources = "img-src data: https: http:" if images else "img-src data:"
        policy = f"sandbox {_SANDBOX}; default-src 'none'; style-src 'unsafe-inline'; font-src data:; {sources}; "
        policy += "form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
        return HTMLResponse(_opening_beside(body), headers={"Content-Security-Policy": policy})

    @app.get("/messages/{mail_id}/raw")
    def download(mail_id: str) -> Response:
        mail = found(mail_id)
        attachment = {"Content-Disposition": f'attachment; filename="{mail.id}.eml"'}
        return Response(store.raw(mail), media_type="message/rfc822", headers=attachment)

    @app.get("/style.css")
    def css() -> Response:
        return Response(style, media_type="text/css")

    @app.get("/api/messages")
    def api_list(q: str = "", page: _Page = 1, size: Annotated[int, Query(ge=1, le=1_000)] = 100) -> dict[str, Any]:
        mails = store.search(q)
        return {
            "total": len(mails),
            "messages": [_json(store, mail) for mail in mails[(page - 1) * size : page * size]],
        }

    @app.get("/api/messages/{mail_id}")
    def api_one(mail_id: str) -> dict[str, Any]:
        mail = found(mail_id)
        return _json(store, mail) | opened(store.raw(mail))

    @app.get("/api/events")
    def api_events(since: datetime = EPOCH, after: str = "") -> dict[str, Any]:
        """A fact `delivered` for every stored mail with a key, oldest first; `next` is the `after` of the next page."""
        from_when = since.replace(tzinfo=since.tzinfo or UTC)
        mails = store.since(from_when, after, _EVENTS)
        events = [
            {"kind": "delivered", "at": mail.at.isoformat(), "message_id": mail.key, "source": "catcher",
             "detail": {"id": mail.id}}
            for mail in mails if mail.key
        ]  # fmt: skip
        return {"events": events, "next": mails[-1].id if len(mails) == _EVENTS else None}

    @app.get("/healthz")
    def health() -> dict[str, Any]:
        return {"status": "ok", "messages": len(store)}

    return app


def _json(store: Store, mail: Mail) -> dict[str, Any]:
    return {
        "id": mail.id, "at": mail.at.isoformat(), "from": mail.sender, "to": list(mail.recipients),
        "subject": mail.subject, "campaign": mail.campaign, "key": mail.key, "message_id": mail.message_id,
        "sha256": mail.sha256, "size": mail.size, "copies": store.copies(mail),
    }  # fmt: skip


def _opening_beside(body: str) -> str:
    """A click on a link of the mail opens a new tab: inside the frame it could go nowhere."""
    base = '<base target="_blank">'
    head = re.search(r"<head(?:\s[^>]*)?>", body, re.IGNORECASE)
    return f"{body[: head.end()]}{base}{body[head.end() :]}" if head else f"{base}{body}"
