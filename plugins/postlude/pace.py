"""How fast each mailbox provider is written to: connections at once (per worker) and messages a minute (of all workers).

Addresses of one provider are one family, whatever their domain. "Slow down" (421, 4.7.x) halves what its family may have, success
adds to it again, and one connection is always left. What finds no place waits in the database, spread over the minutes to come.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine

from postlude import db
from postlude.providers import provider_of
from postlude.settings import settings

_MINUTE = timedelta(minutes=1)


def family(address: str | None) -> str:
    """The provider behind an address: `gmail` for googlemail.com, `outlook` for hotmail.co.uk; else the domain itself."""
    return provider_of((address or "").rpartition("@")[2])


@dataclass
class Pace:
    """One worker's pace; rates are kept in the database for all of them. Safe for many threads."""

    engine: Engine
    channel: str
    clock: Callable[[], datetime]
    connections: int
    _under_way: Counter[str] = field(default_factory=Counter)
    _allowed: dict[str, float] = field(default_factory=dict)  # connections, of families that have fewer than all
    _full_until: dict[str, datetime] = field(default_factory=dict)
    _put_off: Counter[str] = field(default_factory=Counter)
    _lock: Any = field(default_factory=threading.Lock)

    def begin(self, family: str) -> bool:
        """Take a connection for this family if it may have one more; `end` gives it back."""
        with self._lock:
            if self._under_way[family] >= int(self._allowed.get(family, self._most(family))):
                return False
            self._under_way[family] += 1
            return True

    def end(self, family: str) -> None:
        with self._lock:
            self._under_way[family] -= 1

    def _most(self, family: str) -> int:
        limits = settings().provider_connections
        return max(1, min(limits.get(family, limits.get("*", self.connections)), self.connections))

    def take(self, family: str) -> datetime | None:
        """Take one of this minute's places. None: it may go now; else when to come back."""
        now = self.clock()
        rates = settings().provider_rates
        rate = rates.get(family, rates.get("*"))
        with self._lock:
            full = self._full_until.get(family)
            if full and full > now:
                return self._later(family, full, rate)
            if rate is None:
                return None
        with db.transaction(self.engine) as conn:
            most = self._rate(conn, family, rate, now)
            row = db.run(conn, "44_take_place", channel=self.channel, family=family, most=most, now=now).one()
        if row.taken:
            return None
        with self._lock:
            self._full_until[family] = row.free_at
            self._put_off[family] = 0
            return self._later(family, row.free_at, most)

    def _rate(self, conn: Any, family: str, rate: int, now: datetime) -> int:
        """Messages a minute: the setting, or what was left of it after "slow down" and one more for each minute since."""
        row = db.run(conn, "44_lock_pace", channel=self.channel, family=family, most=rate).one()
        return rate if row.lowered_at is None else min(rate, row.most + int((now - row.lowered_at) / _MINUTE))

    def _later(self, family: str, free_at: datetime, rate: int | None) -> datetime:
        """When the next one that waits may come back: as many a minute as may go then."""
        waits = self._put_off[family]
        self._put_off[family] += 1
        return free_at + _MINUTE * (waits // (rate or 60))

    def slower(self, family: str) -> None:
        """The provider said "slow down": half the connections, half the rate; with one connection left, a minute's rest."""
        now = self.clock()
        rates = settings().provider_rates
        rate = rates.get(family, rates.get("*"))
        with self._lock:
            allowed = int(self._allowed.get(family, self._most(family)))
            if allowed <= 1:
                self._full_until[family] = now + _MINUTE
                self._put_off[family] = 0
            self._allowed[family] = max(1, allowed // 2)
        if rate is not None:
            with db.transaction(self.engine) as conn:
                half = max(1, self._rate(conn, family, rate, now) // 2)
                db.run(conn, "45_lower_pace", channel=self.channel, family=family, most=half, now=now)

    def faster(self, family: str) -> None:
        """The provider took a message."""
        if family not in self._allowed:
            return
        with self._lock:
            allowed = self._allowed.get(family, 1.0)
            self._allowed[family] = allowed + 1 / allowed
            if self._allowed[family] >= self._most(family):
                del self._allowed[family]
