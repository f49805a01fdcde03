"""The demo: the sample shop, one pass through the scheduler, and what came of it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from postlude import db
from postlude.errors import Unavailable
from postlude.stack.api import Api
from postlude.stack.processes import Component, _write
from postlude.stack.summary import summary

if TYPE_CHECKING:
    from postlude.stack import Stack
    from postlude.stack.telling import Step

ALWAYS = ("ingest", "segment", "transactional", "deliver", "feedback", "report")
# of the daily campaigns the tour goes through these; the other ones begin with the next day's segments
SHOWN = ("campaign__feedback_30d", "campaign__loyalty_join", "campaign__win_back")
PATIENCE = 600.0  # seconds for one DAG run


def sample(stack: Stack, customers: int, seed: int) -> None:
    """Make the sample shop, unless this home holds one already: another one on top would be a different shop."""
    kept = stack.at.home / "demo.json"
    if kept.exists():
        was = json.loads(kept.read_text())
        asked = (
            ""
            if (was["customers"], was["seed"]) == (customers, seed)
            else f", not {customers:,} customers with seed {seed}"
        )
        stack.tell.line(
            f"  · sample shop of {was['made'][:10]} kept: {was['customers']:,} customers, seed {was['seed']}{asked}"
            f" (delete {stack.at.home} for another)"
        )
        return
    command = (
        sys.executable,
        "-c",
        "from postlude.cli import main; main()",
        "sample",
        "--customers",
        str(customers),
        "--seed",
        str(seed),
    )
    with stack.tell.step(f"sample shop with {customers:,} customers, seed {seed}") as step:
        stack.processes.call(Component("sample", command, stack.env), timeout=1800, watch=step)
    _write(kept, {"customers": customers, "seed": seed, "made": datetime.now(UTC).isoformat()})


def one_pass(stack: Stack) -> dict[str, Any]:
    """Let the scheduler run ingest, segment, the campaigns shown, transactional, deliver, feedback and report once; returns the summary.

    Raises Unavailable with the failed task and the end of its log when a run fails.
    """
    with closing(Api(stack.at.urls["airflow"], password=stack.at.passwords()["admin"])) as api:
        with stack.tell.step("DAG files") as step:
            dags = _parsed(stack, api, step)
            step.note = f"{len(dags)} DAGs"
        before = _summary(stack)
        # what has no schedule of its own is planned by `transactional`, or is off
        daily = sorted(name for name in dags if name.startswith("campaign__") and dags[name]["timetable_partitioned"])
        campaigns = [name for name in daily if name in SHOWN] or daily
        for dag_id in ("segment", *campaigns, "ingest"):
            api.unpause(dag_id)
        ingested = _finish(stack, api, dags, "ingest")
        segmented = _finish(stack, api, dags, "segment", after=ingested)
        for campaign in campaigns:
            _finish(stack, api, dags, campaign, after=segmented)
        api.unpause("transactional")
        _finish(stack, api, dags, "transactional")
        for dag_id in dags:
            api.unpause(dag_id)  # from now on, also what has a clock of its own
        _finish(stack, api, dags, "deliver", note=lambda: f"{_summary(stack)['sent'] - before['sent']:,} messages sent")
        for dag_id in ("feedback", "report"):
            _finish(stack, api, dags, dag_id)
        _settle(stack, api)
    found = _summary(stack)
    return found | {
        "sent_before": before["sent"],
        "sent_now": found["sent"] - before["sent"],
        "report": _newest_report(stack.at.home),
    }


def show(stack: Stack, found: dict[str, Any], running: bool, seconds: float) -> None:
    """Print the summary for people."""
    console = stack.tell.console
    console.print()
    table = _table("Orders in", "source", "customers", "orders", "lines", "quarantined", "why")
    for name, source in found["sources"].items():
        reasons = _first(source["reasons"])
        table.add_row(name, *(f"{source[key]:,}" for key in ("customers", "orders", "lines", "quarantined")), reasons)
    console.print(table)
    table = _table("Customers per stage", *found["stages"])
    table.add_row(*(f"{count:,}" for count in found["stages"].values()))
    console.print(table)
    table = _table("Messages", "campaign", "enrolled", "state of its messages", "not sent, because")
    for name, campaign in found["campaigns"].items():
        states = ", ".join(f"{state} {count:,}" for state, count in campaign["states"].items())
        reasons = _first(campaign["reasons"])
        table.add_row(name, f"{campaign['enrolled']:,}", states, reasons)
    console.print(table)
    say = stack.tell.line
    say()
    say(
        f"{found['sent_now']:,} messages sent this time, {found['sent_before']:,} sent before"
        + ("; nothing is sent twice." if found["sent_before"] else ".")
    )
    say()
    for name, what in stack.where():
        say(f"{name:14}{what}")
    say(f"{'Report':14}{found['report'] or 'none written'}")
    say()
    state = (
        "Everything keeps running; `make down` stops it."
        if running
        else "Everything was stopped; `make up` starts it again, to look around."
    )
    say(f"Done in {seconds:.0f} s. {state}")


# ---------------------------------------------------------------- the pass


def _parsed(stack: Stack, api: Api, step: Step) -> dict[str, dict[str, Any]]:
    """All DAGs, once the dag-processor knows them; raises Unavailable with every import error."""
    files = len(list(stack.config.include.joinpath("campaigns").glob("[!.]*.yml")))
    end = time.monotonic() + 120
    while True:
        stack.check_alive()
        if broken := api.import_errors():
            raise Unavailable(
                "DAG files that Airflow cannot import:\n"
                + "\n".join(f"  {file}: {error}" for file, error in broken.items())
            )
        dags = api.dags()
        missing = [dag_id for dag_id in ALWAYS if dag_id not in dags]
        campaigns = sum(dag_id.startswith("campaign__") for dag_id in dags)
        if not missing and campaigns >= files:
            return dags
        if time.monotonic() > end:
            raise Unavailable(
                f"after 120 s Airflow still does not know {', '.join(missing) or 'all campaigns'}; it knows "
                f"{', '.join(sorted(dags)) or 'no DAG'}{stack.processes.tail('dag-processor')}"
            )
        step(f"waiting for {', '.join(missing) or f'{files - campaigns} campaigns'}")
        time.sleep(0.5)


def _finish(
    stack: Stack,
    api: Api,
    dags: dict[str, dict[str, Any]],
    dag_id: str,
    after: dict[str, Any] | None = None,
    *,
    note: Callable[[], str] | None = None,
) -> dict[str, Any]:
    """One run to its end: started here or, with `after`, the one that run's asset event starts."""
    with stack.tell.step(dag_id.replace("campaign__", "campaign ")) as step:
        run = _follow(stack, api, dag_id, after, step) if after else None
        if run is None:
            key = (after or {}).get("partition_key") or datetime.now(UTC).date().isoformat()
            run = api.trigger(dag_id, key if dags[dag_id]["timetable_partitioned"] else None)

        def watch() -> None:
            stack.check_alive()
            step("running")

        run = api.wait(run, PATIENCE, watch)
        if note:
            step.note = note()
            return run
        counts = sorted((item for item in api.result(run).items() if item[1]), key=lambda item: -item[1])[:5]
        step.note = ", ".join(f"{key.replace('_', ' ')} {count:,}" for key, count in counts)
        step.note += (
            ""
            if after is None or run["run_type"] == "asset_triggered"
            else " (started by hand: nothing new was announced)"
        )
        return run


