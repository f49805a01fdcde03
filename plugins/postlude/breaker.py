"""The circuit breaker of a channel: a relay that does not take mail is left alone for a while, by all workers and runs.

Closed until so many failures in a row, or one that is the configuration's fault (a wrong password does not mend itself). Then
nothing is claimed until the wait is over; one message tries (half-open), and its failure doubles the wait.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Engine

from postlude import db
from postlude.settings import settings

log = logging.getLogger(__name__)


@dataclass
class Breaker:
    """One worker's view of it; the state is in relay_breakers. Safe for many threads."""

    engine: Engine
    channel: str
    clock: Callable[[], datetime]
    probing: bool = False  # until the relay has answered, one message at a time
    _failed: bool = False  # there is a row that a success must remove
    _lock: Any = field(default_factory=threading.Lock)

    def may_try(self) -> bool:
        """May anything be claimed now? True with `probing`: one message, whose outcome decides."""
        with db.transaction(self.engine) as conn:
            row = db.run(conn, "40_may_try", channel=self.channel, now=self.clock()).first()
        self._failed = row is not None
        self.probing = row is not None and row.probe
        if row is None or row.opened_at is None or row.probe:
            return True
        log.warning("%s: the relay failed %d times, last: %s; next try at %s UTC", self.channel, row.failures, row.reply,
                    f"{row.next_try_at:%H:%M:%S}")  # fmt: skip
        return False

    def failed(self, reply: str, at_once: bool) -> bool:
        """Count a failure of the relay; is the breaker open now?"""
        config = settings()
        with self._lock, db.transaction(self.engine) as conn:
            self._failed = True
            row = db.run(
                conn, "45_relay_failed", channel=self.channel, reply=reply, now=self.clock(), most=config.breaker_failures,
                at_once=at_once, probe=self.probing, shortest=config.breaker_wait, longest=config.breaker_longest_wait,
            ).one()  # fmt: skip
        return row.opened_at is not None

    def works(self) -> None:
        """The relay has answered about a message."""
        if not self._failed:
            return
        with self._lock, db.transaction(self.engine) as conn:
            db.run(conn, "45_relay_works", channel=self.channel)
            self._failed = self.probing = False
