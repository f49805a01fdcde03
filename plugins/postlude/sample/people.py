"""Who buys in the sample shop: countries, time zones, names (a few of them awkward), e-mail, consents."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

Table = dict[str, Any]  # column -> array; all arrays of a table are of one length


class Zone(NamedTuple):
    """A time zone of a country, its share of all customers, and the days within which a delivery there is promised."""

    country: str
    name: str
    locale: str
    share: float
    promised_days: int
    same_day_margin: int  # the least days a punctual parcel is early: local evening is already tomorrow in the shop


ZONES = (
    Zone("DE", "Europe/Berlin", "de", 0.30, 4, 0),
    Zone("GB", "Europe/London", "en", 0.15, 6, 0),
    Zone("US", "America/New_York", "en", 0.10, 9, 1),
    Zone("US", "America/Chicago", "en", 0.05, 9, 1),
    Zone("US", "America/Los_Angeles", "en", 0.04, 9, 1),
    Zone("KR", "Asia/Seoul", "ko", 0.12, 9, 0),
    Zone("JP", "Asia/Tokyo", "ja", 0.08, 9, 0),
    Zone("BR", "America/Sao_Paulo", "pt", 0.09, 14, 1),
    Zone("AU", "Australia/Sydney", "en", 0.07, 10, 0),
)
LOCALES = ("de", "en", "ko", "ja", "pt")

_GIVEN = {
    "de": "Anna,Lukas,Marie,Felix,Sophie,Jonas,Lena,Paul,Jürgen,Käthe,Björn,Heike,Emil,Ida,Matthias,Greta,Uwe,Zoë",
    "en": "Emily,Jack,Olivia,Harry,Amelia,George,Grace,Noah,Ruby,Oliver,Chloe,Liam,Zara,Ethan,Maya,Ava,Priya,Owen,Siân",
    "ko": "민준,서연,도윤,서윤,예준,지우,시우,하은,하준,민서,주원,지유,지호,채원,준서,수빈,현우,은지,영희,철수",
    "ja": "陽翔,葵,蓮,陽菜,湊,結衣,樹,凛,悠真,美咲,大翔,さくら,健一,恵子,直樹,由美,翔太,千尋,ひかり,太郎",
    "pt": "João,Ana,Pedro,Maria,Lucas,Beatriz,Gabriel,Júlia,Mateus,Larissa,Thiago,Camila,Letícia,Antônio,Conceição",
}
_FAMILY = {
    "de": "Müller,Schmidt,Schneider,Fischer,Weber,Meyer,Wagner,Becker,Schulz,Hoffmann,Koch,Groß,von Berg,Yılmaz",
    "en": "Smith,Jones,Taylor,Brown,Wilson,O'Brien,Johnson,Davis,Clark,Patel,D'Angelo,Smith-Jones,McDonald,Nguyen",
    "ko": "김,이,박,최,정,강,조,윤,장,임,한,오",
    "ja": "佐藤,鈴木,高橋,田中,伊藤,渡辺,山本,中村,小林,加藤",
    "pt": "Silva,Santos,Oliveira,Souza,Lima,Pereira,Ferreira,Costa,Gonçalves,Araújo,de Sá",
}
# what breaks a template, a subject line, a column width or an encoding
AWKWARD = (
    "Wolfgang-Maximilian Friedrich Leopold Ferdinand Theodor Alexander Hubertus Konstantin der Dritte vom Langen Tal",
    "Zoé 🌸", "O'Brien", "محمد", "שרה", "Ana & Tom", "<Kim>", "{{ name }}", "  Lee  ",
    "JO", "x", "Ng\u0303oc", "R2-D2", "«Lou»",
)  # fmt: skip


def _flat(by_locale: dict[str, str]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """All names in one list, and where each locale's names begin in it and how many they are."""
    lists = [by_locale[locale].split(",") for locale in LOCALES]
    sizes = np.array([len(names) for names in lists])
    return [name for names in lists for name in names], np.concatenate([[0], np.cumsum(sizes)[:-1]]), sizes


_given, _given_at, _given_sizes = _flat(_GIVEN)
_family, _family_at, _family_sizes = _flat(_FAMILY)
FIRST_NAMES = [*_given, *AWKWARD]
LAST_NAMES = _family
_AWKWARD_AT = len(_given)
_ZONE_LOCALE = np.array([LOCALES.index(zone.locale) for zone in ZONES])


def customers(rng: np.random.Generator, first: int, size: int) -> Table:
    """`size` customers numbered from `first`, without times; names as 1-based positions in the lists, 0 for none."""
    shares = np.cumsum([zone.share for zone in ZONES])
    zone = np.searchsorted(shares / shares[-1], rng.random(size), side="right")
    speaks = np.where(rng.random(size) < 0.96, _ZONE_LOCALE[zone], LOCALES.index("en"))
    # squared: some names are common, most are rare
    given = _given_at[speaks] + (rng.random(size) ** 1.6 * _given_sizes[speaks]).astype(np.int64)
    given = np.where(rng.random(size) < 0.008, _AWKWARD_AT + rng.integers(0, len(AWKWARD), size), given) + 1
    family = _family_at[speaks] + (rng.random(size) ** 1.3 * _family_sizes[speaks]).astype(np.int64) + 1
    marketplace = rng.random(size) < 0.065
    return {
        "customer": np.arange(first, first + size, dtype=np.int64),
        "zone": zone,
        "first_name": np.where(rng.random(size) < 0.015, 0, given),
        "last_name": np.where(rng.random(size) < 0.01, 0, family),
        "locale": np.where(rng.random(size) < 0.01, 0, speaks + 1),
        "zone_known": rng.random(size) >= 0.015,
        # a marketplace keeps most addresses to itself
        "email_known": rng.random(size) < np.where(marketplace, 0.35, 0.98),
        "marketplace": marketplace,
    }


def consents(rng: np.random.Generator, people: Table, created_at: np.ndarray, until: int) -> Table:
    """Marketing consents by e-mail, a second row if withdrawn: 85 % granted, 5 % refused, of 10 % nothing is known."""
    size = len(created_at)
    draw = rng.random(size)
    asked = ~people["marketplace"] & people["email_known"] & (draw < 0.90)
    granted = draw < 0.85
    double = rng.random(size) < np.where(np.isin(people["zone"], [0, 5]), 0.9, 0.35)
    # the confirmation link is opened a little later
    at = created_at + np.where(granted & double, rng.integers(30, 6 * 3600, size), rng.integers(0, 60, size))
    withdrawn_at = at + (rng.random(size) * np.maximum(until - at, 0)).astype(np.int64) + 1
    withdrawn = asked & granted & (rng.random(size) < 0.08) & (withdrawn_at < until)
    basis = np.where(granted, np.where(double, 2, 1), 3)
    rows = np.concatenate([np.flatnonzero(asked), np.flatnonzero(withdrawn)])
    later = np.arange(len(rows)) >= asked.sum()
    order = np.lexsort((later, rows))
    rows, later = rows[order], later[order]
    since = np.where(later, withdrawn_at[rows], at[rows])
    return {
        "customer": people["customer"][rows],
        "granted": granted[rows] & ~later,
        "agreed_at": since,
        "since": since,
        "basis": np.where(later, 4, basis[rows]),
    }
