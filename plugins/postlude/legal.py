"""What the law asks of marketing, by the recipient's country: data in include/legal.yml, checked and applied here.

These rows are a starting point, not advice: each names its source and the day somebody last looked at it.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from markupsafe import escape
from pydantic import BeforeValidator, Field, field_validator

from postlude import yamlfile
from postlude.errors import Fault
from postlude.settings import settings
from postlude.yamlfile import Strict

Need = Literal["name", "postal_address", "support_email", "phone", "privacy_url"]


def _months(value: Any) -> int:
    """ "24 months" or "2 years" as months of the calendar."""
    hit = re.fullmatch(r"\s*([1-9]\d?\d?) (month|year)s?\s*", str(value))
    if not hit:
        raise ValueError(f'"{value}" is not a time of the calendar; write e.g. "24 months" or "2 years"')
    return int(hit[1]) * (12 if hit[2] == "year" else 1)


Months = Annotated[int, BeforeValidator(_months)]


class Rule(Strict):
    """One country's rules for marketing."""

    law: str = Field(min_length=1, description="which law")
    source: str = Field(pattern=r"^https://\S+$", description="where it can be read")
    reviewed_on: dt.date
    label: str = Field("", description="with what a subject or text must begin")
    languages: tuple[str, ...] = Field((), description="who reads these and has no known country gets the label too")
    needs: tuple[Need, ...] = Field((), description="what the mail must say about the shop (include/theme.yml)")
    implied_by_purchase: Months | None = Field(
        None, description="an implied consent ends so long after the last purchase"
    )
    implied_by_inquiry: Months | None = Field(None, description="an implied consent ends so long after the inquiry")
    notice_every: Months | None = Field(None, description="how often people must be told that their consent stands")
    note: str = ""

    @field_validator("reviewed_on", mode="before")
    @classmethod
    def _day(cls, value: Any) -> Any:
        return dt.date.fromisoformat(value) if isinstance(value, str) else value

    @property
    def ends_consents(self) -> bool:
        """Does a consent end here by the mere passing of time?"""
        return bool(self.implied_by_purchase or self.implied_by_inquiry or self.notice_every)


Country = Annotated[str, Field(pattern=r"^[A-Z]{2}$")]


class Law(Strict):
    """include/legal.yml"""

    countries: dict[Country, Rule] = Field(min_length=1)

    def rule(self, country: str, locale: str) -> Rule:
        """The rules for a person. A country that is unknown, or has no row, gets what any of them asks for.

        A label is a word of one language: without a country it goes to those who read that language.
        """
        known = self.countries.get(country.strip().upper())
        if known:
            return known
        rows = list(self.countries.values())
        language = locale[:2].lower()
        # a country we know and have no row for needs no other country's label
        labels = [row.label for row in rows if row.label and not country.strip() and language in row.languages]
        needs = tuple(dict.fromkeys(need for row in rows for need in row.needs))
        strictest = {"label": labels[0] if labels else "", "needs": needs, "law": "the strictest of all rows"}
        return rows[0].model_copy(update=strictest)


def load_law(path: Path | None = None) -> Law:
    """The rules in include/legal.yml. Raises InputError with every fault. Read again only when the file changed."""
    return yamlfile.load_unchanged(path or settings().include / "legal.yml", Law)


def faults(shop: Mapping[str, Any], path: Path | None = None) -> list[Fault]:
    """What a country asks to be told and include/theme.yml does not say, at the row that asks."""
    path = path or settings().include / "legal.yml"
    found = []
    for country, rule in load_law(path).countries.items():
        for number, need in enumerate(rule.needs):
            if not shop.get(need):
                place = ("countries", country, "needs", number)
                told = (
                    f"{rule.law} asks for it, and include/theme.yml has no shop.{need}; add it, or take {country} out"
                )
                found.append(Fault(yamlfile.shown(path), yamlfile.line_of(path, place), yamlfile.key_of(place), told))
    return found


def labelled(rule: Rule, text: str) -> str:
    """The subject or text with the label the law wants at its very beginning, once."""
    return text if not rule.label or text.startswith(rule.label) else f"{rule.label} {text}"


# what is asked for, the shop's value in all spellings of text and HTML
Wanted = tuple[tuple[str, tuple[str, ...]], ...]


def wanted(rule: Rule, shop: object) -> Wanted:
    """What the law asks a mail to say; `shop` has the facts as attributes."""
    values = [(need, str(getattr(shop, need, ""))) for need in rule.needs]
    return tuple((need, _spellings(value)) for need, value in values)


def _spellings(value: str) -> tuple[str, ...]:
    escaped = str(escape(value))
    found = (escaped, escaped.encode("ascii", "xmlcharrefreplace").decode(), value)
    return tuple(dict.fromkeys(found)) if value else ()


def missing(wanted: Wanted, *bodies: str) -> list[str]:
    """What of this one of the bodies (text, or HTML) does not say."""
    return [need for need, spellings in wanted if not all([_says(body, spellings) for body in bodies])]


def _says(body: str, spellings: tuple[str, ...]) -> bool:
    # nearly always the first will do; it stands in the footer: from the end it is found at once
    return bool(spellings) and (body.rfind(spellings[0]) >= 0 or any(body.rfind(value) >= 0 for value in spellings[1:]))
