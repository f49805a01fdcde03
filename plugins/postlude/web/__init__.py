"""Public pages: unsubscribe, preferences, score. A process of its own that needs the database and nothing else of Postlude.

    GET  /u/{token}   a page with one button          GET  /s/{token}   the chosen score, a button
    POST /u/{token}   no marketing mail any more      POST /s/{token}   keeps the score, with a comment if there is one
    GET  /p/{token}   topics, a pause, "nothing"      POST /p/{token}   keeps the choice
    GET  /b/{token}   banners of one customer, JSON
    POST /hooks/{provider}   what a provider reports, if it proves that it is the provider
    GET  /calendar/{token}.ics   the campaign calendar, for calendar apps
    GET  /healthz     200 when the database answers

It connects as a role that may execute the functions of schema/public_pages.sql and nothing else.

GET changes nothing, ever: mail programs and virus scanners follow every link of a mail. POST on /u is the one-click of
RFC 8058, so it needs no cookie, page or body before it, never redirects, and says 200 only after the commit.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from threading import Lock
from uuid import UUID

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from postlude import db, hooks
from postlude.errors import Unavailable
from postlude.rendering import load_theme
from postlude.settings import settings
from postlude.tokens import SCORES, BadToken, banner_person, calendar_reader, verify
from postlude.web import pages
from postlude.web.topics import load_topics

MAX_BODY = 64 * 1024
MAX_COMMENT = 1000
PREFERENCES_FOR = timedelta(days=90)
BREAKS = {"pause_30": timedelta(days=30), "pause_90": timedelta(days=90), "resume": timedelta(0)}
FAILURES, FAILURE_WINDOW = 30, timedelta(minutes=1)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def _utc_now() -> datetime:
    return datetime.now(UTC)


def create_app(engine: Engine, clock: Callable[[], datetime] = _utc_now) -> FastAPI:
    """The public pages over the database of `engine`; `clock` tells aware UTC."""
    app = FastAPI(title="Postlude", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    site = _Site(engine, clock)
    for path, answer, methods in (
        ("/u/{token}", site.unsubscribe_page, ["GET", "HEAD"]),
        ("/u/{token}", site.unsubscribe, ["POST"]),
        ("/p/{token}", site.preferences_page, ["GET", "HEAD"]),
        ("/p/{token}", site.prefer, ["POST"]),
        ("/s/{token}", site.score_page, ["GET", "HEAD"]),
        ("/s/{token}", site.score, ["POST"]),
        ("/b/{token}", site.banners, ["GET", "HEAD"]),
        ("/calendar/{token}.ics", site.calendar, ["GET", "HEAD"]),
        ("/hooks/{provider}", site.hook, ["POST"]),
        ("/", site.home, ["GET", "HEAD"]),
        ("/healthz", site.healthz, ["GET"]),
        ("/robots.txt", site.robots, ["GET"]),
    ):
        app.add_api_route(path, answer, methods=methods)
    app.add_exception_handler(BadToken, site.refused)
    app.add_exception_handler(hooks.NotProven, site.not_proven)
    app.add_exception_handler(hooks.NotReadable, site.not_readable)
    app.add_exception_handler(Unavailable, site.unavailable)
    app.add_exception_handler(SQLAlchemyError, site.unavailable)
    app.add_exception_handler(HTTPException, site.not_found)
    app.add_middleware(_Doorman)
    return app


class _Site:
    """What each address does. GET only reads; a POST writes one transaction and answers after its commit."""

    def __init__(self, engine: Engine, clock: Callable[[], datetime]) -> None:
        self.engine, self.clock = engine, clock
        self.failures = _Failures(clock)

    def unsubscribe_page(self, request: Request, token: str) -> HTMLResponse:
        message = _message(token)
        return self.page(request, "unsubscribe", locale=self.locale_of(message))

    def unsubscribe(self, request: Request, token: str) -> HTMLResponse:
        # any body will do: the link is the proof, and a provider's odd encoding must not keep a person subscribed
        message, now = _message(token), self.clock()
        with db.transaction(self.engine) as conn:
            locale = db.run(conn, "82_message_locale", message=message).scalar_one_or_none()
            _unsubscribe(conn, message, now)
        return self.page(request, "unsubscribed", locale=locale)

    def preferences_page(self, request: Request, token: str) -> HTMLResponse:
        message, day = _chooser(token)
        return self.preferences(request, message, day)

    async def prefer(self, request: Request, token: str) -> HTMLResponse:
        message, day = _chooser(token)
        form = await _form(request)
        return await run_in_threadpool(self.keep_choice, request, message, day, form)

    def keep_choice(self, request: Request, message: UUID, day: date, form: Mapping[str, str]) -> HTMLResponse:
        """Store a choice: `save` the topics, `pause` for some days or `resume`, or `nothing` any more."""
        now, action = self.clock(), form.get("do", "")
        if self.too_old(day) and action != "nothing":
            return self.preferences(request, message, day)
        wanted, length = {}, None
        if action == "save":
            wanted = {topic: form.get(f"topic_{topic}") == "yes" for topic in load_topics().ids()}
        elif action in BREAKS:
            length = BREAKS[action]
        elif action != "nothing":
            return self.preferences(request, message, day)
        with db.transaction(self.engine) as conn:
            if action == "nothing":
                _unsubscribe(conn, message, now)
            else:
                db.run(conn, "84_prefer", message=message, wanted=db.dumps(wanted), length=length, now=now)
        return self.preferences(request, message, day, done=action)

    def preferences(self, request: Request, message: UUID, day: date, done: str = "") -> HTMLResponse:
        """The page as things stand now. An old link shows nothing of the person, and can still say "nothing at all"."""
        old, locale = self.too_old(day), self.locale_of(message)
        language = pages.language(locale, request.headers.get("accept-language", ""))
        topics = load_topics()
        with db.transaction(self.engine) as conn:
            found = db.run(conn, "83_preferences", message=message, topics=topics.ids(), now=self.clock()).first()
        shown = [] if old or found is None else topics.words(language)
        return self.page(
            request, "preferences", locale=locale, done=done, old=old, topics=shown,
            agreed=set(found.agreed) if found and found.suppressed is None else set(),
            masked="" if old or found is None else found.masked or "",
            paused=found.break_until.date().isoformat() if found and found.break_until else "",
            suppressed=found.suppressed if found else None,
        )  # fmt: skip

    def too_old(self, day: date) -> bool:
        return self.clock().date() - day > PREFERENCES_FOR

    def score_page(self, request: Request, token: str) -> HTMLResponse:
        message, score, about = _scored(token)
        locale = self.locale_of(message)
        return self.page(
            request, "score", locale=locale, limit=MAX_COMMENT, score=score, scores=SCORES[about], about=about
        )

    async def score(self, request: Request, token: str) -> HTMLResponse:
        message, score, about = _scored(token)
        form = await _form(request)
        chosen = form.get("score", "")
        score = chosen if chosen in SCORES[about] else score
        comment = _clean(form.get("comment", ""))
        locale = await run_in_threadpool(self.keep_score, message, int(score), about, comment)
        return self.page(request, "scored", locale=locale, score=score, scores=SCORES[about])

    def keep_score(self, message: UUID, score: int, about: str, comment: str) -> str | None:
        """Store an answer; the customer's locale. At most two rows per score: nobody fills the table with one link."""
        now, key = self.clock(), f"web:rated:{message}:{score}"
        if about != "item":
            key += f":{about}"
        payload: dict[str, object] = {
            "kind": "rated",
            "message_id": str(message),
            "score": score,
            "at": now.isoformat(),
        }
        if about != "item":
            payload |= {"about": about}
        if len(SCORES[about]) > len(SCORES["item"]):
            payload |= {"scale": "10"}
        with db.transaction(self.engine) as conn:
            locale = db.run(conn, "82_message_locale", message=message).scalar_one_or_none()
            _land(conn, f"{key}:comment" if comment else key, payload | ({"comment": comment} if comment else {}), now)
        return locale

    def banners(self, token: str) -> JSONResponse:
        """For the shop's own pages, wherever they are served from: the token is the only key, and nobody's data is in it."""
        now = self.clock()
        person = banner_person(token, now.date())
        with db.transaction(self.engine) as conn:
            rows = db.run(conn, "83_banners_of", person=person, now=now).all()
        shown = [
            {
                "id": str(r.message_id),
                "title": r.title,
                "text": r.body,
                "link": r.link,
                "until": r.shown_until.isoformat(),
            }
            for r in rows
        ]
        return JSONResponse({"version": 1, "banners": shown}, headers={"access-control-allow-origin": "*"})

    def calendar(self, token: str) -> Response:
        """Pauses, days off and what is planned, in counts: the token is the only key, and nobody's data is in it."""
        from postlude.calendar import exchange, laid_over

        now = self.clock()
        calendar_reader(token, now.date())
        with db.transaction(self.engine) as conn:
            changes = [change for row in db.run(conn, "83_calendar_changes", now=now) for change in row.changes]
            planned = [(row.day, row.campaign, row.mails) for row in db.run(conn, "83_planned", now=now)]
        raw = exchange.to_ics(laid_over(changes), now, planned)
        return Response(raw, media_type="text/calendar; charset=utf-8")

    async def hook(self, request: Request, provider: str) -> Response:
        secret = getattr(settings(), f"hook_{provider}", "") if provider in hooks.PROVIDERS else ""
        if not secret:
            raise HTTPException(404)
        query = f"?{request.url.query}" if request.url.query else ""
        asked = hooks.Request(
            url=f"{settings().web_url.rstrip('/')}{request.url.path}{query}",
            headers={name.lower(): value for name, value in request.headers.items()},
            body=await request.body(),
        )
        return JSONResponse({"stored": await run_in_threadpool(self.take_reports, provider, asked, secret)})

    def take_reports(self, provider: str, asked: hooks.Request, secret: str) -> int:
        """Verify, then store what is new; how much that was. Answered after the commit."""
        now = self.clock()
        reports = hooks.verify(provider, asked, secret, now, self.fetch)
        stored = 0
        with db.transaction(self.engine) as conn:
            for report in reports:
                if report.token:
                    digest = hashlib.sha256(asked.body).hexdigest()
                    token = {"provider": provider, "token": report.token[:200], "body_hash": digest, "now": now}
                    if not db.run(conn, "80_take_token", **token).scalar_one():
                        raise hooks.NotProven("a token for another body")
                raw = db.dumps(_storable(report.raw))
                landed = db.run(conn, "80_land_report", source=provider, key=report.key[:500], raw=raw, now=now)
                stored += landed.scalar_one()
        return stored

    def fetch(self, url: str) -> bytes:
        """An https address of Amazon's; the caller has checked the host."""
        import httpx

        with httpx.Client(timeout=5, trust_env=False, follow_redirects=False) as client:
            try:
                return client.get(url).raise_for_status().content[:MAX_BODY]
            except httpx.HTTPError as error:
                raise OSError(type(error).__name__) from None

    async def not_proven(self, request: Request, _error: Exception) -> Response:
        """Only requests that prove nothing are counted: a provider sends from few addresses, and much."""
        if self.failures.too_many(request.client.host if request.client else ""):
            return PlainTextResponse("slow down", 429, {"retry-after": str(int(FAILURE_WINDOW.total_seconds()))})
        return PlainTextResponse("not proven", 401)

    async def not_readable(self, request: Request, _error: Exception) -> Response:
        return PlainTextResponse("not readable", 400)

    def home(self, request: Request) -> HTMLResponse:
        return self.page(request, "home")

    def healthz(self) -> JSONResponse:
        with db.transaction(self.engine) as conn:
            conn.execute(text("select 1"))
        return JSONResponse({"status": "ok"})

    def robots(self) -> PlainTextResponse:
        return PlainTextResponse("User-agent: *\nDisallow: /\n")

    def locale_of(self, message: UUID) -> str | None:
        with db.transaction(self.engine) as conn:
            return db.run(conn, "82_message_locale", message=message).scalar_one_or_none()

    def page(
        self, request: Request, name: str, status: int = 200, locale: str | None = None, **values: object
    ) -> HTMLResponse:
        language = pages.language(locale, request.headers.get("accept-language", ""))
        html, policy = pages.render(name, language, load_theme(), values)
        return HTMLResponse(html, status, {"content-security-policy": policy})

    async def refused(self, request: Request, _error: Exception) -> Response:
        """A link that is not ours: always the same page, whatever is wrong with it."""
        if not self.failures.too_many(request.client.host if request.client else ""):
            return self.page(request, "not_found", 404)
        answer = self.page(request, "slow_down", 429)
        answer.headers["retry-after"] = str(int(FAILURE_WINDOW.total_seconds()))
        return answer

    async def unavailable(self, request: Request, _error: Exception) -> Response:
        """The database is away, nothing is stored: the mail program or the person tries again."""
        answer = self.page(request, "unavailable", 503)
        answer.headers["retry-after"] = "60"
        return answer

    async def not_found(self, request: Request, error: Exception) -> Response:
        return self.page(request, "not_found", error.status_code if isinstance(error, HTTPException) else 500)


