"""The whole delivery path against the C ceiling: claim, render, MIME, SMTP to a loopback sink, settle.

    python benchmarks/deliver/run.py [--messages 10000] [--large 100000] [--distant 2560] [--rounds 2] [--post-office PYTHON]

The letter is that of letter/ (about 10 KB of HTML and a text: a layout, a loop over five items, fifteen variables), or any other
with --template win_back/miss_you.

Needs Debian's `postfix` package for smtp-source and smtp-sink (its daemon is not used). Makes a PostgreSQL of its own with durable
commits, fills it with as many customers, orders of five lines and due messages as wanted, and lets worker processes hand them over
to smtp-sink. In the same run smtp-source sends the same bytes over as many connections: that is the ceiling. CPU is that of all
threads of the processes named. --post-office: a Python that has Django and django-post_office; it sends the same mail as a peer.
Nothing is asserted. Under other load only the CPU figures and the ratios of one run mean anything.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, make_url

from postlude import db, letter_facts, message, outbox
from postlude.calendar import load_calendar
from postlude.campaign import load_campaign
from postlude.channels import smtp
from postlude.letter import Desk, Links
from postlude.settings import settings

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
TICKS = os.sysconf("SC_CLK_TCK")
ROWS = (
    "insert into sources (source_id, shop, kind, currency, time_zone, complete_until) "
    "values ('shop', 'Shop', 'files', 'EUR', 'UTC', :now)",
    "insert into products (source_id, sku, name, category) select 'shop', 'sku' || n, 'A fine item number ' || n, 'home' "
    "from generate_series(0, 499) n",
    "insert into customers (source_id, source_customer_id, email, first_name, last_name, country, known_at) "
    "select 'shop', n, 'c' || n || '@customers.example', "
    "(cast(:first as text[]))[1 + n % :firsts], (cast(:last as text[]))[1 + n / 7 % :lasts], 'DE', "
    ":now - interval '2 years' from generate_series(1, :people) n",
    "insert into consents select customer_id, 'email', 'marketing', true, known_at, 'opt_in', known_at from customers",
    "insert into orders (source_id, source_order_id, customer_id, currency, placed_at, known_at, counted_at, counted_amount) "
    "select 'shop', 'o' || customer_id, customer_id, 'EUR', at, at, at, 100 "
    "from customers, "
    "lateral (select cast(:now as timestamptz) - interval '190 days' - customer_id % 400 * interval '3 hours' as at) t",
    "insert into order_lines select order_id, l::text, 'sku' || (order_id * 7 + l * 13) % 500, 'x', 1 + l % 2, "
    "5 + (order_id * 31 + l * 1117) % 9000 / 100.0, placed_at "
    "from orders, generate_series(1, 5) l",
    "insert into campaign_versions values (:campaign, :version, cast(:definition as jsonb), :now)",
    "insert into enrolments (enrolment_id, campaign_id, version, customer_id, order_id, anchor_key, anchor_at, watch_from, enrolled_at, "
    "run_id) select uuid_of('e', o.customer_id::text), :campaign, :version, o.customer_id, o.order_id, '1', :now - interval '1 day', "
    ":now - interval '1 day', :now, 'b' from orders o",
    "insert into messages (message_id, enrolment_id, campaign_id, step_id, customer_id, kind, template, due_at, send_at, expires_at, "
    "planned_at, run_id) select uuid_of('m', e.enrolment_id::text), e.enrolment_id, :campaign, 'miss_you', e.customer_id, 'marketing', "
    ":template, e.at, e.at, :now + interval '3 days', :now, 'b' "
    "from (select enrolments.*, cast(:now as timestamptz) - random() * interval '2 hours' as at from enrolments) e",
)  # fmt: skip
FIRST = [
    "Ana", "Bo", "Chloé", "Dmitri", "Emma", "Farid", "Grace", "Hana", "Ivan", "Jo", "Kofi", "Lena", "Maximilian", "Noor", "Olga", "Priya",
    "Quentin", "Rosa", "Sven", "Tereza", "민준", "Umar", "Vera",
]  # fmt: skip
LAST = [
    "Lee", "Okafor", "Schmidt", "García", "Rossi", "Nowak", "Andersson", "Van-der-Berg", "O’Neill", "Yamamoto", "Petrov", "Silva",
    "Haddad", "Novák", "Dubois", "Kim",
]  # fmt: skip


# ---------------------------------------------------------------- one worker, a process of its own


def work(job: dict[str, Any]) -> None:
    engine = db.engine(make_url(job["url"]))
    back = load_campaign(settings().include / "campaigns" / "win_back.yml")
    box = outbox.Outbox(
        engine=engine, channel=smtp, url=f"smtp://127.0.0.1:{job['port']}?session=100", campaigns=[back],  # type: ignore[arg-type]
        calendar=load_calendar(settings().include / "calendar.yml"), clock=lambda: NOW, worker=f"w{job['shard']}",
        shard=job["shard"], shards=job["shards"], batch=job["batch"], lanes=job["connections"],
    )  # fmt: skip
    print("ready", flush=True)
    sys.stdin.readline()
    cpu, began, memory = _own_cpu(), time.time(), []
    counts = box.deliver(lambda done: memory.append((done, _rss())), job["limit"] or None)
    ended, used = time.time(), _own_cpu() - cpu
    third = [kb for done, kb in memory if done >= memory[-1][0] // 3]
    print(json.dumps({
        "began": began, "ended": ended, "cpu": used, "counts": counts, "rss_third": third[0], "rss_end": third[-1],
        "voluntary": resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw,
    }))  # fmt: skip


def _own_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


# ---------------------------------------------------------------- what is measured around it


def cpu_of(pid: int) -> float:
    """CPU seconds of a process and of everything it started."""
    total = 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            rest = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        own = int(stat.parent.name) == pid
        if own or int(rest[1]) == pid:
            total += sum(map(int, rest[11 : 15 if own else 13])) / TICKS
    return total


@contextmanager
def sink(*flags: str) -> Any:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    process = subprocess.Popen(
        ["/usr/sbin/smtp-sink", *user, *flags, f"127.0.0.1:{port}", "200"], stderr=subprocess.DEVNULL
    )
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


def ceiling(mail: Path, messages: int, connections: int) -> dict[str, float]:
    with sink() as (port, pid):
        before, used, began = resource.getrusage(resource.RUSAGE_CHILDREN), cpu_of(pid), time.time()
        command = [
            "/usr/sbin/smtp-source", "-d", "-s", str(connections), "-m", str(messages), "-F", str(mail), "-f", "news@shop.example",
            "-t", "c@customers.example", f"127.0.0.1:{port}",
        ]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall, after = time.time() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return {"rate": messages / wall, "sender": cpu / messages, "sink": (cpu_of(pid) - used) / messages}


def delivery(
    admin: Any,
    url: URL,
    source: str,
    messages: int,
    workers: int,
    args: argparse.Namespace,
    limit: int = 0,
    *flags: str,
) -> dict[str, Any]:
    """Hand over everything (or `limit` messages) in a fresh copy of the database `source`; flags: for smtp-sink."""
    admin.execute(text('drop database if exists "run" with (force)'))
    admin.execute(text(f'create database "run" template "{source}"'))
    admin.execute(text("checkpoint"))
    postmaster = int((args.data / "postmaster.pid").read_text().split()[0])
    with sink(*flags) as (port, pid):
        jobs = [
            {"url": url.set(database="run").render_as_string(hide_password=False), "port": port, "shard": n, "shards": workers,
             "batch": args.batch, "connections": args.connections, "limit": limit}
            for n in range(workers)
        ]  # fmt: skip
        crew = [
            subprocess.Popen(
                [sys.executable, __file__, "--job", json.dumps(job)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for job in jobs
        ]  # fmt: skip
        for process in crew:
            process.stdout.readline()  # type: ignore[union-attr]
        database, used = cpu_of(postmaster), cpu_of(pid)
        for process in crew:
            process.stdin.write("go\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
        told = [json.loads(process.communicate()[0].splitlines()[-1]) for process in crew]
        time.sleep(0.2)  # backends that end add their time to the postmaster's children
        database, used = cpu_of(postmaster) - database, cpu_of(pid) - used
    sent = sum(one["counts"].get("sent", 0) for one in told)
    assert sent == (limit or messages), f"only {sent} of {messages} were sent: {[one['counts'] for one in told]}"
    return {
        "rate": sent / (max(one["ended"] for one in told) - min(one["began"] for one in told)),
        "sender": sum(one["cpu"] for one in told) / sent,
        "postgres": database / sent,
        "sink": used / sent,
        "memory": [(one["rss_third"] // 1024, one["rss_end"] // 1024) for one in told],
    }


def own_letter(home: Path) -> None:
    """Definitions of this run and its workers: those of the project, and the template bench/letter."""
    shutil.copytree(settings().include, home / "include")
    shutil.copytree(Path(__file__).with_name("letter"), home / "include" / "templates" / "bench")
    os.environ["POSTLUDE_INCLUDE"] = str(home / "include")
    settings.cache_clear()


def fill(url: URL, name: str, messages: int, template: str = "bench/letter") -> None:
    target = url.set(database=name)
    db.create_database(target)
    db.migrate(target)
    engine = db.engine(target)
    back = load_campaign(settings().include / "campaigns" / "win_back.yml")
    values = {
        "now": NOW, "people": messages, "campaign": back.id, "version": back.version, "definition": db.dumps(back.definition()),
        "template": template, "first": FIRST, "firsts": len(FIRST), "last": LAST, "lasts": len(LAST),
    }  # fmt: skip
    with engine.begin() as conn:
        for statement in ROWS:
            conn.execute(text(statement), {k: v for k, v in values.items() if re.search(rf":{k}\b", statement)})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.execute(text("vacuum analyze"))
    engine.dispose()


def one_mail(url: URL, name: str) -> tuple[bytes, str, dict[str, Any]]:
    """One of the messages: its bytes and HTML; and for the peer the letter as it would write it."""
    engine = db.engine(url.set(database=name))
    with engine.begin() as conn:
        some = conn.scalar(text("select message_id from messages limit 1"))
        letter = db.run(conn, "43_letters", ids=[some], facts=letter_facts.PARTS, now=NOW).one()
    engine.dispose()
    desk = Desk()
    mail, _ = desk.write(letter, NOW)
    template = desk._template(letter.template, letter.locale, letter.source_id)
    form = desk._form(letter)
    values = desk._context(letter, form, Links(letter, form.house.theme), None, NOW, template.uses)
    values |= {
        "shop": template.shop,
        "subject": mail.subject,
        "preheader": mail.subject,
        "locale": "en",
        "direction": "ltr",
    }
    parts = {part: django_source(getattr(template, part).source.text) for part in ("subject", "html", "text")}
    return message.to_bytes(mail), mail.html, {**parts, "context": values}


def django_source(source: str) -> str:
    """The same template in Django's language: it has no money, and gets its dates as texts."""
    source = re.sub(r"\{([{%])\s*(.*?)\s*([}%])\}", r"{\1 \2 \3}", source, flags=re.DOTALL)
    source = re.sub(r"\{\{ \('([^']*)' ~ ([\w.]+)\)", r"\1{{ \2", source)
    source = re.sub(r"\|money\([^)]*\)", "|floatformat:2", source)
    return re.sub(r"\|truncate\((\d+)\)", r"|truncatechars:\1", re.sub(r"\|(date|url)\b(\([^)]*\))?", "", source))


