"""The look and the fixed facts of the shop: include/theme.yml, checked with line numbers like all files people edit."""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, create_model

from postlude import yamlfile
from postlude.settings import settings
from postlude.yamlfile import Strict

Colour = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]
Link = Annotated[str, Field(pattern=r"^https?://[^\s<>\"'\\]+$")]
Address = Annotated[str, Field(pattern=r"^[^@\s<>\"]+@[^@\s<>\"]+$")]
Line = Annotated[str, Field(min_length=1, max_length=200)]

_MAY_BE_A_LINK = r"^(https?://[^\s<>\"'\\]+)?$"


class News(Strict):
    """Something new in the shop."""

    name: Line
    url: Link


class Logo(Strict):
    """A picture of the shop's name, as wide and high as it is shown."""

    url: Link
    alt: Line = Field(description="what stands there while pictures are off; usually the shop's name")
    width: Annotated[int, Field(ge=16, le=400)]
    height: Annotated[int, Field(ge=16, le=200)]


class Social(Strict):
    """Where else the shop is; a link in every footer."""

    name: Line
    url: Link


class Shop(Strict):
    """Who writes; templates get it as `shop`."""

    name: Line
    url: Link
    postal_address: Line = Field(description="stands in every footer; the law of most countries asks for it")
    support_email: Address
    support_hours: Line
    phone: str = Field("", max_length=40, description="stands in every footer where it is known; Korea asks for it")
    returns_url: Link
    privacy_url: Link
    faq_url: Annotated[str, Field(pattern=_MAY_BE_A_LINK)] = Field(
        "", description="questions and answers; may be left out"
    )
    account_url: Annotated[str, Field(pattern=_MAY_BE_A_LINK)] = Field(
        "", description="the customer's own page; may be left out"
    )
    booking_url: Annotated[str, Field(pattern=_MAY_BE_A_LINK)] = Field(
        "", description="where a call is booked; may be left out"
    )
    referral_url: Annotated[str, Field(pattern=_MAY_BE_A_LINK)] = Field(
        "", description="brings a friend's code along where {code} stands; may be left out"
    )
    free_shipping: dict[Annotated[str, Field(pattern=r"^[A-Z]{3}$")], Annotated[Decimal, Field(gt=0)]] = Field(
        {}, description="by currency, the amount from which shipping is free; may be empty"
    )
    guides: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Link] = Field(
        {}, description="by product category, a page that shows in pictures how to use and care for it; may be empty"
    )
    logo: Logo | None = Field(None, description="instead of the name at the head of every mail")
    social: tuple[Social, ...] = Field((), max_length=6)
    loyalty_name: Line = Field(description="what the loyalty club is called")
    loyalty_perks: tuple[Line, ...] = Field(description="what members really get; printed in invitations")
    news: tuple[News, ...] = Field(
        (), max_length=6, description="what is new in the shop, for mails that tell of it; may be empty"
    )


class Said(Strict):
    """Facts of the shop that are words, in one language."""

    support_hours: Line | None = None
    loyalty_name: Line | None = None
    loyalty_perks: tuple[Line, ...] | None = None
    news: tuple[News, ...] | None = Field(None, max_length=6)


class Sender(Strict):
    """The From line."""

    name: Line
    address: Address
    reply_to: Address


class Colours(Strict):
    """Colours as #rrggbb, for light and for dark screens."""

    page: Colour
    card: Colour
    ink: Colour
    soft: Colour
    line: Colour
    accent: Colour
    on_accent: Colour
    tint: Colour
    dark_page: Colour
    dark_card: Colour
    dark_ink: Colour
    dark_soft: Colour
    dark_line: Colour
    dark_accent: Colour
    dark_on_accent: Colour
    dark_tint: Colour


class Theme(Strict):
    """include/theme.yml. Templates write `{{ theme.colours.accent }}`; the value is put in when they are compiled."""

    shop: Shop
    sender: Sender
    colours: Colours
    font: Annotated[str, Field(pattern=r"^[A-Za-z0-9 ,'-]+$")]
    in_language: dict[Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Z]{2})?$")], Said] = Field(
        {}, description="facts of the shop that are words, by language; what is left out stays as it is"
    )

    def value(self, path: str) -> str | None:
        """The text at a dotted path such as `colours.accent`; None when there is none."""
        found: Any = self
        for name in path.split("."):
            found = getattr(found, name, None) if name in getattr(type(found), "model_fields", {}) else None
        return found if isinstance(found, str) else None


def load_theme(path: Path | None = None, *, shop: str = "") -> Theme:
    """The theme in include/theme.yml, with what include/themes/SHOP.yml says otherwise; `shop` is the id of a source.

    Raises InputError with every fault. Read again only when a file changed.
    """
    path = path or settings().include / "theme.yml"
    own = path.parent / "themes" / f"{shop}.yml"
    return (
        _with_own(path, _stamp(path), own, own_stamp)
        if shop and (own_stamp := _stamp(own))
        else yamlfile.load_unchanged(path, Theme)
    )


def _stamp(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=64)
def _with_own(path: Path, _one: int, own: Path, _two: int) -> Theme:
    said = yamlfile.load(own, Own).model_dump(exclude_unset=True)
    whole = yamlfile.load(path, Theme).model_dump()
    for key, value in said.items():
        whole[key] = {**whole[key], **value} if isinstance(value, dict) else value
    return Theme.model_validate(whole)


def _partial(model: type[Strict]) -> Any:
    """The model with every key left out allowed; one that is written is checked as ever."""
    fields: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        kind: Any = info.annotation
        if isinstance(kind, type) and issubclass(kind, Strict):
            kind = _partial(kind)
        elif info.metadata:
            kind = Annotated[(kind, *info.metadata)]
        fields[name] = (kind, Field(None, description=info.description))
    return create_model(f"Own{model.__name__}", __base__=Strict, __doc__=model.__doc__, **fields)


Own = _partial(Theme)
