"""The pages in the Airflow UI: who may do what, from where, and that nothing anybody typed becomes a script."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL

from postlude import db, switch
from postlude.pages import PAGES
from postlude.pages.why import meanings
from test_flow import lapsing
from test_plugin import ROOT, airflow
from world import World, campaign

pytestmark = pytest.mark.airflow

EVIL = "<script>parent.pwned = 1</script>\"'><img src=x onerror=pwned=1>"

ASK = """
import json, sys
from fastapi import FastAPI
from fastapi.testclient import TestClient
from airflow import settings
from airflow.api_fastapi.app import create_auth_manager, init_plugins
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.models.revoked_token import RevokedToken
import postlude_plugin
manager = create_auth_manager()
manager.init()
RevokedToken.__table__.create(settings.engine)
app = FastAPI()
init_plugins(app)
client = TestClient(app, follow_redirects=False)
token = {role: manager.generate_jwt(SimpleAuthManagerUser(username=role, role=role)) for role in ("viewer", "user", "op", "admin")}
answers = []
for call in json.load(open(sys.argv[1])):
    headers = dict(call.get("headers", {}))
    if call["who"].startswith("cookie of "):
        headers["cookie"] = "_token=" + token[call["who"][10:]]
    elif call["who"] != "anonymous":
        headers["authorization"] = "Bearer " + token[call["who"]]
    body = call.get("body")
    if isinstance(body, dict):
        body, headers = json.dumps(body), {"content-type": "application/json"} | headers
    reply = client.request(call["method"], "/postlude/" + call["path"], content=body, headers=headers)
    answers.append({"status": reply.status_code, "text": reply.text, "headers": dict(reply.headers)})
from fastapi.routing import APIRoute
mounted = postlude_plugin.PostludePlugin.fastapi_apps[0]["app"].app()
def walk(routes, prefix=""):
    for route in routes:
        if isinstance(route, APIRoute):
            yield prefix + route.path, sorted(route.methods)
        else:  # a router inside, or a mount
            inner = getattr(route, "routes", None) or getattr(getattr(route, "original_router", None), "routes", None)
            if inner is None:
                raise SystemExit(f"a route nobody looked at: {route!r}")
            yield from walk(inner, prefix)
routes = sorted(walk(mounted.routes))
for path, methods in routes:
    for method in methods:
        reply = client.request(method, "/postlude" + path.replace("{name:path}", "x").replace("{name}", "page.css"))
        answers.append({"status": reply.status_code, "anonymous": path})
json.dump({"answers": answers, "routes": routes}, open(sys.argv[2], "w"))
"""


class Asked:
    """One shop behind Airflow's own plugin loader and login: calls go through one process, in their order."""

    def __init__(self, database: URL, home: Path) -> None:
        self.database, self.home = database, home
        self.anonymous: list[dict[str, Any]] = []
        self.routes: list[Any] = []

    def __call__(self, *calls: dict[str, Any]) -> list[dict[str, Any]]:
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "ask.json").write_text(json.dumps(calls))
        env = {"POSTLUDE_DB_URL": self.database.render_as_string(hide_password=False)}
        (self.home / "airflow.db").unlink(missing_ok=True)
        told = airflow(ASK, self.home, ROOT / "plugins", str(self.home / "ask.json"), **env)
        self.routes = told["routes"]
        answers: list[dict[str, Any]] = told["answers"]
        self.anonymous = answers[len(calls) :]
        return answers[: len(calls)]


def get(who: str, path: str) -> dict[str, Any]:
    return {"who": who, "method": "GET", "path": path}


def post(who: str, path: str, body: Any, **headers: str) -> dict[str, Any]:
    return {"who": who, "method": "POST", "path": path, "body": body, "headers": headers}


@pytest.fixture
def asked(database: URL, tmp_path: Path) -> Asked:
    return Asked(database, tmp_path / "airflow")


@pytest.fixture
def world(database: URL) -> Iterator[World]:
    engine = db.engine(database)
    yield World(engine)
    engine.dispose()


STOP = {"scope": "campaign", "name": "win_back", "why": "wrong price"}
GO = {"scope": "campaign", "name": "win_back", "why": "price mended"}
POSTS = {
    "/api/stop", "/api/go", "/api/why",
    "/api/campaign/story", "/api/campaign/audience", "/api/campaign/preview", "/api/campaign/test",
    *(f"/api/customer/{act}" for act in ("find", "story", "why", "suppress", "lift", "export", "erase")),
    *(f"/api/calendar/{act}" for act in ("draft", "check", "checked", "forecast", "save", "revert", "feed")),
    *(f"/api/wizard/{act}" for act in ("draft", "preview", "simulate", "simulated")),
    "/api/approval/decide", "/api/segment/days", "/api/segment/overlap", "/api/segment/sample", "/api/segment/export",
}  # fmt: skip
ROLES = ("anonymous", "viewer", "user", "op", "admin")


