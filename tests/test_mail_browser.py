"""Mails in a real browser: narrow and wide, light and dark, with and without pictures."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from postlude import preview, rendering

pytestmark = [pytest.mark.slow, pytest.mark.browser]

LOOK = """() => {
  const luminance = c => { const [r, g, b] = c.map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b; };
  const numbers = c => c.match(/[\\d.]+/g).map(Number);
  const ground = e => { for (; e; e = e.parentElement) { const c = numbers(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] > 0) return c.slice(0, 3); } return [255, 255, 255]; };
  const pale = [], low = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let n; n = walk.nextNode();) {
    const e = n.parentElement, box = e.getBoundingClientRect();
    if (!n.textContent.trim() || !box.height || ["STYLE", "TITLE"].includes(e.tagName)) continue;
    const style = getComputedStyle(e);
    if (style.visibility === "hidden" || style.display === "none" || parseFloat(style.fontSize) < 2) continue;
    const [a, b] = [luminance(numbers(style.color).slice(0, 3)), luminance(ground(e))].sort((x, y) => x - y);
    if ((b + .05) / (a + .05) < 4.5) pale.push(n.textContent.trim().slice(0, 40) + " " + style.color + " on " + ground(e));
  }
  for (const a of document.querySelectorAll("a")) {
    const box = a.getBoundingClientRect();
    const boxed = ["block", "inline-block"].includes(getComputedStyle(a).display);
    if (boxed && box.height && box.height < 43.5) low.push(a.textContent.trim() + " " + box.height);
  }
  return {wide: document.documentElement.scrollWidth, pale, low};
}"""


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium:
        pytest.skip("needs Chromium (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        opened = browser.new_page()
        opened.route("**/*", lambda route: route.abort())
        yield opened
        browser.close()


def seen(page: Any, mail: str, width: int, dark: bool) -> dict[str, Any]:
    page.set_viewport_size({"width": width, "height": 700})
    page.emulate_media(color_scheme="dark" if dark else "light")
    page.set_content(mail)
    return dict(page.evaluate(LOOK))


def test_what_is_pale_low_or_wide_is_seen(page: Any) -> None:
    bad = """<style>@media (prefers-color-scheme: dark) { p { color: #444444 !important; background: #222222; } }</style>
        <p style="color: #222222">text</p><a href="https://x.example" style="display: block; height: 20px">low</a>
        <table width="500"><tr><td>wide</td></tr></table>"""
    light, dark = (seen(page, bad, 360, shade) for shade in (False, True))
    assert (light["pale"], light["low"]) == ([], ["low 20"])
    assert light["wide"] > 500
    assert dark["pale"] == ["text rgb(68, 68, 68) on 34,34,34"]


@pytest.mark.parametrize("language", ["en", "ko", "ja"])
def test_every_mail_fits_a_phone_can_be_read_and_be_touched_light_and_dark(page: Any, language: str) -> None:
    for name in rendering.names():
        mail = rendering.render(name, preview.person(name, language), language).html
        for width in (360, 600):
            for dark in (False, True):
                found = seen(page, mail, width, dark)
                assert found == {"wide": width, "pale": [], "low": []}, (name, width, dark, found)


def test_every_block_does_so_too_also_for_awkward_people(page: Any, tmp_path: Path) -> None:
    shelf = preview.block_shelf(tmp_path / "templates")
    for sheet in ("blocks/sheet_1", "blocks/sheet_2", "blocks/sheet_3"):
        for who in rendering.samples(sheet):
            mail = rendering.render(sheet, preview.person(sheet, "en", who), folder=shelf).html
            for dark in (False, True):
                found = seen(page, mail, 360, dark)
                assert found == {"wide": 360, "pale": [], "low": []}, (sheet, who, dark, found)
