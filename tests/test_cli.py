"""The command line, as a person uses it: each command in a process of its own, on a home of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import URL

ROOT = Path(__file__).resolve().parents[1]


def free_port() -> int:
    """A port nobody listens on, so that two runs of the tests do not meet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Shell:
    """Runs `postlude …` against one database and home."""

    def __init__(self, database: URL, home: Path) -> None:
        self.home = home
        self.env = os.environ | {
            "POSTLUDE_DB_URL": database.render_as_string(hide_password=False),
            "POSTLUDE_HOME": str(home),
            "POSTLUDE_CATCHER_SMTP_PORT": str(free_port()),
            "POSTLUDE_CATCHER_HTTP_PORT": str(free_port()),
        }

    def __call__(self, *words: str, code: int = 0, **env: str) -> str:
        command = [sys.executable, "-c", "from postlude.cli import main; main()", *words]
        done = subprocess.run(
            command, capture_output=True, text=True, env=self.env | env, cwd=ROOT, timeout=240, check=False
        )
        assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout if code == 0 else done.stderr

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "--json"))


@pytest.fixture
def shell(database: URL, tmp_path: Path) -> Shell:
    return Shell(database, tmp_path)


def test_one_pass_by_hand_and_the_second_sends_nothing_twice(shell: Shell) -> None:
    shell("init")
    made = shell.json("sample", "--customers", "3000", "--as-of", "2026-11-20T12:00:00")
    loaded = shell.json("ingest", "--as-of", "2026-11-20T12:00:00")["sample_shop"]["rows_loaded"]
    assert loaded == sum(made[e] for e in made if e not in ("folder", "faulty")) - made["faulty"]
    shell.json("segment", "--as-of", "2026-11-20T12:00:00")
    dry = shell.json("plan", "--dry-run", "--as-of", "2026-11-20T12:00:00")
    assert shell.json("status")["campaigns"] == {}  # a dry run writes nothing ...
    first = shell.json("run", "--as-of", "2026-11-20T12:00:00")
    for name, counts in dry.items():  # ... and says what the run then does
        for what in ("enrolled", "holdout", "planned", "reasons"):
            assert counts[what] == first[f"plan {name}"][what]
    assert first["deliver"]["sent"] > 0
    assert first["apply events"]["events"] == first["deliver"]["sent"]  # the catcher confirms each
    second = shell.json("run", "--as-of", "2026-11-20T12:00:00")
    assert second["load sample_shop"]["rows_loaded"] == 0
    assert second["deliver"].get("sent", 0) == 0
    assert "No campaign" not in (shell.home / "reports" / "latest.html").read_text()
    mails = list((shell.home / "mail").rglob("*.eml"))
    assert len(mails) == first["deliver"]["sent"]
    found = shell.json("status")
    assert sum(found["stages"].values()) == first["features"]["customers"]
    assert found["sources"]["sample_shop"]["quarantined"] == made["faulty"]
    customer = next(row for row in shell.json("why", "1", "win_back"))
    assert {"predicate", "verdict", "detail"} <= set(customer)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["ingest", "--source", "include/sources/nowhere.yml"], 2, "nowhere.yml"),
        (["segment", "--as-of", "yesterday"], 2, "is not an instant"),
        (["plan", "--campaign", "hello"], 2, 'there is no campaign "hello"'),
        (["why", "nobody"], 2, "no customer has this id"),
        (["plan", "--campaign", "win_back"], 3, "run the segment stage first"),
        (["segment"], 3, "gate features is closed"),
        (["sample", "--customers", "0"], 2, "out of range"),
        (["nonsense"], 2, "No such command"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_with_an_exit_status(
    shell: Shell, words: list[str], code: int, told: str
) -> None:
    said = shell(*words, code=code)
    assert told in " ".join(said.split())
    assert "Traceback" not in said


def test_a_past_instant_never_reaches_a_real_relay(shell: Shell) -> None:
    said = shell(
        "deliver", "--as-of", "2020-01-01", code=2, POSTLUDE_SENDING="true", POSTLUDE_SMTP_URL="smtp://127.0.0.1:1"
    )
    assert "lies in the past and sending is switched on" in " ".join(said.split())
    said = shell("deliver", code=2, POSTLUDE_SENDING="true")
    assert "POSTLUDE_SMTP_URL is empty" in " ".join(said.split())


def test_every_file_people_edit_is_checked_and_every_command_explains_itself(shell: Shell, tmp_path: Path) -> None:
    assert "are in order" in shell("validate")
    include = tmp_path / "include"
    subprocess.run(["cp", "-r", str(ROOT / "include"), str(include)], check=True)
    (include / "campaigns" / "win_back.yml").write_text(
        (ROOT / "include/campaigns/win_back.yml").read_text().replace("lapsed", "lapst").replace("owner:", "ownr:")
    )
    (include / "calendar.yml").write_text("window: {opens: '20:00', closes: '09:00'}\n")
    said = shell("validate", code=2, POSTLUDE_INCLUDE=str(include))
    assert "win_back.yml:5: ownr: unknown key" in said
    assert "calendar.yml:1" in said
    for command in ("init", "ingest", "why"):
        assert "Usage" in shell(command, "--help")


def test_the_database_can_be_looked_at_with_psql(shell: Shell, database: URL) -> None:
    assert shell("db", "uri").strip() == database.render_as_string(hide_password=False)
