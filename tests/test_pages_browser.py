"""The pages as people meet them: in the real Airflow UI, in Chromium, with the keyboard alone, in both colours."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from postlude import db, stack, tallies
from postlude.pages import PAGES
from postlude.settings import Settings
from postlude.stack.processes import Component
from test_cli import free_port
from test_flow import lapsing
from test_pages import EVIL
from test_pages_approvals import held
from world import World, at, campaign

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.base", reason="axe-playwright-python is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.airflow,
    pytest.mark.browser,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium (Debian: apt-get install chromium)"),
]


class OnlyTheUi(stack.Stack):
    """The api-server and the database: no DAG runs here."""

    def components(self) -> list[Component]:
        return [part for part in super().components() if part.name == "api-server"]

    def waiting_for(self) -> list[str]:
        return [] if "api-server" not in super().waiting_for() else ["api-server"]


@pytest.fixture(scope="module")
def running() -> Iterator[stack.Stack]:
    home = Path(tempfile.mkdtemp(prefix="postlude-pages-"))
    ports = {name: free_port() for name in ("airflow_port", "web_port", "catcher_http_port", "catcher_smtp_port")}
    started = OnlyTheUi(Settings(home=home, **ports))  # type: ignore[call-arg,arg-type]
    try:
        with started.stopped_if_it_fails():
            started.start(timeout=400)
        yield started
    finally:
        started.stop()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="module")
def world(running: stack.Stack) -> Iterator[World]:
    engine = db.engine(running.at.database())
    world = World(engine)
    lapsing(world, name="Ana Secretperson", key=EVIL)
    world.plan(campaign("win_back"), "2026-06-01 08:30")
    world.deliver(campaign("win_back"), now="2026-06-01 09:30")
    with db.transaction(engine) as conn:
        tallies.refresh(conn, at("2026-06-01 10:00"))
    yield world
    engine.dispose()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with sync_api.sync_playwright() as play:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        browser = play.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@contextmanager
def signed_in(chromium: Any, running: stack.Stack, who: str) -> Iterator[Any]:
    """A window of 1280 px in which `who` has signed in to Airflow."""
    page = chromium.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(60_000)
    page.airflow = running.at.urls["airflow"]
    page.goto(f"{page.airflow}/auth/login")
    page.fill("input[name=username]", who)
    page.fill("input[name=password]", running.at.passwords()[who])
    with page.expect_navigation(url=lambda url: "login" not in url):
        page.click("button[type=submit]")
    yield page
    page.close()


def inner(page: Any) -> Any:
    page.frame_locator("iframe").locator("h1").first.wait_for()
    return next(frame for frame in page.frames if frame.parent_frame)


def until(frame: Any, expression: str, arg: Any = None) -> None:
    """Wait for it by asking again: what waits inside the page would be evaluated there, which our policy forbids."""
    end = time.monotonic() + 15
    while not frame.evaluate(expression, arg):
        assert time.monotonic() < end, expression
        time.sleep(0.05)


def opened(page: Any, name: str) -> Any:
    """One of our pages as it stands in the Airflow UI: its frame, once its data is there."""
    page.goto(f"{page.airflow}/plugin/postlude-{name}")
    frame = inner(page)
    until(frame, READY[name])
    return frame


BANNER = "(document.getElementById('banner')?.textContent ?? '…') !== '…'"
READY = {
    "stop": BANNER,
    "approvals": BANNER,
    "why": "document.getElementById('campaign')?.options.length > 1",
    "calendar": "document.querySelectorAll('td[data-day]').length >= 28",
    "campaigns": "document.getElementById('name')?.textContent",
    "segments": "document.querySelectorAll('#list button').length > 3",
    "customers": "document.getElementById('campaign')?.options.length > 1",
    "wizard": "document.getElementById('pattern')?.options.length > 1",
}


def filled(frame: Any, name: str) -> Iterator[str]:
    """Bring up what a page has to show, one view after the other; each view's name."""
    if name == "calendar":
        for view, shown in (("week", "table.week"), ("list", "#view table"), ("history", "#view p, #view table")):
            frame.locator(f"input[value={view}]").check(force=True)
            frame.locator(shown).first.wait_for()
            yield view
        frame.locator("input[value=month]").check(force=True)
        until(frame, READY[name])
    elif name == "campaigns":
        frame.select_option("#campaign", "win_back")
        until(frame, "document.getElementById('name').textContent === 'We miss you'")
        frame.click("#sample")
        frame.locator("#customers td").first.wait_for()
        frame.click("#look button")
        frame.frame_locator("#mail").locator("table").first.wait_for()
    elif name == "segments":
        frame.locator("#list button[data-segment=lapsed]").click()
        frame.locator("#charts figure, #charts p").first.wait_for()
        frame.click("#sample")
        frame.locator("#customers p, #customers td").first.wait_for()
    elif name == "approvals":
        frame.locator("section[data-approval]").first.wait_for()
    elif name == "wizard":
        frame.select_option("#pattern", "win_back")
        frame.fill("#id", "spring_back")
        frame.click("#draft button")
        frame.locator("#words li").first.wait_for()
    elif name in ("customers", "why"):
        who, go = ("#wanted", "#find button") if name == "customers" else ("#customer", "#ask button")
        frame.fill(who, EVIL)
        frame.click(go)
        frame.locator("#timeline td, #answer h2").first.wait_for()
    yield "all"


