"""A year of the past through the real scheduler: history is written, nobody gets a mail because of it.

The mail catcher stands for the provider and is the witness: what it took is compared with what was due. The number of days is
POSTLUDE_BACKFILL_DAYS (a day is some twenty tasks in five DAG runs), POSTLUDE_BACKFILL_CAMPAIGNS names the campaigns that take
part (commas between them; all of them by default), POSTLUDE_BACKFILL_RUNS how many days run side by side.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from sqlalchemy import Engine, create_engine, text

from postlude import db, pipeline, stack
from postlude.errors import Unavailable
from postlude.settings import Settings, settings
from postlude.stack import tour
from postlude.stack.api import Api
from postlude.stack.processes import Component
from world import at

DAYS = int(os.environ.get("POSTLUDE_BACKFILL_DAYS", "4"))
CLEARED = min(90, DAYS)
RUNS = int(os.environ.get("POSTLUDE_BACKFILL_RUNS", "4"))
PATIENCE = 240 + 60 * DAYS
SHIPPED = ("feedback_30d", "loyalty_join", "win_back")
CHOSEN = tuple(filter(None, os.environ.get("POSTLUDE_BACKFILL_CAMPAIGNS", "").split(","))) or SHIPPED
CAMPAIGNS = tuple(f"campaign__{name}" for name in CHOSEN)
WEEK = timedelta(days=7)


class Shop:
    """The running stack, seen from outside: Airflow's API, the catcher's pages, the database."""

    def __init__(self, running: stack.Stack, api: Api, engine: Engine) -> None:
        self.stack, self.api, self.engine = running, api, engine
        self.mail = httpx.Client(base_url=running.at.urls["mail"], timeout=30, trust_env=False)

    def rows(self, query: str, **params: Any) -> list[Any]:
        with db.transaction(self.engine) as conn:
            return list(conn.execute(text(query), params))

    def taken(self) -> Counter[str]:
        """Copies by message id, as the provider counts them: one request for one mail."""
        keys: Counter[str] = Counter()
        page, total = 1, 1
        while sum(keys.values()) < total:
            found = self.mail.get("/api/messages", params={"page": page, "size": 1000}).json()
            keys.update(mail["key"] for mail in found["messages"])
            page, total = page + 1, found["total"]
        return keys

    def wait(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        end = time.monotonic() + seconds
        while not condition():
            self.stack.check_alive()
            if time.monotonic() > end:
                raise Unavailable(f"after {seconds:.0f} s: {what}")
            time.sleep(2)

    def idle(self) -> bool:
        return not self.api.active() - {"deliver", "feedback"}

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        return list(self.api._all(f"/dags/{dag_id}/dagRuns", "dag_runs"))

    def deliver(self) -> dict[str, int]:
        return self.api.result(self.api.wait(self.api.trigger("deliver"), 600, self.stack.check_alive))

    def airflow(self, *arguments: str) -> str:
        done = subprocess.run(
            (sys.executable, "-m", "airflow", *arguments),
            env=self.stack.env,
            check=False,
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def below(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(folder.resolve()):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize(("origin", "when"), [("backfill", "2026-05-01"), ("scheduled", "2026-05-31")])
def test_a_features_check_of_the_past_does_not_judge_the_present(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, origin: str, when: str
) -> None:
    """A run over the past leaves the features of today alone; checked as of its own instant they look a year too young."""
    monkeypatch.setattr(db, "default_engine", lambda: engine)
    with db.transaction(engine) as conn:
        conn.execute(text("insert into feature_state values (true, '2026-06-01', 'today', '2026-06-01')"))
    assert pipeline.check("features", "", at(when), "past", origin) == {"left_as_they_are": 1}


@pytest.fixture
def home() -> Iterator[Path]:
    """Not pytest's own folder: each new session closes that to the user PostgreSQL runs as."""
    folder = Path(tempfile.mkdtemp(prefix="postlude-backfill-"))
    yield folder
    assert below(folder) == []
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.airflow
@pytest.mark.timeout(PATIENCE + 1500)
def test_a_backfill_a_clear_a_pause_and_two_schedulers_send_nothing_stale_and_nothing_twice(home: Path) -> None:
    include = home / "include"
    shutil.copytree(settings().include, include)
    for file in include.joinpath("campaigns").glob("*.yml"):
        if file.stem not in CHOSEN:
            file.unlink()
    # at any hour of the day somebody is due
    (include / "calendar.yml").write_text('window: {opens: "00:00", closes: "23:59"}\n')
    ports = {"airflow_port": 19500, "web_port": 19501, "catcher_http_port": 19502, "catcher_smtp_port": 19503}
    running = stack.Stack(Settings(home=home, include=include, **ports), eager=True)  # type: ignore[call-arg,arg-type]
    engine: Engine | None = None
    try:
        running.start()
        tour.sample(running, 1000, 7)
        tour.one_pass(running)
        engine = db.engine(running.at.database())
        with closing(Api(running.at.urls["airflow"], password=running.at.passwords()["admin"])) as api:
            _backfill(Shop(running, api, engine))
    finally:
        if engine is not None:
            engine.dispose()
        running.stop()


