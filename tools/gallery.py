"""Pictures of every mail and block for docs/gallery: `make gallery`; with names of templates, only these are taken anew.

Needs Chromium, fonts for Korean and Japanese (Debian: apt-get install chromium fonts-noto-cjk) and requirements/dev.txt.
`--all` takes every size, light and dark, with and without pictures, into .postlude/gallery, where nothing is kept small.
"""

from __future__ import annotations

import base64
import html
import shutil
import sys
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Page, Route, sync_playwright

from postlude import preview, rendering
from postlude.settings import settings

ROOT = Path(__file__).resolve().parents[1]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--hide-scrollbars"]
LIMIT = 40 * 1024  # bytes of a picture that is kept in the repository


class Look(NamedTuple):
    """One way to see a mail."""

    language: str
    width: int
    dark: bool = False
    pictures: bool = True

    @property
    def name(self) -> str:
        shade = "dark" if self.dark else "light"
        return f"{self.language}-{self.width}-{shade}" + ("" if self.pictures else "-no-pictures")


KEPT = (Look("en", 360), Look("en", 600, dark=True), Look("ko", 360), Look("ja", 360))
BARE = Look("en", 360, pictures=False)  # of the mails in which pictures matter
PICTURED = ("order_confirmation/plain", "feedback_30d/ask")


def main(argv: list[str]) -> int:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium:
        print("needs chromium", file=sys.stderr)
        return 2
    every = "--all" in argv
    wanted = [name for name in argv if not name.startswith("-")]
    folder = settings().home / "gallery" if every else ROOT / "docs" / "gallery"
    folder.mkdir(parents=True, exist_ok=True)
    if not wanted and not every:
        for old in folder.glob("*.webp"):
            old.unlink()
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page()
        page.route("**/*", answer)
        for name in rendering.names():
            if not wanted or name in wanted:
                for look in looks(name, every):
                    content = rendering.render(name, preview.person(name, look.language), look.language)
                    keep(folder / f"{name.replace('/', '--')}--{look.name}.webp", shoot(page, content.html, look))
                print(name)
        if not wanted or "blocks" in wanted:
            blocks(page, folder)
        browser.close()
    if not every:
        index(folder)
    return 0


def looks(name: str, every: bool) -> Iterator[Look]:
    if every:
        yield from (Look(*look) for look in product(("en", "ko", "ja"), (360, 600), (False, True), (True, False)))
        return
    yield from KEPT
    if name in PICTURED:
        yield BARE


def blocks(page: Page, folder: Path) -> None:
    """Each block by itself, cut out of its card."""
    with tempfile.TemporaryDirectory() as place:
        shelf = preview.block_shelf(Path(place) / "templates")
        for name in preview.BLOCKS:
            content = rendering.render(f"blocks/{name}", preview.person(name, "en"), folder=shelf)
            keep(folder / f"block--{name}.webp", shoot(page, content.html, Look("en", 600), part=".card"))


def answer(route: Route) -> None:
    """Pictures of products are drawn here; nothing is asked of any network."""
    if "/i/" in route.request.url:
        name = route.request.url.rsplit("/", 1)[1]
        route.fulfill(body=preview.picture(name), content_type="image/svg+xml")
    else:
        route.abort()


def shoot(page: Page, mail: str, look: Look, part: str = "") -> bytes:
    """A WebP of the mail as it looks there, at most LIMIT bytes as long as it stays readable."""
    page.set_viewport_size({"width": look.width, "height": 400})
    page.emulate_media(color_scheme="dark" if look.dark else "light")
    page.set_content(mail if look.pictures else mail.replace("https://shop.example/i/", "https://off.example/"))
    page.wait_for_function("Array.from(document.images).every(image => image.complete)")
    if part:
        box = page.locator(part).first.bounding_box() or {"x": 0, "y": 0, "width": look.width, "height": 400}
    else:
        height = page.evaluate("document.documentElement.scrollHeight")
        box = {"x": 0, "y": 0, "width": look.width, "height": height}
    session = page.context.new_cdp_session(page)
    for quality in (72, 55, 40):
        shot = session.send(
            "Page.captureScreenshot",
            {"format": "webp", "quality": quality, "captureBeyondViewport": True, "clip": {**box, "scale": 1}},
        )
        taken = base64.b64decode(shot["data"])
        if len(taken) <= LIMIT:
            break
    session.detach()
    return taken