def test_axe_finds_nothing_serious_on_any_page_in_either_colour(
    running: stack.Stack, world: World, chromium: Any
) -> None:
    held(world, since=f"{datetime.now(UTC) - timedelta(hours=1):%Y-%m-%d %H:%M}")
    faults = []
    with signed_in(chromium, running, "admin") as page:
        for name in PAGES:
            frame = opened(page, name)
            frame.evaluate(axe.AXE_SCRIPT)
            for view in filled(frame, name):
                for theme in ("light", "dark"):
                    page.evaluate("theme => { document.documentElement.className = theme }", theme)
                    until(
                        frame, "dark => document.documentElement.classList.contains('dark') === dark", theme == "dark"
                    )
                    found = frame.evaluate("axe.run(document, {iframes: false})")
                    assert len(found["passes"]) > 15, (name, view, "axe looked at next to nothing")
                    faults += [
                        (name, view, theme, one["id"], node["html"][:120], node["failureSummary"])
                        for one in found["violations"] if one["impact"] in ("serious", "critical") for node in one["nodes"]
                    ]  # fmt: skip
    assert faults == []


def test_of_two_editors_the_second_sees_what_the_first_changed_and_asks_again_over_it(
    running: stack.Stack, world: World, chromium: Any
) -> None:
    def draft(frame: Any, why: str) -> None:
        frame.select_option("#do", "pause")
        frame.select_option("#fields [name=campaign]", "win_back")
        frame.fill("#fields [name=from]", "2027-03-01")
        frame.fill("#fields [name=until]", "2027-03-02")
        frame.fill("#why", why)
        frame.click("#edit button[type=submit]")

    with signed_in(chromium, running, "marketer") as page, signed_in(chromium, running, "admin") as other:
        mine, theirs = opened(page, "calendar"), opened(other, "calendar")
        draft(theirs, "spring cleaning")
        theirs.locator("#save-blind:enabled").click()
        until(theirs, "document.getElementById('done').textContent.startsWith('Saved')")
        draft(mine, "also mine")
        until(mine, "document.getElementById('error').textContent !== ''")
        told = mine.inner_text("#error")
        assert "Somebody was faster" in told and "win_back is paused from 2027-03-01 to 2027-03-02" in told
        assert mine.input_value("#why") == "also mine" and mine.is_hidden("#contract")
        # what was typed stays, and is asked again over the newest calendar
        mine.fill("#fields [name=until]", "2027-03-05")
        mine.click("#edit button[type=submit]")
        mine.locator("#means li").first.wait_for()
        assert mine.inner_text("#error") == ""
        mine.locator("#save-blind:enabled").click()
        until(mine, "document.getElementById('done').textContent.startsWith('Saved')")
    authors = world.do("select author from calendar_revisions order by revision desc limit 2")
    assert authors == [("marketer",), ("admin",)]