def _backfill(shop: Shop) -> None:
    api, began = shop.api, time.monotonic()
    told: dict[str, Any] = {"days": DAYS}
    shop.deliver()
    before = shop.taken()
    assert sum(before.values()) > 10  # the normal pass sent something
    planned_before = {row.message_id for row in shop.rows("select message_id from messages")}
    told["provider calls before"] = sum(before.values())

    # a second scheduler at the same time, from now to the end
    again = (sys.executable, "-m", "airflow", "scheduler", "--skip-serve-logs")
    shop.stack.processes.start(Component("scheduler-two", again, shop.stack.env))
    # delivery rests meanwhile, and is let go on at the end: what it missed must not come late, and nobody's is forgotten
    api.call("PATCH", "/dags/deliver", {"is_paused": True})
    shop.wait(lambda: "deliver" not in api.active(), 300, "deliver does not come to rest")
    missed = _a_week_goes_by(shop)
    told["due while delivery rested a week"] = len(missed)

    today = datetime.now(UTC).date()
    first = today - timedelta(days=DAYS)
    shop.airflow(
        "backfill", "create", "--dag-id", "ingest", "--from-date", first.isoformat(), "--to-date", today.isoformat(),
        "--max-active-runs", str(RUNS), "--reprocess-behavior", "none",
    )  # fmt: skip

    def through(dag_id: str, days: int = DAYS) -> bool:
        done = {run["partition_key"] for run in shop.runs(dag_id) if run["state"] in ("success", "failed")}
        return len({(first + timedelta(days=n)).isoformat() for n in range(DAYS)} & done) >= days

    for dag_id in ("ingest", "segment", *CAMPAIGNS):
        shop.wait(lambda dag_id=dag_id: through(dag_id), PATIENCE, f"{dag_id} is not through")  # type: ignore[misc]
    shop.wait(shop.idle, 300, "something still runs")
    told["backfill seconds"] = round(time.monotonic() - began)
    for dag_id in ("ingest", "segment", *CAMPAIGNS):
        failed = [run for run in shop.runs(dag_id) if run["state"] == "failed"]
        assert not failed, f"{len(failed)} runs of {dag_id} failed; of one:\n{api.why_failed(failed[0], lines=25)}"
    kinds = Counter(run["run_type"] for run in shop.runs("ingest"))
    assert kinds["backfill"] == DAYS
    assert shop.taken() == before  # with delivery asleep, nothing at all

    # the clear: campaign runs of the last days once more
    since, cleared = (today - timedelta(days=CLEARED)).isoformat(), 0
    for dag_id in CAMPAIGNS:
        for run in shop.runs(dag_id):
            if (run["partition_key"] or "") >= since and run["partition_key"] < today.isoformat():
                api.call(
                    "POST",
                    f"/dags/{dag_id}/dagRuns/{run['dag_run_id']}/clear",
                    {"dry_run": False, "only_failed": False},
                )
                cleared += 1
    assert cleared >= CLEARED * len(CAMPAIGNS)
    shop.wait(shop.idle, PATIENCE, "the cleared runs do not end")
    told["campaign runs cleared"] = cleared
    again_run = [t["try_number"] for run in shop.runs(CAMPAIGNS[0])[:1] for t in api.tasks(run)]
    assert again_run

    # awake again: the slots it missed are skipped or find nothing; then two runs by hand, one after the other
    api.unpause("deliver")
    shop.deliver()
    shop.deliver()
    shop.wait(lambda: not api.active(), 300, "something still runs")
    _judge(shop, before, planned_before, first, told)
    _nobody_is_forgotten(shop, missed, told)
    told["seconds"] = round(time.monotonic() - began)
    print("\n" + ", ".join(f"{key} {value}" for key, value in told.items()))


