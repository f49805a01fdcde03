"""Where Airflow and the library meet: assets, defaults, a run's clock and origin, one decorator for all tasks.

A task of a DAG file is a `@stage` function: it gets a `Run` (clock, id, origin), calls one function of
`postlude.pipeline` and returns that function's flat counts, which are all that reaches XCom. With `outlets` it also
emits the asset event, under the run's business date and with its provenance, so that the next DAG sees the same instant
and the same origin.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import (
    Asset,
    BaseHook,
    BaseNotifier,
    ExceptionRetryPolicy,
    Param,
    RetryAction,
    RetryRule,
    get_current_context,
    task,
)
from airflow.sdk.exceptions import AirflowNotFoundException, AirflowSkipException

from postlude.errors import GateClosed, InputError, PostludeError, Refused, Unavailable

log = logging.getLogger(__name__)

Counts = dict[str, Any]

# ---------------------------------------------------------------- assets and defaults

ORDERS = Asset(name="orders", uri="postlude://shop/orders")
SEGMENTS = Asset(name="segments", uri="postlude://shop/segments")
ASSETS = (ORDERS, SEGMENTS)

RETRIES = ExceptionRetryPolicy(
    rules=[
        RetryRule(InputError, RetryAction.FAIL, reason="a person must mend a file or a parameter"),
        RetryRule(GateClosed, RetryAction.FAIL, reason="the data failed a check; a retry sees the same data"),
        RetryRule(Refused, RetryAction.FAIL, reason="the other side said never"),
        RetryRule(
            [AttributeError, LookupError, NameError, TypeError], RetryAction.FAIL, reason="a mistake in the code"
        ),
        RetryRule(Unavailable, RetryAction.RETRY, reason="not now; tried again with growing pauses"),
    ]
)


def log_failure(context: Mapping[str, Any]) -> None:
    """Last line of a red task's log: which task, which class of error, what to do. Never a person's data."""
    ti, error = context["ti"], context.get("exception")
    advice = {
        InputError: "mend the file or parameter named above, then clear the task",
        GateClosed: "look at the gate's Data Docs; when the data is mended, clear the check and what follows it",
        Unavailable: "the other side stayed away through all tries; clear the task when it is back",
    }
    what = next((text for kind, text in advice.items() if isinstance(error, kind)), "see the docs of this DAG")
    log.error("%s.%s try %s failed with %s: %s", ti.dag_id, ti.task_id, ti.try_number, type(error).__name__, what)


DEFAULTS: dict[str, Any] = {
    "owner": "data-engineering",
    "retries": 4,
    "retry_policy": RETRIES,
    "retry_delay": timedelta(seconds=30),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=10),
    "execution_timeout": timedelta(hours=2),
    "on_failure_callback": log_failure,
}

# No start_date anywhere: with one, unpausing a new DAG at once runs the slot missed last, however long ago.
EVERY_DAG: dict[str, Any] = {"catchup": False, "max_active_runs": 1, "default_args": DEFAULTS}

AS_OF = Param(
    None,
    type=["null", "string"],
    format="date-time",
    title="Run as of this instant",
    description_md="Leave empty for now. Else an instant of the past: the run sees what was known then.",
)


# ---------------------------------------------------------------- the clock and the origin of a run


def instant(text: str, what: str) -> datetime:
    """The instant written in ISO 8601; without a zone it is UTC. Raises InputError."""
    try:
        found = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise InputError(f"{what}: {text!r} is not an instant; write e.g. 2026-11-20T06:00:00Z") from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)


def _cause(events: Mapping[Any, Iterable[Any]] | None) -> dict[str, Any]:
    """Provenance in the events that started the run; {} for a run that no event started.

    Two emits of one key close together start one run. The later instant counts; of equal ones, the backfill.
    """
    found = [event.extra or {} for emitted in (events or {}).values() for event in emitted]
    found.sort(key=lambda extra: (str(extra.get("as_of", "")), extra.get("origin") == "backfill"))
    return dict(found[-1]) if found else {}


def clock_of(dag_run: Any, params: Mapping[str, Any], triggering_asset_events: Mapping[Any, Any] | None) -> datetime:
    """The instant this run speaks of, in UTC; stored with the run, so a retry or a cleared task sees the same one.

    The parameter `as_of`, else the `as_of` of the event that started the run, else `dag_run.run_after` (a run started
    by an asset or through the API has no logical date). Raises InputError for an unreadable instant, or a later one.
    """
    after = dag_run.run_after.astimezone(UTC)
    if wanted := params.get("as_of"):
        clock = instant(wanted, "parameter as_of")
    elif carried := _cause(triggering_asset_events).get("as_of"):
        clock = instant(carried, "as_of of the asset event")
    else:
        return datetime.fromtimestamp(after.timestamp(), UTC)
    if clock > after:
        raise InputError(
            f"as_of: {clock.isoformat()} is later than the run itself ({after.isoformat()}); "
            "nobody can know what will be true then: take an instant of the past"
        )
    return clock


def origin_of(dag_run: Any, triggering_asset_events: Mapping[Any, Any] | None) -> str:
    """Where the run came from in the first place: `scheduled`, `manual`, `backfill` or `asset`.

    Airflow calls everything downstream of a backfill asset-triggered, so the first DAG's origin travels in the events.
    `asset`: an event made by hand, without provenance.
    """
    kind = getattr(dag_run.run_type, "value", str(dag_run.run_type))
    if kind in ("backfill", "scheduled"):
        return str(kind)
    if kind == "asset_triggered":
        carried = _cause(triggering_asset_events).get("origin")
        return str(carried) if carried in ("scheduled", "manual", "backfill") else "asset"
    return "manual"


def business_date(now: datetime) -> str:
    """Partition key of an instant: its UTC date, `2026-11-23`."""
    return now.astimezone(UTC).date().isoformat()


def wall_clock() -> datetime:
    """The real time: what delivery obeys, whatever its run says."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Run:
    """One task's view of its DAG run."""

    now: datetime  # the clock: aware, UTC, the same on every try
    run_id: str  # <dag id>/<run id>, unique over all DAGs
    origin: str  # scheduled | manual | backfill | asset
    kind: str  # Airflow's run type
    after: datetime  # when the run was due
    key: str | None  # its partition key, None where nobody gave one
    worker: str  # this very try, for claims
    params: Mapping[str, Any]

    @classmethod
    def current(cls) -> Run:
        context = get_current_context()
        dag_run, params, ti = context["dag_run"], context["params"], context["ti"]
        events = context.get("triggering_asset_events")
        run_id = f"{dag_run.dag_id}/{dag_run.run_id}"
        return cls(
            now=clock_of(dag_run, params, events),
            run_id=run_id,
            origin=origin_of(dag_run, events),
            kind=getattr(dag_run.run_type, "value", str(dag_run.run_type)),
            after=dag_run.run_after,
            key=dag_run.partition_key,
            worker=f"{run_id}/{ti.task_id}/{ti.map_index}/{ti.try_number}",
            params=params,
        )

    @property
    def stamp(self) -> dict[str, Any]:
        """What every stage is told: `now`, `run_id`, `origin`."""
        return {"now": self.now, "run_id": self.run_id, "origin": self.origin}


