"""`postlude calendar`: the calendar in force, its revisions, what a change would do, and its way in and out of files."""

from __future__ import annotations

import getpass
import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from postlude import calendar, cli_simulate, db
from postlude.cli_simulate import Answer, Days, Every, First, Future, JsonFile, Seed
from postlude.errors import InputError
from postlude.settings import settings

app = typer.Typer(help="What marketers steer: the calendar in force and its revisions.", no_args_is_help=True)

AsOf = Annotated[str, typer.Option("--as-of", metavar="INSTANT", help="The calendar of this instant. Default: now.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else, on standard output.")]
Why = Annotated[str, typer.Option("--why", help="The reason, kept for ever.")]
By = Annotated[str, typer.Option("--by", help="Who says so. Default: the user of this machine.")]
Base = Annotated[
    int | None, typer.Option("--base", help="The revision you looked at; another one since is a conflict.")
]
Kind = Annotated[str, typer.Option("--format", metavar="yml|csv|ics", help="Default: by the file's name, else yml.")]
Edits = Annotated[
    Path | None, typer.Option("--edits", metavar="FILE", help="Edits as JSON (docs/calendar.md) instead of a file.")
]


@app.command()
def show(as_of: AsOf = "", as_json: AsJson = False) -> None:
    """The calendar in force: the file, with everything that was changed over it."""
    from postlude import cli
    from postlude.calendar import exchange

    cli._ready()
    now = cli.instant(as_of)
    with db.transaction() as conn:
        found, head = calendar.effective(conn, now), calendar.head(conn)
    if as_json:
        cli.show({"revision": head, "calendar": found.content()}, True)
        return
    cli.console.print(f"# as of {now:%Y-%m-%d %H:%M} UTC, revision {head}", markup=False, highlight=False)
    cli.console.print(exchange.to_yaml(found), markup=False, highlight=False, soft_wrap=True)


@app.command()
def history(as_json: AsJson = False, limit: Annotated[int, typer.Option(help="How many.")] = 50) -> None:
    """Who changed what, when and why, the newest first."""
    from postlude import cli

    cli._ready()
    with db.transaction() as conn:
        found = calendar.history(conn, limit)
    if as_json:
        cli.show([vars(revision) | {"words": revision.words} for revision in found], True)
        return
    for revision in found:
        back = f" (taken back by {revision.reverted_by})" if revision.reverted_by else ""
        cli.console.print(
            f"{revision.revision}  {revision.at:%Y-%m-%d %H:%M} UTC  {revision.author}: {revision.why}{back}",
            markup=False,
            highlight=False,
        )
        for line in revision.words:
            cli.console.print(f"    {line}", markup=False, highlight=False)


@app.command()
def revert(revision: Annotated[int, typer.Argument(help="A number of `postlude calendar history`.")], why: Why, by: By = "",
           as_json: AsJson = False) -> None:  # fmt: skip
    """Take one revision back, by a new one."""
    from postlude import cli

    cli._ready()
    now = cli.instant("")
    with db.transaction() as conn:
        made = calendar.revert(conn, revision, by=by or getpass.getuser(), why=why, now=now)
        words = next(r.words for r in calendar.history(conn) if r.revision == made)
    cli.show({"revision": made, "takes back": revision, "which means": "; ".join(words)}, as_json)


@app.command()
def export(
    file: Annotated[Path | None, typer.Argument(help="Where to; none: standard output.")] = None,
    kind: Kind = "",
    as_of: AsOf = "",
) -> None:
    """Write the calendar in force as YAML, CSV (safe for spreadsheets) or ICS (for calendar apps)."""
    from postlude import cli
    from postlude.calendar import exchange

    cli._ready()
    now = cli.instant(as_of)
    with db.transaction() as conn:
        found = calendar.effective(conn, now)
    form = kind or (file.suffix.lstrip(".").lower() if file else "yml")
    writers = {"yml": exchange.to_yaml, "yaml": exchange.to_yaml, "csv": exchange.to_csv}
    if form == "ics":
        raw = exchange.to_ics(found, now)
    elif form in writers:
        raw = writers[form](found).encode()
    else:
        raise InputError(f'"{form}" is no format; write yml, csv or ics')
    if file is None:
        typer.echo(raw.decode(), nl=False)
    else:
        file.write_bytes(raw)
        cli.show({"written": str(file), "format": form}, False)


