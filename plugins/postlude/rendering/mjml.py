"""MJML compiled once into the HTML of a Jinja source.

MJML sees opaque words instead of Jinja tags and the tags come back afterwards, so MJML cannot lose, repeat or move one
unnoticed (moving a loop out of a table makes it empty without a word). Styles stand in attributes (mj-attributes), so MJML
writes them into every tag at the same time: nothing is inlined for each message.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

from jinja2 import Environment, TemplateSyntaxError, nodes
from mjml import mjml2html

from postlude import yamlfile
from postlude.errors import Fault
from postlude.rendering.source import Origin, Piece, Source, TemplateFault, assemble

_GRAMMAR = Environment(autoescape=True)  # to read tags, never to render

_BOX = "padding padding-top padding-bottom padding-left padding-right css-class mj-class"
_FONT = "color font-family font-size font-style font-weight letter-spacing line-height text-decoration text-transform"
_EDGE = "border border-top border-bottom border-left border-right border-radius"
_SECTION = f"{_BOX} {_EDGE} background-color direction full-width text-align"
_LINK = "href rel target title name"
_PLACE = "align container-background-color height width"
_FILL = "inner-background-color inner-border inner-border-radius"
# what people may write; the compiler itself lets unknown tags and attributes through without a word
MJML: dict[str, frozenset[str]] = {
    tag: frozenset(attributes.split())
    for tag, attributes in {
        "mjml": "lang dir",
        "mj-head": "",
        "mj-attributes": "",
        "mj-class": "name *",
        "mj-all": "*",
        "mj-breakpoint": "width",
        "mj-preview": "",
        "mj-title": "",
        "mj-style": "",
        "mj-body": "width background-color css-class",
        "mj-raw": "",
        "mj-wrapper": _SECTION,
        "mj-section": _SECTION,
        "mj-group": "css-class mj-class width vertical-align background-color direction",
        "mj-column": f"{_BOX} {_EDGE} {_FILL} background-color width vertical-align",
        "mj-text": f"{_BOX} {_FONT} align container-background-color height",
        "mj-button": f"{_BOX} {_FONT} {_EDGE} {_LINK} {_PLACE} background-color inner-padding vertical-align",
        "mj-image": f"{_BOX} {_EDGE} {_LINK} {_PLACE} alt fluid-on-mobile max-height src",
        "mj-divider": f"{_BOX} align border-color border-style border-width container-background-color width",
        "mj-spacer": f"{_BOX} container-background-color height",
        "mj-table": f"{_BOX} {_FONT} {_PLACE} border cellpadding cellspacing role table-layout",
    }.items()
}
CONTAINERS = frozenset({"mjml", "mj-head", "mj-body", "mj-wrapper", "mj-section", "mj-group", "mj-column"})
_LAYOUT = re.compile(
    r"<table(?![^>]*\brole=)"
)  # of mj-table the compiler forgets the role; a mail has no tables of data
_WORD = re.compile(r"qzj(\d+)zq")
_MARKUP = re.compile(
    r"</\s*(?P<end>[A-Za-z][\w-]*)\s*>"
    r"|<(?P<name>[A-Za-z][\w-]*)(?P<attributes>(?:\s+[^\s=/>\"']+(?:\s*=\s*(?:\"[^\"]*\"|'[^']*'))?)*)\s*(?P<closed>/?)>"
)
_ATTRIBUTE = re.compile(r"([^\s=/>\"']+)(?:\s*=\s*(\"[^\"]*\"|'[^']*'))?")
_VOID = frozenset({"br", "img", "hr", "col", "meta", "wbr"})
_FORBIDDEN_NAMES = "script iframe object embed applet form input button textarea select link base svg style"
_FORBIDDEN = frozenset(_FORBIDDEN_NAMES.split())
_URLS = frozenset({"href", "src", "background", "background-url", "action", "formaction", "poster", "srcset"})
_FIXED_URL = re.compile(r"(?:https?://|mailto:)[^\s<>\"']+|#")


@lru_cache(maxsize=256)
def compile_mjml(pieces: tuple[Piece, ...]) -> Source:
    """The HTML of MJML pieces as a Jinja source, kept by content: the same text is compiled once in a process.

    Raises TemplateFault with every fault; missing alt texts are `advice`.
    """
    tags = [piece for piece in pieces if piece.tag]
    numbers = iter(range(len(tags)))
    text, starts = "", list[tuple[int, Origin]]()
    for piece in pieces:
        starts.append((len(text), piece.origin))
        text += f"qzj{next(numbers)}zq" if piece.tag else piece.text
    check = _MjmlCheck(text, starts, tags)
    wrapped = check.run()
    if check.faults:
        raise TemplateFault(sorted(check.faults, key=lambda f: (f.file, f.line)))
    try:
        compiled = mjml2html(wrapped, disable_comments=True)
    except Exception as error:
        raise TemplateFault(
            [pieces[0].origin.fault(f"MJML cannot be compiled: {str(error).splitlines()[0]}")]
        ) from None
    compiled = _LAYOUT.sub('<table role="presentation"', compiled)
    source = assemble(list(_tags_back(compiled, tags, pieces[0].origin)))
    source.advice = check.advice
    return source


def _tags_back(compiled: str, tags: list[Piece], start: Origin) -> Iterator[Piece]:
    """The compiled HTML with Jinja tags again. A lost, repeated or moved statement is a fault."""
    parts = _WORD.split(compiled)
    seen = [int(number) for number in parts[1::2]]
    lost = sorted(set(range(len(tags))) - set(seen))
    if lost:
        cure = "a variable or tag cannot stand here; use a fixed value, or move it into mj-text"
        raise TemplateFault([tags[number].origin.fault(cure, tags[number].origin.tag) for number in lost])
    statements = [number for number in seen if tags[number].statement]
    if statements != sorted(set(statements)):
        number = next((a for a, b in pairwise(statements) if b <= a), statements[0])
        cure = "MJML moves or repeats this place; put the tag around a whole mj- element"
        raise TemplateFault([tags[number].origin.fault(cure, tags[number].origin.tag)])
    for index, part in enumerate(parts):
        if index % 2:
            yield tags[int(part)]
        elif part:
            yield Piece(part, tags[int(parts[index - 1])].origin if index else start)


class _MjmlCheck:
    """Reads through MJML: known tags and attributes, nesting, safe links, no variables where they would be code."""

    def __init__(self, text: str, starts: list[tuple[int, Origin]], tags: list[Piece]) -> None:
        self.text, self.starts, self.tags = text, starts, tags
        self.faults: list[Fault] = []
        self.advice: list[Fault] = []
        self.open: list[tuple[str, int]] = []

    def run(self) -> str:
        """The text with Jinja tags between mj- elements wrapped in mj-raw, as MJML wants it."""
        out, position = "", 0
        for match in _MARKUP.finditer(self.text):
            out += self.words(self.text[position : match.start()], position) + match[0]
            position = match.end()
            self.close(match) if match["end"] else self.begin(match)
        out += self.words(self.text[position:], position)
        for name, at in self.open:
            self.fault(at, f"<{name}> is never closed; add </{name}>")
        return out

    def origin(self, position: int) -> Origin:
        low = max(n for n, (start, _) in enumerate(self.starts) if start <= position)
        start, origin = self.starts[low]
        return Origin(origin.file, origin.line + self.text.count("\n", start, position))

    def fault(self, position: int, message: str, key: str = "") -> None:
        self.faults.append(self.origin(position).fault(message, key))

    def words(self, text: str, position: int) -> str:
        inside = self.open[-1][0] if self.open else ""
        if "<" in text:
            cure = "write &lt; for the sign, and close every tag and quote"
            self.fault(position + text.index("<"), f"this is no tag that can be read; {cure}")
        if inside == "mj-style" and any(not self.tags[int(n)].statement for n in _WORD.findall(text)):
            self.fault(position, "no variables inside mj-style; use classes, or {{ theme.x }}")
        if inside not in CONTAINERS and self.open:
            return text
        for part in re.finditer(r"\S+", _WORD.sub(lambda m: " " * len(m[0]), text)):
            self.fault(
                position + part.start(), f'the text "{part[0][:20]}" stands between elements; put it into <mj-text>'
            )
            break
        for match in _WORD.finditer(text):
            if not self.tags[int(match[1])].statement:
                self.fault(position + match.start(), "a variable stands between elements; put it into <mj-text>")
        return _WORD.sub(r"<mj-raw>\g<0></mj-raw>", text) if inside else text

    def begin(self, match: re.Match[str]) -> None:
        name, at = match["name"], match.start()
        inside = self.open[-1][0] if self.open else ""
        if name.startswith("mj") and name not in MJML:
            self.fault(at, f"<{name}> is no tag that is used here{yamlfile.did_you_mean(name, MJML)}")
        elif not name.startswith("mj") and inside in CONTAINERS:
            self.fault(at, f"<{name}> stands between MJML elements; put it into <mj-text> or <mj-raw>")
        if name.lower() in _FORBIDDEN:
            self.fault(at, f"<{name}> does not belong into a mail; mail programs drop it or warn")
        self.attributes(match, "mj-attributes" in (n for n, _ in self.open))
        if not match["closed"] and name.lower() not in _VOID:
            self.open.append((name, at))

    def close(self, match: re.Match[str]) -> None:
        if match["end"].lower() in _VOID:
            return
        if not self.open or self.open[-1][0] != match["end"]:
            opened = (
                f"<{self.open[-1][0]}> of line {self.origin(self.open[-1][1]).line} is still open"
                if self.open
                else "nothing is open"
            )
            self.fault(match.start(), f"</{match['end']}> closes what was not opened: {opened}")
            if not any(name == match["end"] for name, _ in self.open):
                return
            while self.open[-1][0] != match["end"]:
                self.open.pop()
        self.open.pop()

    def attributes(self, match: re.Match[str], defaults: bool) -> None:
        name, seen = match["name"], set[str]()
        for attribute in _ATTRIBUTE.finditer(match["attributes"]):
            key, value = attribute[1], (attribute[2] or "")[1:-1]
            at = match.start("attributes") + attribute.start()
            seen.add(key)
            if _WORD.search(key):
                self.fault(at, f"a Jinja tag stands inside <{name}>; it may only stand in a quoted attribute")
                continue
            known = MJML.get(name)
            if known is not None and "*" not in known and key not in known and not (defaults and key == "name"):
                self.fault(at, f"<{name}> has no attribute of this name{yamlfile.did_you_mean(key, known)}", key)
            used = [self.tags[int(number)] for number in _WORD.findall(value)]
            if key.lower() in _URLS:
                self.address(at, key, value, used)
            elif (key.lower() == "style" or key.lower().startswith("on")) and any(not t.statement for t in used):
                self.fault(at, "no variables here: they would be read as code", key)
        if name in ("mj-image", "img") and "alt" not in seen and not defaults:
            self.advice.append(
                self.origin(match.start()).fault('is missing; say what the picture shows, or alt=""', "alt")
            )

    def address(self, at: int, key: str, value: str, used: list[Piece]) -> None:
        """Escaping does not make a link safe, `javascript:` survives it: a fixed address, or exactly one `|url`."""
        if used:
            if len(used) != 1 or not _WORD.fullmatch(value) or not _is_url(used[0].text):
                self.fault(at, 'write one variable with the filter url, e.g. "{{ item.url|url }}"', key)
        elif not _FIXED_URL.fullmatch(html.unescape(value)):
            self.fault(at, f'"{value[:40]}" must start with https://, http:// or mailto:', key)


def _is_url(tag: str) -> bool:
    """Whether a tag is one expression whose last step is the filter `url` (in `a if b else c|url` it is not)."""
    try:
        body = _GRAMMAR.parse(tag).body
    except TemplateSyntaxError:
        return True  # reported with the rest of the syntax
    last = body[0].nodes if len(body) == 1 and isinstance(body[0], nodes.Output) else []
    return len(last) == 1 and isinstance(last[0], nodes.Filter) and last[0].name == "url"
