"""What marketers steer, as a model: pauses, blackout days, send windows, contact pressure, moved delays, one-off sends."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from postlude import yamlfile
from postlude.campaign import Coupon
from postlude.settings import settings
from postlude.timing import Duration, WallTime, in_words
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


class Office(Window):
    """When somebody of the shop is there: for steps with `office_hours`, on the recipient's clock."""

    opens: WallTime = dt.time(9)
    closes: WallTime = dt.time(17)
    days: tuple[Weekday, ...] = WEEKDAYS[:5]
    closed: tuple[dt.date, ...] = Field((), description="days on which nobody is there")


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


# Local hours outside which a channel carries no marketing, whatever a window says. Korea forbids advertising from 21:00 to
# 08:00 without a consent of its own, e-mail excepted; others are no stricter. Mail follows the window alone.
LEGAL_HOURS = {"sms": (dt.time(8), dt.time(21))}


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


class Holidays(Strict):
    """Public holidays of the recipient's country: no marketing on them."""

    countries: tuple[str, ...] | Literal["all"] = Field(description='ISO codes, e.g. [DE, KR], or "all" that are known')
    exclude: tuple[str, ...] = Field((), alias="except", description="ISO codes left out")

    @field_validator("countries", "exclude")
    @classmethod
    def _known(cls, codes: tuple[str, ...] | str) -> tuple[str, ...] | str:
        for code in () if isinstance(codes, str) else codes:
            if code not in _holiday_countries():
                raise ValueError(f'no holidays are known for "{code}"; write ISO codes such as DE, FR, KR, or all')
        return codes

    def between(self, first: dt.date, last: dt.date) -> list[dict[str, Any]]:
        """[{country, days}] with the nation-wide public holidays from `first` to `last`."""
        chosen = sorted(_holiday_countries()) if self.countries == "all" else sorted(set(self.countries))
        found = []
        for country in chosen:
            if country not in self.exclude:
                days = [day for year in range(first.year, last.year + 1) for day in _holidays(country, year)]
                found.append({"country": country, "days": [str(day) for day in days if first <= day <= last]})
        return found


@lru_cache
def _holiday_countries() -> frozenset[str]:
    import holidays  # slow to import, and only needed where a calendar asks for them

    return frozenset(code for code in holidays.list_supported_countries() if len(code) == 2)


@lru_cache(maxsize=4096)
def _holidays(country: str, year: int) -> tuple[dt.date, ...]:
    import holidays

    return tuple(sorted(holidays.country_holidays(country, years=year)))


class Cap(Strict):
    """At most so many marketing messages per person, over all campaigns. Accepted, open and unknown ones count."""

    most: int = Field(ge=1, le=1000)
    within: Duration | None = Field(None, description='rolling: in any such span of time, e.g. "7 days"')
    per: Literal["day", "week", "month"] | None = Field(
        None, description="calendar: per day, week (from Monday) or month on the recipient's own calendar"
    )
    channel: str | None = Field(None, description="counts and limits messages of this channel only")
    topic: str | None = Field(None, description="counts and limits messages of this consent topic only")
    campaigns: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="counts and limits these campaigns only, together: the budget for asking one person",
    )

    @model_validator(mode="after")
    def _one_period(self) -> Cap:
        if (self.within is None) == (self.per is None):
            raise ValueError('name either "within" (rolling, e.g. 7 days) or "per" (day, week, month of the calendar)')
        if self.within is not None and not self.within:
            raise ValueError("within must be longer than nothing")
        return self

    def rule(self) -> dict[str, Any]:
        """As the SQL function share_out reads it."""
        span = f"in {in_words(self.within)}" if self.within else f"per {self.per}"
        only = "".join(f", {word}" for word in (self.channel, self.topic, " and ".join(self.campaigns or ())) if word)
        return {
            "most": self.most,
            "seconds": self.within.total_seconds() if self.within else None,
            "per": self.per,
            "channel": self.channel,
            "topic": self.topic,
            "campaigns": list(self.campaigns) if self.campaigns else None,
            "words": f"at most {self.most} {span}{only}",
        }


class Pressure(Strict):
    """How much marketing one person gets, over all campaigns. Transactional mail is never capped and never counts."""

    caps: tuple[Cap, ...] = ()
    gap: Duration = Field(dt.timedelta(0), description="shortest time between two messages, e.g. 12 hours")
    when_full: Literal["defer", "skip"] = Field(
        "defer", description="defer: looked at again when there is room, until it expires; skip: it is not sent"
    )

    @property
    def rules(self) -> list[dict[str, Any]]:
        """Caps and gap as the SQL function share_out reads them; a gap is a cap of one."""
        rules = [cap.rule() for cap in self.caps]
        if self.gap:
            rules.append(Cap(most=1, within=self.gap).rule() | {"words": f"a gap of {in_words(self.gap)}"})  # type: ignore[call-arg]
        return rules

    @property
    def reach(self) -> dt.timedelta:
        """So far back the rules look."""
        periods = {"day": 2, "week": 8, "month": 32}
        spans = [cap.within or dt.timedelta(days=periods[cap.per or "day"]) for cap in self.caps]
        return max([self.gap, *spans])


InFlight = Literal["finish", "migrate", "stop"]


