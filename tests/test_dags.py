"""The DAG files: what they are made of, what they cost to parse, what a broken campaign file does, and a run's clock.

Airflow stays out of the test process as far as it can: the DAG files are parsed once, in a process of its own, without
a network and with a database that does not answer.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.engine import URL

from postlude.campaign import load_campaign
from postlude.errors import GateClosed, InputError, Refused, Unavailable

pytestmark = pytest.mark.airflow

ROOT = Path(__file__).resolve().parents[1]
CAMPAIGNS = ROOT / "include" / "campaigns"
FIXED = {"ingest", "segment", "one_offs", "transactional", "deliver", "feedback", "report", "maintenance"}
HEAVY = {
    "pandas",
    "numpy",
    "great_expectations",
    "matplotlib",
    "postlude.db",
    "postlude.pipeline",
    "postlude.rendering",
}

PARSE = """
import json, socket, sys
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization
def refuse(*_): raise OSError("no network while parsing")
socket.socket.connect = refuse
bag = DagBag(sys.argv[1])
def schedule(dag):
    if (assets := getattr(dag.timetable, "asset_condition", None)) is not None:
        return "after " + assets.name
    return getattr(dag.timetable, "expression", None)
def names(callbacks):  # a mapped task keeps the bare function
    return [callback.__name__ for callback in (callbacks if isinstance(callbacks, (list, tuple)) else [callbacks])]
def told(dag):
    try:
        dag.tasks[0].python_callable.__wrapped__(None)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
json.dump({
    "errors": bag.import_errors,
    "seconds": {stat.file: stat.duration.total_seconds() for stat in bag.dagbag_stats},
    "modules": sorted(sys.modules),
    "dags": {dag.dag_id: {
        "schedule": schedule(dag),
        "partitioned": type(dag.timetable).__name__.startswith(("CronPartition", "PartitionedAsset")),
        "tasks": {task.task_id: sorted(task.downstream_task_ids) for task in dag.tasks},
        "mapped": sorted(task.task_id for task in dag.tasks if task.is_mapped or task.get_closest_mapped_task_group()),
        "outlets": {task.task_id: [asset.name for asset in task.outlets] for task in dag.tasks if task.outlets},
        "owner": dag.owner, "tags": sorted(dag.tags), "doc": dag.doc_md or "", "params": sorted(dag.params),
        "at_once": dag.max_active_runs, "catchup": dag.catchup, "start": str(dag.start_date),
        "policies": sorted({type(task.retry_policy).__name__ for task in dag.tasks}),
        "callbacks": sorted({name for task in dag.tasks for name in names(task.on_failure_callback)}),
        "broken": told(dag) if "broken" in dag.tags else None,
        "stored": len(json.dumps(DagSerialization.to_dict(dag))),
    } for dag in bag.dags.values()},
}, open(sys.argv[2], "w"))
"""


def airflow_environment(home: Path, **more: str) -> dict[str, str]:
    """Environment of an Airflow process of a test: a home of its own, nothing of the caller's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "POSTLUDE"))}
    return kept | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql+psycopg2://nobody@127.0.0.1:9/none",
        "POSTLUDE_HOME": str(home / "postlude"),
        "POSTLUDE_INCLUDE": str(ROOT / "include"),
        "POSTLUDE_DB_URL": "postgresql://nobody@127.0.0.1:9/none",
        **more,
    }


def parsed(home: Path, **more: str) -> dict[str, Any]:
    """All DAG files, parsed in a process of its own."""
    home.mkdir(parents=True, exist_ok=True)
    found = home / "parsed.json"
    command = (sys.executable, "-c", PARSE, str(ROOT / "dags"), str(found))
    done = subprocess.run(  # noqa: PLW1510
        command, env=airflow_environment(home, **more), capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-3000:]
    loaded: dict[str, Any] = json.loads(found.read_text())
    return loaded


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return parsed(tmp_path_factory.mktemp("airflow"))


