"""A frozen feed under the real scheduler: the task that names it is red, and the mail of the other shops goes out."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from postlude import db, sample, stack
from postlude.errors import Unavailable
from postlude.settings import Settings, settings
from postlude.stack.api import Api
from postlude.stack.processes import Component

pytestmark = [pytest.mark.slow, pytest.mark.airflow, pytest.mark.timeout(1500)]
WIN_BACK = "campaign__win_back"
SHOPS = ("north", "south", "west")


def three_shops(include: Path, home: Path) -> None:
    """Three sample shops with a feed each; the one of the north ended three days ago."""
    template = (include / "sources" / "sample_shop.yml").read_text()
    for path in (include / "sources").glob("*.yml"):
        path.unlink()
    now = datetime.now(UTC)
    for number, shop in enumerate(SHOPS):
        folder = home / "feeds" / shop
        told = template.replace("id: sample_shop", f"id: {shop}").replace(
            "${POSTLUDE_HOME:-.postlude}/sample/", f"{folder}/"
        )
        (include / "sources" / f"{shop}.yml").write_text(told)
        sample.generate(folder, 600, 7 + number, now - timedelta(days=3 if shop == "north" else 0))


@pytest.fixture
def home() -> Iterator[Path]:
    """Not pytest's own folder: each new session closes that to the user PostgreSQL runs as."""
    folder = Path(tempfile.mkdtemp(prefix="postlude-freshness-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_the_red_task_names_the_frozen_feed_and_the_other_shops_get_their_mail(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTLUDE_APPROVAL", "off")
    include = home / "include"
    shutil.copytree(settings().include, include)
    # at any hour of the day somebody is due, and many have lapsed lately enough
    (include / "calendar.yml").write_text('window: {opens: "00:00", closes: "23:59"}\n')
    back = include / "campaigns" / "win_back.yml"
    back.write_text(
        back.read_text()
        .replace("max_age: 3 days", "max_age: 60 days")
        .replace("expires_after: 3 days", "expires_after: 80 days")
    )
    three_shops(include, home)
    ports = {"airflow_port": 19600, "web_port": 19601, "catcher_http_port": 19602, "catcher_smtp_port": 19603}
    running = stack.Stack(Settings(home=home, include=include, **ports), eager=True)  # type: ignore[call-arg,arg-type]
    try:
        running.start()
        for command in ("ingest", "segment"):  # by hand: only the campaign's own run is of interest
            words = (sys.executable, "-c", "from postlude.cli import main; main()", command)
            running.processes.call(Component(command, words, running.env), timeout=300)
        with closing(Api(running.at.urls["airflow"], password=running.at.passwords()["admin"])) as api:
            end = time.monotonic() + 300
            while not {"deliver", WIN_BACK} <= set(api.dags()):
                assert time.monotonic() < end, "the DAG files are not parsed"
                time.sleep(1)
            api.unpause(WIN_BACK)
            run = api.trigger(WIN_BACK)
            while run["state"] not in ("success", "failed"):
                assert time.monotonic() < end + 400, run["state"]
                running.check_alive()
                time.sleep(2)
                with suppress(Unavailable):  # a busy machine: asked again
                    run = api.run(WIN_BACK, run["dag_run_id"])
            tasks = {task["task_id"]: task["state"] for task in api.tasks(run)}
            assert run["state"] == "failed"
            assert tasks.pop("check_feeds") == "failed"
            assert {state for task, state in tasks.items() if task != "approve"} == {"success"}, tasks
            told = api.why_failed(run)
            print(f"\n{tasks}\n{told}")
            assert "orders of north: no_new_orders" in told
            assert "orders of south" not in told and "orders of west" not in told
            api.unpause("deliver")
            api.wait(api.trigger("deliver"), 400, running.check_alive)
        engine = db.engine(running.at.database())
        with db.transaction(engine) as conn:
            sent = dict(
                conn.execute(text(
                    "select c.source_id, count(*) from messages as m join customers as c using (customer_id) "
                    "where m.state = 'sent' group by 1"
                )).tuples().all()
            )  # fmt: skip
            refused = conn.execute(text(
                "select c.source_id, count(distinct customer_id) from refusals as r join customers as c using (customer_id) "
                "where r.reason = 'feed_stale' group by 1"
            )).tuples().all()  # fmt: skip
            verdicts = dict(
                conn.execute(text("select subject, success from gate_results where gate = 'freshness'")).tuples().all()
            )
        engine.dispose()
        with httpx.Client(base_url=running.at.urls["mail"], timeout=30, trust_env=False) as mail:
            caught = mail.get("/api/messages", params={"page": 1, "size": 1}).json()["total"]
        print(f"sent {sent}, refused {refused}, caught {caught}, verdicts {verdicts}")
        assert set(sent) == {"south", "west"}
        assert caught == sum(sent.values())
        assert [shop for shop, _ in refused] == ["north"]
        assert verdicts == {"north": False, "south": True, "west": True}
    finally:
        running.stop()