def test_who_may_see_who_may_stop_and_who_may_look_people_up(asked: Asked, world: World) -> None:
    ana = lapsing(world, name="Ana Secretperson")
    question = {"customer": str(ana), "campaign": "win_back"}
    calls, expected = [], []
    for role in ROLES:
        seen = 401 if role == "anonymous" else 200
        steered = {"anonymous": 401, "viewer": 403}.get(role, 200)
        for path in (*PAGES, "mail-frame", "static/page.css", "static/stop.js", "api/stops", "api/campaigns", "report"):
            calls.append(get(role, path))
            expected.append(seen)
        for path, body in (("api/stop", STOP), ("api/go", GO), ("api/why", question)):
            calls.append(post(role, path, body))
            expected.append(steered)
    answers = asked(*calls)
    found = {f"{call['who']} {call['path']}": answer["status"] for call, answer in zip(calls, answers, strict=True)}
    assert found == {f"{call['who']} {call['path']}": status for call, status in zip(calls, expected, strict=True)}
    assert {answer["headers"].get("cache-control") for answer in answers if answer["status"] == 200} == {"no-store"}
    # nothing was done for those who may not; what was done names who did it
    assert world.do("select stopped_by, why, lifted_by, lift_reason from kill_switches order by switch_id") == [
        (role, "wrong price", role, "price mended") for role in ("user", "op", "admin")
    ]
    explained = answers[-1]["text"]
    assert "trigger" in explained and "Secretperson" not in explained and "customers.example" not in explained
    # every route there is, also one that somebody adds tomorrow
    assert {"/stop", "/why", "/api/stop", "/api/go", "/api/why", "/report", "/docs/{name:path}"} <= {
        p for p, _ in asked.routes
    }
    assert {answer["anonymous"]: answer["status"] for answer in asked.anonymous} == {
        path: 401 for path, _ in asked.routes
    }
    # only these may be asked without a body: whatever changes something or names somebody is a POST
    assert {path for path, methods in asked.routes if methods != ["GET"]} == POSTS


def test_a_page_of_another_site_changes_nothing(asked: Asked, world: World) -> None:
    lapsing(world)
    me = "cookie of admin"
    plain = {"content-type": "text/plain"}
    calls = {
        "no word about where it comes from": post(me, "api/stop", STOP),
        "another site": post(me, "api/stop", STOP, **{"sec-fetch-site": "cross-site"}),
        "another port of this machine": post(me, "api/stop", STOP, **{"sec-fetch-site": "same-site"}),
        "another origin": post(me, "api/stop", STOP, origin="http://evil.example"),
        "no origin": post(me, "api/stop", STOP, origin="null"),
        "a form": post(me, "api/stop", json.dumps(STOP), **plain, **{"sec-fetch-site": "same-origin"}),
        "a form of another site": post(me, "api/stop", json.dumps(STOP), **plain, **{"sec-fetch-site": "cross-site"}),
        "a question from another site": post(me, "api/why", {"customer": "1"}, **{"sec-fetch-site": "cross-site"}),
        "a link": get(me, "api/stop"),
    }
    answers = dict(zip(calls, asked(*calls.values()), strict=True))
    assert {name: answer["status"] for name, answer in answers.items()} == {
        **dict.fromkeys(calls, 403), "a form": 415, "a form of another site": 415, "a link": 405,
    }  # fmt: skip
    assert world.one("select count(*) from kill_switches") == 0
    ours = asked(
        post(me, "api/stop", STOP, **{"sec-fetch-site": "same-origin"}),
        post(me, "api/stop", STOP, origin="http://testserver"),
    )
    assert [(answer["status"], json.loads(answer["text"])["changed"]) for answer in ours] == [(200, 1), (200, 0)]


def test_a_mistake_is_told_in_words_and_stops_nothing(asked: Asked, world: World) -> None:
    wrong = {
        'there is no campaign "win_bak"': post("user", "api/stop", STOP | {"name": "win_bak"}),
        "say why": post("user", "api/stop", STOP | {"why": "  "}),
        "takes no name": post("user", "api/stop", STOP | {"scope": "all"}),
        "scope": post("user", "api/stop", STOP | {"scope": "everything"}),
        "characters that cannot be stored": post("user", "api/stop", STOP | {"why": "a\0b"}),
        "why": post("user", "api/stop", STOP | {"why": "x" * 501}),
        "no customer has this id": post("user", "api/why", {"customer": "nobody@customers.example"}),
        "whose messages": post("user", "api/why", {"customer": " "}),
        "Write a customer id": post("user", "api/why", {"customer": "1\0"}),
        'there is no campaign "../secret"': post("user", "api/why", {"customer": "1", "campaign": "../secret"}),
        "is not an instant": post("user", "api/why", {"customer": "1", "at": "yesterday"}),
        "JSON": post("user", "api/why", "{", **{"content-type": "application/json"}),
    }
    for told, answer in zip(wrong, asked(*wrong.values()), strict=True):
        assert (answer["status"], told in json.loads(answer["text"])["detail"]) == (422, True), (told, answer["text"])
        assert "customers.example" not in answer["text"]
    assert world.one("select count(*) from kill_switches") == 0


