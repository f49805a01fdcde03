"""Running everything on one machine: what is started is found again, and stopped for certain, and nothing else is."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
import yaml
from pytest_httpserver import HTTPServer
from werkzeug import Response

from postlude import stack
from postlude.errors import InputError, Unavailable
from postlude.settings import Settings
from postlude.stack import processes
from postlude.stack.api import Api
from postlude.stack.installation import Installation
from postlude.stack.processes import Component, Processes, birth

SLEEP = (sys.executable, "-c", "import time; time.sleep(300)")
STUBBORN = (sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(300)")
# like Airflow's scheduler: a child in a process group of its own, which its parent does not end
WITH_CHILD = (
    sys.executable, "-c",
    "import os, time\nif os.fork() == 0: os.setpgid(0, 0)\nprint('here', flush=True)\ntime.sleep(300)",
)  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    Processes(tmp_path / "home").stop(grace=0.5)


def config(home: Path, **settings: object) -> Settings:
    return Settings(home=home, **settings)  # type: ignore[arg-type]


def below(folder: Path) -> list[psutil.Process]:
    """All processes whose working directory is below a folder: those of a stack with its home there."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(folder.resolve()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def until(condition: object, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


# ---------------------------------------------------------------- ports


def test_a_taken_port_gives_the_next_free_one_and_says_so(home: Path, busy_port: int) -> None:
    at, said = Installation(config(home, airflow_port=busy_port)), []
    assert at.choose_ports(said.append)["airflow"] > busy_port
    assert any(f"port {busy_port} is taken: airflow uses {at.ports['airflow']}" in line for line in said)
    # another command, with the same settings, finds it
    assert Installation(config(home, airflow_port=busy_port)).ports == at.ports
    assert at.urls["airflow"] == f"http://127.0.0.1:{at.ports['airflow']}"


def test_two_components_that_want_the_same_port_get_two(home: Path) -> None:
    chosen = Installation(config(home, web_port=19090, catcher_http_port=19090)).choose_ports(lambda text: None)
    assert len(set(chosen.values())) == len(chosen)


def test_links_in_mail_use_the_port_that_was_really_taken_unless_an_address_is_configured(
    home: Path, busy_port: int
) -> None:
    at = Installation(config(home, web_port=busy_port, db_url="postgresql://u:p@localhost/shop"))
    at.choose_ports(lambda text: None)
    assert at.environment(at.database())["POSTLUDE_WEB_URL"] == f"http://127.0.0.1:{at.ports['web']}"
    outside = Installation(config(home, web_url="https://mail.shop.example", db_url="postgresql://u:p@localhost/shop"))
    assert outside.environment(outside.database())["POSTLUDE_WEB_URL"] == "https://mail.shop.example"


# ---------------------------------------------------------------- processes


def test_a_pid_that_meanwhile_belongs_to_a_stranger_is_left_alone(home: Path) -> None:
    ours = Processes(home)
    record = ours.start(Component("scheduler", SLEEP))
    ours.stop(["scheduler"])
    time.sleep(
        0.05
    )  # processes are told apart by the hundredth of a second in which they began; pids are not reused so soon
    stranger = subprocess.Popen(SLEEP, start_new_session=True)
    try:
        reused = record.__dict__ | {"pid": stranger.pid}
        (home / "run" / "scheduler.pid").write_text(json.dumps(reused))
        assert Processes(home).running() == []
        assert Processes(home).stop() == []
        assert stranger.poll() is None
        assert not (home / "run" / "scheduler.pid").exists()
    finally:
        stranger.kill()
        stranger.wait()


def test_a_dead_leaders_pid_on_a_strangers_session_is_left_alone(home: Path, tmp_path: Path) -> None:
    home.mkdir()
    (home / "run").mkdir()
    # a session whose leader is gone, of somebody else: its member works in another directory
    leader = subprocess.Popen(
        (sys.executable, "-c", f"import subprocess, sys; subprocess.Popen({SLEEP!r})"),
        start_new_session=True,
        cwd=tmp_path,
    )
    leader.wait()
    member = next(process for process in below(tmp_path) if process.cmdline()[-1] == SLEEP[-1])
    try:
        (home / "run" / "web.pid").write_text(
            json.dumps({"name": "web", "pid": leader.pid, "born": "before", "wave": 0})
        )
        assert Processes(home).stop() == []
        assert member.is_running()
    finally:
        member.kill()