def keep(path: Path, taken: bytes) -> None:
    if not path.exists() or path.read_bytes() != taken:
        path.write_bytes(taken)


def index(folder: Path) -> None:
    """index.html to flip through, and docs/gallery.md."""
    names = sorted({path.name.rsplit("--", 1)[0] for path in folder.glob("*.webp")} - {"block"})
    shown = {name: sorted(path.name for path in folder.glob(f"{name}--*.webp")) for name in names}
    subjects = {}
    for name in names:
        template = name.replace("--", "/")
        if template in rendering.names():
            content = rendering.render(template, preview.person(template, "en"))
            subjects[name] = (content.subject, content.preheader)
    rows = "".join(
        f'<section id="{name}"><h2>{html.escape(name.replace("--", " / "))}</h2>'
        f"<p><b>{html.escape(subjects[name][0])}</b> {html.escape(subjects[name][1])}</p><div>"
        + "".join(
            f'<figure><img src="{file}" loading="lazy" alt="{html.escape(name)}, {caption(file)}">'
            f"<figcaption>{caption(file)}</figcaption></figure>"
            for file in files
        )
        + "</div></section>\n"
        for name, files in shown.items()
        if name in subjects
    )
    (folder / "index.html").write_text(PAGE.replace("ROWS", rows), encoding="utf-8")
    lines = ["# Gallery", ""]
    lines += [
        "Every mail as it looks on a phone and on a dark desktop, in English, Korean and Japanese, made by `make gallery`."
    ]
    lines += ["Open [gallery/index.html](gallery/index.html) to flip through them with the arrow keys.", ""]
    for name in subjects:
        lines += [f"## {name.replace('--', '/')}", "", f"**{subjects[name][0]}** · {subjects[name][1]}", ""]
        lines += [" ".join(f'<img src="gallery/{file}" width="200" alt="{caption(file)}">' for file in shown[name]), ""]
    (ROOT / "docs" / "gallery.md").write_text("\n".join(lines), encoding="utf-8")


def caption(file: str) -> str:
    language, width, *rest = file.removesuffix(".webp").rsplit("--", 1)[1].split("-", 2)
    spoken = {"en": "English", "ko": "Korean", "ja": "Japanese"}[language]
    return f"{spoken}, {width} px, {' '.join(rest).replace('-', ', ', 1).replace('-', ' ')}"


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Gallery of mails</title>
<style>
body { font: 15px/22px system-ui, sans-serif; margin: 0; background: #e9e5dc; color: #23302b; }
header { position: sticky; top: 0; background: #fff; border-bottom: 1px solid #cbc5b8; padding: 10px 20px; display: flex; gap: 12px; }
section { display: none; padding: 16px 20px; } section.here { display: block; } h2 { margin: 0; font-size: 18px; } p { margin: 4px 0 14px; }
section div { display: flex; flex-wrap: wrap; gap: 20px; align-items: flex-start; } figure { margin: 0; }
img { display: block; border-radius: 8px; box-shadow: 0 1px 6px #0003; max-width: 92vw; } figcaption { padding: 6px 0; color: #5b6660; }
button, select { font: inherit; min-height: 44px; padding: 0 14px; }
</style>
<header><button id="back" aria-label="Mail before">&larr;</button><button id="on" aria-label="Next mail">&rarr;</button>
<select id="all" aria-label="All mails"></select></header>
ROWS<script>
const mails = [...document.querySelectorAll("section")], all = document.getElementById("all");
mails.forEach((mail, n) => all.add(new Option(`${n + 1} of ${mails.length}: ${mail.querySelector("h2").textContent}`, n)));
let at = Math.max(0, mails.findIndex(mail => "#" + mail.id === location.hash));
function show(n) {
  mails[at].classList.remove("here");
  at = (n + mails.length) % mails.length;
  mails[at].classList.add("here"); all.value = at; history.replaceState(null, "", "#" + mails[at].id); scrollTo(0, 0);
}
all.onchange = () => show(+all.value); back.onclick = () => show(at - 1); on.onclick = () => show(at + 1);
onkeydown = event => {
  if (event.target === all) return;
  if (event.key === "ArrowRight") show(at + 1);
  if (event.key === "ArrowLeft") show(at - 1);
};
show(at);
</script></html>
"""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