def _a_week_goes_by(shop: Shop) -> dict[str, datetime]:
    """Make the pause a week old, for Airflow and for what waits; what came due in it, with the instant it expires."""
    with db.transaction(shop.engine) as conn:
        # not planned_at: who agreed this week had not agreed a week ago
        conn.execute(
            text("update messages set due_at = due_at - :week, send_at = send_at - :week, expires_at = expires_at - :week "
                 "where state = 'scheduled'"), {"week": WEEK},
        )  # fmt: skip
        due = conn.execute(
            text("select message_id, expires_at from messages where state = 'scheduled' and send_at <= now()")
        )
        missed = {str(row.message_id): row.expires_at for row in due}
    airflow = create_engine(db._psycopg(shop.stack.at.airflow_database(shop.stack.at.database())))
    with airflow.begin() as conn:
        conn.execute(
            text("update dag_run set logical_date = logical_date - :week, run_after = run_after - :week, "
                 "data_interval_start = data_interval_start - :week, data_interval_end = data_interval_end - :week "
                 "where dag_id = 'deliver'"), {"week": WEEK},
        )  # fmt: skip
        conn.execute(
            text("update dag set next_dagrun = next_dagrun - :week, next_dagrun_create_after = next_dagrun_create_after - :week, "
                 "next_dagrun_data_interval_start = next_dagrun_data_interval_start - :week, "
                 "next_dagrun_data_interval_end = next_dagrun_data_interval_end - :week where dag_id = 'deliver'"), {"week": WEEK},
        )  # fmt: skip
    airflow.dispose()
    return missed


def _nobody_is_forgotten(shop: Shop, missed: dict[str, datetime], told: dict[str, Any]) -> None:
    """What came due while delivery rested is made up if it is still true; if not, its row says why."""
    taken = shop.taken()
    rows = {
        str(r.message_id): r
        for r in shop.rows("select message_id, state, reason, send_at, expires_at, handed_over_at from messages")
    }
    now, fate = datetime.now(UTC), Counter[str]()
    for key, expires in missed.items():
        row = rows[key]
        fate[row.state + (f" ({row.reason})" if row.reason else "")] += 1
        if key in taken:
            assert row.state == "sent" and row.handed_over_at < expires
        elif row.state == "scheduled":  # put off to a time that is still before its end, and it says why
            assert row.reason and now - timedelta(minutes=10) < row.send_at < row.expires_at, row
        else:
            assert row.state in ("expired", "skipped", "cancelled") and row.reason, row
            assert row.state != "expired" or expires <= now
    assert sum(key in taken for key in missed) > 0, "nothing of the week was made up"
    told["what became of them"] = dict(fate)


def _judge(shop: Shop, before: Counter[str], planned_before: set[Any], first: date, told: dict[str, Any]) -> None:
    """The catcher's ledger against what was due; the database only says when each message was due."""
    after = shop.taken()
    assert {key: copies for key, copies in after.items() if copies > 1} == {}, "somebody got a mail twice"
    assert set(before) <= set(after)
    fresh = set(after) - set(before)
    due = {
        str(row.message_id): row
        for row in shop.rows(
            "select m.message_id, m.send_at, m.expires_at, m.handed_over_at, m.state, r.origin from messages as m "
            "left join runs as r on r.run_id = m.run_id || '/schedule/' || m.campaign_id"
        )
    }
    for key in fresh:  # what came due by the clock while this ran; planned for today, or before the backfill
        row = due[key]
        assert row.send_at <= row.handed_over_at < row.expires_at
        assert row.origin != "backfill"
    of_the_past = Counter(row.state for row in due.values() if row.origin == "backfill")
    assert set(of_the_past) <= {"expired", "cancelled"}, of_the_past
    assert {key for key, row in due.items() if row.state == "sent"} <= set(after)
    # nobody's due mail is lost either: what waits now waits for its time
    late = shop.rows("select count(*) from messages where state = 'scheduled' and send_at < now() - interval '1 hour'")
    history = shop.rows(
        "select count(*), count(distinct as_of::date) from runs where origin = 'backfill' and as_of::date >= :first and stage = 'enrol'",
        first=first,
    )[0]
    assert history[1] >= DAYS - 1  # the days are there, each with its row
    enrolled = shop.rows("select count(*) from runs where origin = 'backfill' and outcome <> 'done'")[0][0]
    assert enrolled == 0
    told |= {
        "provider calls after": sum(after.values()), "of them due meanwhile": len(fresh), "history rows (enrol)": history[0],
        "messages of the past": dict(of_the_past), "messages planned since": len(due) - len(planned_before), "late": late[0][0],
    }  # fmt: skip