def test_stopping_ends_children_that_have_a_process_group_of_their_own(home: Path) -> None:
    ours = Processes(home)
    ours.start(Component("scheduler", WITH_CHILD))
    until(lambda: len(below(home)) == 2 and ours.log("scheduler").read_text().count("here") == 2)
    assert Processes(home).stop(grace=2) == ["scheduler"]  # another command, which knows the pid files only
    assert below(home) == []


def test_orphans_of_a_leader_that_was_killed_are_stopped_too(home: Path) -> None:
    ours = Processes(home)
    record = ours.start(Component("scheduler", WITH_CHILD))
    until(lambda: ours.log("scheduler").exists() and ours.log("scheduler").read_text().count("here") == 2)
    os.kill(record.pid, signal.SIGKILL)
    until(lambda: birth(record.pid) is None)
    assert len(below(home)) == 1
    ours.stop(grace=2)
    assert below(home) == []


def test_what_ignores_sigterm_is_killed_after_the_grace(home: Path) -> None:
    ours = Processes(home)
    ours.start(Component("stubborn", STUBBORN))
    time.sleep(0.3)
    began = time.monotonic()
    ours.stop(grace=1)
    assert 1 <= time.monotonic() - began < 4
    assert below(home) == []


def test_down_stops_this_home_and_no_other(home: Path, tmp_path: Path) -> None:
    other = Processes(tmp_path / "other")
    other.start(Component("web", SLEEP))
    Processes(home).start(Component("web", SLEEP))
    assert stack.down(config=config(home)) == ["web"]
    assert below(home) == []
    assert [record.name for record in other.running()] == ["web"]
    other.stop()


def test_components_of_a_lower_wave_are_gone_before_the_next_are_told(home: Path) -> None:
    tells = textwrap.dedent("""
        import signal, sys, time
        signal.signal(15, lambda *_: (time.sleep({}), print(time.time(), flush=True), sys.exit()))
        print("up", flush=True)
        time.sleep(300)
    """)
    ours = Processes(home)
    ours.start(Component("api-server", (sys.executable, "-c", tells.format(0)), wave=1))
    ours.start(Component("scheduler", (sys.executable, "-c", tells.format(0.5)), wave=0))
    until(lambda: all("up" in ours.log(name).read_text() for name in ("api-server", "scheduler")))
    ours.stop(grace=5)
    ended = {name: float(ours.log(name).read_text().split()[-1]) for name in ("api-server", "scheduler")}
    assert ended["scheduler"] < ended["api-server"]


def test_a_step_that_fails_is_reported_with_the_end_of_its_log(home: Path) -> None:
    loud = (sys.executable, "-c", "print('no such table: shop'); raise SystemExit(3)")
    with pytest.raises(
        Unavailable, match=r"airflow-db-migrate ended with status 3; (.|\n)*no such table: shop"
    ) as error:
        Processes(home).call(Component("airflow-db-migrate", loud), timeout=20)
    assert str(home / "logs" / "airflow-db-migrate.log") in str(error.value)


def test_a_step_that_hangs_is_stopped(home: Path) -> None:
    with pytest.raises(Unavailable, match="sample took more than 0 s"):
        Processes(home).call(Component("sample", SLEEP), timeout=0.3)
    assert below(home) == []


def test_only_one_up_or_demo_works_in_a_home_at_a_time(home: Path) -> None:
    with (
        Processes(home).alone(),
        pytest.raises(InputError, match="another `make up` or `make demo` is at work"),
        Processes(home).alone(),
    ):
        pass
    with Processes(home).alone():
        pass


# ---------------------------------------------------------------- a stack of fake components, in a process of its own