def test_a_marketer_stops_and_lets_go_with_the_keyboard_alone(
    running: stack.Stack, world: World, chromium: Any
) -> None:
    with signed_in(chromium, running, "marketer") as page:
        frame = opened(page, "stop")
        assert frame.inner_text("#banner").startswith("Nothing is stopped")
        frame.focus("input[name=scope]:checked")
        page.keyboard.press("ArrowRight")  # one campaign
        page.keyboard.press("Tab")
        assert frame.evaluate("document.activeElement.id") == "name"
        page.keyboard.type("We miss you")
        page.keyboard.press("Tab")
        page.keyboard.type(EVIL)
        page.keyboard.press("Enter")
        row = frame.locator("#stops tr")
        row.wait_for()
        assert frame.inner_text("#banner") == "One stop is in force."
        cells = [cell.strip() for cell in row.locator("td").all_inner_texts()]
        assert (cells[0], cells[3], cells[4]) == ("campaign win_back (“We miss you”)", "marketer", EVIL)
        assert world.do("select scope, name, stopped_by, why from kill_switches where lifted_at is null") == [
            ("campaign", "win_back", "marketer", EVIL)
        ]
        row.locator("button").focus()
        page.keyboard.press("Enter")
        assert frame.evaluate("document.activeElement.id") == "go-why"
        page.keyboard.press("Enter")  # a reason is asked for
        assert world.one("select count(*) from kill_switches where lifted_at is null") == 1
        page.keyboard.type("price mended")
        page.keyboard.press("Enter")
        frame.locator("#lifted tr").wait_for()
        assert "marketer" in frame.inner_text("#lifted") and EVIL in frame.inner_text("#lifted")
        assert world.do("select lifted_by, lift_reason from kill_switches") == [("marketer", "price mended")]
        assert not page.evaluate("window.pwned") and not frame.evaluate("window.pwned || parent.pwned")


def test_a_person_is_looked_up_and_is_named_in_no_address(running: stack.Stack, world: World, chromium: Any) -> None:
    with signed_in(chromium, running, "marketer") as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        frame = opened(page, "why")
        frame.focus("#customer")
        page.keyboard.type(EVIL)
        frame.select_option("#campaign", "win_back")
        frame.fill("#at", "2026-06-01T10:00")
        frame.focus("#customer")
        page.keyboard.press("Enter")
        frame.locator("#answer h2").wait_for()
        told = frame.inner_text("#answer")
        assert "As of 2026-06-01 10:00 UTC" in told and "message miss_you" in told and ": sent" in told
        assert "✓ yes" in told and "may be written to" in told
        assert "Secretperson" not in told and "customers.example" not in told
        assert frame.evaluate("document.activeElement.tagName") == "H1"  # read out at once
        frame.fill("#customer", "nobody@customers.example")
        page.keyboard.press("Tab")
        frame.click("#ask button")
        until(frame, "document.getElementById('error').textContent !== ''")
        assert "no customer has this id" in frame.inner_text("#error") and frame.inner_text("#answer") == ""
        assert not page.evaluate("window.pwned") and not frame.evaluate("window.pwned || parent.pwned")
        assert any(url.endswith("/postlude/api/why") for url in asked)
        ours = [url for url in asked if "/postlude/" in url]
        assert all(url.startswith(page.airflow) and "?" not in url and "script%3E" not in url for url in ours)


def test_a_blackout_is_added_moved_and_taken_back_with_the_keyboard_and_the_mouse(
    running: stack.Stack, world: World, chromium: Any
) -> None:
    with signed_in(chromium, running, "marketer") as page:
        frame = opened(page, "calendar")
        assert frame.inner_text("#error") == ""
        frame.focus("td[aria-current=date]")
        today = frame.evaluate("document.activeElement.dataset.day")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        day = (date.fromisoformat(today) + timedelta(days=8)).isoformat()
        until(frame, "day => document.activeElement.dataset.day === day", arg=day)
        page.keyboard.press("Enter")  # the form for that day
        assert (frame.input_value("#do"), frame.input_value("#fields [name=date]")) == ("add_blackout", day)
        frame.fill("#why", EVIL)
        page.keyboard.press("Enter")
        frame.locator("#means li").wait_for()
        assert day in frame.inner_text("#means")
        frame.locator("#save-blind:enabled").click()
        frame.locator(f"td[data-day='{day}'] .blackout").wait_for()
        assert EVIL in frame.inner_text(f"td[data-day='{day}']")
        # dragged to the day after: the form shows both halves, and saves them as one
        before = frame.locator("td[data-day]").all()
        days = [cell.get_attribute("data-day") for cell in before]
        other = days[days.index(day) - 1]
        frame.drag_and_drop(f"td[data-day='{day}'] .blackout", f"td[data-day='{other}']")
        assert frame.input_value("#fields [name=date]") == other
        frame.focus("#why")
        page.keyboard.press("Enter")
        frame.locator("#means li").nth(1).wait_for()
        frame.locator("#save-blind:enabled").click()
        frame.locator(f"td[data-day='{other}'] .blackout").wait_for()
        assert frame.locator(f"td[data-day='{day}'] .blackout").count() == 0
        frame.locator("input[value=history]").check(force=True)
        frame.locator("#view button").first.click()
        frame.locator("text=taken back by").wait_for()
        frame.locator("input[value=month]").check(force=True)
        frame.locator(f"td[data-day='{day}'] .blackout").wait_for()
        assert not page.evaluate("window.pwned") and not frame.evaluate("window.pwned || parent.pwned")


