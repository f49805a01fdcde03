"""Dead letters and unknown ones: what they are, and what a person may decide about them. Every decision keeps who and why."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from postlude import db
from postlude.errors import InputError

MOST = 1000


def dead_letters(conn: Connection, message: UUID | None = None, most: int = MOST) -> list[dict[str, Any]]:
    """Messages that failed for good and were not dropped: reason, raw reply, attempts, content hash. The newest first."""
    return _rows(conn, "47_dead_letters", message_id=message, most=most)


def retry(conn: Connection, messages: Sequence[UUID], by: str, why: str, now: datetime) -> int:
    """Make dead letters due again; the claim reads every rule again. Returns how many. InputError: no reason, or not dead."""
    return _each(conn, "47_retry_dead", messages, "is no dead letter", by, why, now=now)


def drop(conn: Connection, messages: Sequence[UUID], by: str, why: str, now: datetime) -> int:
    """They stay dead and are no longer listed."""
    return _each(conn, "47_drop_dead", messages, "is no dead letter, or was dropped", by, why, now=now)


def unknown_letters(
    conn: Connection, now: datetime, message: UUID | None = None, most: int = MOST
) -> list[dict[str, Any]]:
    """Messages whose answer was lost. `final`: after 72 hours no report is expected any more, and they stay unknown."""
    return _rows(conn, "47_unknown_letters", message_id=message, now=now, most=most)


def settle(conn: Connection, message: UUID, arrived: bool, by: str, why: str, evidence: str, now: datetime) -> None:
    """Say, with evidence, whether it arrived: it becomes sent, or failed (`not_accepted`, which may be retried by hand)."""
    if not evidence.strip():
        raise InputError("--evidence is empty; write what shows it, e.g. a line of the relay's log")
    _each(conn, "47_settle_by_hand", [message], "is not unknown", by, why, now=now, arrived=arrived, evidence=evidence)


def story(conn: Connection, message: UUID) -> list[dict[str, Any]]:
    """Its attempts, reports and decisions: at, what, told."""
    return _rows(conn, "47_story", message_id=message)


def _rows(conn: Connection, name: str, **params: Any) -> list[dict[str, Any]]:
    return [dict(row) for row in db.run(conn, name, **params).mappings()]


def _each(conn: Connection, name: str, messages: Sequence[UUID], lack: str, by: str, why: str, **params: Any) -> int:
    if not by.strip() or not why.strip():
        raise InputError("a decision keeps who and why; write --by NAME --why REASON")
    for message in messages:
        if db.run(conn, name, message_id=message, decided_by=by, why=why, **params).first() is None:
            raise InputError(f"message {message} {lack}; nothing was changed")
    return len(messages)
