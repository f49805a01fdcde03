"""Campaigns that tests write as people do: as a file, through the loader."""

from __future__ import annotations

from pathlib import Path

from postlude.campaign import Campaign, load_campaign

HEAD = """\
id: {id}
name: Test
owner: team
kind: marketing
trigger: {trigger}
why: Because.
{more}
steps:
"""
ONE_STEP = "  - {id: one, template: win_back/miss_you, on_day: 0, expires_after: 3 days}\n"


def written(
    folder: Path, trigger: str, steps: str = ONE_STEP, more: str = "stop_while: []", name: str = "hello"
) -> Campaign:
    """The campaign with this trigger, these steps and further keys, read from a file in folder/campaigns."""
    (folder / "campaigns").mkdir(exist_ok=True)
    file = folder / "campaigns" / f"{name}.yml"
    file.write_text(HEAD.format(id=name, trigger=trigger, more=more) + steps)
    return load_campaign(file)
