"""Pictures for README and docs, taken from a running stack: `make up`, then `make screenshots`.

With names (`python tools/screenshots.py stop why`) only these are taken anew.

Needs Chromium (Debian: apt-get install chromium) and the packages of requirements/dev.txt.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from playwright.sync_api import FrameLocator, Page, sync_playwright

from postlude import stack
from postlude.settings import settings

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def main() -> int:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium or not stack.status()["components"]:
        print("needs chromium, and a running stack: make up", file=sys.stderr)
        return 2
    config = stack.running_settings()
    airflow = f"http://127.0.0.1:{ports().get('airflow', config.airflow_port)}"
    catcher = f"http://127.0.0.1:{config.catcher_http_port}"
    password = json.loads((config.home / "airflow" / "passwords.json").read_text())["admin"]
    IMAGES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(120_000)
        sign_in(page, airflow, password)
        mails = page.request.get(f"{catcher}/api/messages?limit=500").json()
        if wanted("stop"):
            stop(page, airflow)
        if wanted("why") and mails["messages"]:
            why(page, airflow, mails["messages"][0]["to"][0])
        for name in ("calendar", "campaigns", "segments", "approvals", "wizard", "customers"):
            if wanted(name):
                marketers_page(page, airflow, name)
        take(page, f"{airflow}/dags?limit=50", "dags", wait=4000)
        if wanted("run"):
            newest_run(page, airflow, password)
        take(page, f"{airflow}/plugin/postlude-report", "report-in-airflow", wait=3000)
        take(page, f"{catcher}/", "catcher", wait=500)
        for campaign in ("feedback_30d", "win_back", "loyalty_join"):
            mail = next((m for m in mails["messages"] if m.get("campaign") == campaign), None)
            if mail:
                take(page, f"{catcher}/messages/{mail['id']}", f"mail-{campaign.replace('_', '-')}", wait=700)
        browser.close()
    return 0


def ports() -> dict[str, int]:
    path = settings().home / "run" / "ports.json"
    return json.loads(path.read_text()) if path.exists() else {}


def sign_in(page: Page, airflow: str, password: str) -> None:
    page.goto(f"{airflow}/auth/login")
    page.fill("input[name=username]", "admin")
    page.fill("input[name=password]", password)
    page.click("button[type=submit]")
    page.wait_for_timeout(3000)


def newest_run(page: Page, airflow: str, password: str) -> None:
    """The newest run of `ingest`, as a graph."""
    token = page.request.post(f"{airflow}/auth/token", data={"username": "admin", "password": password}).json()
    header = {"Authorization": f"Bearer {token['access_token']}"}
    dag = "ingest"
    runs = page.request.get(f"{airflow}/api/v2/dags/{dag}/dagRuns?order_by=-start_date&limit=1", headers=header).json()
    run = runs["dag_runs"][0]["dag_run_id"]
    page.goto(f"{airflow}/dags/{dag}/runs/{run}")
    page.wait_for_timeout(3000)
    page.mouse.click(163, 79)  # the button that shows the run as a graph; it has no name
    page.wait_for_timeout(3000)
    save(page, "run")


def stop(page: Page, airflow: str) -> None:
    """The page Stop mail with one stop in force, which is lifted again."""
    frame = framed(page, f"{airflow}/plugin/postlude-stop")
    frame.locator("input[value=campaign]").check()
    frame.locator("#name").select_option("loyalty_join")
    frame.locator("#why").fill("the voucher of the club is wrong")
    frame.locator("button.stop").click()
    frame.locator("#stops tr").first.wait_for()
    save(page, "stop")
    frame.locator("#stops button").first.click()
    frame.locator("#go-why").fill("the picture is taken")
    frame.locator("#let-go button").first.click()
    frame.locator("#lifted tr").first.wait_for()


def why(page: Page, airflow: str, customer: str) -> None:
    """The page Why? for one customer."""
    frame = framed(page, f"{airflow}/plugin/postlude-why")
    frame.locator("#customer").fill(customer)
    frame.locator("#ask button").click()
    frame.locator("#answer h2").first.wait_for()
    page.wait_for_timeout(500)
    save(page, "why")


def marketers_page(page: Page, airflow: str, name: str) -> None:
    """One of the marketers' pages, with something chosen on it."""
    frame = framed(page, f"{airflow}/plugin/postlude-{name}")
    if name == "campaigns":
        frame.locator("#campaign").select_option("win_back")
    elif name == "segments":
        frame.locator("#list button").first.click()
        frame.locator("#charts figure").first.wait_for()
    elif name == "wizard":
        frame.locator("#pattern").select_option("win_back")
        frame.locator("#id").fill("spring_back")
        frame.locator("#draft button").click()
        frame.locator("#words li").first.wait_for()
        frame.locator("h1").scroll_into_view_if_needed()
    elif name == "customers":
        frame.locator("#wanted").fill("17")
        frame.locator("#find button").click()
        frame.locator("#timeline td").first.wait_for()
    page.wait_for_timeout(1500)
    save(page, name)


def framed(page: Page, url: str) -> FrameLocator:
    """One of our pages in the Airflow UI, once its data is there."""
    page.goto(url)
    frame = page.frame_locator("iframe")
    frame.locator("h1").first.wait_for()
    page.wait_for_timeout(2000)
    return frame


def wanted(name: str) -> bool:
    return not sys.argv[1:] or name in sys.argv[1:]


def take(page: Page, url: str, name: str, wait: int) -> None:
    if not wanted(name):
        return
    page.goto(url)
    page.wait_for_timeout(wait)
    save(page, name)


def save(page: Page, name: str) -> None:
    page.screenshot(path=IMAGES / f"{name}.png")
    print(f"docs/images/{name}.png")


if __name__ == "__main__":
    sys.exit(main())
