"""Hand-over: kill switches; countries and their clocks."""

import zoneinfo
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path

from alembic import op

revision = "0005"
down_revision = "0001"


def upgrade() -> None:
    # past SQLAlchemy: a script with several statements and no parameters
    connection = op.get_bind().connection.driver_connection
    connection.execute(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
    names, zones = countries()
    with connection.cursor() as cursor:
        cursor.executemany("insert into postlude.countries values (%s, %s)", list(zones.items()))
        cursor.executemany("insert into postlude.country_names values (%s, %s)", list(names.items()))


def countries() -> tuple[dict[str, str], dict[str, str | None]]:
    """Country by lower-case name (code, English and own-language names), and the zone of countries that have one clock.

    Several zones count as one while their clocks agree all year (Germany's Busingen); zone.tab names the largest place first.
    """
    from babel import Locale

    listed: dict[str, list[str]] = {}
    table = files("tzdata").joinpath("zoneinfo", "zone.tab").read_text(encoding="utf-8")
    for line in table.splitlines():
        if line and not line.startswith("#"):
            country, _, zone = line.split("\t")[:3]
            listed.setdefault(country, []).append(zone)
    weeks = [datetime(2024, 1, 1, 12, tzinfo=UTC) + timedelta(weeks=n) for n in range(160)]

    def clock(zone: str) -> list[timedelta | None]:
        return [week.astimezone(zoneinfo.ZoneInfo(zone)).utcoffset() for week in weeks]

    zones = {c: z[0] if len(z) == 1 or all(clock(o) == clock(z[0]) for o in z[1:]) else None for c, z in listed.items()}
    names: dict[str, str] = {}
    for language in ("en", "de", "fr", "es", "it", "pt", "nl", "pl", "ko", "ja"):
        for code, name in Locale(language).territories.items():
            if code in zones:
                names.setdefault(name.lower(), code)
    names |= {"uk": "GB", "great britain": "GB", "usa": "US", "eire": "IE", "south korea": "KR", "korea": "KR"}
    names |= {code.lower(): code for code in zones}
    return names, zones


def downgrade() -> None:
    raise NotImplementedError("switches and control groups are records; restore a backup instead")
