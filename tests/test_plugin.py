"""Postlude in Airflow's plugin loader and web server: what is loaded, and who may see the pages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.airflow

ROOT = Path(__file__).resolve().parents[1]

LOAD = """
import json, sys, calendar
from airflow import plugins_manager
from airflow._shared.module_loading import find_path_from_directory
before = set(sys.modules)
plugins, errors = plugins_manager._get_plugins()
json.dump({
    "files": [file for path in find_path_from_directory(sys.argv[1], ".airflowignore", "glob")
              if (file := str(path)).endswith(".py")],
    "errors": errors, "plugins": [plugin.name for plugin in plugins if plugin.name == "postlude"],
    "calendar": sys.modules["calendar"].__file__, "loaded": sorted(set(sys.modules) - before),
}, open(sys.argv[2], "w"))
"""

ASK = """
import json, sys
from fastapi import FastAPI
from fastapi.testclient import TestClient
from airflow import settings
from airflow.api_fastapi.app import create_auth_manager, init_plugins
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.models.revoked_token import RevokedToken
manager = create_auth_manager()
manager.init()
RevokedToken.__table__.create(settings.engine)
app = FastAPI()
init_plugins(app)
login = "Bearer " + manager.generate_jwt(SimpleAuthManagerUser(username="viewer", role="viewer"))
client = TestClient(app, follow_redirects=False)
answers = {}
for path in json.load(open(sys.argv[1])):
    asked = {
        "anonymous": client.get(path),
        "forged": client.get(path, headers={"authorization": login[:-4] + "AAAA"}),
        "viewer": client.get(path, headers={"authorization": login}),
        "cookie": client.get(path, headers={"cookie": "_token=" + login[7:]}),
    }
    answers[path] = {who: [r.status_code, r.text, dict(r.headers)] for who, r in asked.items()}
json.dump(answers, open(sys.argv[2], "w"))
"""


def airflow(script: str, home: Path, plugins: Path, *arguments: str, **more: str) -> Any:
    """What a script of a process with Airflow wrote into the file named by its last argument; more: its environment."""
    home.mkdir(parents=True, exist_ok=True)
    answer = home / "answer.json"
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "POSTLUDE"))}
    env |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(plugins),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "viewer:viewer",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__API_AUTH__JWT_SECRET": "only-for-tests-" * 5,
        "POSTLUDE_HOME": str(home / "postlude"),
    } | more
    done = subprocess.run(  # noqa: PLW1510
        (sys.executable, "-c", script, *arguments, str(answer)),
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=home,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(answer.read_text())


# ---------------------------------------------------------------- what the loader executes


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What Airflow's loader makes of the plugins folder."""
    home = tmp_path_factory.mktemp("airflow")
    found: dict[str, Any] = airflow(LOAD, home, ROOT / "plugins", str(ROOT / "plugins"))
    return found


def test_airflow_executes_the_plugin_and_nothing_of_the_library(loaded: dict[str, Any]) -> None:
    """Without plugins/.airflowignore it executes every module of the library under its bare file name."""
    assert loaded["files"] == [str(ROOT / "plugins" / "postlude_plugin.py")]
    assert (loaded["errors"], loaded["plugins"]) == ({}, ["postlude"])
    bare = {path.stem for path in (ROOT / "plugins" / "postlude").rglob("*.py")} - {"__init__", "__main__"}
    assert bare & set(loaded["loaded"]) == set()


@pytest.mark.parametrize("ignored", [True, False])
def test_without_the_ignore_file_our_calendar_would_replace_that_of_python(tmp_path: Path, ignored: bool) -> None:
    """What the file is good for: a module that has the name of one of Python's."""
    plugins = tmp_path / "plugins"
    (plugins / "postlude").mkdir(parents=True)
    (plugins / "postlude" / "calendar.py").write_text("MODULE = 'ours'\n")
    if ignored:
        shutil.copy(ROOT / "plugins" / ".airflowignore", plugins)
    found = airflow(LOAD, tmp_path / "home", plugins, str(plugins))
    assert Path(found["calendar"]).is_relative_to(plugins) is not ignored


def test_a_task_process_that_loads_the_plugin_imports_no_web_server(loaded: dict[str, Any]) -> None:
    modules = set(loaded["loaded"])
    assert {"postlude_plugin", "postlude.settings"} <= modules
    heavy = (
        "fastapi",
        "starlette",
        "airflow.api_fastapi",
        "pandas",
        "great_expectations",
        "postlude.db",
        "postlude.pipeline",
    )
    assert [name for name in modules if name.startswith(heavy)] == []


