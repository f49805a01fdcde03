"""Feedback: what channels and public pages report becomes events, and events have effects.

Reports land in event_inbox first (each once, by key); `apply` turns them into events, consents, suppressions, reviews and
settled unknowns, in one transaction.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from postlude import db
from postlude.channels import Channel

OVERLAP = timedelta(hours=1)  # reports may become visible late; told again they change nothing


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
    }
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
        if row.taken < batch:
            return total
