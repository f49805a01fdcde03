"""Text messages: numbers as E.164 writes them, and how many segments a text costs."""

from __future__ import annotations

import re
from typing import NamedTuple

_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
# 3GPP TS 23.038, default alphabet; the second row needs an escape and counts twice
_GSM7 = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_GSM7_TWICE = frozenset("\f^{}\\[~]|€")
MAX_SEGMENTS = 10  # what networks put together again


class Segments(NamedTuple):
    """How a text travels: `gsm7` or `ucs2`, units of that alphabet, and messages paid for."""

    alphabet: str
    units: int
    messages: int


def is_e164(number: str) -> bool:
    """Is it a number like +4930123456? The SQL twin is the check of customers.phone."""
    return bool(_E164.fullmatch(number))


def segments(text: str) -> Segments:
    """How many messages a text costs. One sign outside the GSM alphabet turns all of it into UCS-2.

    A sign never lies over two segments: neither the pair of an escape nor a surrogate pair.
    """
    if all(char in _GSM7 or char in _GSM7_TWICE for char in text):
        widths = [2 if char in _GSM7_TWICE else 1 for char in text]
        return Segments("gsm7", sum(widths), _count(widths, 160, 153))
    widths = [2 if ord(char) > 0xFFFF else 1 for char in text]
    return Segments("ucs2", sum(widths), _count(widths, 70, 67))


def _count(widths: list[int], single: int, joined: int) -> int:
    if sum(widths) <= single:
        return 1
    count, used = 1, 0
    for width in widths:
        if used + width > joined:
            count, used = count + 1, 0
        used += width
    return count