def serve(host: str = "127.0.0.1", port: int | None = None, engine: Engine | None = None) -> None:
    """Serve the public pages until stopped. No access log: the address of a request is a person's link."""
    import uvicorn

    app = create_app(engine or db.engine(db.web_url()))
    uvicorn.run(
        app, host=host, port=port or settings().web_port, access_log=False, server_header=False, log_level="warning"
    )


def _storable(value: object) -> object:
    """JSON that PostgreSQL can keep: no NUL and no half characters."""
    if isinstance(value, str):
        return value.replace("\0", "").encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {str(_storable(key)): _storable(inner) for key, inner in value.items()}
    return [_storable(inner) for inner in value] if isinstance(value, list) else value


def _land(conn: db.Connection, key: str, payload: dict[str, object], now: datetime) -> None:
    db.run(conn, "80_land_public_event", source="web", key=key, payload=db.dumps(payload), now=now)


def _unsubscribe(conn: db.Connection, message: UUID, now: datetime) -> None:
    payload: dict[str, object] = {"kind": "unsubscribed", "message_id": str(message), "at": now.isoformat()}
    _land(conn, f"web:unsubscribed:{message}", payload, now)
    db.run(conn, "81_suppress_for_message", message=message, now=now)


# ---------------------------------------------------------------- what came in


