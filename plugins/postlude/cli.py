"""The command line. Every command says what it did, takes --as-of and --json, and ends with a status scripts can use.

Exit status: 0 done; 2 a file or an argument must be mended; 3 a gate is closed; 4 not now (database, relay, port), try
again; 130 interrupted.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from postlude import (
    __version__,
    cli_approve,
    cli_banner,
    cli_calendar,
    cli_campaign,
    cli_consents,
    cli_coupons,
    cli_customer,
    cli_dead,
    cli_feeds,
    cli_flows,
    cli_identities,
    cli_loyalty,
    cli_mail,
    cli_quarantine,
    cli_quotas,
    cli_recommend,
    cli_recovery,
    cli_simulate,
    cli_source,
    cli_switch,
    db,
)
from postlude.errors import GateClosed, InputError, PostludeError, Unavailable
from postlude.settings import settings

app = typer.Typer(
    name="postlude",
    help="Lifecycle campaigns for e-commerce on Apache Airflow.",
    no_args_is_help=True,
    add_completion=True,
)
db_app = typer.Typer(help="The database in use.", no_args_is_help=True)
app.add_typer(db_app, name="db")
app.command("banner-token")(cli_banner.banner_token_command)
app.add_typer(cli_switch.app)
app.add_typer(cli_feeds.app)
app.add_typer(cli_mail.app)
app.add_typer(cli_quotas.app)
app.add_typer(cli_flows.app)
app.add_typer(cli_approve.app, name="approvals")
app.add_typer(cli_simulate.app)
app.add_typer(cli_calendar.app, name="calendar")
app.add_typer(cli_campaign.app, name="campaign")
app.add_typer(cli_coupons.app, name="coupons")
app.add_typer(cli_consents.app, name="consents")
app.add_typer(cli_customer.app, name="customer")
app.add_typer(cli_dead.dead_app, name="dead")
app.add_typer(cli_dead.unknown_app, name="unknown")
app.add_typer(cli_source.app, name="source")
app.add_typer(cli_quarantine.app, name="quarantine")
app.add_typer(cli_identities.app, name="identities")
app.add_typer(cli_recommend.app)
app.add_typer(cli_loyalty.app, name="loyalty")
app.add_typer(cli_recovery.app, name="recovery")
console = Console()
err = Console(stderr=True)

AsOf = Annotated[
    str,
    typer.Option(
        "--as-of", metavar="INSTANT", help="Work as of this instant (ISO 8601, UTC), e.g. 2010-12-10. Default: now."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else, on standard output.")]
Sources = Annotated[
    list[Path] | None,
    typer.Option("--source", help="A file in include/sources; may be given several times. Default: all enabled."),
]
CampaignName = Annotated[str | None, typer.Option("--campaign", help="A campaign id or file. Default: all.")]


def main() -> None:
    """Entry point: errors of ours become one clear message and an exit status, never a traceback."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        app(standalone_mode=False)
    except typer.Exit as done:
        sys.exit(done.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        err.print("interrupted; what was finished is kept, the rest can be run again")
        sys.exit(130)
    except PostludeError as error:
        status = {InputError: 2, GateClosed: 3, Unavailable: 4}
        err.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(next((code for kind, code in status.items() if isinstance(error, kind)), 1))
    except Exception as error:
        if hasattr(error, "exit_code") and hasattr(error, "format_message"):  # a wrong option or argument
            error.show()  # type: ignore[attr-defined]
            sys.exit(error.exit_code)
        raise


# ---------------------------------------------------------------- helpers


def instant(as_of: str) -> datetime:
    """The instant of --as-of in UTC, or now. Raises InputError for anything else."""
    if not as_of or as_of == "now":
        return datetime.now(UTC)
    try:
        found = datetime.fromisoformat(as_of)
    except ValueError:
        raise InputError(
            f'--as-of: "{as_of}" is not an instant; write e.g. 2010-12-10 or 2010-12-10T09:30:00+00:00'
        ) from None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def new_run(command: str) -> str:
    return f"cli/{command}/{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"


def show(result: Any, as_json: bool, title: str = "") -> None:
    """A flat dict as a table for people, or as JSON."""
    if as_json:
        print(json.dumps(result, default=str, ensure_ascii=False, indent=2))
        return
    table = Table(title=title or None, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    for key, value in result.items():
        told = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
        if isinstance(value, dict):
            told = ", ".join(f"{k} {v:,}" if isinstance(v, int) else f"{k} {v}" for k, v in value.items()) or "none"
        table.add_row(str(key).replace("_", " "), told)
    console.print(table)


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[..., None] | None]:
    """A bar on a terminal; nothing with --json or when the output goes to a file."""
    if quiet or not err.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def report(what: str | int, done: int = 0, total: int | None = None) -> None:
            label = str(what) if not isinstance(what, int) else "messages"
            done = what if isinstance(what, int) else done
            if label not in tasks:
                tasks[label] = bars.add_task(label, total=total)
            bars.update(tasks[label], completed=done, total=total)

        yield report


def _campaigns(name: str | None) -> list[str]:
    from postlude import pipeline

    files = pipeline.campaign_files()
    if not name:
        return files
    stem = Path(name).stem
    found = [file for file in files if Path(file).stem == stem]
    if not found:
        raise InputError(f'there is no campaign "{stem}"; there are {", ".join(Path(f).stem for f in files) or "none"}')
    return found


@contextmanager
def catcher_at_hand() -> Iterator[str | None]:
    """Where mail goes without a relay: the running catcher, or one of our own for as long as this command runs."""
    config = settings()
    if config.sending or config.catcher_url:
        yield None
        return
    with socket.socket() as probe:
        probe.settimeout(0.5)
        running = probe.connect_ex(("127.0.0.1", config.catcher_smtp_port)) == 0
    from postlude.catcher import Catcher

    mail = config.home / "mail"
    with nullcontext() if running else Catcher(mail, config.catcher_smtp_port, config.catcher_http_port):
        yield f"http://127.0.0.1:{config.catcher_http_port}" if running else str(mail)


# ---------------------------------------------------------------- the flow


@app.command()
def init(as_json: AsJson = False) -> None:
    """Create the database and bring its schema up to date. Safe to run again."""
    url = db.server_url()
    created = db.create_database(url)
    db.migrate(url)
    show({"database": url.render_as_string(), "created": created, "schema": "up to date"}, as_json)


@app.command()
def sample(
    customers: Annotated[int, typer.Option(help="How many customers the sample shop has, 1 to 10,000,000.")] = 20_000,
    seed: Annotated[int, typer.Option(help="The same seed, size and instant give the same shop.")] = 7,
    as_of: AsOf = "",
    as_json: AsJson = False,
) -> None:
    """Make the feed of a sample shop (invented people) whose last day is now."""
    from postlude import sample as shop

    folder = settings().home / "sample"
    with progress(as_json) as report:
        counts = shop.generate(folder, customers, seed, instant(as_of), report)
    show({"folder": str(folder), **counts}, as_json, "Sample shop")


@app.command()
def ingest(source: Sources = None, as_of: AsOf = "", as_json: AsJson = False) -> None:
    """Bring orders in: extract, check, load. A file or row delivered again counts once."""
    from postlude import pipeline

    _ready()
    now, run_id = instant(as_of), new_run("ingest")
    paths = [str(path) for path in source] if source else pipeline.list_sources()
    if not paths:
        raise InputError(
            "no source has anything to deliver; make a sample shop with `postlude sample`, or name one with --source"
        )
    results = {}
    for path in paths:
        with progress(as_json) as report:
            counts = pipeline.extract(path, now, run_id, "cli", report)
            pipeline.check("orders", path, now, run_id)
            results[Path(path).stem] = counts | pipeline.load(path, now, run_id, "cli")
        if not as_json:
            show(results[Path(path).stem], False, Path(path).stem)
    if as_json:
        show(results, True)


@app.command()
def segment(
    full: Annotated[bool, typer.Option("--full", help="Derive everybody from scratch, not only who changed.")] = False,
    as_of: AsOf = "",
    as_json: AsJson = False,
) -> None:
    """Derive features and segments as of an instant, and check them."""
    from postlude import pipeline

    _ready()
    now, run_id = instant(as_of), new_run("segment")
    counts = pipeline.derive_features(now, run_id, "cli", full)
    pipeline.check("features", "", now, run_id)
    counts |= {f"loyalty_{key}": count for key, count in pipeline.keep_loyalty(now, run_id, "cli").items()}
    counts |= {f"happened_{key}": count for key, count in pipeline.note_happenings(now, run_id, "cli").items()}
    show(counts | pipeline.update_segments(now, run_id, "cli"), as_json, f"Customers as of {now:%Y-%m-%d %H:%M} UTC")


@app.command()
def plan(
    campaign: CampaignName = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show counts and reasons; write nothing.")] = False,
    as_of: AsOf = "",
    as_json: AsJson = False,
) -> None:
    """Enrol customers and plan their messages; checked, then released. Nothing is sent by this."""
    from postlude import pipeline

    _ready()
    now, run_id = instant(as_of), new_run("plan")
    results = {}
    for file in _campaigns(campaign):
        if dry_run:
            results[Path(file).stem] = pipeline.rehearse_campaign(file, now, run_id)
        else:
            results[Path(file).stem] = pipeline.run_campaign(file, now, run_id, "cli")
        if not as_json:
            show(results[Path(file).stem], False, Path(file).stem)
    if as_json:
        show(results, True)


@app.command()
def deliver(as_of: AsOf = "", as_json: AsJson = False) -> None:
    """Hand over what is due. Without POSTLUDE_SENDING the catcher gets it; a past --as-of is a rehearsal for the catcher."""
    from postlude import pipeline

    _ready()
    now, run_id = instant(as_of), new_run("deliver")
    with catcher_at_hand() as where, progress(as_json) as report:
        pipeline.recover(now, run_id)
        counts = pipeline.deliver(_clock(now, bool(as_of)), f"{run_id}/{os.getpid()}", run_id, "cli", progress=report)
    show({"sent": 0, **counts, **({"mail is in": where} if where else {})}, as_json, "Delivery")


@app.command()
def feedback(as_of: AsOf = "", as_json: AsJson = False) -> None:
    """Take in what happened to messages: events, answers, unsubscribes."""
    from postlude import pipeline

    _ready()
    now, run_id = instant(as_of), new_run("feedback")
    with catcher_at_hand():
        counts = pipeline.collect(now, run_id, "cli") | pipeline.apply_events(now, run_id, "cli")
        counts |= pipeline.watch(now, run_id, "cli")
    pipeline.check("events", "", now, run_id)
    show(counts, as_json, "Feedback")


@app.command()
def report(as_of: AsOf = "", as_json: AsJson = False) -> None:
    """Check the deliveries and write the report page."""
    from postlude import pipeline

    _ready()
    now, run_id = instant(as_of), new_run("report")
    pipeline.check("deliveries", "", now, run_id)
    counts = pipeline.write_report(now, run_id, "cli")
    show({"page": str(settings().home / "reports" / "latest.html"), **counts}, as_json, "Report")


@app.command()
def run(source: Sources = None, as_of: AsOf = "", as_json: AsJson = False) -> None:
    """One pass of everything: ingest, segment, plan, deliver, feedback, report; stops at the first closed gate."""
    from postlude import pipeline

    _ready()
    now, run_id = instant(as_of), new_run("run")
    result: dict[str, Any] = {}

    def step(name: str, work: Callable[..., dict[str, Any]], *args: Any) -> None:
        if not as_json:
            err.print(f"[dim]{name} …[/dim]")
        result[name] = work(*args)

    stamp = (now, run_id, "cli")
    for path in [str(p) for p in source] if source else pipeline.list_sources():
        name = Path(path).stem
        with progress(as_json) as bar:
            step(f"extract {name}", pipeline.extract, path, *stamp, bar)
        step(f"check {name}", pipeline.check, "orders", path, now, run_id)
        step(f"load {name}", pipeline.load, path, *stamp)
    step("features", pipeline.derive_features, *stamp)
    step("check features", pipeline.check, "features", "", now, run_id)
    step("loyalty", pipeline.keep_loyalty, *stamp)
    step("happenings", pipeline.note_happenings, *stamp)
    step("segments", pipeline.update_segments, *stamp)
    for file in pipeline.campaign_files():
        step(f"plan {Path(file).stem}", pipeline.run_campaign, file, *stamp)
    with catcher_at_hand() as where:
        step("recover", pipeline.recover, now, run_id)
        step("deliver", pipeline.deliver, _clock(now, bool(as_of)), f"{run_id}/{os.getpid()}", run_id, "cli")
        step("collect", pipeline.collect, *stamp)
    step("apply events", pipeline.apply_events, *stamp)
    step("watch", pipeline.watch, *stamp)
    step("check events", pipeline.check, "events", "", now, run_id)
    step("check deliveries", pipeline.check, "deliveries", "", now, run_id)
    step("report", pipeline.write_report, *stamp)
    result["where"] = {"mail": where or "the relay", "report": str(settings().home / "reports" / "latest.html")}
    if as_json:
        show(result, True)
    else:
        for name, counts in result.items():
            show(counts, False, name)


@app.command()
def status(as_of: AsOf = "", as_json: AsJson = False) -> None:
    """What there is: rows, customers per stage, messages per campaign and state with the reasons for not sending."""
    from postlude.stack import summary as summing

    _ready()
    with db.transaction() as conn:
        found = summing.summary(conn)
    if as_json:
        show(found | {"as_of": instant(as_of)}, True)
        return
    for name, source in found["sources"].items():
        show(source, False, f"source {name}")
    show(found["stages"], False, "customers per stage")
    for name, campaign in found["campaigns"].items():
        show(campaign, False, f"campaign {name}")


@app.command()
def why(
    customer: Annotated[str, typer.Argument(help="Customer id, the source's customer id, or e-mail address.")],
    campaign: Annotated[str | None, typer.Argument(help="A campaign id. Default: all.")] = None,
    as_of: AsOf = "",
    at: Annotated[str, typer.Option("--at", help="The same as --as-of.")] = "",
    as_json: AsJson = False,
) -> None:
    """Why a customer got a message, or not: each predicate as it holds, and everything stored."""
    from postlude import pipeline, switch
    from postlude import why as reasons
    from postlude.campaign import load_campaign

    _ready()
    now = instant(as_of or at)
    calendar = pipeline.calendar(now)
    traces = []
    with db.transaction() as conn:
        stops = switch.at(conn, now if as_of or at else None)
        wanted = [load_campaign(Path(file)) for file in _campaigns(campaign)]
        for person in reasons.people(conn, customer):
            known = reasons.shared(conn, person, wanted, calendar, now, stops)
            for one in wanted:
                traces.append((person, one.id, reasons.explain(conn, person, one, calendar, now, known)))
    if as_json:
        show(
            [
                {"customer_id": p.customer_id, "source": p.source_id} | line.as_dict()
                for p, _, lines in traces
                for line in lines
            ],
            True,
        )
        return
    signs = {"yes": "[green]✓[/green]", "no": "[red]✗[/red]", "fact": "·"}
    for person, name, lines in traces:
        console.print(
            f"[bold]{name}[/bold]  customer {person.customer_id} of {person.source_id}, as of {now:%Y-%m-%d %H:%M} UTC"
        )
        for line in lines:
            console.print(f"  {signs[line.verdict]} {line.predicate}: [dim]{line.detail}[/dim]", highlight=False)


@app.command()
def validate(as_of: AsOf = "", as_json: AsJson = False) -> None:
    """Check every file people edit: campaigns, segments, sources, calendar, templates. All faults at once, with their lines."""
    from postlude import pipeline

    faults = pipeline.validate()
    if as_json:
        show({"faults": [vars(fault) for fault in faults]}, True)
    elif not faults:
        console.print(
            f"{len(pipeline.campaign_files())} campaigns, segments, sources, calendar and templates are in order."
        )
    for warning in [] if as_json else pipeline.advice():
        err.print(f"warning: {warning}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    if faults:
        if not as_json:
            raise InputError(faults)
        raise typer.Exit(2)


@app.command()
def schema() -> None:
    """Print the JSON Schema of campaign files, for editors (docs/campaign.schema.json)."""
    from postlude.campaign import Campaign

    print(json.dumps(Campaign.model_json_schema(), indent=2, ensure_ascii=False))


# ---------------------------------------------------------------- the database


@db_app.command("uri")
def db_uri() -> None:
    """Print the connection URI of the database in use, e.g. for psql; an embedded server is started if need be."""
    url = db.server_url()
    db.create_database(url)
    print(url.render_as_string(hide_password=False))


@db_app.command("stop")
def db_stop() -> None:
    """Stop the embedded server, if one runs in this home."""
    from postlude import stack

    stopped = stack.stop_server(settings().home / "postgres")
    console.print("The embedded PostgreSQL has stopped." if stopped else "No embedded PostgreSQL was running here.")


# ---------------------------------------------------------------- services


@app.command()
def catcher() -> None:
    """Run the mail catcher: takes every mail, sends none, shows them on a page. Ends with Ctrl-C."""
    from postlude.catcher import serve

    config = settings()
    serve(config.home / "mail", config.catcher_smtp_port, config.catcher_http_port)


@app.command()
def web(host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1") -> None:
    """Run the public pages: unsubscribe, preferences, score. Ends with Ctrl-C."""
    from postlude.web import serve

    serve(host, settings().web_port)


@app.command()
def up() -> None:
    """Start everything on this machine: PostgreSQL, Airflow, public pages, mail catcher."""
    from postlude import stack

    stack.up()


@app.command()
def down() -> None:
    """Stop what `postlude up` started in this home, and nothing else."""
    from postlude import stack

    stack.down()


@app.command()
def logs(
    component: Annotated[list[str] | None, typer.Argument(help="e.g. scheduler; default: all.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing what comes.")] = False,
    lines: Annotated[int, typer.Option(help="How many lines of each.")] = 20,
) -> None:
    """What the components of `postlude up` said."""
    from postlude import stack

    stack.logs(component, follow=follow, lines=lines)


@app.command()
def ps(as_json: AsJson = False) -> None:
    """Which components run in this home, and where they are reached."""
    from postlude import stack

    show(stack.status(), as_json)


@app.command()
def demo(
    customers: Annotated[int, typer.Option(help="Size of the sample shop.")] = 20_000,
    seed: Annotated[int, typer.Option(help="Seed of the sample shop.")] = 7,
) -> None:
    """From nothing to sent mail: everything up, the sample shop, one pass by the scheduler, a summary; then all is stopped."""
    from postlude import stack

    stack.demo(customers=customers, seed=seed)


def _clock(now: datetime, fixed: bool) -> Callable[[], datetime]:
    """The wall clock, or the fixed instant of a rehearsal."""
    return (lambda: now) if fixed else (lambda: datetime.now(UTC))


def _ready() -> None:
    """The database exists and its schema is up to date; a new home gets both. Ports are those of a running stack."""
    from postlude import stack

    running = stack.running_settings()
    for name in ("catcher_smtp_port", "catcher_http_port", "web_url"):
        if (value := getattr(running, name)) != getattr(settings(), name):
            os.environ[f"POSTLUDE_{name.upper()}"] = str(value)
    settings.cache_clear()
    url = db.server_url()
    if db.create_database(url) or not db.is_migrated():
        db.migrate(url)


@app.callback(invoke_without_command=True)
def version(show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if show_version:
        print(__version__)
        raise typer.Exit


if __name__ == "__main__":
    main()
