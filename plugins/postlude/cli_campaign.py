"""`postlude campaign`: what a campaign does, in sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Campaigns in words.", no_args_is_help=True)


@app.callback()
def campaign() -> None:
    """Campaigns in words."""


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(metavar="ID", help="The campaign's id, or the path of a campaign file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")] = False,
) -> None:
    """What a campaign is, who gets what and when, when it ends and what holds it back; made from its file."""
    from postlude import cli, pipeline
    from postlude.campaign import load_campaign
    from postlude.errors import InputError
    from postlude.words import words_of

    path = Path(name)
    if not path.is_file():
        known = {Path(file).stem: Path(file) for file in pipeline.campaign_files()}
        if name not in known:
            raise InputError(f'there is no campaign "{name}"; there are {", ".join(known) or "none"}')
        path = known[name]
    found = load_campaign(path)
    parts = words_of(found)
    if as_json:
        cli.show({"id": found.id, "name": found.name, **dict(parts)}, True, "")
        return
    typer.echo(f"{found.name} ({found.id})")
    for heading, sentences in parts:
        typer.echo(f"\n{heading}")
        for sentence in sentences:
            typer.echo(f"  - {sentence}")
