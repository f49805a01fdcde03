"""The calendar goes out to YAML, spreadsheets and calendar apps, and comes back the same."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import icalendar
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine
from sqlalchemy.engine import URL
from typer.testing import CliRunner

from postlude import calendar, cli, db, pipeline, tokens, web
from postlude.calendar import exchange
from postlude.errors import InputError
from postlude.settings import settings
from world import INCLUDE, World, at, campaign

NOW = datetime(2026, 6, 1, 8, tzinfo=UTC)
FULL = """\
window: {opens: "09:00", closes: "20:00", days: [mon, tue, wed, thu, fri]}
windows: {feedback_30d: {opens: "10:00", closes: "19:00"}}
blackout_days:
  - {date: 2026-12-24, why: "=HYPERLINK(\\"http://x.example\\")"}
  - {date: 2026-12-25, why: "Noël, \\"Xmas\\""}
holidays: {countries: [DE, KR], except: [KR]}
pauses:
  - {campaign: all, from: 2026-07-01, until: 2026-07-05, why: "@summer"}
  - {campaign: win_back, from: 2026-08-01, until: 2026-08-01, why: "-"}
occasions: [{id: spring, date: 2027-03-20, why: "'quoted"}]
delays:
  - {campaign: feedback_30d, step: ask, on_day: 37, at: "11:30", in_flight: migrate, since: "2026-06-01T08:00:00Z", why: slower}
  - {campaign: win_back, step: coupon, after: 36 hours}
specials:
  - {id: friday, kind: offer, name: "Black Friday, 27 Nov", date: 2026-11-27, until: 2026-11-29, segment: active,
     template: win_back/coupon, coupon: {pool: winback, percent: 20, valid: 10 days}}
pressure: {caps: [{most: 3, within: 7 days}, {most: 1, per: month, campaigns: [win_back, feedback_30d]}], gap: 12 hours, when_full: skip}
spread: 3 hours
"""


def test_every_way_out_comes_back_the_same(tmp_path: Path) -> None:
    full = exchange.from_yaml(FULL)
    assert exchange.from_yaml(exchange.to_yaml(full)).content_hash == full.content_hash
    assert exchange.from_csv(exchange.to_csv(full)).content_hash == full.content_hash
    back = exchange.from_ics(exchange.to_ics(full, NOW), full)
    assert calendar.Calendar.model_validate(back.content()).content_hash == full.content_hash
    shipped = calendar.load_calendar(INCLUDE / "calendar.yml")
    assert exchange.from_csv(exchange.to_csv(shipped)).content_hash == shipped.content_hash


def test_no_cell_of_the_spreadsheet_is_a_formula() -> None:
    rows = list(csv.reader(io.StringIO(exchange.to_csv(exchange.from_yaml(FULL)))))
    cells = [cell for row in rows for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert '\'=HYPERLINK("http://x.example")' in cells and "'@summer" in cells and "''quoted" in cells


def test_what_a_calendar_app_does_to_the_days_comes_in() -> None:
    full = exchange.from_yaml(FULL)
    book = icalendar.Calendar.from_ical(exchange.to_ics(full, NOW, [(date(2026, 6, 3), "win_back", 412)]))
    events = {str(event["uid"]): event for event in book.walk("VEVENT")}
    assert str(events["planned-win_back-2026-06-03@postlude"]["summary"]) == "win_back: 412 mails planned"
    pause = events["pauses-all-2026-07-01@postlude"]
    assert pause.decoded("dtend") == date(2026, 7, 6)  # the day after the last one
    del pause["dtend"]
    pause.add("dtend", date(2026, 7, 11))
    book.subcomponents.remove(events["blackout_days-2026-12-24@postlude"])
    added = icalendar.Event()
    added.add("uid", "a1")
    added.add("summary", "Stocktaking")
    added.add("dtstart", date(2026, 9, 1))
    book.add_component(added)
    back = exchange.from_ics(book.to_ical(), full)
    assert [(p.campaign, p.last) for p in back.pauses] == [("all", date(2026, 7, 10)), ("win_back", date(2026, 8, 1))]
    assert {(b.date, b.why) for b in back.blackout_days} == {
        (date(2026, 12, 25), 'Noël, "Xmas"'),
        (date(2026, 9, 1), "Stocktaking"),
    }
    assert back.window == full.window and back.delays == full.delays


@pytest.mark.parametrize(
    ("read", "told"),
    [
        (lambda c: exchange.from_csv("a,b\n1,2\n"), "calendar.csv:1: what"),
        (lambda c: exchange.from_csv("what,date\nblackout_days,2026-02-30\n"), "is not a date"),
        (lambda c: exchange.from_ics(b"BEGIN:VCALENDAR\r\nnonsense", c), "iCalendar|no day|cannot"),
        (lambda c: exchange.from_yaml("window: {opens: 9}\n", "draft.yml"), "draft.yml:1: window"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_told_with_its_place(read: object, told: str) -> None:
    with pytest.raises(InputError, match=told):
        read(calendar.load_calendar(INCLUDE / "calendar.yml"))  # type: ignore[operator]


def test_a_calendar_app_reads_the_feed_with_its_token_and_sees_nobodys_data(engine: Engine, database: URL) -> None:
    world = World(engine)
    ana = world.customer("Ana")
    world.order(ana, "2026-04-28", delivered="2026-05-03 12:00")
    world.plan(campaign("feedback_30d"), "2026-05-10 06:00")
    with db.transaction(engine) as conn:
        edits = [
            {"do": "pause", "campaign": "win_back", "from": "2026-06-02", "until": "2026-06-08", "why": "quiet week"}
        ]
        calendar.save(
            conn, calendar.propose(conn, edits, by="ana", why="x", base=0, now=at("2026-05-20")), at("2026-05-20")
        )
    clock = [NOW - timedelta(days=5)]
    web_engine = db.engine(database.set(username=db.WEB_ROLE))
    client = TestClient(web.create_app(web_engine, lambda: clock[0]))
    link = tokens.calendar_link("ana", date(2026, 5, 20))
    path = link[link.index("/calendar/") :]
    answer = client.get(path)
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/calendar")
    summaries = [str(event["summary"]) for event in icalendar.Calendar.from_ical(answer.content).walk("VEVENT")]
    assert "win_back paused: quiet week" in summaries and "feedback_30d: 1 mails planned" in summaries
    assert b"customers.example" not in answer.content
    assert client.get(path.replace("ics", "icx", 1)).status_code in (400, 404)
    forged = path.replace(".ics", "x.ics")
    assert (
        client.get(forged).status_code
        == client.get(f"/calendar/{tokens.sign('banner', 'ana', '20260520')}.ics").status_code
        >= 400
    )
    clock[0] = NOW + timedelta(days=500)
    assert client.get(path).status_code >= 400
    web_engine.dispose()


def test_the_commands_change_show_take_back_and_foresee(
    database: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTLUDE_DB_URL", database.render_as_string(hide_password=False))
    monkeypatch.setenv("POSTLUDE_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(pipeline, "campaign_files", lambda: [str(INCLUDE / "campaigns" / "win_back.yml")])
    settings.cache_clear()
    db.default_engine.cache_clear()

    def run(*words: str, code: int = 0) -> str:
        done = CliRunner().invoke(cli.app, words)
        if code:
            assert isinstance(done.exception, InputError), done.output
            return str(done.exception)
        assert done.exit_code == 0, (done.output, done.exception)
        return done.output

    try:
        csv_file, draft = tmp_path / "calendar.csv", tmp_path / "draft.yml"
        run("calendar", "export", str(csv_file))
        assert "changes nothing" in run("calendar", "import", str(csv_file), "--why", "x", code=2)
        assert "window" in run("calendar", "export")
        draft.write_text(run("calendar", "export").replace("20:00", "18:00") + "pauses:\n- {campaign: win_back, from: 2031-01-01, "
                         "until: 2031-01-02, why: rest}\n")  # fmt: skip
        told = run("calendar", "check", str(draft), "--days", "2", "--json", str(tmp_path / "told.json"))
        assert "win_back is paused from 2031-01-01 to 2031-01-02" in told and "nothing changes for anybody" in told
        assert json.loads((tmp_path / "told.json").read_text())["figures"]["sent"] == {"before": 0, "after": 0}
        made = json.loads(run("calendar", "import", str(draft), "--why", "rest", "--by", "ana", "--json"))["revision"]
        assert "closes: '18:00'" in run("calendar", "show")
        stale = run("calendar", "import", str(csv_file), "--why", "x", "--base", "0", code=2)
        assert "has changed since you looked (revision 0, now" in stale
        assert "ana: rest" in run("calendar", "history")
        edits = tmp_path / "edits.json"
        edits.write_text(json.dumps([{"do": "resume", "campaign": "win_back", "on": "2031-01-02"}]))
        run("calendar", "import", "--edits", str(edits), "--why", "a day less")
        assert "has changed since you looked" in run("calendar", "revert", str(made), "--why", "x", code=2)
        run("calendar", "export", str(tmp_path / "calendar.ics"))
        assert b"win_back paused: rest" in (tmp_path / "calendar.ics").read_bytes()
        assert run("calendar", "feed", "ana").startswith("http")
        run("simulate", "--days", "2", "--future", "sampled", "--json", str(tmp_path / "story.json"))
        assert json.loads((tmp_path / "story.json").read_text())["days"] == []
        assert list((tmp_path / "simulations").glob("*.html"))
        assert "there is no" in run("simulate", "--future", "rosy", code=2)
        past = ("--from", "2020-01-01", "--days", "3", "--future", "replay-history")
        assert "nothing has happened since 2020-01-01" in run("simulate", *past, code=2)
    finally:
        db.default_engine().dispose()
        db.default_engine.cache_clear()
        monkeypatch.undo()
        settings.cache_clear()
