"""The approval through the real scheduler: the run waits for a person, and only the answer sends."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from postlude import db, stack
from postlude.errors import Unavailable
from postlude.settings import Settings
from postlude.stack.api import Api
from postlude.stack.processes import Component

pytestmark = [pytest.mark.slow, pytest.mark.airflow, pytest.mark.timeout(600)]
ASK = "campaign__feedback_30d"


def config(home: Path) -> Settings:
    ports = {"airflow_port": 19400, "web_port": 19401, "catcher_http_port": 19402, "catcher_smtp_port": 19403}
    return Settings(home=home, **ports)  # type: ignore[call-arg, arg-type]


@pytest.fixture(scope="module")
def running() -> Iterator[stack.Stack]:
    """A stack of our own whose campaigns ask before their first run of more than ten messages."""
    # not below pytest's own folder: another pytest run closes that to the user the database runs as
    home = Path(tempfile.mkdtemp(prefix="postlude-approval-"))
    patch = pytest.MonkeyPatch()
    patch.setenv("POSTLUDE_APPROVAL_FIRST_RUN", "10")
    patch.delenv("POSTLUDE_HOME", raising=False)
    try:
        yield stack.up(config=config(home))
    finally:
        stack.down(config=config(home))
        patch.undo()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="module")
def ours(running: stack.Stack) -> Iterator[Engine]:
    engine = db.engine(running.at.database())
    yield engine
    engine.dispose()


def until(found: Callable[[], Any], seconds: float = 240) -> Any:
    end = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.5)
    return result


def states(engine: Engine) -> dict[str, int]:
    query = (
        "select state || coalesce(':' || reason, ''), count(*) from messages "
        "where campaign_id = 'feedback_30d' and state <> 'expired' group by 1"
    )
    with db.transaction(engine) as conn:
        return {row[0]: row[1] for row in conn.execute(text(query))}


def test_a_first_run_waits_in_airflow_for_a_named_person_and_the_answer_releases_it(
    running: stack.Stack, ours: Engine
) -> None:
    from postlude.stack.tour import sample

    sample(running, 1500, 7)
    for command in ("ingest", "segment"):  # by hand: only the campaign's own run is of interest, and only one of them
        words = (sys.executable, "-c", "from postlude.cli import main; main()", command)
        running.processes.call(Component(command, words, running.env), timeout=120)
    passwords = running.at.passwords()
    with closing(Api(running.at.urls["airflow"], password=passwords["admin"])) as api:
        until(lambda: {"deliver", ASK} <= set(api.dags()))
        api.unpause(ASK)
        run = api.trigger(ASK)

        def at_rest(run: dict[str, Any]) -> dict[str, str] | None:
            found = {task["task_id"]: task["state"] for task in api.tasks(run)}
            return found if found["approve"] in ("awaiting_input", "failed", "skipped", "upstream_failed") else None

        tasks = until(lambda: at_rest(run))
        assert (tasks["assess"], tasks["approve"], tasks["release"]) == ("success", "awaiting_input", None)

        waiting = states(ours)
        assert set(waiting) == {"held:awaiting_approval"}
        api.unpause("deliver")
        api.wait(api.trigger("deliver"), 240, running.check_alive)
        assert states(ours) == waiting  # nothing goes out unasked

        detail = f"/dags/{ASK}/dagRuns/{run['dag_run_id']}/taskInstances/approve/-1/hitlDetails"
        asked = api.call("GET", detail)
        assert asked["subject"].startswith(f"Send {waiting['held:awaiting_approval']:,} messages of feedback_30d to ")
        assert "the campaign has never sent anything" in asked["body"]
        assert "customers.example" not in asked["body"]
        answer = {"chosen_options": ["Approve"], "params_input": {"at_most": 12, "comment": "the first dozen"}}
        viewer = Api(running.at.urls["airflow"], "viewer", passwords["viewer"])
        with closing(viewer), pytest.raises(Unavailable, match="403"):
            viewer.call("PATCH", detail, answer)
        with closing(Api(running.at.urls["airflow"], "marketer", passwords["marketer"])) as marketer:
            marketer.call("PATCH", detail, answer)
        done = api.wait(run, 240, running.check_alive)
        assert {t["task_id"]: t["state"] for t in api.tasks(done)}["release"] == "success"

        found = states(ours)  # `deliver` may have sent some meanwhile
        assert found.pop("held:awaiting_approval") == waiting["held:awaiting_approval"] - 12
        assert sum(found.values()) == 12
        with db.transaction(ours) as conn:
            decided = conn.execute(
                text("select decision, decided_by, via, comment, at_most, released from approval_decisions")
            )
            assert [tuple(row) for row in decided] == [("approved", "marketer", "airflow", "the first dozen", 12, 12)]

        # asked again about the rest; rejected, nobody gets it
        again = api.trigger(ASK)
        detail = f"/dags/{ASK}/dagRuns/{again['dag_run_id']}/taskInstances/approve/-1/hitlDetails"
        assert until(lambda: at_rest(again))["approve"] == "awaiting_input"
        # nobody answers in the very second of the question: Airflow's executor would take the end of the asking for the end of the task
        time.sleep(5)
        assert "an earlier plan of this campaign still waits" in api.call("GET", detail)["body"]
        api.call("PATCH", detail, {"chosen_options": ["Reject"], "params_input": {}})
        api.wait(again, 240, running.check_alive)
        after = states(ours)
        # planned anew, the older of two questions to one person goes
        assert (
            after["cancelled:not_approved"] + after.get("cancelled:superseded", 0)
            == waiting["held:awaiting_approval"] - 12
        )
        assert not any(state.startswith("held") for state in after)