def test_nothing_that_was_typed_becomes_part_of_a_page(asked: Asked, world: World) -> None:
    """Pages hold no data at all, run only our own files, and what they ask for comes as JSON that is never sniffed."""
    world.do(
        "insert into sources (source_id, shop, kind, currency, time_zone) values (:e, :e, 'files', 'EUR', 'UTC')",
        e=EVIL,
    )
    customer = lapsing(world, name=EVIL, key=EVIL)
    world.plan(campaign("win_back"), "2026-06-01 08:30")
    pages = [get("admin", page) for page in PAGES]
    answers = asked(
        post("admin", "api/stop", {"scope": "shop", "name": EVIL, "why": EVIL}),
        post("admin", "api/why", {"customer": EVIL}),
        post("admin", "api/stop", {"scope": "campaign", "name": EVIL, "why": EVIL}),
        get("admin", "api/stops"),
        *pages,
    )
    data, shown = answers[:4], answers[4:]
    assert [answer["status"] for answer in data] == [200, 200, 422, 200]
    assert {answer["headers"]["content-type"] for answer in data} == {"application/json"}
    assert {answer["headers"]["x-content-type-options"] for answer in answers} == {"nosniff"}
    against = [line for one in json.loads(data[1]["text"])["people"] for line in one["campaigns"][0]["lines"]]
    assert (against[0]["predicate"], against[0]["verdict"], EVIL in against[0]["detail"]) == (
        "not stopped",
        "yes",
        False,
    )
    assert [(s["name"], s["why"]) for s in json.loads(data[0]["text"])["stops"]] == [(EVIL, EVIL)]
    assert json.loads(data[1]["text"])["people"][0]["customer_id"] == customer
    for page in shown:
        policy = page["headers"]["content-security-policy"]
        assert "default-src 'none'; script-src 'self';" in policy and "unsafe" not in policy and "data:" not in policy
        assert "pwned" not in page["text"] and "://" not in page["text"]
        assert " on" not in "".join(
            part.split(">")[0] for part in page["text"].split("<")[1:]
        )  # no handlers in the markup
    scripts = [*(ROOT / "plugins" / "postlude" / "pages" / "static").glob("*.js")]
    assert {script.stem for script in scripts} == {"page", "mail-frame", *PAGES}
    for script in scripts:
        assert not any(
            word in script.read_text() for word in ("innerHTML", "outerHTML", "insertAdjacent", "eval(", "://")
        )


def test_the_file_stop_is_shown_beside_the_switches_and_cannot_be_lifted_by_a_button(
    asked: Asked, world: World
) -> None:
    (asked.home / "postlude").mkdir(parents=True)
    (asked.home / "postlude" / "STOP").write_text("shop shop # relay on fire")
    ana = lapsing(world)
    question = {"customer": str(ana), "campaign": "win_back"}
    answers = asked(
        get("admin", "api/stops"), post("admin", "api/go", {"scope": "shop", "name": "shop", "why": "x"}),
        post("admin", "api/why", question), post("admin", "api/why", question | {"at": "2026-06-01T10:00"}),
    )  # fmt: skip
    first = [json.loads(answer["text"])["people"][0]["campaigns"][0]["lines"][0] for answer in answers[2:]]
    assert [(line["predicate"], line["verdict"]) for line in first] == [("not stopped", "no"), ("not stopped", "yes")]
    assert first[0]["detail"] == "shop shop: relay on fire"  # the past of a file is not known
    stops = json.loads(answers[1]["text"])
    assert (stops["changed"], [(s["from"], s["scope"], s["why"]) for s in stops["stops"]]) == (
        0, [("file", "shop", "relay on fire")],
    )  # fmt: skip
    assert {
        scope: [one["id"] for one in names] for scope, names in json.loads(answers[0]["text"])["names"].items()
    } == {scope: sorted(names) for scope, names in _names(asked.database).items()}


def _names(database: URL) -> dict[str, set[str]]:
    engine = create_engine(db._psycopg(database), connect_args={"options": "-csearch_path=postlude,public"})
    with engine.connect() as conn:
        assert conn.scalar(text("select count(*) from sources")) == 1
        found = switch.names(conn)
    engine.dispose()
    return found


def test_a_reason_word_is_explained_by_the_list_in_the_docs() -> None:
    assert meanings()["no_consent"].startswith("the person has not agreed")
    assert meanings()["capped"].startswith("enough marketing for now")
    assert len(meanings()) > 40