def test_who_a_customer_is_is_shown_to_those_who_may_know_and_never_runs(
    running: stack.Stack, world: World, chromium: Any
) -> None:
    with signed_in(chromium, running, "marketer") as page:
        assert opened(page, "customers").is_disabled("#find button")
    with signed_in(chromium, running, "admin") as page:
        frame = opened(page, "customers")
        frame.fill("#wanted", EVIL)
        page.keyboard.press("Enter")
        frame.locator("#timeline td").first.wait_for()
        assert "Ana Secretperson" in frame.inner_text("#name") and "win_back/miss_you" in frame.inner_text("#timeline")
        frame.click("#ask button")
        frame.locator("#answer h2").first.wait_for()
        # a mail is shown in a frame in which nothing of it runs
        frame = opened(page, "campaigns")
        frame.select_option("#campaign", "win_back")
        until(frame, "document.getElementById('name').textContent === 'We miss you'")
        frame.select_option("#person", "markup")
        frame.click("#look button")
        mail = frame.frame_locator("#mail")
        mail.locator("table").first.wait_for()
        assert "img src=x" not in (mail.locator("body").inner_html())
        assert not page.evaluate("window.pwned") and not frame.evaluate("window.pwned || parent.pwned")


def test_every_page_is_named_for_those_who_do_not_see_it(running: stack.Stack, world: World, chromium: Any) -> None:
    """Every control has a name, every table its heads, and no id is there twice."""
    with signed_in(chromium, running, "admin") as page:
        for name in PAGES:
            frame = opened(page, name)
            nameless = frame.evaluate(
                """[...document.querySelectorAll('button, input, select, textarea, iframe, a')].filter((one) => one.offsetParent
                   && !(one.textContent.trim() && one.tagName !== 'SELECT') && !one.labels?.length && !one.getAttribute('aria-label')
                   && !one.title).map((one) => one.outerHTML)"""
            )
            assert nameless == [], (name, nameless)
            ids = frame.evaluate("[...document.querySelectorAll('[id]')].map((one) => one.id)")
            assert len(ids) == len(set(ids)), name
            assert frame.locator("h1").count() == 1 and frame.inner_text("#error") == "", name


def test_every_page_follows_airflows_colours_and_fits_its_width(
    running: stack.Stack, world: World, chromium: Any
) -> None:
    with signed_in(chromium, running, "viewer") as page:
        for name in PAGES:
            page.goto(f"{page.airflow}/plugin/postlude-{name}")
            frame = inner(page)
            seen = {}
            for theme in ("light", "dark"):
                page.evaluate("theme => { document.documentElement.className = theme }", theme)
                until(
                    frame, "dark => document.documentElement.classList.contains('dark') === dark", arg=theme == "dark"
                )
                seen[theme] = frame.evaluate(
                    "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
                )
                assert frame.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
            assert len({*seen["light"], *seen["dark"]}) == 4, seen
        # who may only look is told so, and the buttons say it as well
        frame = opened(page, "stop")
        assert frame.is_disabled("button.stop") and "You may look" in frame.inner_text("#effect")
        frame = opened(page, "why")
        assert frame.is_disabled("#ask button") and "You may not look people up" in frame.inner_text("#help")
