"""A worker in a process of its own, to be killed: `python a_worker.py DATABASE RELAY NAME [CLOCK]`."""

from __future__ import annotations

import sys
from datetime import datetime

from faulty import START
from postlude import db, outbox
from postlude.channels import smtp
from postlude.graceful import told_to_stop
from world import calendar, campaign

if __name__ == "__main__":
    database, relay, name = sys.argv[1:4]
    now = datetime.fromisoformat(sys.argv[4]) if len(sys.argv) > 4 else START
    box = outbox.Outbox(
        engine=db.engine(database), channel=smtp, url=relay, campaigns=[campaign("feedback_30d")], calendar=calendar(),
        clock=lambda: now, worker=name,
    )  # fmt: skip
    print("ready", flush=True)
    with told_to_stop(box.stop):
        print(box.deliver(), flush=True)
