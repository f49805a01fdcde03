"""What marketers steer: pauses, blackout days, send windows. The file is the baseline; each change becomes a revision."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from postlude import yamlfile
from postlude.timing import WallTime
from postlude.yamlfile import Strict

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _day(value: Any) -> dt.date:
    try:
        return dt.date.fromisoformat(str(value))
    except ValueError:
        raise ValueError(f'"{value}" is not a date; write e.g. 2026-12-24') from None


class Window(Strict):
    """When messages may be handed over, on the recipient's clock."""

    opens: WallTime
    closes: WallTime
    days: tuple[Weekday, ...] = WEEKDAYS

    @model_validator(mode="after")
    def _possible(self) -> Window:
        if self.opens >= self.closes:
            raise ValueError(
                f"the window opens at {self.opens:%H:%M} and closes at {self.closes:%H:%M}; it must open first"
            )
        if not self.days:
            raise ValueError("the window has no day; name at least one of mon ... sun")
        return self


class Pause(Strict):
    """Nothing of this campaign is handed over from the first to the last day (both included, UTC)."""

    campaign: str = Field(description='a campaign id, or "all" for every marketing campaign')
    first: dt.date = Field(alias="from")
    last: dt.date = Field(alias="until")
    why: str

    _dates = field_validator("first", "last", mode="before")(_day)

    @model_validator(mode="after")
    def _order(self) -> Pause:
        if self.last < self.first:
            raise ValueError(f"the pause ends ({self.last}) before it begins ({self.first})")
        return self


class Blackout(Strict):
    """A local calendar day on which no marketing is sent."""

    date: dt.date
    why: str

    _dates = field_validator("date", mode="before")(_day)


class Occasion(Strict):
    """A day that campaigns may start from (trigger `occasion`); the same id may come back every year."""

    id: str = Field(pattern=r"^[a-z][a-z0-9_]{1,47}$")
    date: dt.date
    why: str

    _dates = field_validator("date", mode="before")(_day)


class Calendar(Strict):
    """include/calendar.yml"""

    window: Window
    windows: dict[str, Window] = Field({}, description="windows of single campaigns, by campaign id")
    blackout_days: tuple[Blackout, ...] = ()
    pauses: tuple[Pause, ...] = ()
    occasions: tuple[Occasion, ...] = Field((), description="days that campaigns start from: id, date, why")

    def window_of(self, campaign_id: str) -> Window:
        return self.windows.get(campaign_id, self.window)

    def weekday_numbers(self, campaign_id: str) -> list[int]:
        """ISO weekday numbers (Monday is 1) of a campaign's window."""
        return [WEEKDAYS.index(day) + 1 for day in self.window_of(campaign_id).days]

    def paused(self, campaign_id: str, kind: str, now: dt.datetime) -> Pause | None:
        """The pause that holds `campaign_id` at `now`, if any. Transactional mail stops only when named itself."""
        for pause in self.pauses:
            named = pause.campaign == campaign_id or (pause.campaign == "all" and kind == "marketing")
            if named and pause.first <= now.date() <= pause.last:
                return pause
        return None

    @property
    def blackouts(self) -> list[dt.date]:
        return [blackout.date for blackout in self.blackout_days]

    def dates_of(self, occasion: str) -> list[dt.date]:
        return [entry.date for entry in self.occasions if entry.id == occasion]

    @property
    def content_hash(self) -> str:
        return hashlib.sha256(json.dumps(self.content(), sort_keys=True).encode()).hexdigest()[:16]

    def content(self) -> dict[str, Any]:
        return self.model_dump(mode="json", by_alias=True)


def load_calendar(path: Path) -> Calendar:
    """The calendar file. Raises InputError with every fault as file:line: key: message."""
    return yamlfile.load(path, Calendar)
