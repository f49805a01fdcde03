"""The parts of a step that depend on the customer: conditions, waiting for an event, variants, and marketers' tables.

Conditions are read again at hand-over by the SQL function `condition_holds`; logic is three-valued there: what is unknown
(no rating yet, a median gap with one order) never makes a condition true, nor its opposite.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, RootModel, model_validator

from postlude import yamlfile
from postlude.errors import Fault, InputError
from postlude.timing import Duration
from postlude.yamlfile import Strict, did_you_mean

Slug = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{1,47}$", description="lower-case letters, digits and _")]
Happening = Literal["opened", "clicked", "replied", "rated", "ordered", "reviewed", "returned"]
Scalar = bool | int | float | str

# facts a condition may name besides the features of segments: name -> (kind, meaning)
FACTS: dict[str, tuple[str, str]] = {
    "score": ("number", "the newest rating of the order the passage is about, or given in it"),
    "category": ("text", "category of the main (dearest) item of that order"),
    "order_amount": ("number", "what that order came to"),
    "country": ("text", "country of the customer, two letters"),
    "locale": ("text", "language of the customer"),
    "order_nth": ("number", "which order of the customer it is, 1 the first"),
    "gift": ("flag", "is that order a gift?"),
    "promise_days": ("number", "days from the order to the day it was promised for"),
    "margin": ("number", "share of that order's price that is margin, where the shop tells what its products cost"),
    "coupons_60d": ("number", "coupons given to the customer in the last 60 days"),
    "asked_where": ("number", "earlier questions of the customer where an order is"),
    "recommended": ("number", "recommendations for the customer that are in stock"),
    "return_state": ("text", "what the passage tells of a return: requested, received, refunded, exchanged"),
}
ABOUT_AN_ORDER = frozenset({"category", "order_amount", "order_nth", "gift", "promise_days", "margin"})
EVENT = "event."  # event.KEY: a detail of the outside event a passage began with
_NUMBERS = ("at_least", "at_most", "more_than", "less_than")
_OPERATORS = ("is", "is_not", "in", *_NUMBERS, "known")
_FIELDS = {"is": "is_", "in": "in_"}


class Condition(Strict):
    """What must hold for a step to be sent, read again at hand-over. One of the forms below; what is unknown is never true."""

    all: tuple[Condition, ...] | None = Field(None, min_length=1, description="every one of these holds")
    any: tuple[Condition, ...] | None = Field(None, min_length=1, description="at least one of these holds")
    not_: Condition | None = Field(None, alias="not", description="this is known not to hold")
    in_segment: Slug | None = Field(None, description="the customer is in this segment now")
    happened: Happening | None = Field(
        None, description="this has happened since the passage began; opened to rated: to a mail of this passage"
    )
    got: Slug | None = Field(None, description="this earlier step of the passage was sent")
    feature: str | None = Field(
        None, description=f"a feature as in segments, or one of {', '.join(FACTS)}; with one of the operators below"
    )
    is_: Scalar | None = Field(None, alias="is", description="is this")
    is_not: Scalar | None = Field(None, description="is known, and not this")
    in_: tuple[Scalar, ...] | None = Field(None, alias="in", min_length=1, description="is one of these")
    at_least: int | float | None = None
    at_most: int | float | None = None
    more_than: int | float | None = None
    less_than: int | float | None = None
    known: bool | None = Field(None, description="true: there is a value; false: there is none")

    @model_validator(mode="after")
    def _one_form(self) -> Condition:
        names = ("all", "any", "not", "in_segment", "happened", "got", "feature")
        forms = [name for name in names if getattr(self, "not_" if name == "not" else name) is not None]
        if len(forms) > 1:
            raise ValueError(f"mixes {' and '.join(forms)}; put them in a list under all: or any:")
        given = self.operators()
        if not forms:
            raise ValueError(
                "is no condition; write e.g. {feature: score, at_most: 2}, {happened: clicked}, {in_segment: champions} "
                "or {got: first_step}"
            )
        if given and forms != ["feature"]:
            raise ValueError(f'"{next(iter(given))}" belongs beside feature, not beside "{forms[0]}"')
        if forms == ["feature"] and not given:
            raise ValueError(f"does not say what {self.feature} must be; add one of {', '.join(_OPERATORS)}")
        return self

    def operators(self) -> dict[str, Any]:
        """Operators given beside the feature, by the name people write."""
        given = ((name, getattr(self, _FIELDS.get(name, name))) for name in _OPERATORS)
        return {name: value for name, value in given if value is not None}

    def leaves(self, where: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Condition]]:
        """Every simple condition in it, with its place."""
        for name, parts in (("all", self.all), ("any", self.any)):
            for number, part in enumerate(parts or ()):
                yield from part.leaves((*where, name, number))
        if self.not_ is not None:
            yield from self.not_.leaves((*where, "not"))
        if self.all is None and self.any is None and self.not_ is None:
            yield where, self

    def in_words(self) -> str:
        if self.all or self.any:
            between = " and " if self.all else " or "
            return between.join(f"({part.in_words()})" for part in self.all or self.any or ())
        if self.not_:
            return f"it is known not to hold that {self.not_.in_words()}"
        if self.in_segment:
            return f"the customer is in “{self.in_segment}”"
        if self.happened:
            return f"has {self.happened} since the passage began"
        if self.got:
            return f"got the step {self.got}"
        words = {"is_not": "is not", "in": "is one of", **{name: f"is {name.replace('_', ' ')}" for name in _NUMBERS}}
        parts = []
        for name, value in self.operators().items():
            shown = ", ".join(map(str, value)) if isinstance(value, tuple) else value
            parts.append(
                ("is known" if value else "is unknown") if name == "known" else f"{words.get(name, name)} {shown}"
            )
        return f"{self.feature} {' and '.join(parts)}"


def operator_faults(condition: Condition, kind: str) -> Iterator[str]:
    """What does not fit a feature of this kind (text, number, instant)."""
    for name, value in condition.operators().items():
        if name == "known":
            continue
        values = value if isinstance(value, tuple) else (value,)
        if kind == "instant":
            yield f'{condition.feature} is a point in time: only "known" fits here; put the rule into a segment and use in_segment'
        elif kind == "text" and name in _NUMBERS:
            yield f'{condition.feature} is text, "{name}" compares numbers; use is, is_not or in'
        elif kind == "flag" and (name not in ("is", "is_not") or any(not isinstance(v, bool) for v in values)):
            yield f"{condition.feature} is true or false; write is: true or is: false"
        elif kind == "number" and any(isinstance(v, str | bool) for v in values):
            yield f"{condition.feature} is a number; write it without quotes, e.g. {name}: 3"
        elif kind == "text" and any(not isinstance(v, str) for v in values):
            yield f"{condition.feature} is text; put the value in quotes"


class WaitFor(Strict):
    """The step is due when this has happened after the step before it was sent, or else when the time is up."""

    event: Happening
    timeout: Duration = Field(description="so long after the step before was sent, at most 90 days")
    otherwise: Literal["skip", "send"] = Field(
        alias="else", description="when the time is up: skip this step, or send it all the same"
    )

    @model_validator(mode="after")
    def _bearable(self) -> WaitFor:
        if not timedelta(hours=1) <= self.timeout <= timedelta(days=90):
            raise ValueError(
                "the timeout must be between 1 hour and 90 days; nobody remembers what you wait for after that"
            )
        return self


class Variant(Strict):
    """One of several letters of a step; who gets which is a salted hash of the customer, always the same."""

    name: Slug
    weight: int = Field(1, ge=1, le=1000, description="its share is its weight out of the sum of all")
    template: str = Field(pattern=r"^[a-z0-9_]+/[a-z0-9_]+$", description="folder/name in include/templates")


class TableName(Strict):
    """A table of marketers, include/tables/<name>.yml."""

    table: Slug = Field(description="the name of a file in include/tables: one line per category, with its days")


Days = Annotated[int, Field(ge=0, le=730)]


class DayTable(RootModel[dict[str, Days]]):
    """include/tables/<name>.yml: category to days."""

    model_config = ConfigDict(frozen=True)


def load_table(folder: Path, name: str, told_at: Fault) -> dict[str, int]:
    """The days by category of include/tables/<name>.yml. Raises InputError; a missing table is told at `told_at`."""
    path = folder / f"{name}.yml"
    if not path.is_file():
        known = did_you_mean(name, (found.stem for found in folder.glob("[!.]*.yml")))
        what = f'there is no table "{name}" in {yamlfile.shown(folder)}{known}'
        raise InputError([Fault(told_at.file, told_at.line, told_at.key, what)])
    return yamlfile.load(path, DayTable).root


def _period(value: Any) -> str:
    hit = re.fullmatch(r"\s*([1-9]\d{0,3})\s*(day|week|month|year)s?\s*", str(value).lower())
    if not hit:
        raise ValueError(f'"{value}" is not a period of the calendar; write e.g. "90 days", "3 months" or "1 year"')
    return f"{hit[1]} {hit[2]}{'s' if hit[1] != '1' else ''}"


def _not_longer_than_ten_years(value: str) -> str:
    count, unit = value.split()
    if int(count) * {"d": 1, "w": 7, "m": 31, "y": 366}[unit[0]] > 3660:
        raise ValueError('is longer than ten years; write "reentry: never" instead')
    return value


Period = Annotated[str, BeforeValidator(_period), AfterValidator(_not_longer_than_ten_years)]


class Reentry(Strict):
    """A new passage not before so much time has passed on the customer's calendar since the last one began."""

    after: Period = Field(description='days, weeks, months or years of the calendar: "90 days", "1 year"')