def provenance(run: Run, counts: Counts | None) -> dict[str, Any]:
    """The `extra` of an asset event: flat, counts and facts about the run only."""
    return {"as_of": run.now.isoformat(), "origin": run.origin, "run_id": run.run_id, "counts": counts or {}}


def guard_lag(run: Run, wall: datetime, max_lag: timedelta) -> None:
    """Skip what is too late to be true: a backfill, or a scheduled run that was due more than `max_lag` ago."""
    if run.kind == "backfill":
        raise AirflowSkipException("a backfill sends nothing: what is due today is sent by today's runs")
    if run.kind != "manual" and wall - run.after > max_lag:
        raise AirflowSkipException(
            f"due at {run.after.isoformat()}, more than {max_lag} ago: the next run sends what is due"
        )


# ---------------------------------------------------------------- asking a person


class Approve(HITLOperator):
    """Ask for a named approval of a held plan, in Airflow's *Required Actions*; skipped when nothing needs one.

    assessed: task id of the assessment, whose result names the request (`approval`, 0: none). The question is read from the
    database when the task runs, so nothing about customers is in the DAG or in XCom. The answer is the task's result; who
    gave it is `responded_by_user`. No answer within `response_timeout` is a failure: what follows does not run, and the
    plan stays held. A form's values are not to be trusted: see `answer_to`.
    """

    YES, NO = "Approve", "Reject"

    def __init__(self, *, assessed: str, **kwargs: Any) -> None:
        self.assessed = assessed
        super().__init__(**kwargs)

    def execute(self, context: Any) -> Any:
        asked = self._open_request(context)
        if asked is None:
            raise AirflowSkipException("nobody needs to be asked: the plan is as usual, or was decided already")
        self.subject, self.body = asked
        return super().execute(context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        if "error" in event and self._open_request(context) is None:
            raise AirflowSkipException("nobody answered here: the request was decided with `postlude approvals`")
        return super().execute_complete(context, event)

    def _open_request(self, context: Any) -> tuple[str, str] | None:
        use_connection()
        from postlude import pipeline

        approval = (context["ti"].xcom_pull(self.assessed) or {}).get("approval")
        return pipeline.request(approval, wall_clock()) if approval else None


class Notice(BaseNotifier):
    """Tell those who may approve that something waits: by mail, and by any Airflow notifier of the settings.

    What cannot be told stops nothing: the request stands in Airflow, on the page and on the command line all the same.
    """

    def __init__(self, assessed: str) -> None:
        self.assessed = assessed
        super().__init__()

    def notify(self, context: Any) -> None:
        use_connection()
        from airflow.sdk.configuration import conf

        from postlude import pipeline
        from postlude.settings import settings

        config, approval = settings(), (context["ti"].xcom_pull(self.assessed) or {}).get("approval")
        asked = pipeline.request(approval, wall_clock()) if approval else None
        if asked is None:
            return
        url = f"{conf.get('api', 'base_url', fallback='').rstrip('/')}/plugin/postlude-approvals"
        to = [one.strip() for one in config.approval_mail.split(",") if one.strip()]
        options = {
            key: value.replace("{subject}", asked[0]).replace("{url}", url)
            for key, value in config.approval_notifier_options.items()
        }
        for tell in (
            lambda: to and pipeline.tell_staff(to, asked[0], f"{asked[0]}\n\nAnswer here: {url}\n", wall_clock()),
            lambda: config.approval_notifier and _named(config.approval_notifier)(**options)(context),
        ):
            try:
                tell()
            except Exception as error:  # whatever a notifier of somebody else does
                self.log.error("nobody could be told of request %s: %s", approval, type(error).__name__)


def _named(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def approve(task_id: str, assessed: str, users: Iterable[str], wait: timedelta) -> Approve:
    """The task that asks; only `users` may answer, or whoever may answer in Airflow when there are none."""
    return Approve(
        task_id=task_id,
        assessed=assessed,
        subject="Is this plan to be sent?",
        notifiers=[Notice(assessed)],
        options=[Approve.YES, Approve.NO],
        params={
            "at_most": Param(None, type=["null", "integer"], minimum=1, title="At most so many messages (empty: all)"),
            "comment": Param(None, type=["null", "string"], title="Why"),
        },
        assigned_users=[{"id": user, "name": user} for user in users] or None,
        response_timeout=wait,
        execution_timeout=None,  # it would end the waiting
        retries=0,  # another try would ask the same person again
    )


def answer_to(task_id: str) -> dict[str, Any] | None:
    """What a person answered to the task `task_id` of this run, as `pipeline.decide` takes it; None: nobody was asked.

    Raises InputError for an impossible answer: Airflow's API does not check what a form says.
    """
    asked: Mapping[str, Any] | None = get_current_context()["ti"].xcom_pull(task_id)
    return None if asked is None else answer_of(asked)


def answer_of(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The answer in the result of an `Approve` task."""
    who, form = asked.get("responded_by_user") or {}, asked.get("params_input") or {}
    at_most = form.get("at_most")
    if at_most is not None and (isinstance(at_most, bool) or not isinstance(at_most, int) or at_most < 1):
        raise InputError("at most: write a number of messages from 1 on; answer with `postlude approvals approve`")
    approve = asked["chosen_options"] == [Approve.YES]
    return {
        "approve": approve,
        "by": str(who.get("name") or who.get("id") or ""),
        "comment": str(form["comment"])[:1000] if form.get("comment") else None,
        "at_most": at_most if approve else None,
    }


# ---------------------------------------------------------------- tasks


def stage(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """`@task` for one step of the flow: the function's first parameter `run` is filled in with the `Run`.

    Before it: the database is chosen. After it: for every asset in `outlets` the event gets the run's provenance, and
    the business date as its partition key where the run has none (started from the UI, or through the API without a
    key); otherwise Airflow takes the event but starts no consumer. Errors of the database driver lose their values.
    """
    if function is None:
        return functools.partial(stage, **options)
    outlets: list[Asset] = list(options.get("outlets", ()))

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        use_connection()
        run = Run.current()
        try:
            result = function(run, *args, **kwargs)
        except Exception as error:
            if (safe := without_values(error)) is error:
                raise
            raise safe.with_traceback(error.__traceback__) from None
        for asset in outlets:
            event = get_current_context()["outlet_events"][asset]
            event.extra = provenance(run, result)
            if run.key is None:
                event.add_partitions(business_date(run.now))
        return result

    signature = inspect.signature(function)
    first, *others = signature.parameters.values()
    if first.name != "run":
        raise TypeError(f"{function.__name__}: the first parameter of a stage is `run`")
    call.__signature__ = signature.replace(parameters=others)  # type: ignore[attr-defined]
    return task(multiple_outputs=False, **options)(call)


def total(counts: Mapping[str, Any] | Iterable[Mapping[str, Any] | None]) -> Counts:
    """Sum of the whole numbers in the counts of a mapped group, key by key; a source that was skipped has none.

    Where the group ran just once, Airflow hands over that one result instead of a list of one.
    """
    summed: Counts = {"sources": 0}
    for one in [counts] if isinstance(counts, Mapping) else counts:
        summed["sources"] += one is not None
        for key, value in (one or {}).items():
            if isinstance(value, int) and not isinstance(value, bool):
                summed[key] = summed.get(key, 0) + value
    return summed


def use_connection() -> None:
    """Point the library at the Airflow connection `postlude_db`, unless POSTLUDE_DB_URL is set already.

    Without either, the embedded server below POSTLUDE_HOME is used. Sources find their connections in Airflow too, and once sending
    is switched on the channels do.
    """
    from postlude.sources import _connections

    if _airflow_connection not in _connections.look_up:
        _connections.look_up.append(_airflow_connection)
    _use_database()
    _use_channels()


def _use_channels() -> None:
    """`postlude_email`, `postlude_sms` and `postlude_webhook` are Airflow connections; POSTLUDE_..._URL goes before them."""
    from postlude.settings import settings

    if not settings().sending:
        return  # nothing leaves the house, so nobody's key is fetched
    for name in ("EMAIL", "SMS", "WEBHOOK"):
        if os.environ.get(f"POSTLUDE_{name}_URL"):
            continue
        try:
            found = BaseHook.get_connection(f"postlude_{name.lower()}")
        except AirflowNotFoundException:
            continue
        os.environ[f"POSTLUDE_{name}_URL"] = found.get_uri()
        settings.cache_clear()


def _use_database() -> None:
    if os.environ.get("POSTLUDE_DB_URL"):
        return
    try:
        found = BaseHook.get_connection("postlude_db")
    except AirflowNotFoundException:
        return
    from sqlalchemy.engine import URL

    from postlude import db
    from postlude.settings import settings

    query = {key: str(value) for key, value in found.extra_dejson.items() if isinstance(value, str | int)}
    host = found.host or None
    if host and host.startswith("/"):  # a unix socket's folder cannot stand in the host part of a URL
        query["host"], host = host, None
    url = URL.create("postgresql", found.login, found.password, host, found.port, found.schema or "postlude", query)
    os.environ["POSTLUDE_DB_URL"] = url.render_as_string(hide_password=False)
    settings.cache_clear()
    db.default_engine.cache_clear()


def _airflow_connection(name: str) -> str | None:
    """An Airflow connection as JSON text, as AIRFLOW_CONN_... may hold it; None: there is none."""
    try:
        found = BaseHook.get_connection(name)
    except AirflowNotFoundException:
        return None
    parts = ("conn_type", "host", "login", "password", "port", "schema")
    return json.dumps({part: getattr(found, part) for part in parts} | {"extra": found.extra_dejson})


def without_values(error: Exception) -> Exception:
    """The error; for one of the database driver a copy without parameters and row values, which are people's data."""
    if isinstance(error, PostludeError) or type(error).__module__.partition(".")[0] not in ("sqlalchemy", "psycopg"):
        return error
    cause = getattr(error, "orig", None) or error
    diag = getattr(cause, "diag", None)
    state = getattr(cause, "sqlstate", None)
    facts = {
        "SQLSTATE": state,
        "table": getattr(diag, "table_name", None),
        "column": getattr(diag, "column_name", None),
        "constraint": getattr(diag, "constraint_name", None),
    }
    told = f"{type(cause).__name__}: " + ", ".join(f"{name} {value}" for name, value in facts.items() if value)
    # 08 connection, 40 deadlock or serialization, 53 resources, 57P shutdown, 55P03 lock: all pass
    passing = getattr(error, "connection_invalidated", False) or str(state or "").startswith(
        ("08", "40", "53", "57P", "55P03")
    )
    return Unavailable(told) if passing else RuntimeError(told.rstrip(": "))