@app.command("import")
def import_(
    file: Annotated[Path | None, typer.Argument(help="A calendar: .yml, .csv or .ics.")] = None,
    why: Why = "",
    by: By = "",
    base: Base = None,
    edits: Edits = None,
    as_json: AsJson = False,
) -> None:
    """Make a file's calendar the one in force: its differences become one revision. See first what it does: `calendar check`."""
    from postlude import cli

    cli._ready()
    now = cli.instant("")
    with db.transaction() as conn:
        known = calendar.head(conn) if base is None else base
        wanted = _wanted(file, edits, calendar.effective(conn, now))
        draft = calendar.propose(conn, wanted, by=by or getpass.getuser(), why=why, base=known, now=now)
        made = calendar.save(conn, draft, now)
    cli.show({"revision": made, "changes": draft.words if as_json else "; ".join(draft.words)}, as_json)


def _wanted(file: Path | None, edits: Path | None, present: calendar.Calendar) -> Any:
    if (file is None) == (edits is None):
        raise InputError("name either a calendar file or --edits")
    if file is not None:
        return cli_simulate.read_calendar(file, present)
    assert edits is not None
    try:
        found = json.loads(edits.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{edits}: cannot be read as JSON: {error}") from None
    if not isinstance(found, list) or not all(isinstance(edit, dict) for edit in found):
        raise InputError(f'{edits}: must be a list of edits, such as [{{"do": "pause", "campaign": "win_back", ...}}]')
    return found


@app.command()
def check(
    file: Annotated[Path | None, typer.Argument(help="A draft: .yml, .csv or .ics.")] = None,
    edits: Edits = None,
    first: First = "",
    days: Days = 45,
    future: Future = "no-new-orders",
    seed: Seed = 7,
    every: Every = 60,
    approve: Answer = True,
    as_json: JsonFile = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page with plots.")] = None,
) -> None:
    """What a change of the calendar does over the coming weeks, in people: two simulations, compared. Nothing is saved."""
    from postlude import cli
    from postlude.simulate import contract
    from postlude.simulate.page import page

    cli._ready()
    wanted = cli_simulate.wanted_of(first, days, future, seed, every, approve)
    with db.transaction() as conn:
        present = calendar.effective(conn, wanted.first)
        draft = calendar.propose(
            conn, _wanted(file, edits, present), by="check", why="check", base=calendar.head(conn), now=wanted.first
        )
    db.default_engine().dispose()
    with cli_simulate.passing(as_json) as progress:
        found = contract.compare(db.server_url(), draft.after, replace(wanted), progress)
    told = {"changes": draft.words, "words": found.words, "figures": found.figures}
    if html:
        html.write_text(page(found.after.summary, found.words), encoding="utf-8")
    if as_json == Path("-"):
        cli.show(told, True)
        return
    if as_json:
        as_json.write_text(db.dumps(told), encoding="utf-8")
    for line in draft.words:
        cli.console.print(f"if {line}:", markup=False, highlight=False)
    for line in found.words:
        cli.console.print(f"  {line}", markup=False, highlight=False)


@app.command()
def feed(
    name: Annotated[str, typer.Argument(help="Whose subscription it is, e.g. ana: letters, digits, - and _.")],
) -> None:
    """The address at which a calendar app can subscribe to the calendar. Whoever has it can read it, for 400 days."""
    from postlude import cli, tokens

    try:
        link = tokens.calendar_link(name, cli.instant("").date())
    except ValueError:
        raise InputError(f'"{name}" is no name for a subscription; write letters, digits, - and _') from None
    cli.console.print(link, markup=False, highlight=False, soft_wrap=True)
    if not settings().web_url.startswith("https:"):
        cli.err.print("POSTLUDE_WEB_URL has no https: calendar apps outside of this machine will not reach it")
