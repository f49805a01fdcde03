"""Feedback: what channels and public pages report becomes events, and events have effects.

Reports land in event_inbox first (each once, by key); `apply` turns them into events, consents, suppressions, reviews and
settled unknowns, in one transaction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from postlude import db, mailbox
from postlude.channels import Channel
from postlude.hooks import reports
from postlude.settings import settings

OVERLAP = timedelta(hours=1)  # reports may become visible late; told again they change nothing
LATE = timedelta(hours=2)  # so much later providers may put an entry into a list
FIRST_LOOK = timedelta(days=7)

Begin = Callable[[], AbstractContextManager[Connection]]


def collect(conn: Connection, channel: Channel, url: str, name: str, now: datetime) -> dict[str, int]:
    """Ask the channel what happened since the last report (with an overlap) and land it. Raises Unavailable."""
    newest = conn.execute(
        text("select max(received_at) from event_inbox where source = :name and received_at <= :now"),
        {"name": name, "now": now},
    ).scalar()
    since = (newest or now - timedelta(days=7)) - OVERLAP
    rows = [
        {
            "dedupe_key": f"{name}:{event['kind']}:{event['message_id']}:{event.get('detail', {}).get('id', '')}",
            "payload": event,
        }
        for event in channel.events(url, since)
    ]
    landed = db.run(conn, "54_land_events", rows=db.dumps(rows), source=name, now=now).rowcount if rows else 0
    return {"reported": len(rows), "landed": landed}


def pull(begin: Begin, channel: Channel, url: str, name: str, provider: str, now: datetime) -> dict[str, int]:
    """Read the lists a provider keeps of what became of messages, and land what is new; {} where it keeps none.

    begin() opens a transaction: one for each page, with how far the list has been read. After a failure the next run goes on
    there. A report that a web hook brought already has the same key. Raises Unavailable, InputError.
    """
    lists = getattr(channel, "lists", None)
    if lists is None:
        return {}
    counts = {"pages": 0, "reported": 0, "landed": 0}
    for entry, pages in sorted(lists(url).items()):
        of = {"channel": name, "provider": provider, "list": entry}
        with begin() as conn:
            seen = db.run(conn, "54_report_cursor", **of).scalar()
        for page in pages((seen or now - FIRST_LOOK) - LATE):
            with begin() as conn:
                rows = [{"dedupe_key": key, "raw": raw} for key, raw in page.reports]
                if rows:
                    counts["pages"] += 1
                    counts["reported"] += len(rows)
                    counts["landed"] += db.run(
                        conn, "54_land_reports", rows=db.dumps(rows), provider=provider, now=now
                    ).rowcount
                if page.until:
                    db.run(conn, "54_move_report_cursor", **of, seen_at=min(page.until, now), now=now)
    return counts


def collect_mailbox(conn: Connection, maildir: Path, now: datetime) -> tuple[dict[str, int], list[Path]]:
    """Land bounces, complaints and replies of a Maildir; returns counts and the files that may go once this is committed.

    The same mail again has the same key. A mail whose envelope address is not ours is landed too, and changes nothing.
    """
    counts = {"mails": 0, "bounce": 0, "complaint": 0, "auto_reply": 0, "reply": 0, "unreadable": 0, "landed": 0}
    rows, read = [], []
    for path, raw in mailbox.messages(maildir):
        reading = mailbox.read(raw)
        counts["mails"] += 1
        counts[reading.kind] += 1
        read.append(path)
        rows += [
            {"dedupe_key": f"mail:{hashlib.sha256(raw).hexdigest()}", "payload": payload}
            for payload in _reports(reading)
        ]
    if rows:
        counts["landed"] = db.run(conn, "54_land_events", rows=db.dumps(rows), source="mailbox", now=now).rowcount
    return counts, read


def _reports(reading: mailbox.Reading) -> list[dict[str, Any]]:
    """The event a mail stands for; none for automatic answers and what cannot be read."""
    kinds = {"bounce": "bounced", "complaint": "complained", "reply": "replied"}
    if reading.kind not in kinds:
        return []
    detail: dict[str, Any] = {}
    if reading.failures:
        # a message goes to one person: the worst that is reported of it counts
        worst = max(reading.failures, key=lambda failure: (failure.hard, failure.permanent))
        detail = {"hard": worst.hard, "permanent": worst.permanent, "status": worst.status}
    return [{"kind": kinds[reading.kind], "message_id": str(reading.message_id or ""), "detail": detail}]


def tell(conn: Connection, now: datetime, batch: int = 2_000) -> int:
    """Read what providers reported, as it landed: each row becomes an event of ours, is no news, or keeps its problem."""
    read = 0
    while True:
        waiting = list(db.run(conn, "50_untold_reports", now=now, batch=batch))
        rows: list[dict[str, Any]] = []
        for row in waiting:
            try:
                event = reports.read(row.source, row.raw)
            except ValueError as error:
                rows.append({"inbox_id": row.inbox_id, "problem": str(error)[:200]})
                continue
            found_by = {name: event.pop(name, None) if event else None for name in ("phone", "address")}
            rows.append({"inbox_id": row.inbox_id, "payload": event, "nothing": event is None, **found_by})
        if rows:
            db.run(conn, "50_tell_reports", rows=db.dumps(rows), now=now)
        read += len(rows)
        if len(waiting) < batch:
            if read:
                db.run(conn, "50_tell_scanners", now=now)
            return read


def apply(conn: Connection, now: datetime, batch: int = 10_000) -> dict[str, Any]:
    """Turn waiting reports into events with their effects. Cost grows with the reports, not with history."""
    total: dict[str, Any] = {
        "taken": 0,
        "not_understood": 0,
        "events": 0,
        "settled": 0,
        "withdrawn": 0,
        "suppressed": 0,
        "rated": 0,
        "paused": 0,
    }
    tell(conn, now)
    while True:
        row = db.run(conn, "50_take_inbox", now=now, batch=batch).one()
        ids = list(row.event_ids)
        total["taken"] += row.taken
        total["not_understood"] += row.not_understood
        total["events"] += len(ids)
        if ids:
            total["settled"] += db.run(conn, "51_settle_unknown", event_ids=ids, now=now).rowcount
            total["withdrawn"] += db.run(conn, "52_withdraw_consent", event_ids=ids, now=now).rowcount
            total["suppressed"] += db.run(conn, "52_suppress", event_ids=ids).rowcount
            total["rated"] += db.run(conn, "53_store_ratings", event_ids=ids).rowcount
            wait = settings().reply_pause
            total["paused"] += db.run(conn, "53_break_on_reply", event_ids=ids, wait=wait, now=now).rowcount
        if row.taken < batch:
            return total