# ---------------------------------------------------------------- the pages


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Status and text of each page, through Airflow's own plugin loader and login, for everybody who asks."""
    home = tmp_path_factory.mktemp("airflow")
    for name, text in {
        "reports/2026-11-21.html": "<p>old report</p>",
        "reports/2026-11-22.html": "<p>new report</p>",
        "data_docs/orders/run-1.shop/index.html": "<p>verdict on orders</p>",
        "data_docs/orders/run-1.shop/staged.html": "<p>details</p>",
        "data_docs/plan/run&2/index.html": "<p>verdict on the plan</p>",
        "secret": "the key",
        "data_docs_of_another/page.html": "the key",
    }.items():
        file = home / "postlude" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    os.utime(home / "postlude/reports/2026-11-21.html", (1, 1))
    (home / "postlude/data_docs/link").symlink_to(home / "postlude/secret")
    (home / "ask.json").write_text(json.dumps(PAGES + OUTSIDE))
    found: dict[str, Any] = airflow(ASK, home, ROOT / "plugins", str(home / "ask.json"))
    return found


PAGES = [
    "/postlude/report",
    "/postlude/docs/",
    "/postlude/docs/orders/run-1.shop/",
    "/postlude/docs/orders/run-1.shop/staged.html",
]
OUTSIDE = [
    "/postlude/docs/../secret",
    "/postlude/docs/%2e%2e/secret",
    "/postlude/docs/..%2fsecret",
    "/postlude/docs/orders/%2e%2e/%2e%2e/secret",
    "/postlude/docs/%2e%2e/data_docs_of_another/page.html",
    "/postlude/docs//etc/passwd",
    "/postlude/docs/%00",
    "/postlude/docs/link",
    "/postlude/docs/orders",
    "/postlude/docs/" + "x" * 5000,
]


def test_pages_are_shown_to_who_is_logged_in_and_to_nobody_else(answers: dict[str, Any]) -> None:
    for page in PAGES:
        assert {who: answer[0] for who, answer in answers[page].items()} == {
            "anonymous": 401, "forged": 403, "viewer": 200, "cookie": 200,
        }, page  # fmt: skip


def test_the_report_shown_is_the_newest(answers: dict[str, Any]) -> None:
    assert answers["/postlude/report"]["viewer"][1] == "<p>new report</p>"


def test_data_docs_are_listed_and_linked(answers: dict[str, Any]) -> None:
    page = answers["/postlude/docs/"]["viewer"][1]
    assert "<a href='orders/run-1.shop/'>run-1.shop</a>" in page and "<a href='plan/run%262/'>run&amp;2</a>" in page
    assert answers["/postlude/docs/orders/run-1.shop/"]["viewer"][1] == "<p>verdict on orders</p>"
    assert answers["/postlude/docs/orders/run-1.shop/staged.html"]["viewer"][1] == "<p>details</p>"


def test_no_path_leads_out_of_data_docs(answers: dict[str, Any]) -> None:
    assert set(OUTSIDE) <= set(answers)
    for path in OUTSIDE:
        for who, (status, text, _) in answers[path].items():
            # some of these are no path of the app any more once the client or the router has tidied them up
            assert status == 404 or status == {"anonymous": 401, "forged": 403}.get(who), (path, who, status)
            assert "the key" not in text and "root:" not in text


def test_a_page_cannot_use_the_readers_login(answers: dict[str, Any]) -> None:
    """The pages come from Airflow's own address, where a script could read the token in the cookie."""
    policy = {page: answers[page]["viewer"][2]["content-security-policy"] for page in PAGES}
    assert "sandbox" in policy["/postlude/report"] and "allow-same-origin" not in policy["/postlude/report"]
    assert all("default-src 'none'" in one for one in policy.values())
    assert not any("script-src" in one for page, one in policy.items() if "docs" in page)
    assert {answers[page]["viewer"][2]["x-content-type-options"] for page in PAGES} == {"nosniff"}


def test_a_check_task_links_to_the_data_docs_of_its_run(tmp_path: Path) -> None:
    script = """
import sys, types
import postlude_plugin as plugin
key = lambda task: types.SimpleNamespace(dag_id="ingest", run_id="manual__2026-11-23T04:22:10+00:00__x", task_id=task)
print(*[plugin.DataDocsLink().get_link(None, ti_key=key(task)) or "-" for task in sys.argv[1:]])
"""
    run = tmp_path / "data_docs" / "orders" / "ingest-manual__2026-11-23T04-22-10-00-00__x.shop"
    run.mkdir(parents=True)
    (run / "index.html").write_text("x")
    env = os.environ | {
        "POSTLUDE_HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT / "plugins"),
        "AIRFLOW_HOME": str(tmp_path / "af"),
    }
    command = [sys.executable, "-c", script, "shop.check_orders", "shop.load", "check_features"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120, check=True)
    assert done.stdout.split() == ["/postlude/docs/orders/ingest-manual__2026-11-23T04-22-10-00-00__x.shop/", "-", "-"]
