"""Runs of the time machine that a page asks for: processes of their own, one at a time, with their files below home/jobs.

A run takes seconds to minutes and a processor; a web request must not. Whoever asks gets an id, and asks again for what
became of it. Files of a run are removed after a day.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from fastapi import HTTPException
from sqlalchemy import Engine

from postlude.errors import InputError

LONGEST = 30 * 60  # seconds
KEPT = 24 * 3600


def start(home: Path, engine: Engine, kind: str, words: list[str], inputs: dict[str, Any], **env: str) -> str:
    """Start `postlude WORDS`; "{in}" and "{out}" in them are its files. Returns the run's id.

    Raises a 409 while another run is under way: two at once would only be slower.
    """
    folder = home / "jobs"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if time.time() - old.stat().st_mtime > KEPT:
            shutil.rmtree(old, ignore_errors=True)
        elif _running(old):
            raise HTTPException(409, "another look ahead is being worked out; ask again in a minute")
    mine = folder / uuid4().hex
    mine.mkdir()
    (mine / "in.json").write_text(json.dumps(inputs.get("edits", inputs)), encoding="utf-8")
    (mine / "about.json").write_text(
        json.dumps({"kind": kind, "digest": digest(inputs), "began": time.time()}), encoding="utf-8"
    )
    places = {"{in}": str(mine / "in.json"), "{out}": str(mine / "out.json"), "{folder}": str(mine / "story")}
    command = [
        sys.executable,
        "-c",
        "from postlude.cli import main; main()",
        *(places.get(word, word) for word in words),
    ]
    env = (
        os.environ
        | env
        | {"POSTLUDE_DB_URL": engine.url.set(drivername="postgresql").render_as_string(hide_password=False)}
    )
    with (mine / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=env, start_new_session=True)
    (mine / "pid").write_text(str(process.pid))
    _children[mine.name] = process
    return mine.name


_children: dict[str, subprocess.Popen[bytes]] = {}  # so that they are waited for


def state(home: Path, job: str) -> dict[str, Any]:
    """{"done": false, "seconds": n}, or {"done": true, "digest", "result": JSON}. Raises InputError for one that failed, or is none."""
    mine = home / "jobs" / job
    if not re.fullmatch(r"[0-9a-f]{32}", job) or not (mine / "about.json").is_file():
        raise InputError("this look ahead is not known any more; ask for it again")
    about = json.loads((mine / "about.json").read_text(encoding="utf-8"))
    if _running(mine):
        return {"done": False, "seconds": round(time.time() - about["began"])}
    try:
        result = json.loads((mine / "out.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        told = (mine / "log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise InputError("the look ahead failed: " + (" ".join(told[-4:])[-600:] or "it was stopped")) from None
    return {"done": True, "digest": about["digest"], "result": result}


def digest(inputs: dict[str, Any]) -> str:
    """What a run was about: the same question gives the same digest."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode()).hexdigest()


def _running(mine: Path) -> bool:
    """Whether its process lives; one that takes too long is stopped."""
    child = _children.get(mine.name)
    if child is not None and child.poll() is not None:
        del _children[mine.name]
        return False
    try:
        pid = int((mine / "pid").read_text())
        os.kill(pid, 0)
        if child is None and "postlude" not in Path(f"/proc/{pid}/cmdline").read_text(
            encoding="utf-8", errors="replace"
        ):
            return False  # somebody else has this number by now
    except (OSError, ValueError):
        return False
    if time.time() - (mine / "about.json").stat().st_mtime > LONGEST:
        os.killpg(pid, 15)
    return True
