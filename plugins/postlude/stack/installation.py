"""What one installation on one machine consists of: directories, keys, passwords, ports, databases, and the environment
every component gets. All of it lives in `home`; deleting `home` is the uninstallation.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from sqlalchemy.engine import URL

from postlude import db
from postlude.errors import Fault, InputError
from postlude.settings import PROJECT, Settings
from postlude.stack.processes import Component, _write, free_port

AUTH_MANAGER = "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"
USERS = {"admin": "admin", "marketer": "user", "oncall": "op", "viewer": "viewer"}
PORTS = {
    "airflow": "airflow_port",
    "web": "web_port",
    "catcher_http": "catcher_http_port",
    "catcher_smtp": "catcher_smtp_port",
}


class Installation:
    """Paths, secrets and environment of the installation in `config.home`; asks the system for nothing but free ports.

    dags: folder of DAG files. eager: a demo, where the scheduler looks every 0.2 s instead of every second.
    """

    def __init__(self, config: Settings, dags: Path | None = None, eager: bool = False) -> None:
        self.config = config
        self.home = config.home.resolve()
        self.dags = (dags or PROJECT / "dags").resolve()
        self.airflow_home = self.home / "airflow"
        self.eager = eager

    # ------------------------------------------------------------ ports

    @property
    def ports(self) -> dict[str, int]:
        """Ports in use by the running stack, else those of the settings."""
        try:
            kept = json.loads((self.home / "run" / "ports.json").read_text())
        except (FileNotFoundError, ValueError):
            kept = {}
        return {name: int(kept.get(name, getattr(self.config, setting))) for name, setting in PORTS.items()}

    def choose_ports(self, tell: Callable[[str], None]) -> dict[str, int]:
        """Take the ports of the settings or, where they are taken, the next free ones; write them where others look."""
        chosen: dict[str, int] = {}
        for name, setting in PORTS.items():
            wanted = getattr(self.config, setting)
            chosen[name] = free_port(wanted, set(chosen.values()))
            if chosen[name] != wanted:
                tell(f"port {wanted} is taken: {name} uses {chosen[name]} (POSTLUDE_{setting.upper()} chooses another)")
        (self.home / "run").mkdir(parents=True, exist_ok=True)
        _write(self.home / "run" / "ports.json", chosen)
        return chosen

    @property
    def urls(self) -> dict[str, str]:
        ports = self.ports
        return {
            name: f"http://127.0.0.1:{ports[port]}"
            for name, port in (("airflow", "airflow"), ("mail", "catcher_http"), ("web", "web"))
        }

    # ------------------------------------------------------------ secrets

    def keys(self) -> dict[str, str]:
        """Airflow's keys: made once, because a new Fernet key makes stored connections unreadable."""
        return self._kept(
            "keys.json",
            lambda: {
                "fernet": base64.urlsafe_b64encode(os.urandom(32)).decode(),
                "api": secrets.token_urlsafe(48),
                "jwt": secrets.token_urlsafe(64),
            },
        )

    def passwords(self) -> dict[str, str]:
        """Passwords of Airflow's users; a changed one in the file is obeyed at the next start."""
        return self._kept("passwords.json", lambda: {user: secrets.token_urlsafe(9) for user in USERS})

    def _kept(self, name: str, make: Callable[[], dict[str, str]]) -> dict[str, str]:
        path = self.airflow_home / name
        kept: dict[str, str] = {}
        if path.exists():
            try:
                kept = dict(json.loads(path.read_text()))
            except ValueError as error:
                what = f"not JSON ({error}); mend it or, for new {path.stem}, delete it"
                raise InputError([Fault(str(path), getattr(error, "lineno", 0), "", what)]) from None
        made = make() | kept
        if made != kept:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, made)
        path.chmod(0o600)
        return made

    # ------------------------------------------------------------ databases

    @property
    def embedded(self) -> Path | None:
        """Data directory of the embedded server; None when POSTLUDE_DB_URL names another server."""
        return None if self.config.db_url else self.home / "postgres"

    def database(self) -> URL:
        """URL of Postlude's database; starts the embedded server if need be."""
        return db.server_url(self.config)

    def airflow_database(self, ours: URL) -> URL:
        """Airflow's database: `airflow`; on a server of yours `<ours>_airflow`, as `airflow` may be another's."""
        return ours.set(database="airflow" if self.embedded else f"{ours.database}_airflow")

    # ------------------------------------------------------------ environment

    def environment(self, ours: URL) -> dict[str, str]:
        """Environment of every component. Your own AIRFLOW__… stay, except what wires the components together."""
        ports, keys, urls = self.ports, self.keys(), self.urls
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        tunable = {
            "AIRFLOW__CORE__PARALLELISM": str(min(16, max(6, 2 * (os.cpu_count() or 2)))),
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "30",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2" if self.eager else "1",
            # a supervisor may see only then that its task has ended, and holds its slot until then
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1" if self.eager else "5",
            "AIRFLOW__API__WORKERS": "1",
            "GX_ANALYTICS_ENABLED": "false",
            # a demo runs from end to end without a person, however large its shop is; all its mail is caught
            **({"POSTLUDE_APPROVAL": "off", "POSTLUDE_CANARY_HOLD": "PT0S"} if self.eager else {}),
        }
        plain = ours.set(drivername="postgresql")
        wiring = {
            "AIRFLOW_HOME": str(self.airflow_home),
            "AIRFLOW_CONFIG": str(self.airflow_home / "airflow.cfg"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__FERNET_KEY": keys["fernet"],
            "AIRFLOW__API__SECRET_KEY": keys["api"],
            "AIRFLOW__API_AUTH__JWT_SECRET": keys["jwt"],
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self.airflow_database(ours)
            .set(drivername="postgresql+psycopg2")
            .render_as_string(hide_password=False),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(ports["airflow"]),
            "AIRFLOW__API__BASE_URL": urls["airflow"],
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{urls['airflow']}/execution/",
            "AIRFLOW__CORE__AUTH_MANAGER": AUTH_MANAGER,
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{user}:{role}" for user, role in USERS.items()),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.airflow_home / "passwords.json"),
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self.home / "logs" / "tasks"),
            "AIRFLOW__LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": str(self.home / "logs" / "dags"),
            # the URI form carries a socket directory as well as a host
            "AIRFLOW_CONN_POSTLUDE_DB": plain.render_as_string(hide_password=False),
            "POSTLUDE_HOME": str(self.home),
            "POSTLUDE_INCLUDE": str(self.config.include.resolve()),
            "POSTLUDE_DB_URL": plain.render_as_string(
                hide_password=False
            ),  # so that no component starts a server by itself
            **(
                {"POSTLUDE_WEB_DB_URL": plain.set(username=db.WEB_ROLE).render_as_string(hide_password=False)}
                if self.embedded
                else {}
            ),
            "POSTLUDE_WEB_URL": self.config.web_url if self.config.web_url != _default("web_url") else urls["web"],
            **{f"POSTLUDE_{setting.upper()}": str(ports[name]) for name, setting in PORTS.items()},
            "PYTHONPATH": os.pathsep.join(filter(None, [str(PROJECT / "plugins"), os.environ.get("PYTHONPATH", "")])),
            "PYTHONUNBUFFERED": "1",
            # Airflow's processes talk to each other over HTTP; a proxy of the environment must not get in between
            **{
                name: ",".join(filter(None, [os.environ.get(name, ""), "127.0.0.1", "localhost"]))
                for name in ("NO_PROXY", "no_proxy")
            },
        }
        return tunable | inherited | wiring

    def write_airflow_settings(self) -> None:
        """Put airflow_local_settings.py where Airflow looks for it."""
        folder = self.airflow_home / "config"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(__file__).with_name("airflow_local_settings.py"), folder / "airflow_local_settings.py")

    def components(self, env: dict[str, str]) -> list[Component]:
        """Everything that runs beside PostgreSQL; what others need at their end stops last."""
        airflow = (sys.executable, "-m", "airflow")
        ours = (sys.executable, "-c", "from postlude.cli import main; main()")
        return [
            Component("api-server", (*airflow, "api-server"), env, wave=1),
            # --skip-serve-logs: else they listen on all addresses, to serve files the api-server reads itself
            Component("scheduler", (*airflow, "scheduler", "--skip-serve-logs"), env),
            Component("dag-processor", (*airflow, "dag-processor"), env),
            # it may wait for its triggers for ever; they are in the database and lose nothing
            Component("triggerer", (*airflow, "triggerer", "--skip-serve-logs"), env, grace=3),
            Component("catcher", (*ours, "catcher"), env, wave=1),
            Component("web", (*ours, "web"), env, wave=1),
        ]


def _default(setting: str) -> object:
    return Settings.model_fields[setting].default
