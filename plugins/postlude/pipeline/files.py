"""Every file people edit, looked at before it is used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from postlude import (
    audience,
    campaign_checks,
    coupons,
    identities,
    legal,
    mail_lint,
    rendering,
    yamlfile,
)
from postlude.calendar import faults_in, load_calendar
from postlude.campaign import Campaign, load_campaign
from postlude.errors import Fault, InputError
from postlude.loyalty_rules import faults as loyalty_faults
from postlude.pipeline.campaigns import campaign_files
from postlude.rendering import load_theme
from postlude.settings import settings
from postlude.sources import load_source


def validate() -> list[Fault]:
    """Every mistake in every file people edit: campaigns, segments, sources, calendar, templates, and what they name."""
    faults: list[Fault] = []

    def collect_faults(read: Callable[..., Any], *args: Any) -> Any:
        try:
            return read(*args)
        except InputError as error:
            faults.extend(error.faults)
            return None

    include = settings().include
    collect_faults(audience.load_segments, include / "segments")
    if days := collect_faults(load_calendar, include / "calendar.yml"):
        names = [Path(file).stem for file in campaign_files()]
        faults += campaign_checks.calendar_faults(include / "calendar.yml", days, names)
    faults += collect_faults(lambda: legal.faults(load_theme().shop.model_dump())) or []
    for own in sorted((include / "themes").glob("[!.]*.yml")):
        collect_faults(lambda shop=own.stem: load_theme(shop=shop))
    faults += loyalty_faults()
    pools = collect_faults(coupons.load_pools)
    found = [collect_faults(load_source, path) for path in sorted((include / "sources").glob("[!.]*.yml"))]
    collect_faults(identities.load_rules, None, [source.id for source in found if source])
    sound: dict[str, Campaign] = {}
    for file in campaign_files():
        campaign = collect_faults(load_campaign, Path(file))
        if campaign is None:
            continue
        sound[campaign.id] = campaign
        faults += campaign_checks.faults_of(Path(file), campaign) + coupons.pool_faults(campaign, pools or {})
    if days:  # names were looked at above, each at its line
        file = yamlfile.shown(include / "calendar.yml")
        faults += [
            Fault(file, 0, fault.key, fault.message)
            for fault in faults_in(days, sound)
            if not fault.message.startswith("there is no campaign")
        ]
    return faults


def advice() -> list[Fault]:
    """What is no mistake and still worth telling: languages in which a template has no words."""
    return [note for template in rendering.names() for note in mail_lint.missing_languages(template)]