@pytest.fixture(scope="module")
def broken_bag(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The shipped campaigns, and beside them files with mistakes of many kinds."""
    include = tmp_path_factory.mktemp("include")
    shutil.copytree(CAMPAIGNS, include / "campaigns")
    shutil.copytree(CAMPAIGNS.parent / "tables", include / "tables")
    sound = (CAMPAIGNS / "win_back.yml").read_text(encoding="utf-8")
    for name, content in {
        "typo.yml": sound.replace("id: win_back", "id: typo").replace("owner:", "onwer:").encode(),
        "half.yml": sound[:60].encode() + b"\n  - [",
        "latin.yml": "id: latin\nname: Rückkehr\n".encode("latin-1"),
        "empty.yml": b"",
        "copy of win_back.yml": sound.encode(),
        "Nr. 1 & 2.yml": sound.encode(),
        ".hidden.yml": b"an editor's backup",
    }.items():
        (include / "campaigns" / name).write_bytes(content)
    (include / "campaigns" / "folder.yml").mkdir()
    return parsed(tmp_path_factory.mktemp("airflow"), POSTLUDE_INCLUDE=str(include))


# ---------------------------------------------------------------- what there is


def test_every_campaign_file_becomes_one_dag_and_nothing_else_is_there(bag: dict[str, Any]) -> None:
    campaigns = {f"campaign__{path.stem}" for path in CAMPAIGNS.glob("*.yml")}
    assert bag["errors"] == {}
    assert len(campaigns) >= 3
    assert set(bag["dags"]) == FIXED | campaigns


def test_parsing_takes_less_than_a_second_a_file_and_imports_nothing_heavy(bag: dict[str, Any]) -> None:
    assert set(bag["seconds"]) == {path.name for path in (ROOT / "dags").glob("*.py")} != set()
    assert {file: seconds for file, seconds in bag["seconds"].items() if seconds >= 1} == {}
    assert HEAVY & set(bag["modules"]) == set()


def test_each_dag_is_wired_as_its_manual_says(bag: dict[str, Any]) -> None:
    wiring = {dag_id: (dag["schedule"], dag["tasks"]) for dag_id, dag in bag["dags"].items() if dag_id in FIXED}
    assert wiring == {
        "ingest": ("0 5 * * *", {
            "list_sources": ["shop.check_orders", "shop.extract", "shop.load"],
            "shop.extract": ["shop.check_orders"],
            "shop.check_orders": ["shop.load"],
            "shop.load": ["announce"],
            "announce": [],
        }),
        "segment": ("after orders", {
            "derive_features": ["check_features"], "check_features": ["keep_loyalty"],
            "keep_loyalty": ["note_happenings"], "note_happenings": ["update_segments"], "update_segments": [],
        }),
        "transactional": ("*/5 * * * *", {"tell": []}),
        "one_offs": ("after segments", {"list_sends": ["plan"], "plan": []}),
        "deliver": ("*/5 * * * *", {
            "guard": ["deliver_shard", "recover"], "recover": ["deliver_shard"], "deliver_shard": [],
        }),
        "feedback": ("*/10 * * * *", {
            "collect": ["apply"], "apply": ["check_events", "watch"], "check_events": [], "watch": [],
        }),
        "report": ("30 6 * * *", {"check_deliveries": ["write_report"], "write_report": []}),
        "maintenance": ("30 3 * * *", {
            "recover": ["maintain"], "maintain": ["watch_coupons"], "watch_coupons": [], "recommend": [],
        }),
    }  # fmt: skip
    mapped = {dag_id: dag["mapped"] for dag_id, dag in bag["dags"].items() if dag["mapped"]}
    assert mapped == {
        "ingest": ["shop.check_orders", "shop.extract", "shop.load"], "one_offs": ["plan"], "deliver": ["deliver_shard"],
    }  # fmt: skip


def test_a_task_builds_its_own_campaign_and_not_forty_others(tmp_path: Path) -> None:
    """Every task is a process that reads the DAG file again."""
    dags = parsed(
        tmp_path, _AIRFLOW_PARSING_CONTEXT_DAG_ID="campaign__win_back", _AIRFLOW_PARSING_CONTEXT_TASK_ID="enrol"
    )
    assert [dag_id for dag_id in dags["dags"] if dag_id.startswith("campaign__")] == ["campaign__win_back"]


def test_every_campaign_enrols_schedules_is_checked_and_assessed_before_it_is_released(bag: dict[str, Any]) -> None:
    campaigns = [dag for dag_id, dag in bag["dags"].items() if dag_id.startswith("campaign__")]
    # what people wait for is planned by `transactional`, not once a day
    assert {(dag["schedule"], "transactional" in dag["tags"]) for dag in campaigns} <= {
        ("after segments", False),
        (None, True),
    }
    steps = {
        "enrol": ["schedule"], "schedule": ["check_plan"], "check_plan": ["assess"], "assess": ["approve", "release"],
        "approve": ["release"], "release": [],
    }  # fmt: skip
    # beside them, where the campaign rests on absence: it is red for a stale feed, and nothing waits for it
    resting = {f"campaign__{path.stem}" for path in CAMPAIGNS.glob("*.yml") if load_campaign(path).feeds}
    assert {"campaign__win_back", "campaign__feedback_30d"} <= resting
    for dag_id in {name for name in bag["dags"] if name.startswith("campaign__")}:
        beside = {"check_feeds": []} if dag_id in resting else {}
        assert bag["dags"][dag_id]["tasks"] == steps | beside


def test_the_asset_chain_is_partitioned_at_every_link(bag: dict[str, Any]) -> None:
    """A partitioned event starts only a DAG that is partitioned, and Airflow does not say so."""
    # the others are planned every few minutes by `transactional`
    daily = [path.stem for path in CAMPAIGNS.glob("*.yml") if load_campaign(path).kind == "marketing"]
    campaigns = {f"campaign__{name}" for name in daily}
    assert len(campaigns) > 20
    assert {dag_id for dag_id, dag in bag["dags"].items() if dag["partitioned"]} == {
        "ingest", "segment", "one_offs", *campaigns,
    }  # fmt: skip
    outlets = {dag_id: dag["outlets"] for dag_id, dag in bag["dags"].items() if dag["outlets"]}
    assert outlets == {"ingest": {"announce": ["orders"]}, "segment": {"update_segments": ["segments"]}}


def test_every_dag_has_a_manual_an_owner_tags_and_retries_by_class_of_error(bag: dict[str, Any]) -> None:
    for dag_id, dag in bag["dags"].items():
        assert "**When it is red**" in dag["doc"] and "**Running it again is safe" in dag["doc"], dag_id
        assert dag["owner"] not in ("", "airflow"), dag_id
        assert "postlude" in dag["tags"] and len(dag["tags"]) >= 2, dag_id
        assert dag["policies"] == ["ExceptionRetryPolicy"], dag_id
        assert dag["callbacks"] == ["log_failure"], dag_id
        # one at a time, no old slots, and no start date, or unpausing would run a slot long past
        assert (dag["at_once"], dag["catchup"], dag["start"]) == (1, False, "None"), dag_id
        assert dag["stored"] > 0, dag_id
    by_instant = {"ingest", "segment", "one_offs", "report", *(d for d in bag["dags"] if d.startswith("campaign__"))}
    assert {dag_id for dag_id, dag in bag["dags"].items() if "as_of" in dag["params"]} == by_instant


def test_the_page_of_dags_is_the_docstrings_of_the_dags() -> None:
    done = subprocess.run(  # noqa: PLW1510
        (sys.executable, str(ROOT / "tools" / "dag_docs.py"), "--check"), capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


# ---------------------------------------------------------------- broken campaign files


def test_a_broken_campaign_file_becomes_a_red_dag_and_its_siblings_live(broken_bag: dict[str, Any]) -> None:
    red = {dag_id: dag for dag_id, dag in broken_bag["dags"].items() if dag["broken"]}
    assert broken_bag["errors"] == {}
    assert {dag_id.removeprefix("campaign__") for dag_id in red} == {
        "typo", "half", "latin", "empty", "folder", "copy_of_win_back_f4a3fc", "Nr._1___2_c2b428",
    }  # fmt: skip
    assert set(broken_bag["dags"]) - set(red) == FIXED | {f"campaign__{path.stem}" for path in CAMPAIGNS.glob("*.yml")}
    assert {json.dumps(dag["tasks"]) for dag in red.values()} == {'{"broken_file": []}'}
    assert {dag["schedule"] for dag in red.values()} == {"after segments"}  # so it is red every day until it is mended


def test_the_red_dag_says_where_the_mistake_is_and_how_to_mend_it(broken_bag: dict[str, Any]) -> None:
    typo, latin = (broken_bag["dags"][f"campaign__{name}"] for name in ("typo", "latin"))
    assert typo["broken"].startswith("InputError: ")
    assert (
        'typo.yml:3: onwer: unknown key; did you mean "owner"?' in typo["broken"]
        or "onwer: unknown key" in typo["broken"]
    )
    assert "onwer: unknown key" in typo["doc"]
    assert "latin.yml:2: byte 0xfc is not UTF-8" in latin["broken"]


# ---------------------------------------------------------------- a run's clock and origin


@pytest.fixture(scope="module")
def orchestration(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    os.environ.setdefault("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow")))
    from postlude import orchestration as module

    return module


DUE = datetime(2026, 11, 23, 5, tzinfo=UTC)


def run_of(kind: str = "scheduled", after: datetime = DUE) -> Any:
    return SimpleNamespace(run_type=kind, run_after=after, partition_key=None)


def events(*extras: dict[str, Any]) -> dict[str, Any]:
    return {"orders": [SimpleNamespace(extra=extra) for extra in extras]}


def test_the_clock_is_the_parameter_then_the_event_then_the_run(orchestration: ModuleType) -> None:
    clock = orchestration.clock_of
    carried = events({"as_of": "2026-11-20T05:00:00+00:00"})
    assert clock(run_of(), {"as_of": "2026-11-19T08:00:00+02:00"}, carried) == datetime(2026, 11, 19, 6, tzinfo=UTC)
    assert clock(run_of(), {"as_of": None}, carried) == datetime(2026, 11, 20, 5, tzinfo=UTC)
    assert clock(run_of(), {}, events({"from_rest_api": True})) == DUE
    assert clock(run_of(), {}, None) == DUE
    assert clock(run_of(), {"as_of": "2026-11-19"}, None) == datetime(2026, 11, 19, tzinfo=UTC)


@pytest.mark.parametrize("wanted", ["tomorrow", "2026-11-31", "2026-11-23T05:00:01Z", "2027-01-01"])
def test_an_instant_that_cannot_be_read_or_lies_ahead_is_refused(orchestration: ModuleType, wanted: str) -> None:
    with pytest.raises(InputError, match="as_of"):
        orchestration.clock_of(run_of(), {"as_of": wanted}, None)
    with pytest.raises(InputError, match="as_of"):
        orchestration.clock_of(run_of(), {}, events({"as_of": wanted}))


def test_two_events_in_one_run_speak_with_the_later_instant_and_a_backfill_wins_a_tie(
    orchestration: ModuleType,
) -> None:
    early = {"as_of": "2026-11-20T05:00:00+00:00", "origin": "backfill"}
    late = {"as_of": "2026-11-21T05:00:00+00:00", "origin": "scheduled"}
    for both in (events(early, late), events(late, early)):
        assert orchestration.clock_of(run_of("asset_triggered"), {}, both).day == 21
        assert orchestration.origin_of(run_of("asset_triggered"), both) == "scheduled"
    tie = events(late, late | {"origin": "backfill"}, late)
    assert orchestration.origin_of(run_of("asset_triggered"), tie) == "backfill"


def test_a_backfill_is_known_as_one_however_many_hops_away(orchestration: ModuleType) -> None:
    """Airflow calls everything downstream of a backfill asset_triggered."""
    origin, run = "backfill", run_of("backfill")
    assert orchestration.origin_of(run, None) == origin
    for _ in range(3):
        told = orchestration.Run(now=DUE, run_id="x", origin=origin, kind="", after=DUE, key=None, worker="", params={})
        carried = events(json.loads(json.dumps(orchestration.provenance(told, {"rows": 3}))))
        origin = orchestration.origin_of(run_of("asset_triggered"), carried)
        assert origin == "backfill"
    assert orchestration.origin_of(run_of("asset_triggered"), events({"from_rest_api": True})) == "asset"
    assert orchestration.origin_of(run_of("manual"), None) == "manual"
    assert orchestration.origin_of(run_of("operator_triggered"), None) == "manual"


def test_an_old_interval_and_a_backfill_send_nothing_and_a_run_by_hand_does(orchestration: ModuleType) -> None:
    from airflow.sdk.exceptions import AirflowSkipException

    def guard(kind: str, age: timedelta) -> None:
        run = orchestration.Run(now=DUE, run_id="", origin=kind, kind=kind, after=DUE, key=None, worker="", params={})
        orchestration.guard_lag(run, DUE + age, timedelta(hours=6))

    guard("scheduled", timedelta(hours=6))
    guard("manual", timedelta(days=9))
    for kind, age in (
        ("scheduled", timedelta(hours=6, seconds=1)),
        ("backfill", timedelta()),
        ("asset_triggered", timedelta(days=1)),
    ):
        with pytest.raises(AirflowSkipException):
            guard(kind, age)


def test_errors_decide_about_retries(orchestration: ModuleType) -> None:
    def decided(error: Exception) -> str:
        return orchestration.RETRIES.evaluate(error, 1, 4).action.value

    assert {decided(kind("x")) for kind in (InputError, GateClosed, Refused, TypeError, KeyError)} == {"fail"}
    assert (decided(Unavailable("x")), decided(OSError("x"))) == ("retry", "default")


def test_a_database_error_reaches_the_log_without_the_values_it_speaks_of(
    orchestration: ModuleType, engine: Any
) -> None:
    from sqlalchemy import text
    from sqlalchemy.exc import DBAPIError

    with engine.connect() as conn:
        conn.execute(text("create temporary table people (email text primary key)"))
        insert = text("insert into people values (:email)")
        conn.execute(insert, {"email": "ana@customers.example"})
        with pytest.raises(DBAPIError) as caught:
            conn.execute(insert, {"email": "ana@customers.example"})
    assert "ana@" in str(caught.value)
    safe = orchestration.without_values(caught.value)
    assert type(safe) is RuntimeError
    assert str(safe) == "UniqueViolation: SQLSTATE 23505, table people, constraint people_pkey"
    gone = DBAPIError("select 1", {"email": "ana@customers.example"}, Exception("ana@"), connection_invalidated=True)
    assert isinstance(orchestration.without_values(gone), Unavailable) and "ana@" not in str(
        orchestration.without_values(gone)
    )
    closed = GateClosed("two rows")
    assert orchestration.without_values(closed) is closed


def test_a_source_finds_its_connection_in_airflow(orchestration: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk import Connection

    from postlude.settings import settings
    from postlude.sources import _connections, load_source

    kept = Connection(conn_id="shopify", conn_type="http", host="shop.example", password="p@ss", extra='{"a": 1}')
    monkeypatch.setattr(_connections, "look_up", [])
    monkeypatch.setenv("POSTLUDE_DB_URL", "postgresql://here/now")
    monkeypatch.setattr(orchestration.BaseHook, "get_connection", lambda name: {"shopify": kept}[name])
    orchestration.use_connection()
    orchestration.use_connection()  # every task does; it is asked once
    source = load_source(settings().include / "sources" / "shopify.yml")
    found = _connections.access(source)
    assert (found.password, found.extra, len(_connections.look_up)) == ("p@ss", {"a": 1}, 1)
    assert _connections.web_address(source, found) == "https://shop.example"


def test_the_airflow_connection_is_used_unless_a_url_is_set(
    orchestration: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the form of a socket folder, as the embedded server has it, and of a host with a password to be quoted."""
    import postlude.db
    from postlude.settings import settings

    def url_for(connection: dict[str, Any], url: str = "") -> str:
        monkeypatch.setenv("POSTLUDE_DB_URL", url)
        monkeypatch.setenv("AIRFLOW_CONN_POSTLUDE_DB", json.dumps({"conn_type": "postgres"} | connection))
        settings.cache_clear()
        orchestration.use_connection()
        return postlude.db.server_url(settings()).render_as_string(hide_password=False)

    try:
        socket = {"host": "/run/pg", "login": "postgres", "schema": "shop"}
        assert url_for(socket) == "postgresql://postgres@/shop?host=%2Frun%2Fpg"
        remote = {
            "host": "db.example",
            "port": 5433,
            "login": "ana",
            "password": "p@ss/w:d",
            "extra": {"sslmode": "require"},
        }
        assert url_for(remote) == "postgresql://ana:p%40ss%2Fw%3Ad@db.example:5433/postlude?sslmode=require"
        assert url_for(remote, url="postgresql://here/now") == "postgresql://here/now"
    finally:
        monkeypatch.undo()
        settings.cache_clear()
        postlude.db.default_engine.cache_clear()


def test_counts_of_many_sources_are_added_up_also_of_a_single_one(orchestration: ModuleType) -> None:
    """Airflow hands over the bare result, not a list of one, when a mapped group ran once."""
    one = {"orders": 3, "file": "a.csv", "new": True}
    assert orchestration.total(one) == {"sources": 1, "orders": 3}
    assert orchestration.total([one, None, {"orders": 4}]) == {"sources": 2, "orders": 7}


def test_a_source_is_chosen_by_the_name_of_its_file_scheduled_or_not() -> None:
    from postlude import pipeline

    assert [Path(path).stem for path in pipeline.list_sources("online_retail.yml")] == ["online_retail"]
    assert "online_retail" not in [Path(path).stem for path in pipeline.list_sources()]
    with pytest.raises(InputError, match='no source "shopp"; there are'):
        pipeline.list_sources("shopp")


# ---------------------------------------------------------------- one real pass

PASS = """
import json, sys
from airflow.utils.db import initdb
initdb()
from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
from airflow.dag_processing.bundles.manager import DagBundlesManager
manager = DagBundlesManager()
manager.sync_bundles_to_db()
bag = DagBag(sys.argv[1])
sync_bag_to_db(bag, "dags-folder", None)
answers = {}
for dag_id in ("ingest", "segment", "campaign__feedback_30d"):
    run = bag.dags[dag_id].test(run_conf={"as_of": sys.argv[3]})
    answers[dag_id] = [run.run_id, str(run.state), {t.task_id: str(t.state) for t in run.get_task_instances()}]
json.dump(answers, open(sys.argv[2], "w"))
"""


@pytest.mark.slow
def test_the_dags_bring_a_shop_in_as_of_an_instant_and_plan_its_messages(tmp_path: Path, database: URL) -> None:
    """ingest, segment and a campaign, each as Airflow runs it, on a shop of its own and a real database."""
    from sqlalchemy import text

    from postlude import db

    url = database.render_as_string(hide_password=False)
    env = airflow_environment(
        tmp_path / "airflow",
        AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{tmp_path}/airflow.db",
        POSTLUDE_HOME=str(tmp_path / "postlude"),
        POSTLUDE_DB_URL=url,
        POSTLUDE_SECRET=os.environ["POSTLUDE_SECRET"],
    )
    (tmp_path / "airflow").mkdir()
    as_of = "2026-11-01T10:00:00+00:00"

    def run(*command: str) -> str:
        done = subprocess.run(  # noqa: PLW1510
            (sys.executable, "-c", *command), env=env, capture_output=True, text=True, timeout=280, cwd=ROOT
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return "\n".join(line for line in (done.stdout + done.stderr).splitlines() if "rror" in line)[-3000:]

    sample = ("sample", "--customers", "1000", "--seed", "7", "--as-of", as_of)
    run("from postlude.cli import main; main()", *sample)
    told = run(PASS, str(ROOT / "dags"), str(tmp_path / "answers.json"), as_of)
    answers = json.loads((tmp_path / "answers.json").read_text())
    assert {dag_id: state for dag_id, (_, state, _) in answers.items()} == dict.fromkeys(
        ("ingest", "segment", "campaign__feedback_30d"), "success"
    ), told
    ended = {f"{dag_id}.{task}": state for dag_id, (_, _, tasks) in answers.items() for task, state in tasks.items()}
    assert {task for task, state in ended.items() if state != "success"} == {"campaign__feedback_30d.approve"}, told
    assert ended["campaign__feedback_30d.approve"] == "skipped"  # as usual: nobody is asked
    with db.engine(database).connect() as conn:
        runs = conn.execute(text("select stage, run_id, as_of, origin, outcome from runs order by started_at")).all()
        assert conn.scalar(text("select count(*) from customer_features")) > 900
        assert conn.scalar(text("select count(*) from messages")) > 0
    stages = [run.stage for run in runs]
    stages.remove("check_feeds")  # stands beside the others
    assert stages == [
        "extract", "load", "derive_features", "keep_loyalty", "note_happenings", "update_segments", "enrol", "schedule", "assess",
        "release",
    ]  # fmt: skip
    assert {(run.as_of.isoformat(), run.origin, run.outcome) for run in runs} == {(as_of, "manual", "done")}
    for dag_id, (run_id, _, _) in answers.items():
        assert any(run.run_id.startswith(f"{dag_id}/{run_id}/") for run in runs)
