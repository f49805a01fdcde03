"""Which campaigns are on: one that needs what no source delivers is off, and says so.

Read from the files alone (sources and their mappings), lightly, so that DAGs can ask it while they are parsed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import yaml

from postlude.campaign import Campaign, load_campaign
from postlude.errors import InputError
from postlude.settings import settings

_ENTITY = re.compile(r"^--\s*entity\s*:\s*(\S+)\s*$", re.MULTILINE)


class Flow(NamedTuple):
    """A campaign file: on, off (with the reason), or broken (with the first mistake)."""

    name: str
    state: str
    why: str
    campaign: Campaign | None


def delivered(folder: Path | None = None) -> frozenset[str]:
    """Entities that the scheduled sources deliver, by their mappings. A source file that cannot be read delivers nothing."""
    found: set[str] = set()
    for path in sorted((folder or settings().include / "sources").glob("[!.]*.yml")):
        try:
            source = yaml.safe_load(path.read_text(encoding="utf-8"))
            if source.get("scheduled", True) is True:
                words = (settings().sql / "sources" / source["mapping"]).read_text(encoding="utf-8")
                found |= set(_ENTITY.findall(words))
        except (OSError, ValueError, yaml.YAMLError, AttributeError, KeyError, TypeError):
            continue  # told by `postlude validate`
    return frozenset(found)


def lacking(campaign: Campaign, there: Iterable[str]) -> str:
    """Why the campaign is off, in a sentence; empty: it is on."""
    missing = [entity for entity in campaign.needs if entity not in there]
    if not missing:
        return ""
    return (
        f"needs {' and '.join(missing)}, and no scheduled source in include/sources delivers "
        f"{'it' if len(missing) == 1 else 'them'}"
    )


def all_flows() -> list[Flow]:
    """Every campaign file, by name."""
    there = delivered()
    flows = []
    for path in sorted((settings().include / "campaigns").glob("[!.]*.yml")):
        try:
            campaign = load_campaign(path)
        except InputError as error:
            flows.append(Flow(path.stem, "broken", str(error).splitlines()[0], None))
            continue
        why = lacking(campaign, there)
        flows.append(Flow(path.stem, "off" if why else "on", why, campaign))
    return flows