FAKE = """
    import signal, sys, time
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests in the background has it ignored
    from pathlib import Path
    from postlude import errors, stack
    from postlude.settings import Settings
    from postlude.stack.processes import Component

    sleep = (sys.executable, "-c", "import time; print('up', flush=True); time.sleep(300)")

    class Fake(stack.Stack):
        grace = 1.0
        def prepare(self):
            {prepare}
        def components(self):
            command = {scheduler}
            return [
                Component("api-server", sleep, wave=1), Component("scheduler", command), Component("web", sleep, wave=1)
            ]
        def waiting_for(self):
            return {waiting}

    try:
        stack.{command}(stack=Fake(Settings(home=Path({home!r}))))
    except errors.PostludeError as error:
        sys.exit(f"error: {{error}}")
    except stack.Interrupted as signal:
        sys.exit(128 + signal.signum)
"""


def fake(
    home: Path, command: str = "up", waiting: str = "[]", scheduler: str = "sleep", prepare: str = "pass"
) -> subprocess.Popen[str]:
    script = textwrap.dedent(FAKE).format(
        home=str(home), command=command, waiting=waiting, scheduler=scheduler, prepare=prepare
    )
    return subprocess.Popen(
        (sys.executable, "-c", script),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_it_starts_leaves_nothing_behind(home: Path, number: signal.Signals) -> None:
    up = fake(home, waiting="['scheduler']")
    until(lambda: len(Processes(home).running()) == 3)
    up.send_signal(number)
    said, _ = up.communicate(timeout=30)
    assert up.returncode == 128 + number
    assert "interrupted: stopping everything" in said
    assert "stopped scheduler, api-server, web" in said
    assert below(home) == []
    assert Processes(home).records() == []


def test_a_signal_at_any_moment_leaves_nothing_behind(home: Path) -> None:
    """Also between the start of a process and the note of its pid: the moments are tried in steps of a few ms."""
    for step in range(8):
        up = fake(home / str(step), waiting="['scheduler']")
        until((home / str(step) / "run").exists)
        time.sleep(step * 0.003)
        up.send_signal(signal.SIGINT)
        assert up.wait(timeout=30) in (130, 1, -signal.SIGINT)  # before the handlers stand, Python's own way out
        assert below(home) == []


def test_a_second_ctrl_c_does_not_cut_the_stopping_short(home: Path) -> None:
    up = fake(home, waiting="['scheduler']", scheduler=repr(STUBBORN))
    until(lambda: len(Processes(home).running()) == 3)
    time.sleep(0.3)
    for _ in range(3):
        up.send_signal(signal.SIGINT)
        time.sleep(0.2)
    assert up.wait(timeout=40) == 130
    assert below(home) == []


def test_a_signal_during_a_step_of_the_preparation_stops_the_step(home: Path) -> None:
    up = fake(home, prepare="self.processes.call(Component('airflow-db-migrate', sleep), timeout=60)")
    until(lambda: bool(below(home)))
    up.send_signal(signal.SIGINT)
    assert up.wait(timeout=30) == 130
    assert below(home) == []


def test_a_component_that_ends_by_itself_stops_the_others_and_its_log_is_shown(home: Path) -> None:
    dies = repr((sys.executable, "-c", "import time; time.sleep(0.5); print('port 8793 in use'); raise SystemExit(7)"))
    up = fake(home, waiting="['scheduler']", scheduler=dies)
    said, _ = up.communicate(timeout=30)
    assert up.returncode == 1
    assert "scheduler ended with status 7" in said
    assert "port 8793 in use" in said
    assert below(home) == []


def test_up_leaves_everything_running_says_so_the_second_time_and_down_ends_it(home: Path) -> None:
    assert fake(home).wait(timeout=30) == 0
    first = {record.pid for record in Processes(home).running()}
    assert len(first) == 3
    again = fake(home)
    said, _ = again.communicate(timeout=30)
    assert again.returncode == 0
    assert "already running" in said
    assert {record.pid for record in Processes(home).running()} == first
    assert sorted(stack.down(config=config(home))) == ["api-server", "scheduler", "web"]
    assert below(home) == []


def test_up_starts_afresh_where_half_of_it_has_died(home: Path) -> None:
    assert fake(home).wait(timeout=30) == 0
    first = {record.name: record.pid for record in Processes(home).running()}
    os.kill(first["web"], signal.SIGKILL)
    until(lambda: len(Processes(home).running()) == 2)
    assert fake(home).wait(timeout=30) == 0
    second = {record.name: record.pid for record in Processes(home).running()}
    assert set(second) == set(first)
    assert not set(second.values()) & set(first.values())


# ---------------------------------------------------------------- secrets, settings, logs


def test_keys_and_passwords_are_made_once_and_only_the_owner_may_read_them(home: Path) -> None:
    first = Installation(config(home))
    keys, passwords = first.keys(), first.passwords()
    assert set(passwords) == {"admin", "marketer", "oncall", "viewer"}
    assert len(set(passwords.values())) == 4
    second = Installation(config(home))
    assert (second.keys(), second.passwords()) == (keys, passwords)
    for name in ("keys.json", "passwords.json"):
        assert stat.S_IMODE((home / "airflow" / name).stat().st_mode) == 0o600


def test_a_broken_key_file_is_named_and_not_replaced(home: Path) -> None:
    Installation(config(home)).keys()
    path = home / "airflow" / "keys.json"
    path.write_text('{"fernet": ')
    with pytest.raises(InputError, match=r"keys\.json:1: not JSON"):
        Installation(config(home)).keys()
    assert path.read_text() == '{"fernet": '


def test_your_own_tuning_stays_but_the_wiring_is_ours(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__PARALLELISM", "3")
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "sqlite:////somebody/elses.db")
    monkeypatch.setenv("NO_PROXY", "shop.example")
    at = Installation(config(home, db_url="postgresql://shop:secret@db.example:5433/shop"))
    env = at.environment(at.database())
    assert env["AIRFLOW__CORE__PARALLELISM"] == "3"
    # on a server of one's own, never the database of an Airflow that may be there already
    assert (
        env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == "postgresql+psycopg2://shop:secret@db.example:5433/shop_airflow"
    )
    assert env["AIRFLOW_CONN_POSTLUDE_DB"] == env["POSTLUDE_DB_URL"] == "postgresql://shop:secret@db.example:5433/shop"
    assert env["NO_PROXY"] == "shop.example,127.0.0.1,localhost"
    assert {env[name] for name in ("AIRFLOW__API__HOST",)} == {"127.0.0.1"}


def test_every_airflow_variable_is_an_option_of_airflow(home: Path) -> None:
    airflow = importlib.util.find_spec("airflow")
    assert airflow is not None and airflow.submodule_search_locations
    options = yaml.safe_load(
        (Path(airflow.submodule_search_locations[0]) / "config_templates" / "config.yml").read_text()
    )
    at = Installation(config(home, db_url="postgresql://u:p@localhost/shop"))
    names = [re.fullmatch(r"AIRFLOW__([A-Z_]+?)__([A-Z_]+)", name) for name in at.environment(at.database())]
    given = {(match[1].lower(), match[2].lower()) for match in names if match}
    assert len(given) > 15
    assert [f"[{section}] {option}" for section, option in given if option not in options[section]["options"]] == []


def test_stopping_the_server_leaves_a_stranger_with_its_old_pid_alone(tmp_path: Path) -> None:
    stranger = subprocess.Popen(SLEEP)
    try:
        (tmp_path / "postmaster.pid").write_text(f"{stranger.pid}\n{tmp_path}\n0\n5432\n{tmp_path}\n\n0\nready\n")
        assert stack.stop_server(tmp_path) is False
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_logs_show_the_end_and_name_what_there_is(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="nothing was started here yet"):
        stack.logs(config=config(home))
    many = (sys.executable, "-c", "[print('line', n) for n in range(100)]")
    Processes(home).call(Component("scheduler", many), timeout=20)
    stack.logs(["scheduler"], lines=2, config=config(home))
    assert capsys.readouterr().out.splitlines()[1:3] == ["line 98", "line 99"]
    with pytest.raises(InputError, match="no log of schedular; there are scheduler"):
        stack.logs(["schedular"], config=config(home))


def test_a_heartbeat_of_before_the_restart_is_no_sign_of_life(httpserver) -> None:  # type: ignore[no-untyped-def]
    started = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)

    def said(beat: datetime) -> dict[str, dict[str, str]]:
        names = ("scheduler", "triggerer", "dag_processor")
        beats = {name: {"status": "healthy", f"latest_{name}_heartbeat": beat.isoformat()} for name in names}
        return {"metadatabase": {"status": "healthy"}} | beats

    api = Api(httpserver.url_for("/"))
    httpserver.expect_ordered_request("/api/v2/monitor/health").respond_with_json(said(started - timedelta(seconds=5)))
    assert api.unhealthy(started) == ["scheduler", "triggerer", "dag_processor"]
    httpserver.expect_ordered_request("/api/v2/monitor/health").respond_with_json(said(started + timedelta(seconds=5)))
    assert api.unhealthy(started) == []
    assert Api("http://127.0.0.1:1").unhealthy(started)[0] == "metadatabase"  # nobody answers


