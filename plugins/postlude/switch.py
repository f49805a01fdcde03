"""The kill switch: stop all mail, one campaign, one channel or one shop, without Airflow and without a deployment.

A switch is a row in `kill_switches` (`postlude stop`, or psql) or the file `<home>/STOP`. Both are read before each batch is
claimed and again before each single final dot, so that after a stop at most one more message per connection goes out: the one
whose intent was committed already.

Transactional mail goes on unless its campaign is named, or the stop says `transactional-too`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args

from sqlalchemy import Connection, Row

from postlude import db
from postlude.errors import InputError
from postlude.settings import settings

Scope = Literal["all", "campaign", "channel", "shop"]
SCOPES: tuple[Scope, ...] = get_args(Scope)


@dataclass(frozen=True)
class Stop:
    """One stop in force. name: campaign id, channel name or source id; empty for all."""

    scope: Scope
    name: str = ""
    transactional_too: bool = False
    why: str = ""

    def covers(self, campaign: str, channel: str, shop: str | None, kind: str) -> bool:
        """Does it stop such a message? shop None: of a shop not known yet."""
        if self.scope == "campaign":
            return self.name == campaign
        named = {"all": "", "channel": channel, "shop": shop}[self.scope]
        return self.name == named and (kind == "marketing" or self.transactional_too)

    def __str__(self) -> str:
        return " ".join(filter(None, (self.scope, self.name, "transactional-too" if self.transactional_too else "")))


def stop_file() -> Path:
    return settings().home / "STOP"


def stops_in_file(path: Path) -> list[Stop]:
    """What the file stops: its lines `all`, `campaign ID`, `channel NAME`, `shop ID`, each with `transactional-too` if wanted.

    Somebody who creates this file wants mail to stop: an empty file, and any line that cannot be understood, stop all marketing.
    `#` starts a comment. No file: nothing.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        return [Stop("all", why=f"the file STOP cannot be read: {type(error).__name__}")]
    found = []
    for line in lines:
        said, _, why = line.partition("#")
        words = said.lower().split()
        if not words:
            continue
        too = words[-1] in ("transactional-too", "--transactional-too")
        match words[:-1] if too else words:
            case ["all"]:
                found.append(Stop("all", "", too, why.strip() or "the file STOP"))
            case ["campaign" | "channel" | "shop" as scope, _]:
                name = said.split()[1]  # ids are case-sensitive
                found.append(Stop(scope, name, too, why.strip() or "the file STOP"))
            case _:
                found.append(Stop("all", why="the file STOP says something that is not understood"))
    return found or [Stop("all", why="the file STOP is there")]


def in_force(conn: Connection, file: Path | None = None) -> list[Stop]:
    """Every stop in force now: the table's and the file's."""
    rows = [Stop(r.scope, r.name, r.transactional_too, r.why) for r in switches(conn)]
    return rows + stops_in_file(file or stop_file())


def as_of(conn: Connection, now: datetime) -> list[Stop]:
    """Every stop of the table that was in force at an instant; the file leaves no history."""
    return [
        Stop(r.scope, r.name, r.transactional_too, r.why)
        for r in switches(conn, lifted_too=True)
        if r.since <= now and (r.lifted_at is None or r.lifted_at > now)
    ]


def at(conn: Connection, past: datetime | None) -> list[Stop]:
    """Every stop that explains what happens now, or (past) what happened at that instant."""
    return as_of(conn, past) if past else in_force(conn)


def switches(conn: Connection, lifted_too: bool = False) -> list[Row[Any]]:
    """Rows of kill_switches, oldest first."""
    return list(db.run(conn, "48_switches", lifted_too=lifted_too))


def names(conn: Connection) -> dict[str, set[str]]:
    """What can be stopped by name, per scope: campaigns that ran or have a file, channels, shops."""
    known: dict[str, set[str]] = {scope: set() for scope in SCOPES if scope != "all"}
    for row in db.run(conn, "48_switch_names"):
        known[row.scope].add(row.name)
    known["campaign"] |= {path.stem for path in (settings().include / "campaigns").glob("[!.]*.yml")}
    known["channel"] |= {path.stem for path in (Path(__file__).parent / "channels").glob("[!_]*.py")} | {"email"}
    return known


def stop(
    conn: Connection, scope: str, name: str, why: str, by: str, now: datetime, transactional_too: bool = False
) -> bool:
    """Throw a switch; False when it was thrown already. Raises InputError when there is nothing of that name to stop."""
    _check(scope, name, why)
    known = names(conn).get(scope, set())
    if scope != "all" and name not in known:
        raise InputError(f'there is no {scope} "{name}"; there are {", ".join(sorted(known)) or "none"}')
    row = db.run(
        conn, "48_stop", scope=scope, name=name, transactional_too=transactional_too, why=why.strip(), by=by, now=now
    ).first()
    return row is not None


def go(conn: Connection, scope: str, name: str, why: str, by: str, now: datetime) -> int:
    """Lift the switches of this scope and name; how many were in force."""
    _check(scope, name, why)
    return len(db.run(conn, "48_go", scope=scope, name=name, why=why.strip(), by=by, now=now).all())


def _check(scope: str, name: str, why: str) -> None:
    if scope not in SCOPES:
        raise InputError(
            f'"{scope}" is none of {", ".join(SCOPES)}; write e.g. `postlude stop campaign win_back --why ...`'
        )
    if (scope == "all") != (name == ""):
        raise InputError(
            "`all` takes no name" if name else f"which {scope}? write `postlude stop {scope} NAME --why ...`"
        )
    if not why.strip():
        raise InputError("say why, for those who find it stopped; write --why TEXT")
