"""What the public views say, for the summary at the end of a demo."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, text

STAGES = ("new", "active", "at_risk", "lapsed")

_SOURCES = """
select s.source_id,
       (select count(*) from customers as c where c.source_id = s.source_id),
       (select count(*) from orders as o where o.source_id = s.source_id),
       (select count(*) from order_lines as l join orders as o using (order_id) where o.source_id = s.source_id)
from sources as s order by s.source_id
"""
_QUARANTINE = """
select source_id, reason, count(*), sum(1.0 / cardinality(reasons))
from quarantine, unnest(reasons) as reason
where released_at is null group by source_id, reason order by 3 desc, 2
"""
_STATES = "select campaign_id, state, count(*) from messages group by campaign_id, state order by 1, 3 desc, 2"
_REASONS = """
select campaign_id, reason, count(*) from (
    select campaign_id, reason from messages where reason is not null and state <> 'sent'
    union all select campaign_id, reason from refusals
) as refused group by campaign_id, reason order by 1, 3 desc, 2
"""


def summary(conn: Connection) -> dict[str, Any]:
    """Counts: {"sources": {id: {customers, orders, lines, quarantined, reasons}}, "stages": {stage: customers},
    "campaigns": {id: {enrolled, states: {state: messages}, reasons: {reason: messages + candidates}}}, "sent": n}.
    """
    sources: dict[str, dict[str, Any]] = {
        name: {"customers": customers, "orders": orders, "lines": lines, "quarantined": 0, "reasons": {}}
        for name, customers, orders, lines in conn.execute(text(_SOURCES))
    }
    shares: dict[str, float] = {}
    for name, reason, count, share in conn.execute(text(_QUARANTINE)):
        sources[name]["reasons"][reason] = count
        shares[name] = shares.get(name, 0.0) + float(share)
    for name, share in shares.items():  # a row with two reasons is one row
        sources[name]["quarantined"] = round(share)
    stages = dict.fromkeys(STAGES, 0) | {
        stage: count
        for stage, count in conn.execute(text("select stage, count(*) from customer_features group by stage"))
    }
    campaigns: dict[str, dict[str, Any]] = {
        name: {"enrolled": count, "states": {}, "reasons": {}}
        for name, count in conn.execute(text("select campaign_id, count(*) from enrolments group by 1 order by 1"))
    }
    empty: dict[str, Any] = {"enrolled": 0}
    for part, query in (("states", _STATES), ("reasons", _REASONS)):
        for name, what, count in conn.execute(text(query)):
            campaigns.setdefault(name, empty | {"states": {}, "reasons": {}})[part][what] = count
    sent = conn.scalar(text("select count(*) from messages where state = 'sent'"))
    return {"sources": sources, "stages": stages, "campaigns": campaigns, "sent": sent or 0}