def _message(token: str) -> UUID:
    return _uuid(*verify("unsubscribe", token))


def _chooser(token: str) -> tuple[UUID, date]:
    message, day = verify("preferences", token)
    return _uuid(message), date.fromisoformat(day)


def _scored(token: str) -> tuple[UUID, str, str]:
    message, score, *about = verify("score", token)
    return _uuid(message), score, about[0] if about else "item"


def _uuid(message: str) -> UUID:
    try:
        return UUID(message)
    except ValueError:
        raise BadToken("signed by us, but not about a message") from None


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form, as text; a body that is no form counts as empty, for the score stands in the link."""
    try:
        async with request.form(max_files=0, max_fields=20, max_part_size=MAX_BODY) as form:
            return {key: value for key, value in form.items() if isinstance(value, str)}
    except (HTTPException, ValueError, AssertionError):
        return {}


def _clean(comment: str) -> str:
    """At most 1,000 characters, line breaks kept, nothing invisible (PostgreSQL stores no NUL)."""
    return _CONTROL.sub("", comment.replace("\r\n", "\n").replace("\r", "\n")).strip()[:MAX_COMMENT].strip()


class _Failures:
    """Counts bad links by network (IPv6: by /64). Good links are never counted: providers come from few addresses."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self.clock = clock
        self.lock = Lock()
        self.seen: dict[str, tuple[datetime, int]] = {}

    def too_many(self, host: str) -> bool:
        """Note one failure; True when there were more than 30 within a minute."""
        now, key = self.clock(), _network(host)
        with self.lock:
            if len(self.seen) > 10_000:
                self.seen = {k: v for k, v in self.seen.items() if now - v[0] < FAILURE_WINDOW}
            if len(self.seen) > 10_000 and key not in self.seen:
                return True  # a flood from everywhere: only bad links are turned away faster
            since, count = self.seen.get(key, (now, 0))
            if now - since >= FAILURE_WINDOW:
                since, count = now, 0
            self.seen[key] = (since, count + 1)
            return count + 1 > FAILURES