# ---------------------------------------------------------------- the real thing

DAGS = """
from airflow.sdk import Asset, dag, task

things = Asset("things", uri="postlude://test/things")

@dag(schedule=None)
def first():
    @task(outlets=[things])
    def make():
        return {"rows": 3}
    make()

@dag(schedule=[things])
def second():
    @task
    def check():
        raise RuntimeError("four rows expected, three found")
    check()

first()
second()
"""


@pytest.mark.slow
@pytest.mark.airflow
@pytest.mark.timeout(420)
def test_the_real_stack_comes_up_runs_dags_through_its_scheduler_and_leaves_nothing(tmp_path: Path) -> None:
    home, dags = tmp_path / "home", tmp_path / "dags"
    dags.mkdir()
    (dags / "chain.py").write_text(DAGS)
    here = config(home, airflow_port=19092, web_port=19093, catcher_http_port=19094, catcher_smtp_port=19095)
    try:
        running = stack.up(config=here, dags=dags)
        assert {
            name: part["running"] for name, part in stack.status(config=here)["components"].items()
        } == dict.fromkeys(("api-server", "scheduler", "dag-processor", "triggerer", "catcher", "web"), True)
        listening = {
            where.laddr.ip
            for process in below(home)
            for where in process.net_connections(kind="inet")
            if where.status == psutil.CONN_LISTEN
        }
        assert listening == {"127.0.0.1"}

        api = Api(running.at.urls["airflow"], password=running.at.passwords()["admin"])
        until(lambda: {"first", "second"} <= set(api.dags()), seconds=60)
        for dag_id in ("first", "second"):
            api.unpause(dag_id)
        run = api.wait(api.trigger("first"), 120, running.check_alive)
        assert api.announced(run)
        assert api.result(run) == {"rows": 3}
        until(lambda: api.run_since("second", run["start_date"]) is not None, seconds=60)
        followed = api.run_since("second", run["start_date"])
        assert followed is not None
        with pytest.raises(Unavailable, match=r"task second\.check failed(.|\n)*four rows expected, three found"):
            api.wait(followed, 120, running.check_alive)
        api.close()
    finally:
        stopped = stack.down(config=here)
    assert "PostgreSQL" in stopped
    assert below(tmp_path) == []
    assert not processes.Processes(home).records()


def test_a_passing_server_error_does_not_end_the_demo(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/auth/token").respond_with_json({"access_token": "t"}, status=201)
    answers = iter([500, 500, 200])
    httpserver.expect_request("/api/v2/dags").respond_with_handler(
        lambda request: Response('{"dags": [], "total_entries": 0}', status=next(answers), mimetype="application/json")
    )
    slow = iter([2, 0])
    httpserver.expect_request("/api/v2/dags/y/dagRuns/z").respond_with_handler(
        lambda request: (time.sleep(next(slow)), Response("{}", mimetype="application/json"))[1]
    )
    posts: list[int] = []
    httpserver.expect_request("/api/v2/dags/x/dagRuns").respond_with_handler(
        lambda request: (posts.append(1), Response("no", status=500))[1]
    )
    with closing(Api(httpserver.url_for("").rstrip("/"), password="p")) as api:
        assert api.dags() == {}
        api._http.timeout = 1  # a machine with too much to do: the answer comes late, and is asked for again
        assert api.run("y", "z") == {}
        with pytest.raises(Unavailable, match="500"):
            api.trigger("x")
    assert len(posts) == 1  # a write is never repeated
