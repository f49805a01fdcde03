"""The deliverability gate: a campaign whose mail bounces, or is called spam, stops itself before the providers stop the shop.

It throws the campaign's own kill switch, which every worker obeys within one batch and people see and lift as any other. The
canary (volume.py) guards single large releases; this looks at all that went in the last days, however small the runs were.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from postlude import db, switch
from postlude.settings import settings

GATE = "deliverability gate"


def watch(conn: Connection, now: datetime) -> list[str]:
    """Stop each campaign whose share of bounces or complaints is over its limit; what to tell on-call, one line a campaign.

    Few messages are not judged, and two bad ones are chance. A stop that somebody has lifted is not thrown again because of
    what had gone before that.
    """
    config, told = settings(), []
    rows = db.run(
        conn, "39_deliverability", now=now, window=config.deliverability_window, enough=config.deliverability_enough, gate=GATE
    ).all()  # fmt: skip
    for row in rows:
        found = [
            f"{bad:,} of {row.handed_over:,} {what} ({bad / row.handed_over:.1%}, at most {limit:.1%})"
            for bad, limit, what in (
                (row.bounced, config.bounce_limit, "bounced or were refused"),
                (row.complained, config.complaint_limit, "complained"),
            )
            if bad > max(2, limit * row.handed_over)
        ]
        if found:
            why = "; ".join(found)
            switch.stop(conn, "campaign", row.campaign_id, why, GATE, now)
            told.append(
                f"{row.campaign_id} is stopped: {why}; once mended: `postlude go campaign {row.campaign_id} --why ...`"
            )
    return told
