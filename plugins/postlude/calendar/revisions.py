"""Revisions over the calendar file: append-only, each with who, when, why and its changes; two editors never overwrite each other.

A revision stores its changes by key and the whole calendar that came of them. The calendar in force is the file with the
changes of all revisions laid over it in their order; a past instant has the calendar that was stored for it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError
from sqlalchemy import Connection

from postlude import db, yamlfile
from postlude.calendar.edits import Edit, edited
from postlude.calendar.keys import Change, Flat, applied, differences, flat, in_words, whole
from postlude.calendar.model import Calendar
from postlude.calendar.steering import faults_in
from postlude.campaign import Campaign, load_campaign
from postlude.errors import Fault, InputError
from postlude.settings import settings

FILE = "include/calendar.yml"


class Conflict(InputError):
    """Somebody else changed the calendar meanwhile. `words`: what they changed; `overlap`: keys that both changed."""

    def __init__(self, base: int, head_: int, changes: Sequence[Change], overlap: Sequence[str]) -> None:
        self.base, self.head = base, head_
        self.words, self.overlap = [in_words(change) for change in changes], list(overlap)
        both = f"; both of you changed {', '.join(overlap)}" if overlap else ""
        super().__init__(
            f"the calendar has changed since you looked (revision {base}, now {head_}): {'; '.join(self.words) or 'see the history'}"
            f"{both}. Look again, then save"
        )


@dataclass(frozen=True)
class Draft:
    """A change that could be saved: valid, and not saved yet."""

    base: int
    by: str
    why: str
    changes: list[Change]
    before: Calendar
    after: Calendar
    kind: str = "edit"
    reverts: int | None = None

    @property
    def words(self) -> list[str]:
        return [in_words(change) for change in self.changes]


@dataclass(frozen=True)
class Revision:
    revision: int
    at: dt.datetime
    author: str
    why: str
    kind: str
    base: int | None
    reverts: int | None
    reverted_by: int | None
    changes: list[Change] = field(default_factory=list)

    @property
    def words(self) -> list[str]:
        return [in_words(change) for change in self.changes]


# ---------------------------------------------------------------- reading


def baseline() -> Calendar:
    """The file, read again when it has changed. Raises InputError with file:line."""
    return yamlfile.load_unchanged(settings().include / "calendar.yml", Calendar)


def head(conn: Connection) -> int:
    """Number of the newest change by a person, 0 without any: what a draft is based on."""
    return int(db.run(conn, "30_calendar_head").scalar_one())


def effective(conn: Connection, now: dt.datetime) -> Calendar:
    """The calendar in force at `now`: the file with all revisions up to then; a past instant has what was stored for it.

    Raises InputError when the file has faults, or does not go together with a revision.
    """
    rows = list(db.run(conn, "30_calendar_changes"))
    # written down again at every change, so what was stored last before `now` held then, unless nothing came after it
    known = [row for row in rows if row.at <= now]
    if len(known) < len(rows) and known:
        return Calendar.model_validate(db.run(conn, "30_calendar_content", revision=known[-1].revision).scalar_one())
    return laid_over([change for row in known for change in row.changes or ()])


def laid_over(changes: Sequence[Change]) -> Calendar:
    """The file with these changes over it, in their order."""
    return _whole(applied(flat(baseline()), changes)) if changes else baseline()


def _whole(keys: Flat) -> Calendar:
    try:
        return whole(keys)
    except ValidationError as error:
        faults = [
            Fault("calendar", 0, "/".join(map(str, e["loc"])), str(e.get("ctx", {}).get("error") or e["msg"]))
            for e in error.errors()
        ]
        raise InputError(faults) from None


def history(conn: Connection, limit: int = 200) -> list[Revision]:
    """Every revision, the newest first; changes of the file among them."""
    return [
        Revision(**dict(row._mapping) | {"changes": row.changes or []})
        for row in db.run(conn, "30_calendar_history", most=limit)
    ]


def remember(conn: Connection, calendar: Calendar, now: dt.datetime, author: str = FILE) -> int:
    """Revision number of this calendar as of `now`; a new revision when its content differs from the one in force then."""
    _alone(conn)
    newest = db.run(conn, "30_calendar_newest", now=now).first()
    if newest and newest.content_hash == calendar.content_hash:
        return int(newest.revision)
    return _keep(conn, calendar, now, author, "file changed" if newest else "first calendar", "file")


# ---------------------------------------------------------------- writing


def propose(
    conn: Connection,
    edits: Sequence[Edit] | Calendar,
    *,
    by: str,
    why: str,
    base: int,
    now: dt.datetime,
    campaigns: Mapping[str, Campaign] | None = None,
) -> Draft:
    """A draft of these edits over the calendar in force, checked by the rules of the files; nothing is stored.

    edits: plain dicts (docs/calendar.md), or a whole calendar. campaigns: those it may name; default: the files.
    Raises InputError with every fault, Conflict when `base` is not the newest revision.
    """
    if not why.strip() or not by.strip():
        raise InputError("a change needs the name of whoever makes it, and why")
    before = effective(conn, now)
    if base != head(conn):
        mine = differences(flat(before), edited_keys(before, edits, why, now))
        raise _conflict(conn, base, mine)
    keys = edited_keys(before, edits, why, now)
    after = _whole(keys)
    changes = differences(flat(before), keys)
    if not changes:
        raise InputError("this changes nothing; the calendar is so already")
    _check(before, after, files() if campaigns is None else campaigns, edits if isinstance(edits, Calendar) else after)
    return Draft(base, by.strip(), why.strip(), changes, before, after)


def _check(before: Calendar, after: Calendar, known: Mapping[str, Campaign], given: Calendar) -> None:
    """Raises InputError for faults that were not there before; given: as it was written, for a list may hold a key twice."""
    old = {(fault.key, fault.message) for fault in faults_in(before, known)}
    found = dict.fromkeys((*faults_in(after, known), *faults_in(given, known)))
    if faults := [fault for fault in found if (fault.key, fault.message) not in old]:
        raise InputError(faults)


def edited_keys(before: Calendar, edits: Sequence[Edit] | Calendar, why: str, now: dt.datetime) -> Flat:
    if not isinstance(edits, Calendar):
        return edited(before, edits, why, now)
    keys, known = flat(edits), flat(before)
    for key, value in keys.items():  # a delay written into a file by hand says since when
        if key.startswith("delays/") and key not in known and value["since"] is None:
            keys[key] = value | {"since": now.isoformat()}
    return keys


def save(conn: Connection, draft: Draft, now: dt.datetime) -> int:
    """Store a draft as the next revision; its number. Raises Conflict when somebody was faster, InputError for an empty one."""
    _alone(conn)
    if draft.base != head(conn):
        raise _conflict(conn, draft.base, draft.changes)
    changes = [_since(change, now) for change in draft.changes]
    after = _whole(applied(flat(effective(conn, now)), changes))
    return _keep(conn, after, now, draft.by, draft.why, draft.kind, changes, draft.base, draft.reverts)


def _since(change: Change, now: dt.datetime) -> Change:
    """A moved delay counts from the moment it is saved: what was planned while it was a draft is in flight too."""
    after = change["after"]
    if change["key"].startswith("delays/") and after is not None and after["since"] is not None:
        return change | {"after": after | {"since": now.isoformat()}}
    return change


def revert(
    conn: Connection,
    revision: int,
    *,
    by: str,
    why: str,
    now: dt.datetime,
    campaigns: Mapping[str, Campaign] | None = None,
) -> int:
    """Take one revision back by a new one; its number.

    Raises Conflict when a later revision changed the same keys, InputError when there is nothing of it to take back.
    """
    return save(conn, undo(conn, revision, by=by, why=why, now=now, campaigns=campaigns), now)


def undo(
    conn: Connection,
    revision: int,
    *,
    by: str,
    why: str,
    now: dt.datetime,
    campaigns: Mapping[str, Campaign] | None = None,
) -> Draft:
    """The draft that takes a revision back, to be looked at before it is saved."""
    if not why.strip() or not by.strip():
        raise InputError("a change needs the name of whoever makes it, and why")
    _alone(conn)
    found = {r.revision: r for r in history(conn, 1_000_000)}
    wanted = found.get(revision)
    if wanted is None:
        raise InputError(f"there is no revision {revision}; `postlude calendar history` shows what there is")
    if wanted.kind == "file":
        raise InputError(f"revision {revision} is a change of {FILE}; take it back in Git")
    if wanted.reverted_by:
        raise InputError(f"revision {revision} was taken back by revision {wanted.reverted_by} already")
    touched = {change["key"] for change in wanted.changes}
    later = [c for r in found.values() if r.revision > revision for c in r.changes if c["key"] in touched]
    before = effective(conn, now)
    keys = flat(before)
    if any(keys.get(change["key"]) != change["after"] for change in wanted.changes):
        raise Conflict(revision, max(found), later, sorted({c["key"] for c in later} or touched))
    changes = [{"key": c["key"], "before": keys.get(c["key"]), "after": c["before"]} for c in wanted.changes]
    after = _whole(applied(keys, changes))
    _check(before, after, files() if campaigns is None else campaigns, after)
    return Draft(head(conn), by.strip(), why.strip(), changes, before, after, "revert", revision)


def files() -> dict[str, Campaign]:
    """The campaigns of include/campaigns that can be read, by id."""
    found: dict[str, Campaign] = {}
    for path in sorted((settings().include / "campaigns").glob("[!.]*.yml")):
        try:
            found[path.stem] = load_campaign(path)
        except InputError:
            continue  # told by itself; a broken file must not close the calendar
    return found


# ---------------------------------------------------------------- storing


def _alone(conn: Connection) -> None:
    db.run(conn, "30_calendar_alone")


def _keep(
    conn: Connection,
    calendar: Calendar,
    now: dt.datetime,
    author: str,
    why: str,
    kind: str,
    changes: Iterable[Change] = (),
    base: int | None = None,
    reverts: int | None = None,
) -> int:
    row = db.run(
        conn, "30_keep_calendar", now=now, author=author, why=why, content=db.dumps(calendar.content()),
        content_hash=calendar.content_hash, kind=kind, changes=db.dumps(list(changes)), base=base, reverts=reverts,
    ).one()  # fmt: skip
    return int(row.revision)


def _conflict(conn: Connection, base: int, mine: Sequence[Change]) -> Conflict:
    theirs = [change for r in reversed(history(conn, 1_000_000)) if r.revision > base for change in r.changes]
    overlap = sorted({change["key"] for change in mine} & {change["key"] for change in theirs})
    return Conflict(base, head(conn), theirs, overlap)