class Delay(Strict):
    """A step falls due at another time than its file says. Days by category move along by the same number of days."""

    campaign: str
    step: str
    on_day: int | None = Field(None, ge=0, le=730, description="so many local calendar days after the anchor event")
    after: Duration | None = Field(None, description="exact time after the anchor event, instead of on_day")
    at: WallTime | None = Field(None, description="local time of day with on_day")
    in_flight: InFlight = Field(
        "finish",
        description="messages planned before the change: finish as planned, migrate to the new delay, or stop (cancelled)",
    )
    since: dt.datetime | None = Field(None, description="when it was changed; none: it holds for new passages only")
    why: str = ""

    @model_validator(mode="after")
    def _one_delay(self) -> Delay:
        if (self.on_day is None) == (self.after is None):
            raise ValueError('name either "on_day" (local calendar days) or "after" (exact time), and not both')
        if self.at is not None and self.on_day is None:
            raise ValueError('"at" goes with "on_day", not with "after"')
        return self


class Special(Strict):
    """One mail on one day to one segment: a special offer, or a card for an occasion."""

    id: str = Field(pattern=r"^[a-z][a-z0-9_]{1,47}$")
    kind: Literal["offer", "card"]
    name: str = Field(min_length=1, max_length=80)
    date: dt.date
    until: dt.date | None = Field(None, description="last day on which it is true; the mail is not sent later")
    segment: str = Field(description="a segment id")
    template: str = Field(pattern=r"^[a-z0-9_]+/[a-z0-9_]+$", description="folder/name in include/templates")
    at: WallTime | None = Field(None, description="local time of day; default: when the send window opens")
    coupon: Coupon | None = None
    why: str = ""
    customer_why: str = Field(
        "You get this mail because you agreed to hear from us.",
        min_length=1,
        description="told to the customer: why do I get this mail?",
    )

    _dates = field_validator("date", mode="before")(_day)

    @field_validator("until", mode="before")
    @classmethod
    def _until(cls, value: Any) -> Any:
        return None if value in (None, "") else _day(value)

    @model_validator(mode="after")
    def _order(self) -> Special:
        if self.until is not None and self.until < self.date:
            raise ValueError(f"it ends ({self.until}) before it is sent ({self.date})")
        return self

    @property
    def last(self) -> dt.date:
        """The last day on which it may still be sent."""
        return self.until or self.date + dt.timedelta(days=2 if self.kind == "offer" else 0)


class Calendar(Strict):
    """include/calendar.yml"""

    window: Window
    windows: dict[str, Window] = Field({}, description="windows of single campaigns, by campaign id")
    office: Office = Field(
        Office(),  # type: ignore[call-arg]
        description="when somebody of the shop is there, for steps with office_hours",
    )
    blackout_days: tuple[Blackout, ...] = ()
    holidays: Holidays | None = Field(None, description="public holidays on which no marketing is sent")
    pauses: tuple[Pause, ...] = ()
    occasions: tuple[Occasion, ...] = Field((), description="days that campaigns start from: id, date, why")
    delays: tuple[Delay, ...] = Field((), description="steps that fall due at another time than their file says")
    specials: tuple[Special, ...] = Field((), description="one-off offers and cards for a segment")
    pressure: Pressure | None = Field(None, description="default: marketing_cap of the settings, rolling")
    spread: Duration = Field(
        dt.timedelta(hours=2),
        description="what was put off is spread over so much of the next window, not released at once",
    )

    @property
    def pressure_in_force(self) -> Pressure:
        if self.pressure is not None:
            return self.pressure
        within = dt.timedelta(days=settings().marketing_cap_days)
        return Pressure(caps=(Cap(most=settings().marketing_cap, within=within),))  # type: ignore[call-arg]

    def window_of(self, campaign_id: str) -> Window:
        return self.windows.get(campaign_id, self.window)

    def window_on(self, channel: str, campaign_id: str) -> Window:
        """The campaign's window inside the legal hours of a channel, where it has any."""
        window, legal = self.window_of(campaign_id), LEGAL_HOURS.get(channel)
        if legal is None:
            return window
        hours = {"opens": max(window.opens, legal[0]), "closes": min(window.closes, legal[1])}
        return window.model_copy(update=hours)

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

    def resumed(self, campaign_id: str, kind: str, now: dt.datetime) -> dt.datetime | None:
        """When a pause of `campaign_id` ended, if that is less than `spread` ago: what waited for it is not released at once."""
        ends = [
            dt.datetime.combine(pause.last + dt.timedelta(days=1), dt.time(), dt.UTC)
            for pause in self.pauses
            if pause.campaign == campaign_id or (pause.campaign == "all" and kind == "marketing")
        ]
        return max((end for end in ends if end <= now < end + self.spread), default=None)

    def holidays_around(self, now: dt.datetime, ahead: dt.timedelta) -> list[dict[str, Any]]:
        """[{country, days}] that can matter to a message due up to `ahead` after `now`; a window is looked for 90 days ahead."""
        if self.holidays is None:
            return []
        return self.holidays.between((now - dt.timedelta(days=2)).date(), (now + ahead + dt.timedelta(days=92)).date())

    @property
    def blackouts(self) -> list[dt.date]:
        return [blackout.date for blackout in self.blackout_days]

    def dates_of(self, occasion: str) -> list[dt.date]:
        """Days of an occasion; a one-off send is the occasion of its own campaign."""
        days = [entry.date for entry in self.occasions if entry.id == occasion]
        return days + [entry.date for entry in self.specials if entry.id == occasion]

    @property
    def content_hash(self) -> str:
        return hashlib.sha256(json.dumps(self.content(), sort_keys=True).encode()).hexdigest()[:16]

    def content(self) -> dict[str, Any]:
        return self.model_dump(mode="json", by_alias=True)


def load_calendar(path: Path) -> Calendar:
    """The calendar file. Raises InputError with every fault as file:line: key: message."""
    return yamlfile.load(path, Calendar)
