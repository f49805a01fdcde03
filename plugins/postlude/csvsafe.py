"""CSV that a spreadsheet opens without running anything in it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any

# a cell that begins with one of these is a formula to Excel, LibreOffice and Google Sheets
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def cell(value: Any) -> str:
    """The value as text; what a spreadsheet would take for a formula gets an apostrophe before it. Numbers stay numbers."""
    text = "" if value is None else str(value)
    if isinstance(value, str) and text.lstrip(" ").startswith(FORMULA):
        return "'" + text
    return text


def line(values: Iterable[Any]) -> str:
    """One line of CSV, as RFC 4180 has it, every text quoted where it must be."""
    written = io.StringIO(newline="")
    csv.writer(written).writerow([cell(value) for value in values])
    return written.getvalue()
