"""Who may do what on the pages: every route is closed until a right opens it, whoever keeps the rights."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.engine import URL

from paged import Pages
from postlude.pages import PAGES
from test_plugin import ROOT, airflow
from world import World

pytestmark = pytest.mark.airflow

# what each route needs; one that somebody adds tomorrow is missing here, and the test says so
SEE = {
    *(f"GET /{page}" for page in (*PAGES, "mail-frame", "report", "docs/{name:path}", "static/{name}")),
    *(f"GET /api/{data}" for data in ("calendar", "calendar/history", "campaigns", "campaign/list", "segments", "approvals",
                                      "wizard", "customer/may", "stops")),
    *(f"POST /api/{data}" for data in ("campaign/story", "campaign/preview", "segment/days", "segment/overlap")),
}  # fmt: skip
STEER = {
    f"POST /api/{act}"
    for act in (
        "stop", "go", "why", "campaign/audience", "campaign/test", "segment/sample", "segment/export", "approval/decide",
        *(f"calendar/{act}" for act in ("draft", "check", "checked", "forecast", "save", "revert", "feed")),
        *(f"wizard/{act}" for act in ("draft", "preview", "simulate", "simulated")),
    )
}  # fmt: skip
KNOW = {f"POST /api/customer/{act}" for act in ("find", "story", "why", "suppress", "lift", "export", "erase")}


def test_every_route_is_closed_until_the_right_it_needs_opens_it(engine: Engine, tmp_path: Path) -> None:
    world = World(engine)
    pages = Pages(world, tmp_path, "2026-06-01 12:00")
    routes = [f"{method} {path}" for method, path in pages.routes()]
    assert set(routes) == SEE | STEER | KNOW
    # nobody; who may see plugins; who may edit `deliver` as well; who may know people as well
    opened: dict[str | None, set[str]] = {None: set(), "viewer": SEE, "user": SEE | STEER, "op": SEE | STEER | KNOW}
    for who, may in opened.items():
        for route in routes:
            method, path = route.split(" ")
            there = path.lstrip("/").replace("{name:path}", "").replace("{name}", "page.css")
            # an empty body: whoever may is told what is missing in it, so nothing is done
            told = pages.get(who, there) if method == "GET" else pages.post(who, there, {})
            closed = pages.status in (401, 403)
            assert closed is (route not in may), (who, route, pages.status)
            assert who is not None or (pages.status, told) == (401, {"detail": "sign in"}), route
    assert world.one("select count(*) from kill_switches") == 0


# ---------------------------------------------------------------- rights by name: the FAB auth manager

ASK_FAB = """
import json, sys
from fastapi import FastAPI
from fastapi.testclient import TestClient
from airflow import settings
from airflow.api_fastapi.app import create_auth_manager, init_plugins
from airflow.models.revoked_token import RevokedToken
from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
from airflow.providers.fab.auth_manager.models import metadata
metadata.create_all(settings.engine)
RevokedToken.__table__.create(settings.engine)
manager = create_auth_manager()
RIGHTS = {
    "nobody": [], "looks": [("can_read", "Plugins")],
    "steers": [("can_read", "Plugins"), ("can_edit", "DAG:deliver")],
    "edits another": [("can_read", "Plugins"), ("can_edit", "DAG:report")],
    "knows": [("can_read", "Plugins"), ("can_edit", "Postlude customers")],
    "reads customers": [("can_read", "Plugins"), ("can_read", "Postlude customers")],
}
answers = {}
with get_application_builder() as builder:
    sm = builder.sm
    for number, (name, rights) in enumerate(RIGHTS.items()):
        role = sm.add_role(name)
        for right in rights:
            sm.add_permission_to_role(role, sm.create_permission(*right))
        sm.add_user(f"u{number}", name, name, f"u{number}@customers.example", role, "x" * 20)
    app = FastAPI()
    init_plugins(app)
    client = TestClient(app, follow_redirects=False)
    tokens = {name: manager.generate_jwt(sm.find_user(f"u{number}")) for number, name in enumerate(RIGHTS)}
    def ask(name):
        head = {"authorization": "Bearer " + tokens[name]}
        return [client.get("/postlude/api/stops", headers=head).status_code,
                client.post("/postlude/api/wizard/draft", json={}, headers=head).status_code,
                client.post("/postlude/api/customer/find", json={}, headers=head).status_code]
    answers = {name: ask(name) for name in RIGHTS}
    # a right that is taken away, while they are signed in
    for name in ("steers", "knows"):
        role = sm.find_role(name)
        sm.remove_permission_from_role(role, sm.get_permission(*RIGHTS[name][-1]))
        answers["once it " + name] = ask(name)
json.dump(answers, open(sys.argv[1], "w"))
"""


@pytest.mark.skipif(find_spec("airflow.providers.fab") is None, reason="apache-airflow-providers-fab is not installed")
def test_rights_by_name_open_what_they_are_for_and_end_when_they_are_taken_away(database: URL, tmp_path: Path) -> None:
    env = {
        "AIRFLOW__CORE__AUTH_MANAGER": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
        "AIRFLOW__FAB__CACHE_TTL": "0",  # else FAB remembers a user's rights for thirty seconds
        "POSTLUDE_DB_URL": database.render_as_string(hide_password=False),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT / "plugins"), os.environ.get("PYTHONPATH", "")])),
    }
    told: dict[str, Any] = airflow(ASK_FAB, tmp_path / "airflow", ROOT / "plugins", **env)
    assert told == {
        "nobody": [403, 403, 403], "looks": [200, 403, 403], "steers": [200, 422, 403], "edits another": [200, 403, 403],
        "knows": [200, 403, 422], "reads customers": [200, 403, 403],
        "once it steers": [200, 403, 403], "once it knows": [200, 403, 403],
    }, json.dumps(told)  # fmt: skip
