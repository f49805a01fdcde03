"""`postlude dead` and `postlude unknown`: messages that failed for good, and those whose answer was lost."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.table import Table

from postlude import db, dead
from postlude.errors import InputError

dead_app = typer.Typer(help="Dead letters: messages that failed for good, and the way back.", no_args_is_help=True)
unknown_app = typer.Typer(help="Messages handed over whose answer was lost.", no_args_is_help=True)

Ids = Annotated[list[UUID], typer.Argument(metavar="MESSAGE...", help="Message ids.")]
Id = Annotated[UUID, typer.Argument(metavar="MESSAGE", help="A message id.")]
Why = Annotated[str, typer.Option("--why", help="The reason, kept for ever.")]
By = Annotated[str, typer.Option("--by", help="Who says so. Default: the user of this machine.")]
Most = Annotated[int, typer.Option("--most", min=1, help="List at most so many.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else, on standard output.")]


@dead_app.command("list")
def list_dead(most: Most = 50, as_json: AsJson = False) -> None:
    """What failed for good and was not dropped: reason, raw reply, attempts, hash of the bytes."""
    with _conn() as conn:
        rows = dead.dead_letters(conn, most=most)
    columns = ("message_id", "campaign", "step", "reason", "attempts", "finalized_at", "reply")
    _table(rows, columns, "dead", "No dead letters.", as_json)


@dead_app.command("show")
def show_dead(message: Id, as_json: AsJson = False) -> None:
    """One dead letter with every hand-over, report and decision."""
    with _conn() as conn:
        _one(dead.dead_letters(conn, message), dead.story(conn, message), f"{message} is no dead letter", as_json)


@dead_app.command()
def retry(messages: Ids, why: Why, by: By = "", as_json: AsJson = False) -> None:
    """Make them due again. Every rule is read again: who has unsubscribed meanwhile gets nothing."""
    with _conn() as conn:
        _tell({"due again": dead.retry(conn, messages, by or getpass.getuser(), why, _now())}, as_json)


@dead_app.command()
def drop(messages: Ids, why: Why, by: By = "", as_json: AsJson = False) -> None:
    """They stay dead and are listed no longer."""
    with _conn() as conn:
        _tell({"dropped": dead.drop(conn, messages, by or getpass.getuser(), why, _now())}, as_json)


@unknown_app.command("list")
def list_unknown(most: Most = 50, as_json: AsJson = False) -> None:
    """Messages whose answer was lost, the oldest first. final: after 72 hours no report is expected any more."""
    with _conn() as conn:
        rows = dead.unknown_letters(conn, _now(), most=most)
    columns = (
        "message_id",
        "campaign",
        "step",
        "kind",
        "handed_over_at",
        "lost_answers",
        "resend_at",
        "final",
        "reply",
    )
    _table(rows, columns, "unknown", "Nothing is unknown.", as_json)


@unknown_app.command("show")
def show_unknown(message: Id, as_json: AsJson = False) -> None:
    """One of them with its evidence: every hand-over, report and decision."""
    with _conn() as conn:
        letters = dead.unknown_letters(conn, _now(), message)
        _one(letters, dead.story(conn, message), f"{message} is not unknown", as_json)


@unknown_app.command()
def settle(
    message: Id,
    arrived: Annotated[bool, typer.Option("--arrived/--not-accepted", help="What the evidence shows.")],
    evidence: Annotated[str, typer.Option("--evidence", help="What shows it, e.g. a line of the relay's log.")],
    why: Why,
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """Say whether it arrived. What did not is a dead letter, and may be retried."""
    with _conn() as conn:
        dead.settle(conn, message, arrived, by or getpass.getuser(), why, evidence, _now())
    _tell({"message": str(message), "is now": "sent" if arrived else "failed (not_accepted)"}, as_json)


def _now() -> datetime:
    return datetime.now(UTC)


def _conn() -> Any:
    from postlude import cli

    cli._ready()
    return db.transaction()


def _tell(result: dict[str, Any], as_json: bool) -> None:
    from postlude import cli

    cli.show(result, as_json)


def _one(found: list[dict[str, Any]], story: list[dict[str, Any]], lack: str, as_json: bool) -> None:
    from postlude import cli

    if not found:
        raise InputError(f"message {lack}")
    if as_json:
        cli.show(found[0] | {"story": story}, True)
        return
    cli.show({key: value for key, value in found[0].items() if value not in (None, "")}, False)
    _table(story, ("at", "what", "told"), "story", "", False)


def _table(rows: list[dict[str, Any]], columns: tuple[str, ...], name: str, none: str, as_json: bool) -> None:
    from postlude import cli

    if as_json:
        cli.show({name: rows}, True)
        return
    table = Table(*(column.replace("_", " ") for column in columns), box=None, padding=(0, 2, 0, 0))
    for row in rows:
        cells = (row[column] for column in columns)
        table.add_row(
            *(f"{c:%Y-%m-%d %H:%M}" if isinstance(c, datetime) else "" if c is None else str(c) for c in cells)
        )
    cli.console.print(table if rows else none)
