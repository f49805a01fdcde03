"""CSS that major mail programs do not know, for `postlude lint`: what breaks, where, and where that is written down.

Only what a mail would miss is listed; rounded corners, for example, are lost in Outlook and nobody minds.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Gap(NamedTuple):
    """A pattern of CSS, who does not know it, what to do instead, and the page of caniemail.com that says so."""

    pattern: re.Pattern[str]
    what: str
    clients: str
    cure: str
    source: str


def _gap(pattern: str, what: str, clients: str, cure: str, page: str) -> Gap:
    return Gap(re.compile(pattern, re.IGNORECASE), what, clients, cure, f"https://www.caniemail.com/features/{page}/")


GAPS = (
    _gap(r"(?<![\w-])position\s*:\s*(absolute|fixed|sticky|relative)", "position", "Gmail, Outlook, Yahoo",
         "place things with table cells and padding", "css-position"),
    _gap(r"display\s*:\s*(inline-)?flex", "display: flex", "Outlook on Windows", "use columns of MJML or a table", "css-display-flex"),
    _gap(r"display\s*:\s*(inline-)?grid", "display: grid", "Gmail, Outlook on Windows, Yahoo", "use columns of MJML or a table",
         "css-display-grid"),
    _gap(r"(?<![\w-])float\s*:", "float", "Outlook on Windows", "use align or a table", "css-float"),
    _gap(r"background(-image)?\s*:[^;]*url\(", "a picture as background", "Outlook on Windows", "use mj-image", "css-background-image"),
    _gap(r"background(-image)?\s*:[^;]*gradient\(", "a gradient", "Outlook on Windows", "use a plain colour", "css-linear-gradient"),
    _gap(r"var\(|(?<![\w-])--[a-z]", "variables of CSS", "Gmail, Outlook, Yahoo", "use {{ theme.x }}", "css-variables"),
    _gap(r"calc\(", "calc()", "Outlook, Yahoo", "write the number", "css-unit-calc"),
    _gap(r"@import", "@import", "Gmail, Outlook, Yahoo", "write the styles here", "css-at-import"),
    _gap(r"@font-face", "@font-face", "Gmail, Outlook, Yahoo", "name fonts that devices have", "css-at-font-face"),
    _gap(r"@keyframes|(?<![\w-])animation(-name)?\s*:", "animation", "Gmail, Outlook, Yahoo", "leave it out", "css-animation"),
    _gap(r"(?<![\w-])transform\s*:", "transform", "Gmail, Outlook", "leave it out", "css-transform"),
    _gap(r"(?<![\w-])filter\s*:|clip-path\s*:", "filter and clip-path", "Gmail, Outlook", "change the picture", "css-filter"),
    _gap(r"(?<![\w-])opacity\s*:", "opacity", "Outlook on Windows", "use a lighter colour", "css-opacity"),
    _gap(r"[:\s]-\d[\d.]*(px|em|%)", "a negative length", "Gmail, Outlook", "use less padding", "css-margin"),
    _gap(r"\d(vw|vh|vmin|vmax)\b", "vw and vh", "Outlook on Windows, Yahoo", "use px or %", "css-unit-vw"),
    _gap(r"\d(rem)\b", "rem", "Outlook on Windows", "use px", "css-unit-rem"),
    _gap(r"(?<![\w-])gap\s*:", "gap", "Gmail, Outlook", "use padding", "css-gap"),
)  # fmt: skip
