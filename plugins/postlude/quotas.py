"""include/warmup.yml: daily quotas and warm-up plans per channel and mailbox provider, and who of a claim has a place today.

All workers share the counters of `quota_use`. While a quota is in force a claim takes their rows first and keeps them until it is
committed, so claims follow each other and the highest priority over all campaigns gets the places.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal
from uuid import UUID
from zoneinfo import ZoneInfo, available_timezones

from pydantic import Field, field_validator, model_validator
from sqlalchemy import Connection

from postlude import db, yamlfile
from postlude.providers import provider_of
from postlude.settings import settings
from postlude.yamlfile import Strict

ALL, OTHERS = "all", "others"
Most = int | Literal["no limit"]


class Quota(Strict):
    """At most so many messages a day: always (`most`), or by a warm-up plan (`starts` and `days`)."""

    channel: str = "email"
    provider: str = Field(
        description='a provider (gmail, outlook, ...), a domain, "others" (all without a quota of their own) or "all"'
    )
    most: int | None = Field(None, ge=0)
    starts: dt.date | None = None
    days: dict[int, Most] = Field({}, description="from day n on at most so many; the last figure stays in force")

    @field_validator("starts", mode="before")
    @classmethod
    def _date(cls, value: Any) -> Any:
        try:
            return value if value is None else dt.date.fromisoformat(str(value))
        except ValueError:
            raise ValueError(f'"{value}" is not a date; write e.g. 2026-12-24') from None

    @model_validator(mode="after")
    def _one_way(self) -> Quota:
        if (self.most is None) == (self.starts is None) or (self.starts is None) != (not self.days):
            raise ValueError('name either "most" (every day), or "starts" and "days" (a warm-up plan)')
        if self.days and 1 not in self.days:
            raise ValueError("days has no day 1; a plan says from its first day how many may go")
        if any(day < 1 or (most != "no limit" and most < 0) for day, most in self.days.items()):
            raise ValueError("days counts from 1, and no day has less than 0 messages")
        return self

    def on(self, day: dt.date) -> int | None:
        """How many may go on this day; None: no limit. Before a plan starts it limits nothing."""
        if self.starts is None:
            return self.most
        number = (day - self.starts).days + 1
        reached = [n for n in self.days if n <= number]
        most = self.days[max(reached)] if reached else "no limit"
        return None if most == "no limit" else most


class Quotas(Strict):
    """include/warmup.yml"""

    zone: str = Field(default="UTC", description="whose day a quota is of, e.g. Europe/Berlin")
    quotas: tuple[Quota, ...] = ()

    @field_validator("zone")
    @classmethod
    def _known(cls, zone: str) -> str:
        if zone not in available_timezones():
            raise ValueError(f'"{zone}" is no time zone; write e.g. Europe/Berlin')
        return zone

    def day(self, now: dt.datetime) -> dt.date:
        return now.astimezone(ZoneInfo(self.zone)).date()

    def next_day(self, now: dt.datetime) -> dt.datetime:
        """The instant at which the next day begins."""
        tomorrow = self.day(now) + dt.timedelta(days=1)
        return dt.datetime.combine(tomorrow, dt.time(), ZoneInfo(self.zone)).astimezone(dt.UTC)

    def in_force(self, channel: str, now: dt.datetime) -> dict[str, int]:
        """Today's quotas of a channel, by provider; of several for one provider the smallest."""
        found: dict[str, int] = {}
        for quota in self.quotas:
            most = quota.on(self.day(now))
            if quota.channel == channel and most is not None:
                found[quota.provider] = min(most, found.get(quota.provider, most))
        return found

    # ------------------------------------------------------------ in the claim

    def lock(self, conn: Connection, channel: str, now: dt.datetime) -> None:
        """Wait for the claims before us. First in the claim's transaction: whoever holds a counter waits for no message."""
        if limits := self.in_force(channel, now):
            db.run(conn, "40_lock_quota", channel=channel, day=self.day(now), providers=sorted(limits))

    def share_out(self, conn: Connection, channel: str, claimed: Sequence[UUID], now: dt.datetime) -> set[UUID]:
        """Of these claimed messages the ones that have no place today: they are put off to the next day, reason `quota`.

        Transactional messages always go, and count. A message that had a place today keeps it.
        """
        limits = self.in_force(channel, now)
        if not limits or not claimed:
            return set()
        ids = list(claimed)
        domains = db.run(conn, "43_domains", ids=ids).scalars()
        own = [{"domain": domain, "provider": self._rule(domain, limits)} for domain in domains]
        rules = [{"provider": provider, "most": most} for provider, most in limits.items()]
        return set(
            db.run(
                conn, "43_share_quota", ids=ids, channel=channel, day=self.day(now), next_day=self.next_day(now), now=now,
                rules=db.dumps(rules), domains=db.dumps(own),
            ).scalars()
        )  # fmt: skip

    @staticmethod
    def _rule(domain: str, limits: dict[str, int]) -> str | None:
        for name in (domain, provider_of(domain), OTHERS):
            if name in limits and name != ALL:
                return name
        return None


def used(conn: Connection, quotas: Quotas, now: dt.datetime) -> list[dict[str, Any]]:
    """Today's quotas: channel, provider, most, used, left, and how many messages wait for a place."""
    taken = {(row.channel, row.provider): row for row in db.run(conn, "43_quota_use", day=quotas.day(now))}
    found = []
    for channel in sorted({quota.channel for quota in quotas.quotas}):
        for provider, most in sorted(quotas.in_force(channel, now).items()):
            row = taken.get((channel, provider))
            count = row.used if row else 0
            left = max(0, most - count)
            found.append({"channel": channel, "provider": provider, "most": most, "used": count, "left": left,
                          "put off": row.waiting if row else 0})  # fmt: skip
    return found


def load_quotas(path: Path | None = None) -> Quotas:
    """The quotas in include/warmup.yml; no file: none. Raises InputError with every fault. Read again when the file changed."""
    path = path or settings().include / "warmup.yml"
    return yamlfile.load_unchanged(path, Quotas) if path.exists() else Quotas()
