"""The pages' app as readers meet it, without Airflow around it: who asks stands in a header, the clock is given."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from fastapi import HTTPException, Request
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from postlude.pages.app import Deps, make
from world import World, at

STEERS, KNOWS = ("user", "op", "admin", "kim", "lee"), ("op", "admin")
EVIL = "<script>parent.pwned = 1</script>\"'><img src=x onerror=pwned=1>"


def _who(request: Request) -> str | None:
    return request.headers.get("x-who")


def _see(request: Request) -> None:
    if _who(request) is None:
        raise HTTPException(401, "sign in")


def _steering(request: Request) -> str | None:
    return who if (who := _who(request)) in STEERS else None


def _knowing(request: Request) -> str | None:
    return who if (who := _who(request)) in KNOWS else None


class Pages:
    """`pages.get("viewer", "api/segments")`, `pages.post("user", "api/stop", {...})`: the JSON; `status` is the last one."""

    def __init__(self, world: World, home: Path, now: str | datetime) -> None:
        self.now = at(now) if isinstance(now, str) else now
        deps = Deps(
            see=_see, steering=_steering, knowing=_knowing, engine=lambda: world.engine, clock=lambda: self.now, home=home
        )  # fmt: skip
        self.app = make(deps)
        self.client = TestClient(self.app)
        self.status = 0
        self.headers: Any = {}

    def get(self, who: str | None, path: str) -> Any:
        return self._told(self.client.get(f"/{path}", headers={"x-who": who} if who else {}))

    def post(self, who: str | None, path: str, body: Any, **headers: str) -> Any:
        sent = {"sec-fetch-site": "same-origin", "content-type": "application/json"} | ({"x-who": who} if who else {})
        content = body if isinstance(body, str) else json.dumps(body)
        return self._told(self.client.post(f"/{path}", content=content, headers=sent | headers))

    def _told(self, reply: Any) -> Any:
        self.status, self.headers = reply.status_code, reply.headers
        kind = reply.headers.get("content-type", "")
        return reply.json() if kind.startswith("application/json") else reply.text

    def routes(self) -> list[tuple[str, str]]:
        """(method, path) of every route, routers inside routers too."""
        return sorted(_walk(self.app.routes))


def _walk(routes: Any) -> Any:
    for route in routes:
        if isinstance(route, APIRoute):
            yield from ((method, route.path) for method in route.methods)
        else:
            inner = getattr(route, "routes", None) or getattr(getattr(route, "original_router", None), "routes", None)
            assert inner is not None, f"a route nobody looked at: {route!r}"
            yield from _walk(inner)