def _follow(
    stack: Stack, api: Api, dag_id: str, after: dict[str, Any], step: Step, *, patience: float = 60
) -> dict[str, Any] | None:
    """The run of `dag_id` that `after` started; None when `after` announced nothing. Raises Unavailable if late."""
    if not api.announced(after):
        return None
    end = time.monotonic() + patience
    while (run := api.run_since(dag_id, after["start_date"])) is None:
        if time.monotonic() > end:
            raise Unavailable(
                f"{after['dag_id']} announced its assets, and within {patience:.0f} s no run of {dag_id} followed"
            )
        stack.check_alive()
        step(f"waiting for the scheduler to start it after {after['dag_id']}")
        time.sleep(0.3)
    return run


def _settle(stack: Stack, api: Api, patience: float = 120) -> None:
    """Wait for the runs that the clock started meanwhile, so that none is cut off; as long as that is bearable."""
    end = time.monotonic() + patience
    while (running := api.active()) and time.monotonic() < end:
        with stack.tell.step(f"also running: {', '.join(sorted(running))}") as step:
            while api.active() & running and time.monotonic() < end:
                stack.check_alive()
                step("by its own clock")
                time.sleep(0.5)


def _summary(stack: Stack) -> dict[str, Any]:
    engine = db.engine(stack.at.database())
    try:
        with db.transaction(engine) as conn:
            return summary(conn)
    finally:
        engine.dispose()


def _newest_report(home: Path) -> str | None:
    pages = sorted((home / "reports").glob("*.html"), key=lambda path: path.stat().st_mtime)
    return str(pages[-1]) if pages else None


def _first(counts: dict[str, int], shown: int = 4) -> str:
    """The most frequent ones, and how many others there are."""
    parts = [f"{name} {count:,}" for name, count in list(counts.items())[:shown]]
    return ", ".join(parts + ([f"and {len(counts) - shown} more"] if len(counts) > shown else []))


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        words = column in ("source", "why", "campaign", "state of its messages", "not sent, because")
        table.add_column(column, justify="left" if words else "right", overflow="fold")
    return table