def post_office(
    python: str, home: Path, messages: int, url: URL, admin: Any, letter: dict[str, Any]
) -> dict[str, float]:
    admin.execute(text('drop database if exists "peer" with (force)'))
    admin.execute(text('create database "peer"'))
    (home / "letter.json").write_text(json.dumps(letter, default=str), encoding="utf-8")
    postmaster = int((home / "data" / "postmaster.pid").read_text().split()[0])
    with sink() as (port, _):
        job = {
            "host": url.query["host"], "user": url.username, "port": port, "messages": messages, "letter": str(home / "letter.json"),
        }  # fmt: skip
        script = Path(__file__).with_name("post_office_peer.py")
        peer = subprocess.Popen(
            [python, str(script), json.dumps(job)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert peer.stdin and peer.stdout
        peer.stdout.readline()  # everything is queued
        used = cpu_of(postmaster)
        told = peer.communicate("go\n")[0]
        time.sleep(0.2)
        used = cpu_of(postmaster) - used
    return {**json.loads(told.splitlines()[-1]), "postgres": used / messages}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument(
        "--large", type=int, default=0, help="also so many: is the cost of a message flat? e.g. 1000000"
    )
    parser.add_argument(
        "--distant",
        type=int,
        default=0,
        help="also so many to a relay that takes a second to answer DATA: then cores are free, e.g. 2560",
    )
    parser.add_argument("--large-limit", type=int, default=0, help="deliver only so many of them; 0: all")
    parser.add_argument("--template", default="bench/letter", help="what is sent; bench/letter: the files in letter/")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--post-office", default="", help="a Python with Django, psycopg and django-post_office")
    parser.add_argument("--job", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        work(json.loads(args.job))
        return
    if not Path("/usr/sbin/smtp-source").exists():
        sys.exit("smtp-source and smtp-sink are missing: apt-get install postfix (its daemon need not run)")
    home = Path(tempfile.mkdtemp(prefix="bench-"))
    home.chmod(0o755)
    args.data = home / "data"
    own_letter(home)
    # as PostgreSQL's own manual advises for a server: a quarter of the memory
    buffers = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4 // 2**20
    url = db.start_embedded(args.data, f"-c shared_buffers={buffers}MB -c max_wal_size=8GB -c autovacuum=off")
    admin = create_engine(db._psycopg(url), isolation_level="AUTOCOMMIT").connect()
    try:
        version = admin.scalar(text("show server_version"))
        fill(url, "small", args.messages, args.template)
        raw, html, letter = one_mail(url, "small")
        mail = home / "mail"
        mail.write_bytes(raw.replace(b"\r\n", b"\n"))
        print(
            f"Python {platform.python_version()}, PostgreSQL {version} (durable commits), {os.cpu_count()} cores, "
            f"load {os.getloadavg()[0]:.1f}; HTML {len(html.encode()):,} bytes, message {len(raw):,} bytes; "
            f"{args.connections} connections, "
            f"batches of {args.batch}; {buffers:,} MB of shared buffers"
        )
        tops, singles, many = [], [], []
        for _ in range(args.rounds):
            tops.append(ceiling(mail, args.messages, args.connections))
            singles.append(delivery(admin, url, "small", args.messages, 1, args))
            if args.workers > 1:
                many.append(delivery(admin, url, "small", args.messages, args.workers, args))
        top = statistics.median(one["rate"] for one in tops)
        _print(f"C: smtp-source, {args.messages:,}", tops, top)
        _print(f"Postlude, 1 worker, {args.messages:,}", singles, top)
        if many:
            _print(f"Postlude, {args.workers} workers, {args.messages:,}", many, top)
            gain = statistics.median(m["rate"] / s["rate"] for m, s in zip(many, singles, strict=True))
            print(f"{args.workers} workers against one: {gain:.2f}")
        if args.distant:
            fill(url, "few", args.distant, args.template)
            one, two = (delivery(admin, url, "few", args.distant, workers, args, 0, "-w", "1") for workers in (1, 2))
            _print(f"Postlude, 1 worker, {args.distant:,}, a second for each DATA", [one], top)
            _print(f"Postlude, 2 workers, {args.distant:,}, a second for each DATA", [two], top)
            print(f"2 workers against one, where cores are free: {two['rate'] / one['rate']:.2f}")
        if args.large:
            fill(url, "large", args.large, args.template)
            large = [delivery(admin, url, "large", args.large, 1, args, args.large_limit)]
            _print(f"Postlude, 1 worker, {args.large:,}", large, top)
            ratio = sum(large[0][k] for k in ("sender", "postgres")) / statistics.median(
                s["sender"] + s["postgres"] for s in singles
            )
            print(f"CPU per message, {args.large:,} against {args.messages:,}: {ratio:.2f}")
        if args.post_office:
            peer = post_office(args.post_office, home, min(args.messages, 2_000), url, admin, letter)
            _print(f"django-post_office {peer.pop('version')}", [peer], top)
            print(
                f"Postlude against django-post_office: {statistics.median(s['rate'] for s in singles) / peer['rate']:.1f}; "
                f"messages for a second of CPU of sender and PostgreSQL: "
                f"{(peer['sender'] + peer['postgres']) / statistics.median(s['sender'] + s['postgres'] for s in singles):.1f}"
            )
    finally:
        admin.close()
        db.stop_embedded(args.data)
        shutil.rmtree(home, ignore_errors=True)


def _print(name: str, rounds: list[dict[str, Any]], top: float) -> None:
    rate = statistics.median(one["rate"] for one in rounds)
    words = [f"{rate:,.0f}/s", f"{rate / top:.2f} of the ceiling"]
    for key in ("sender", "postgres", "sink"):
        if key in rounds[0]:
            words.append(f"{key} {statistics.median(one[key] for one in rounds) * 1e6:,.0f} µs CPU")
    if "memory" in rounds[0]:
        words.append("MB at a third and at the end " + ", ".join(f"{a} {b}" for a, b in rounds[-1]["memory"]))
    print(f"{name}: {'; '.join(words)}", flush=True)


if __name__ == "__main__":
    main()
