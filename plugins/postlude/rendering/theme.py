"""The look and the fixed facts of the shop: include/theme.yml, checked with line numbers like all files people edit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from postlude import yamlfile
from postlude.settings import settings
from postlude.yamlfile import Strict

Colour = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]
Link = Annotated[str, Field(pattern=r"^https?://[^\s<>\"'\\]+$")]
Address = Annotated[str, Field(pattern=r"^[^@\s<>\"]+@[^@\s<>\"]+$")]
Line = Annotated[str, Field(min_length=1, max_length=200)]


class News(Strict):
    """Something new in the shop."""

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
    loyalty_name: Line = Field(description="what the loyalty club is called")
    loyalty_perks: tuple[Line, ...] = Field(description="what members really get; printed in invitations")
    news: tuple[News, ...] = Field(
        (), max_length=6, description="what is new in the shop, for mails that tell of it; may be empty"
    )


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

    def value(self, path: str) -> str | None:
        """The text at a dotted path such as `colours.accent`; None when there is none."""
        found: Any = self
        for name in path.split("."):
            found = getattr(found, name, None) if name in getattr(type(found), "model_fields", {}) else None
        return found if isinstance(found, str) else None


def load_theme(path: Path | None = None) -> Theme:
    """The theme in include/theme.yml. Raises InputError with every fault. Read again only when the file changed."""
    return yamlfile.load_unchanged(path or settings().include / "theme.yml", Theme)
