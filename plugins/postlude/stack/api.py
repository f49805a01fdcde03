"""As much of Airflow's REST API as a demo needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx

from postlude.errors import Unavailable

TRIES = 6
COMPONENTS = ("metadatabase", "scheduler", "triggerer", "dag_processor")


class Api:
    """Client of the Airflow at `url`; raises Unavailable with Airflow's own words when a call fails."""

    def __init__(self, url: str, user: str = "admin", password: str = "") -> None:
        self._user, self._password = user, password
        self._http = httpx.Client(base_url=url, timeout=30, trust_env=False, verify=False)  # noqa: S501  # this machine: no proxy, no TLS
        self._signed_in = False

    def close(self) -> None:
        self._http.close()

    def health(self) -> dict[str, Any]:
        """Airflow's own word about its components; empty while it does not answer."""
        try:
            reply = self._http.get("/api/v2/monitor/health", timeout=5)
            return dict(reply.json()) if reply.status_code == httpx.codes.OK else {}
        except (httpx.HTTPError, ValueError):
            return {}

    def answers(self, url: str) -> bool:
        """Whether anything sensible answers at another address of this machine."""
        try:
            return self._http.get(url, timeout=3).status_code < httpx.codes.INTERNAL_SERVER_ERROR
        except httpx.HTTPError:
            return False

    def unhealthy(self, since: datetime) -> list[str]:
        """Components not known to be alive since then: a heartbeat of before a restart proves nothing."""
        said = self.health()
        return [name for name in COMPONENTS if not _healthy(said.get(name) or {}, name, since)]

    def call(self, method: str, path: str, body: dict[str, Any] | None = None, **query: Any) -> Any:
        """One call, signed in first; the decoded answer."""
        if not self._signed_in:
            reply = self._send("POST", "/auth/token", {"username": self._user, "password": self._password}, {})
            self._http.headers["Authorization"] = f"Bearer {reply['access_token']}"
            self._signed_in = True
        return self._send(method, f"/api/v2{path}", body, query)

    def _send(self, method: str, path: str, body: dict[str, Any] | None, query: dict[str, Any]) -> Any:
        for again in range(TRIES if method == "GET" else 1):
            if again:
                time.sleep(0.5 * again)
            try:
                reply = self._http.request(method, path, json=body, params=query)
            except httpx.TimeoutException as error:  # a machine with too much to do; reading again is safe
                if again + 1 < TRIES and method == "GET":
                    continue
                raise Unavailable(f"Airflow does not answer {method} {path}: {error!r}") from None
            except httpx.HTTPError as error:
                raise Unavailable(f"Airflow does not answer {method} {path}: {error!r}") from None
            # reading an asset event while the run it starts is being made answers 500 now and then; reading again is safe
            if reply.status_code < httpx.codes.INTERNAL_SERVER_ERROR:
                break
        if reply.is_error:
            raise Unavailable(f"Airflow refused {method} {path}: {reply.status_code} {reply.text[:500]}")
        return reply.json() if reply.content else None

    # ------------------------------------------------------------ DAGs and runs

    def dags(self) -> dict[str, dict[str, Any]]:
        return {dag["dag_id"]: dag for dag in self._all("/dags", "dags")}

    def import_errors(self) -> dict[str, str]:
        """Per DAG file the last line of what went wrong."""
        return {
            error["filename"]: error["stack_trace"].strip().splitlines()[-1]
            for error in self._all("/importErrors", "import_errors")
        }

    def unpause(self, dag_id: str) -> None:
        self.call("PATCH", f"/dags/{dag_id}", {"is_paused": False})

    def trigger(self, dag_id: str, partition_key: str | None = None) -> dict[str, Any]:
        body: dict[str, Any] = {"logical_date": None, "conf": {}}
        return dict(
            self.call(
                "POST", f"/dags/{dag_id}/dagRuns", body | ({"partition_key": partition_key} if partition_key else {})
            )
        )

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        return dict(self.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}"))

    def run_since(self, dag_id: str, since: str) -> dict[str, Any] | None:
        """The first run queued at or after an instant as Airflow writes it."""
        newest = self.call("GET", f"/dags/{dag_id}/dagRuns", order_by="-id", limit=20)["dag_runs"]
        after = [run for run in newest if _instant(run["queued_at"] or run["run_after"]) >= _instant(since)]
        return dict(after[-1]) if after else None

    def active(self) -> set[str]:
        """DAGs with a run that has not ended."""
        return {run["dag_id"] for run in self._all("/dags/~/dagRuns", "dag_runs", state=["queued", "running"])}

    def announced(self, run: dict[str, Any]) -> bool:
        """Whether a run updated an asset, so that others follow it."""
        found = self.call(
            "GET", "/assets/events", source_dag_id=run["dag_id"], source_run_id=run["dag_run_id"], limit=1
        )
        return bool(found["total_entries"])

    def tasks(self, run: dict[str, Any]) -> list[dict[str, Any]]:
        return list(self._all(f"/dags/{run['dag_id']}/dagRuns/{run['dag_run_id']}/taskInstances", "task_instances"))

    def result(self, run: dict[str, Any]) -> dict[str, int]:
        """The counts that the last task of a run, checks apart, returned; summed over its mapped instances."""
        done = [
            task for task in self.tasks(run)
            if task["state"] == "success" and task["end_date"] and not task["task_id"].startswith("check_")
        ]  # fmt: skip
        last = max(done, key=lambda task: _instant(task["end_date"]), default={"task_id": ""})["task_id"]
        summed: dict[str, int] = {}
        for task in done:
            if task["task_id"] == last:
                value = self._returned(task)
                for key in [
                    key for key, count in value.items() if isinstance(count, int) and not isinstance(count, bool)
                ]:
                    summed[key] = summed.get(key, 0) + value[key]
        return summed

    def _returned(self, task: dict[str, Any]) -> dict[str, Any]:
        path = f"/dags/{task['dag_id']}/dagRuns/{task['dag_run_id']}/taskInstances/{task['task_id']}/xcomEntries"
        found = self.call("GET", path, map_index=task["map_index"], xcom_key="return_value")["xcom_entries"]
        if not found:
            return {}
        value = self.call(
            "GET", f"{path}/return_value", map_index=task["map_index"], deserialize=False, stringify=False
        )["value"]
        return value if isinstance(value, dict) else {}

    def why_failed(self, run: dict[str, Any], lines: int = 8) -> str:
        """The failed tasks of a run, each with the end of its log."""
        said = []
        of_run = f"/dags/{run['dag_id']}/dagRuns/{run['dag_run_id']}/taskInstances"
        for task in self.tasks(run):
            if task["state"] == "failed":
                path = f"{of_run}/{task['task_id']}/logs/{task['try_number']}"
                content = self.call("GET", path, map_index=task["map_index"], full_content=True)["content"]
                log = [
                    _line(entry)
                    for entry in content
                    if not (isinstance(entry, dict) and str(entry.get("event", "")).startswith("::"))
                ]
                said.append(f"  task {run['dag_id']}.{task['task_id']} failed; its log ends:")
                said += [f"    {line}" for line in log[-lines:]]
        return "\n".join(said) or f"  no task of {run['dag_id']} failed by itself; look at the run in the UI"

    def wait(self, run: dict[str, Any], timeout: float, watch: Callable[[], None]) -> dict[str, Any]:
        """The run when it has ended; raises Unavailable if it failed or takes too long. `watch` is called often."""
        dag_id, end = run["dag_id"], time.monotonic() + timeout
        while run["state"] not in ("success", "failed"):
            if time.monotonic() > end:
                slow = [
                    f"{task['task_id']} {task['state']}"
                    for task in self.tasks(run)
                    if task["state"] not in ("success", "skipped")
                ]
                raise Unavailable(f"{dag_id} did not end within {timeout:.0f} s ({', '.join(slow) or run['state']})")
            time.sleep(0.3)
            watch()
            run = self.run(dag_id, run["dag_run_id"])
        if run["state"] == "failed":
            raise Unavailable(f"{dag_id} failed\n{self.why_failed(run)}")
        return run

    def _all(self, path: str, key: str, **query: Any) -> Iterator[dict[str, Any]]:
        offset = 0
        while True:
            page = self.call("GET", path, **query, limit=100, offset=offset)
            yield from page[key]
            offset += 100
            if offset >= page["total_entries"]:
                return


def _healthy(said: dict[str, Any], name: str, since: datetime) -> bool:
    if said.get("status") != "healthy" or name == "metadatabase":
        return said.get("status") == "healthy"
    beat = str(said.get(f"latest_{name}_heartbeat") or "")
    return beat != "" and datetime.fromisoformat(beat).astimezone(UTC) >= since


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _line(entry: Any) -> str:
    if not isinstance(entry, dict):
        return str(entry)
    error = (entry.get("error_detail") or [{}])[-1]
    return f"{entry.get('event', '')} {error.get('exc_type', '')} {error.get('exc_value', '')}".rstrip()
