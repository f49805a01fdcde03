"""`postlude simulate`: the days to come, or a past window once more, on a copy; nothing is sent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from postlude import calendar, db
from postlude.settings import settings

if TYPE_CHECKING:
    from postlude.simulate import Story, Wanted

app = typer.Typer()

First = Annotated[
    str, typer.Option("--from", metavar="INSTANT", help="The first instant (ISO 8601, UTC). Default: now.")
]
Days = Annotated[int, typer.Option("--days", min=1, max=730, help="How many days.")]
Future = Annotated[
    str,
    typer.Option(
        "--future",
        metavar="no-new-orders|replay-history|sampled",
        help="What customers do meanwhile: nothing new; what they did (a window that is over); orders drawn from their own history.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="With sampled: the same seed draws the same orders.")]
Every = Annotated[int, typer.Option("--every", min=1, metavar="MINUTES", help="So often something is delivered.")]
Answer = Annotated[
    bool, typer.Option("--approve/--no-approvals", help="What the volume gate holds is approved, or waits.")
]
JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON; - is standard output.")
]


@app.command()
def simulate(
    first: First = "",
    days: Days = 45,
    future: Future = "no-new-orders",
    draft: Annotated[
        Path | None, typer.Option("--calendar", metavar="FILE", help="Another calendar (.yml, .csv, .ics).")
    ] = None,
    seed: Seed = 7,
    every: Every = 60,
    approve: Answer = True,
    as_json: JsonFile = None,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Where page and rows go. Default: home/simulations.")
    ] = None,
) -> None:
    """What goes out, to whom, and why not: the real stages on a copy of the database, under a virtual clock. Sends nothing."""
    from postlude import cli
    from postlude import simulate as machine

    cli._ready()
    wanted = wanted_of(first, days, future, seed, every, approve)
    if draft:
        with db.transaction() as conn:
            wanted = replace(wanted, calendar=read_calendar(draft, calendar.effective(conn, wanted.first)))
    db.default_engine().dispose()  # the server copies files only where nobody is connected
    with passing(as_json) as progress:
        story = machine.run(db.server_url(), wanted, progress)
    write(story, folder, as_json)


def wanted_of(first: str, days: int, future: str, seed: int, every: int, approve: bool) -> Wanted:
    from postlude import cli
    from postlude.simulate import Wanted

    chosen: Any = future
    return Wanted(cli.instant(first), days, chosen, seed, None, timedelta(minutes=every), approve)


def read_calendar(path: Path, present: calendar.Calendar) -> calendar.Calendar:
    """The calendar in a file of any kind we write. Raises InputError with file:line."""
    from postlude.calendar import exchange
    from postlude.yamlfile import read_text, shown

    kind = path.suffix.lower()
    if kind == ".ics":
        return exchange.from_ics(path.read_bytes(), present, shown(path))
    if kind == ".csv":
        return exchange.from_csv(read_text(path), shown(path))
    return exchange.from_yaml(read_text(path), shown(path))


@contextmanager
def passing(as_json: Path | None) -> Iterator[Any]:
    """A bar of the days that pass."""
    from postlude import cli

    with cli.progress(as_json == Path("-")) as report:
        yield (lambda done, of: report("days", done, of)) if report else None


def write(
    story: Story, folder: Path | None, as_json: Path | None, words: list[str] | None = None, name: str = ""
) -> None:
    """The files of a simulation, and its sums for people."""
    from postlude import cli
    from postlude.simulate.page import page

    paths = story.write(
        folder or settings().home / "simulations", name or f"simulation-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    )
    if words:
        paths["html"].write_text(page(story.summary, words), encoding="utf-8")
    if as_json == Path("-"):
        cli.show(story.summary, True)
        return
    if as_json:
        as_json.write_text(db.dumps(story.summary), encoding="utf-8")
    summary = story.summary
    counts: dict[str, int] = {}
    for row in summary["days"]:
        key = f"{row['campaign']}/{row['step']}"
        counts[key] = counts.get(key, 0) + row["sent"]
    reasons: dict[str, int] = {}
    for row in summary["reasons"]:
        reasons[row["reason"]] = reasons.get(row["reason"], 0) + row["messages"]
    shown: dict[str, Any] = {"sent": counts, "not sent, or later": reasons, "held at gates": len(summary["gates"])}
    if "replay" in summary:
        replay = summary["replay"]
        shown["as it was"] = f"{replay['same']:,} of {replay['rows']:,} messages"
        shown["differ"] = len(replay["different"]) + replay["missing"] + replay["added"]
    shown |= {"seconds": summary["seconds"], **{kind: str(path) for kind, path in paths.items() if kind != "json"}}
    cli.show(shown, False, f"{summary['from'][:10]} to {summary['until'][:10]}, {summary['future']}")
