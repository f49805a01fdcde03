"""What include/loyalty.yml and include/recovery.yml may say: the club, its tiers, surprise gifts; what counts as gone wrong."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from postlude import yamlfile
from postlude.conditions import Period, Slug
from postlude.errors import Fault, InputError
from postlude.settings import settings
from postlude.timing import Duration
from postlude.yamlfile import Strict

LOYALTY, RECOVERY = "loyalty.yml", "recovery.yml"


class Earn(Strict):
    """What an order brings."""

    points_per_unit: float = Field(gt=0, le=1000, description="points for one unit of the shop's currency")
    on: Literal["paid", "delivered"] = Field("delivered", description="when an order brings its points")


class Tier(Strict):
    """A tier of the club."""

    id: Slug
    name: str = Field(min_length=1, max_length=40, description="as customers read it")
    spend: float = Field(ge=0, description="spent within the window, in the shop's currency")
    points_per_unit: float | None = Field(None, gt=0, le=1000, description="instead of earn.points_per_unit")
    perks: tuple[str, ...] = Field((), description="what members of this tier really get, one line each")


class Join(Strict):
    """The offer with which somebody over the threshold is invited."""

    percent: int = Field(ge=1, le=90, description="off the first order of a new member")


class Club(Strict):
    """The paid club."""

    name: str = Field(min_length=1, max_length=40)
    price: float = Field(gt=0, description="for one period, in the shop's currency")
    renew_every: Period = Field(description='days, weeks, months or years of the calendar: "12 months"')
    grace: Duration = Field(timedelta(days=14), description="unpaid so long after the renewal, it ends")
    tier: Slug | None = Field(None, description="at least this tier")
    url: str = Field(description="where people pay and manage it")


class Choice(Strict):
    """One gift that may be drawn."""

    gives: Literal["gift", "coupon", "thanks"]
    gift: str = Field(min_length=1, max_length=120, description="as customers read it")
    worth: float = Field(gt=0, description="what it costs, in the shop's currency")
    weight: int = Field(1, ge=1, le=1000)


class Gifts(Strict):
    """Surprise gifts, drawn by lot once a month."""

    budget: float = Field(ge=0, description="a month, in the shop's currency; never exceeded")
    seed: str = Field(
        min_length=1, description="the draw depends on it, the month and the customer, and on nothing else"
    )
    pause: Duration = Field(timedelta(days=180), description="nobody is drawn twice within this time")
    not_discounted: Duration = Field(timedelta(days=90), description="who got a coupon within this time is left out")
    choices: tuple[Choice, ...] = Field(min_length=1)


class Loyalty(Strict):
    """include/loyalty.yml"""

    earn: Earn
    worth: float = Field(0.01, gt=0, description="what one point is worth when redeemed, in the shop's currency")
    expire_after: Duration | None = Field(None, description="points go so long after they were earned; none: never")
    window: Duration = Field(timedelta(days=365), description="tiers rest on what was spent in this time")
    keep_tier: Duration = Field(timedelta(0), description="a tier that was reached is kept at least so long")
    tiers: tuple[Tier, ...] = Field(min_length=1)
    join: Join = Join(percent=10)
    club: Club | None = None
    gifts: Gifts | None = None

    def rows(self) -> list[dict[str, Any]]:
        """The tiers as SQL reads them: id, name, place, spend, rate, perks."""
        return [
            {"id": t.id, "name": t.name, "place": n, "spend": t.spend, "perks": list(t.perks),
             "rate": str(Decimal(str(t.points_per_unit or self.earn.points_per_unit)))}
            for n, t in enumerate(self.tiers)
        ]  # fmt: skip


class Owner(Strict):
    """Who answers for a case, by name."""

    name: str = Field(min_length=1, max_length=60)
    email: str = Field(pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$", description="where the customer's answer goes")


class Owners(Strict):
    """By cause; `default` for the others."""

    default: Owner
    low_score: Owner | None = None
    late: Owner | None = None
    damaged: Owner | None = None
    refund_late: Owner | None = None


class Recovery(Strict):
    """include/recovery.yml"""

    low_score: int = Field(2, ge=1, le=4, description="so many stars of five, or fewer")
    good_score: int = Field(4, ge=2, le=5, description="so many stars of five, or more, resolve a case")
    days_late: int = Field(5, ge=0, le=60, description="a parcel later than this after the promised day")
    make_good_per_year: int = Field(2, ge=0, le=12, description="coupons a year for one customer")
    close_after: Duration = Field(timedelta(days=90), description="without an answer, closed by hand only after this")
    owners: Owners

    @model_validator(mode="after")
    def _apart(self) -> Recovery:
        if self.good_score <= self.low_score:
            raise ValueError("good_score must be more than low_score, or one answer would open and resolve a case")
        return self

    def owner_rows(self) -> list[dict[str, str]]:
        found = {cause: getattr(self.owners, cause) or self.owners.default for cause in CAUSES}
        return [{"cause": cause, "name": owner.name, "email": owner.email} for cause, owner in found.items()]


CAUSES = ("low_score", "late", "damaged", "refund_late")


def load_loyalty(path: Path | None = None) -> Loyalty | None:
    """The club; None without a file. Raises InputError with every fault as file:line."""
    path = path or settings().include / LOYALTY
    if not path.is_file():
        return None
    rules = yamlfile.load(path, Loyalty)
    file = yamlfile.shown(path)
    if found := [Fault(file, yamlfile.line_of(path, at), yamlfile.key_of(at), what) for at, what in _broken(rules)]:
        raise InputError(found)
    return rules


def _broken(rules: Loyalty) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Rules no single key can break, each at the key to mend."""
    tiers = rules.tiers
    if tiers[0].spend != 0:
        yield ("tiers", 0, "spend"), "the first tier is everybody's; write spend: 0"
    for n, (lower, higher) in enumerate(pairwise(tiers), 1):
        if higher.spend <= lower.spend:
            yield ("tiers", n, "spend"), f'must be more than that of "{lower.id}" above it; put the tiers in order'
    names = [tier.id for tier in tiers]
    for n, name in enumerate(names):
        if name in names[:n]:
            yield ("tiers", n, "id"), f'two tiers are called "{name}"; give each its own id'
    if rules.club and rules.club.tier and rules.club.tier not in names:
        yield ("club", "tier"), f'there is no tier "{rules.club.tier}"{yamlfile.did_you_mean(rules.club.tier, names)}'


def load_recovery(path: Path | None = None) -> Recovery | None:
    """What counts as gone wrong; None without a file: then nothing opens a case. Raises InputError with file:line."""
    path = path or settings().include / RECOVERY
    return yamlfile.load(path, Recovery) if path.is_file() else None


def faults() -> list[Fault]:
    """Every mistake in both files."""
    found: list[Fault] = []
    for read in (load_loyalty, load_recovery):
        try:
            read()
        except InputError as error:
            found += error.faults
    return found