def _network(host: str) -> str:
    try:
        address = ipaddress.ip_address(host.split("%", 1)[0])
    except ValueError:
        return hashlib.sha256(host.encode()).hexdigest()
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


# ---------------------------------------------------------------- the door: size of the body, headers of every answer


_NOTHING = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")


class _Doorman:
    """Refuses bodies over 64 KB and gives every answer, errors too, the same strict headers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.headers = [
            (b"cache-control", b"no-store"),
            (b"referrer-policy", b"no-referrer"),
            (b"x-content-type-options", b"nosniff"),
            (b"x-robots-tag", b"noindex, nofollow"),
        ]
        if settings().web_url.startswith("https://"):
            self.headers.append((b"strict-transport-security", b"max-age=31536000"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = message.get("headers", [])
                policy = [] if any(name == b"content-security-policy" for name, _ in given) else [_NOTHING]
                message["headers"] = [*given, *self.headers, *policy]
            await send(message)

        most = MAX_BODY
        if scope["path"].startswith("/hooks/"):  # some providers report in batches
            most = hooks.MAX_BATCH.get(scope["path"].removeprefix("/hooks/"), MAX_BODY)
        body, more = b"", True
        while more and len(body) <= most:
            part = await receive()
            if part["type"] == "http.disconnect":
                return
            body += part.get("body", b"")
            more = part.get("more_body", False)
        if len(body) > most:
            await PlainTextResponse("too large", 413, {"connection": "close"})(scope, receive, answer)
            return
        parts: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return parts.pop() if parts else await receive()

        await self.app(scope, replay, answer)
