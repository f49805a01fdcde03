"""What is wrong with a mail although it can be rendered: links, alt texts, styles, sizes, contrast, ways to reach the shop.

`rendering.check` says whether a template can be sent at all, for every variable and awkward person. This looks at the mail that
comes out, in every language, as the people who get it see it. Faults have file and line where a line is at fault.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from postlude import rendering, yamlfile
from postlude.errors import Fault, InputError
from postlude.rendering import css_support, people, short
from postlude.rendering import words as vocabulary
from postlude.rendering.source import flatten
from postlude.rendering.theme import Theme
from postlude.settings import settings

TOUCH = 44  # pixels a finger needs
CONTRAST = 4.5  # WCAG 2.2, 1.4.3
SUBJECT = 78  # characters; more is cut off nearly everywhere
# text on ground, as the blocks use them
PAIRS = (
    ("ink", "card"), ("ink", "tint"), ("ink", "page"), ("soft", "card"), ("soft", "tint"), ("soft", "page"),
    ("accent", "card"), ("accent", "tint"), ("on_accent", "accent"),
)  # fmt: skip


class Found(NamedTuple):
    """Faults must be mended; warnings are told."""

    faults: list[Fault]
    warnings: list[Fault]
    templates: int


def lint(templates: Collection[str] = (), *, online: bool = False, folder: Path | None = None) -> Found:
    """Everything wrong with these templates (all when none is named), and with the colours of the themes.

    templates: FAMILY/NAME, or FAMILY for all of a campaign. Raises InputError for one that is not there.
    online: also ask every fixed address whether it is there (the sample's own addresses are not asked).
    """
    folder = folder or settings().include / "templates"
    faults: list[Fault] = []
    warnings: list[Fault] = []
    links: dict[str, str] = {}
    for theme_file in [None, *sorted((settings().include / "themes").glob("*.yml"))]:
        try:
            faults += _colours(theme_file)
        except InputError as error:
            faults += error.faults
    chosen = _chosen(templates, rendering.names(folder))
    for template in chosen:
        found = rendering.check(template, folder=folder)
        for channel in short.CHANNELS:
            found += short.check(template, channel, folder)
        warnings += missing_languages(template, folder)
        if not found:
            theme = rendering.load_theme()
            for language in sorted({vocabulary.DEFAULT_LANGUAGE, *vocabulary.languages(folder / template)}):
                found += _styles(template, language, theme, folder)
                told, said = _mail(template, language, theme, folder, links)
                found += told
                warnings += said
        faults += found
    if online:
        faults += _dead(links)
    return Found(list(dict.fromkeys(faults)), list(dict.fromkeys(warnings)), len(chosen))


def _chosen(wanted: Collection[str], known: Collection[str]) -> list[str]:
    chosen: dict[str, None] = dict.fromkeys(() if wanted else known)
    for name in wanted:
        found = [template for template in known if name in (template, template.partition("/")[0])]
        if not found:
            near = yamlfile.did_you_mean(name, {*known, *(template.partition("/")[0] for template in known)})
            raise InputError(f'there is no template "{name[:60]}"{near}')
        chosen.update(dict.fromkeys(found))
    return list(chosen)


def missing_languages(template: str, folder: Path | None = None) -> list[Fault]:
    """A note for each language that the blocks speak and this template does not: its people get the English mail."""
    folder = folder or settings().include / "templates"
    own = vocabulary.languages(folder / template)
    spoken = {path.name.split(".")[1] for path in (folder / "_base").glob("words.*.yml")}
    layouts = {
        path.name.split(".")[1] for path in (folder / template).parent.glob(f"{template.split('/')[1]}.*.mjml.j2")
    }
    lacking = sorted(spoken - own - layouts) if own else []
    return [
        Fault(
            yamlfile.shown(folder / f"{template}.{language}.yml"),
            0,
            "",
            f"is not there; who reads {language} gets the English mail",
        )
        for language in lacking
    ]


# ---------------------------------------------------------------- colours


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2.2)."""
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    red, green, blue = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Contrast of two colours #rrggbb, 1 to 21."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def _colours(own: Path | None) -> Iterator[Fault]:
    file = own or settings().include / "theme.yml"
    colours = rendering.load_theme(shop=own.stem if own else "").colours
    for shade, prefix in (("light", ""), ("dark", "dark_")):
        for ink, ground in PAIRS:
            one, other = getattr(colours, prefix + ink), getattr(colours, prefix + ground)
            if (found := contrast(one, other)) < CONTRAST:
                place = ("colours", prefix + ink)
                told = f"{one} on {prefix}{ground} {other} has a contrast of {found:.1f}, {shade} screens; at least {CONTRAST} can be read"
                yield Fault(yamlfile.shown(file), yamlfile.line_of(file, place), yamlfile.key_of(place), told)


# ---------------------------------------------------------------- what people wrote: styles


def _styles(template: str, language: str, theme: Theme, folder: Path) -> Iterator[Fault]:
    """CSS that major mail programs do not know, at the line where it stands."""
    said = vocabulary.load(folder, folder / template, [language], yamlfile.read_text, [])
    _, files = rendering._files(folder / template, [language], [])
    pieces = flatten(folder, files["mjml"], theme, markup=True, words=said)
    text, starts = "", list[int]()
    for piece in pieces:
        starts.append(len(text))
        text += " " * len(piece.text) if piece.tag else piece.text
    for style in re.finditer(r'\bstyle="([^"]*)"|<mj-style[^>]*>(.*?)</mj-style>', text, re.DOTALL):
        group = 1 if style[1] is not None else 2
        for gap in css_support.GAPS:
            for hit in gap.pattern.finditer(style[group]):
                at = style.start(group) + hit.start()
                number = bisect_right(starts, at) - 1
                file, line, _ = pieces[number].origin
                told = f"{gap.what} is not known to {gap.clients}; {gap.cure} ({gap.source})"
                yield Fault(file, line + text.count("\n", starts[number], at), "style", told)


# ---------------------------------------------------------------- what people see


_INHERITED = frozenset({"color", "background-color", "line-height", "font-size"})


class _Seen(HTMLParser):
    """Reads the finished mail with colours, grounds and line heights as they are inherited."""

    VOID = frozenset({"br", "img", "hr", "col", "meta", "wbr", "link", "input"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.stack: list[tuple[str, dict[str, str]]] = []
        self.links: list[tuple[str, dict[str, str]]] = []
        self.pictures: list[dict[str, str | None]] = []
        self.tables: list[dict[str, str | None]] = []
        self.texts: list[tuple[str, dict[str, str]]] = []
        self.html: dict[str, str | None] = {}
        self.headings: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        own = {
            key.strip().lower(): value.strip()
            for key, _, value in (part.partition(":") for part in (given.get("style") or "").split(";"))
            if value
        }
        inherited = {
            key: value for key, value in (self.stack[-1][1] if self.stack else {}).items() if key in _INHERITED
        }
        whole = {**inherited, **own}
        if given.get("bgcolor"):
            whole["background-color"] = str(given["bgcolor"])
        elif "background" in own and re.fullmatch(r"#[0-9a-fA-F]{6}", own["background"]):
            whole["background-color"] = own["background"]
        if tag == "html":
            self.html = given
        elif tag == "img":
            self.pictures.append(given)
        elif tag == "table":
            self.tables.append(given)
        elif tag == "a":
            self.links.append((given.get("href") or "", whole))
        elif tag in ("h1", "h2", "h3"):
            self.headings.append(tag)
        if tag not in self.VOID:
            self.stack.append((tag, whole))

    def handle_endtag(self, tag: str) -> None:
        if any(name == tag for name, _ in self.stack):
            while self.stack.pop()[0] != tag:
                pass

    def handle_data(self, data: str) -> None:
        inside = {name for name, _ in self.stack}
        if data.strip() and self.stack and not inside & {"style", "title", "head"}:
            self.texts.append((data.strip(), self.stack[-1][1]))


def _mail(
    template: str, language: str, theme: Theme, folder: Path, links: dict[str, str]
) -> tuple[list[Fault], list[Fault]]:
    """Faults and warnings of the finished mail in this language, for the sample customer."""
    file = yamlfile.shown(folder / f"{template}.mjml.j2")
    words = folder / f"{template}.{language}.yml"
    person = people.with_pictures(rendering.samples(template)["ana"])
    content = rendering.render(template, person, language, theme, folder=folder)
    seen = _Seen(content.html)
    faults = [
        Fault(file, 0, language, told) for told in dict.fromkeys(_seen_faults(content, seen, theme, person, links))
    ]
    warnings = []
    if len(content.subject) > SUBJECT:
        told = f"the subject has {len(content.subject)} characters for the sample customer; phones show about 40"
        warnings.append(Fault(yamlfile.shown(words), 0, "subject", told))
    return faults, warnings


def _seen_faults(
    content: rendering.Content, seen: _Seen, theme: Theme, person: dict[str, dict[str, str]], links: dict[str, str]
) -> Iterator[str]:
    for href, style in seen.links:
        yield from _link_faults(href, style, content.text)
        if href.startswith("http"):
            links.setdefault(href, "")
    yield from _look_faults(seen)
    for text, style in seen.texts:
        ink, ground = _hex(style.get("color", "#000000")), _hex(style.get("background-color", "#ffffff"))
        if ink and ground and (found := contrast(ink, ground)) < CONTRAST and style.get("display") != "none":
            yield f'"{text[:40]}" is {ink} on {ground}, a contrast of {found:.1f}; at least {CONTRAST} can be read'
    for what, wanted in (
        ("the returns policy (shop.returns_url)", theme.shop.returns_url),
        ("a way to reach a person (shop.support_email)", theme.shop.support_email),
        ("the way out (links.unsubscribe)", person["links"]["unsubscribe"]),
    ):
        if wanted not in content.html or wanted not in content.text:
            yield f"does not show {what} in both parts; the footer of _base has it"


def _link_faults(href: str, style: dict[str, str], text: str) -> Iterator[str]:
    if told := _address(href):
        yield f'the link "{href[:60]}" {told}'
    if href.removeprefix("mailto:") not in text:
        yield f'the text part does not hold the link "{href[:80]}"; put the same block into both'
    if (height := _height(style)) is not None and height < TOUCH:
        yield f'the link "{href[:60]}" is {height:.0f} px high; a finger needs {TOUCH} (padding and line-height)'


def _look_faults(seen: _Seen) -> Iterator[str]:
    for picture in seen.pictures:
        name = (picture.get("src") or "")[:60]
        if picture.get("alt") is None:
            yield f'the picture "{name}" has no alt text'
        if not picture.get("width"):
            yield f'the picture "{name}" has no width; Outlook shows it in its own size'
    if any(table.get("role") != "presentation" for table in seen.tables):
        yield 'a table has no role="presentation"; screen readers read its cells as data'
    if seen.html.get("lang") in (None, "", "und") or not seen.html.get("dir"):
        yield "the mail does not say its language and direction; begin with _base/mail.mjml.j2"


def _address(href: str) -> str:
    """What is wrong with an address; empty when it can be followed."""
    parts = urlsplit(href)
    if parts.scheme == "mailto":
        return "" if re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", parts.path) else "is no mail address"
    if parts.scheme not in ("http", "https"):
        return "must start with https://, http:// or mailto:"
    host = parts.hostname or ""
    if not re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", host):
        return "has no host that others can reach"
    return "" if "{{" not in href and "%7B" not in href else "holds a tag that was never filled in"


def _hex(colour: str) -> str:
    return colour.lower() if re.fullmatch(r"#[0-9a-fA-F]{6}", colour) else ""


def _height(style: dict[str, str]) -> float | None:
    """Pixels a link that is a box of its own takes; None for a link inside a sentence."""
    if style.get("display") not in ("block", "inline-block"):
        return None
    line = (
        _pixels(style.get("min-height"))
        or _pixels(style.get("line-height"))
        or 1.2 * (_pixels(style.get("font-size")) or 16)
    )
    around = style.get("padding", "0").split()
    top = _pixels(style.get("padding-top")) or _pixels(around[0]) or 0
    bottom = _pixels(style.get("padding-bottom")) or _pixels(around[2] if len(around) > 2 else around[0]) or 0
    return line + top + bottom


def _pixels(value: str | None) -> float | None:
    match = re.fullmatch(r"([\d.]+)(px)?", value or "")
    return float(match[1]) if match else None


# ---------------------------------------------------------------- addresses that nobody answers


def _dead(links: dict[str, str]) -> Iterator[Fault]:
    """Every address asked once, by HEAD; those of the sample (`.example`) are nobody's."""
    for url in sorted(links):
        if (urlsplit(url).hostname or "").endswith(".example"):
            continue
        try:
            asked = Request(url, method="HEAD", headers={"User-Agent": "postlude lint"})  # noqa: S310 (http and https only)
            with urlopen(asked, timeout=10) as answer:  # noqa: S310
                status = answer.status
        except URLError as error:
            status = getattr(error, "code", 0)
            if status in (403, 405, 429):  # there, and not for robots
                continue
        except OSError:
            status = 0
        if not 200 <= status < 400:
            yield Fault(url, 0, "", f"answers {status or 'nothing'}; mend the address where it is written")
