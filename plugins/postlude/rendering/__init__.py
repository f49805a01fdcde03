"""Templates into mails: MJML compiled once, then Jinja in a sandbox for each person.

A template `win_back/miss_you` is in include/templates/win_back/:
    miss_you.mjml.j2      the layout (usually `{% extends "_base/mail.mjml.j2" %}` and blocks, docs/blocks.md)
    miss_you.txt.j2       the same in plain text
    miss_you.en.yml       the words in English, with `subject` and `preheader`; miss_you.ko.yml and so on (words.py)
Instead of words, a template may have miss_you.subject.j2 (two lines, `subject: ...` and `preheader: ...`) and, for a language
with a layout of its own, all of them as miss_you.ko.mjml.j2 etc. CONTEXT tells the variables.

TemplateFault: nobody can get this template, a person must mend the file. RenderError: this one person cannot get it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Template, TemplateError, TemplateSyntaxError, UndefinedError, nodes
from jinja2.visitor import NodeTransformer

from postlude import yamlfile
from postlude.errors import Fault, InputError
from postlude.rendering import words as vocabulary
from postlude.rendering.mjml import compile_mjml
from postlude.rendering.people import samples
from postlude.rendering.sandbox import (
    Sandbox,
    Sheet,
    babel_locale,
    bounded,
    escape,
    escape_as_ascii,
    refused,
    start_counting,
    unknown_variables,
    used_variables,
)
from postlude.rendering.source import (
    Origin,
    Piece,
    Source,
    TemplateFault,
    assemble,
    directives,
    flatten,
    pieces_of,
)
from postlude.rendering.theme import Theme, load_theme
from postlude.rendering.variables import CONTEXT, EMPTY, LINKS, RenderError, first_name, line, plain, shop_of
from postlude.settings import settings

__all__ = [
    "CONTEXT", "Compiled", "Content", "RenderError", "TemplateFault", "Theme", "check", "compiled", "fingerprint",
    "in_all_languages", "line", "load_theme", "names", "plain", "promotions", "render", "samples",
]  # fmt: skip

# an order mail that holds one of these is an advertisement before the law
PROMOTIONS = {
    "coupon": "a coupon", "recommendations": "recommendations", "referral": "a referral code", "product": "a product on offer",
    "cart": "a cart", "free_shipping": "what is missing to free shipping", "loyalty": "the loyalty club", "shop.news": "news",
}  # fmt: skip
MAX_HTML = 102 * 1024  # bytes; Gmail hides what is beyond, and with it the unsubscribe link
MAX_TEXT = 500_000  # characters of any one part while it is written; a mail may have a fifth of it
MAX_HEADER = 250  # characters of subject and preheader
PARTS = ("mjml", "txt", "subject")
_NAME = re.compile(r"[a-z0-9_]+/[a-z0-9_]+")
_LOCALE = re.compile(r"[a-z]{2,3}(-[A-Z]{2})?")
_DEFAULT_LANGUAGE = vocabulary.DEFAULT_LANGUAGE  # of the files without a language in their name


class Content(NamedTuple):
    """A finished mail: two header texts on one line each, and the two bodies."""

    subject: str
    preheader: str
    html: str
    text: str


def render(
    template: str,
    context: Mapping[str, Any],
    locale: str = "en",
    theme: Theme | None = None,
    *,
    folder: Path | None = None,
) -> Content:
    """The mail `template` for one person; the same input gives the same bytes.

    context: plain values as CONTEXT tells; `shop` and `links.shop` are the theme's. A language without files of
    its own gets the default ones in English, dates and numbers too. Raises TemplateFault when nobody can get
    the template, RenderError when this person cannot (its reason names no person's data).
    """
    return compiled(template, locale, theme, folder=folder).content(context)


def compiled(template: str, locale: str = "en", theme: Theme | None = None, *, folder: Path | None = None) -> Compiled:
    """The template in one language, ready for many people; whoever keeps it does not see changes of its files."""
    return _load(template, locale, theme or load_theme(), folder or settings().include / "templates")


def in_all_languages(template: str, theme: Theme) -> Iterator[Compiled]:
    """The template in each language it has words for. Raises TemplateFault."""
    folder = settings().include / "templates"
    for locale in (_DEFAULT_LANGUAGE, *_languages(template, folder)):
        yield compiled(template, locale, theme)


def names(folder: Path | None = None) -> list[str]:
    """Every template there is, as family/name."""
    folder = folder or settings().include / "templates"
    found = {
        f"{path.parent.name}/{path.name.split('.', 1)[0]}"
        for part in PARTS
        for path in folder.glob(f"*/*.{part}.j2")
        if not path.parent.name.startswith("_")
    }
    return sorted(found)


def fingerprint(template: str, folder: Path | None = None) -> str:
    """Changes when a file changes of which the template is made, or may be made; also with the code that makes mails."""
    folder = folder or settings().include / "templates"
    family, _, name = template.partition("/")
    files = [
        *folder.glob("_base/*"), *folder.glob(f"{family}/{name}.*"), *folder.parent.glob("theme*.yml"),
        *folder.parent.glob("themes/*.yml"), *Path(__file__).parent.glob("*.py"),
    ]  # fmt: skip
    return hashlib.sha256(repr((template, _stamp(iter(sorted(map(str, files)))))).encode()).hexdigest()[:32]


def check(
    template: str,
    sample_context: Mapping[str, Any] | None = None,
    theme: Theme | None = None,
    *,
    folder: Path | None = None,
) -> list[Fault]:
    """Everything that is wrong with a template, in all its languages; empty when it can be sent.

    Tags, attributes and nesting of MJML, syntax, unknown variables, unsafe links, missing alt texts and files; then it
    is rendered for `sample_context`, or for all invented people of `samples()`, awkward ones included.
    """
    folder = folder or settings().include / "templates"
    try:
        theme = theme or load_theme()
        locales = list(dict.fromkeys([_DEFAULT_LANGUAGE, *_languages(template, folder)]))
    except InputError as error:
        return error.faults
    faults: list[Fault] = []
    for locale in locales:
        try:
            ready = _load(template, locale, theme, folder)
        except TemplateFault as error:
            faults += error.faults
            continue
        parts = (ready.subject, ready.preheader, ready.text, ready.html)
        found = [fault for part in parts for fault in (*part.source.advice, *part.unknown)]
        people = {"given": sample_context} if sample_context is not None else samples(template)
        for person, context in people.items() if not found else ():
            try:
                content = render(template, context, locale, theme, folder=folder)
            except RenderError as error:
                found.append(
                    Fault(ready.file, 0, "", f"cannot be rendered for the sample person '{person}': {error.reason}")
                )
                continue
            greeting = re.search(r"\w [,!?]", "\n".join((content.subject, content.preheader, content.text)))
            if greeting and person == "no name":
                found.append(
                    Fault(ready.file, 0, "", "leaves a gap where the first name is empty; ask {% if %} for it first")
                )
        faults += found
    return list(dict.fromkeys(faults))


# ---------------------------------------------------------------- one part of a mail


def promotions(template: str, *, folder: Path | None = None) -> list[str]:
    """What the mail holds that makes it advertising, as words for people; empty: an order mail may hold all of it.

    Raises TemplateFault.
    """
    used = used_names(template, folder=folder)
    return [words for name, words in PROMOTIONS.items() if name in used]


def used_names(template: str, *, folder: Path | None = None) -> set[str]:
    """The variables a mail uses, as `item` and `item.name`. Raises TemplateFault."""
    compiled = _load(template, _DEFAULT_LANGUAGE, load_theme(), folder or settings().include / "templates")
    return {
        name for part in (compiled.subject, compiled.preheader, compiled.text, compiled.html) for name in part.names
    }


class Part:
    """One compiled Jinja source. Errors come back with the file and line people wrote."""

    def __init__(
        self, source: Source, env: Sandbox, shop: Mapping[str, Any] | None = None, same: Mapping[str, str] | None = None
    ) -> None:
        """shop, same: facts and variables that are the same in every mail, and are written into the template."""
        self.source = source
        try:
            tree = env.parse(source.text)
            faults = refused(tree, source)
            self.unknown = unknown_variables(tree, source)
            if not faults:
                own = {node.name for node in tree.find_all(nodes.Name) if node.ctx == "store"}
                _Constants(shop or {}, {name: text for name, text in (same or {}).items() if name not in own}).visit(
                    tree
                )
                if env.autoescape:
                    _break_lines(tree)
                code = env.compile(bounded(tree))
                self.template: Template = env.template_class.from_code(env, code, env.make_globals(None))
                self.template.root_render_func.__globals__["escape"] = escape_as_ascii if env.as_ascii else escape
        except TemplateSyntaxError as error:
            origin = source.at(error.lineno)
            raise TemplateFault([origin.fault(_syntax(error.message or "cannot be read"), origin.tag)]) from None
        except RecursionError:
            raise TemplateFault([source.at(1).fault("is nested too deeply")]) from None
        if faults:
            raise TemplateFault(faults)
        self.uses = used_variables(tree)
        self.names = {node.name for node in tree.find_all(nodes.Name)} | {
            f"{node.node.name}.{node.attr}"
            for node in tree.find_all(nodes.Getattr)
            if isinstance(node.node, nodes.Name)
        }
        self._env, self._root = env, self.template.root_render_func

    def run(self, values: Mapping[str, Any]) -> str:
        """The text for one person. Raises RenderError."""
        try:
            return self._text(values)
        except RenderError as error:
            raise RenderError(f"{error.reason} ({self.where(error)})") from None
        except UndefinedError as error:
            raise RenderError(f"a value is missing ({self.where(error)})") from None
        except TemplateError as error:  # the sandbox said no
            raise RenderError(f"{type(error).__name__}: not allowed in a template ({self.where(error)})") from None
        except (
            TypeError,
            ValueError,
            ArithmeticError,
            LookupError,
            AttributeError,
            RecursionError,
            MemoryError,
        ) as error:
            raise RenderError(f"{type(error).__name__} ({self.where(error)})") from None

    def _text(self, values: Mapping[str, Any]) -> str:
        """As Template.render does it, and ended when the text grows beyond all measure."""
        start_counting()
        parts, size = [], 0
        try:
            stream = self._root(Sheet(self._env, values))
            while some := list(islice(stream, 256)):
                parts.append("".join(some))
                size += len(parts[-1])
                if size > MAX_TEXT:
                    raise RenderError(f"the text has more than {MAX_TEXT:,} characters")
        except Exception:
            self._env.handle_exception()  # with the lines of the template instead of its code
        return "".join(parts)

    def where(self, error: BaseException) -> str:
        """file:line of the tag that raised, and the tag: both are the template's, never the person's."""
        lineno, trace = 1, error.__traceback__
        while trace:
            if trace.tb_frame.f_code.co_filename == "<template>":
                lineno = trace.tb_lineno
            trace = trace.tb_next
        origin = self.source.at(lineno)
        return f"{origin.file}:{origin.line}{': ' + origin.tag if origin.tag else ''}"


class _Constants(NodeTransformer):
    """`shop.name` and the like as the texts they stand for: escaped and checked once, and not for each mail."""

    def __init__(self, shop: Mapping[str, Any], names: Mapping[str, str]) -> None:
        self._names = names
        self._texts = {("shop", key): value for key, value in shop.items() if isinstance(value, str)}
        if "url" in shop:
            self._texts["links", "shop"] = shop["url"]

    def visit_Name(self, node: nodes.Name) -> nodes.Node:
        return nodes.Const(self._names[node.name], lineno=node.lineno) if node.name in self._names else node

    def visit_Getattr(self, node: nodes.Getattr) -> nodes.Node:
        key = node.node.name if isinstance(node.node, nodes.Name) else "", node.attr
        if key in self._texts:
            return nodes.Const(self._texts[key], lineno=node.lineno)
        self.generic_visit(node)
        return node


_BETWEEN = re.compile(r"(?<=>)(?=</?(?:tr|tbody)\b|<td\b|</table\b)")


def _break_lines(tree: nodes.Template) -> None:
    """Short lines, so that a mail needs no encoding: inside a table, between its rows and cells, where white space means nothing.

    And none that begins with a dot, which SMTP would have to double in each mail: a space more before a rule of a style sheet.
    """
    for data in tree.find_all(nodes.TemplateData):
        data.data = _BETWEEN.sub("\n", data.data).replace("\n.", "\n .")


def _syntax(message: str) -> str:
    hints = {
        "No filter named": "; see the list of filters in docs/blocks.md",
        "Unexpected end of template": "; a tag such as {% if %} or {% for %} is not closed",
        "Encountered unknown tag": "; check its spelling and that it was opened before",
    }
    return (
        message[:1].lower()
        + message[1:].rstrip(".")
        + next((h for start, h in hints.items() if message.startswith(start)), "")
    )


@lru_cache(maxsize=3)
def _environment(autoescape: bool, as_ascii: bool = False) -> Sandbox:
    return Sandbox(autoescape=autoescape, as_ascii=as_ascii)


_RAW = re.compile(r"<(style|script)\b.*?</\1\s*>", re.IGNORECASE | re.DOTALL)  # references mean nothing in there


def _fits_ascii(html: str) -> bool:
    """Is little of this HTML beyond ASCII, and no word of another script? Then references are shorter than to encode the whole mail."""
    beyond = [letter for letter in html if letter > "\x7f"]
    foreign = any(letter > "\u036f" and letter.isalpha() for letter in beyond)
    return not foreign and len(beyond) * 50 < len(html) and all(raw[0].isascii() for raw in _RAW.finditer(html))


def _header(part: Part, values: Mapping[str, Any]) -> str:
    text = " ".join(line(part.run(values)).split())
    return text if len(text) <= MAX_HEADER else text[: MAX_HEADER - 1] + "…"


def _tidy(text: str) -> str:
    """No spaces at line ends, at most one empty line in a row, one line break at the end."""
    text = "\n".join([row.rstrip() for row in text.strip().split("\n")])
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text + "\n"


# ---------------------------------------------------------------- the files of a template


@dataclass(frozen=True)
class Compiled:
    """A template in one language, ready to run."""

    file: str
    locale: str
    direction: str
    words: vocabulary.Words
    theme: Theme
    shop: dict[str, Any]
    subject: Part
    preheader: Part
    html: Part
    text: Part

    @cached_property
    def uses(self) -> frozenset[str]:
        """The variables of CONTEXT it asks for, as `why`, `links.score`; `links` alone: all of them."""
        return self.subject.uses | self.preheader.uses | self.html.uses | self.text.uses

    def content(self, context: Mapping[str, Any]) -> Content:
        """The mail for one person, from values of any origin. Raises RenderError."""
        return self.fill(plain(dict(context)))

    def fill(self, values: dict[str, Any]) -> Content:
        """The mail for one person, from values that are as `plain` makes them; `customer` is changed. Raises RenderError."""
        values = {**EMPTY, **values}
        values["shop"], values["locale"], values["direction"] = self.shop, self.locale, self.direction
        links = values.get("links")
        if isinstance(links, dict):
            values["links"] = {**LINKS, **links}
        customer = values.get("customer")
        if isinstance(customer, dict):
            customer["first_name"] = first_name(customer.get("first_name"))
        subject = values["subject"] = _header(self.subject, values)
        preheader = values["preheader"] = _header(self.preheader, values)
        if not subject:
            raise RenderError(f"the subject is empty ({self.subject.source.origins[0].file})")
        html = self.html.run(values)
        if len(html) > MAX_HTML // 4 and (size := len(html.encode())) > MAX_HTML:
            raise RenderError(
                f"the mail has {size // 1024} KB; more than {MAX_HTML // 1024} KB is cut off by mail programs"
            )
        return Content(subject, preheader, html, _tidy(self.text.run(values)))


Stamp = tuple[tuple[str, int, int], ...]
_compiled: dict[tuple[str, str, Path, int], tuple[Stamp, Compiled]] = {}


def _load(template: str, locale: str, theme: Theme, folder: Path) -> Compiled:
    """The compiled template, read again only when a file it is made of (or could be made of) has changed."""
    key = (template, locale, folder, id(theme))
    known = _compiled.get(key)
    if known and known[1].theme is theme and known[0] == _stamp(path for path, _, _ in known[0]):
        return known[1]
    used: list[str] = []
    made = _compile(template, locale, theme, folder, used)
    if len(_compiled) > 500:
        _compiled.clear()
    _compiled[key] = (_stamp(dict.fromkeys(used)), made)
    return made


def _stamp(paths: Iterator[str] | dict[str, None]) -> Stamp:
    found = []
    for path in paths:
        try:
            stat = os.stat(path)
            found.append((path, stat.st_mtime_ns, stat.st_size))
        except OSError:
            found.append((path, 0, 0))
    return tuple(found)


def _compile(template: str, locale: str, theme: Theme, folder: Path, used: list[str]) -> Compiled:
    base = _base(template, folder)
    candidates = _candidates(locale)
    chosen, files = _files(base, candidates, used)

    def read(path: Path) -> str:
        used.append(str(path))
        return yamlfile.read_text(path)

    words = vocabulary.load(folder, base, [chosen] if chosen else candidates, read, used)
    faults: list[Fault] = []
    parts: dict[str, Part] = {}
    # dates and numbers in the language of the words: a Korean who gets the English text gets English dates in it
    written = chosen or words.language
    spoken = next((name for name in candidates if chosen or name.startswith(written)), written)
    direction = babel_locale(spoken).text_direction
    shop: dict[str, Any] = shop_of(theme, spoken)

    def build(name: str, part: str) -> None:
        try:
            if name in ("subject", "preheader"):
                source = assemble(_header_pieces(files[part], name, folder, theme, read, words))
            else:
                pieces = flatten(folder, files[part], theme, markup=part == "mjml", read=read, words=words)
                source = compile_mjml(tuple(pieces)) if part == "mjml" else assemble(pieces)
            env = _environment(part == "mjml", part == "mjml" and _fits_ascii(source.text))
            parts[name] = Part(source, env, shop, {"locale": spoken, "direction": direction})
        except TemplateFault as error:
            faults.extend(error.faults)

    for name, part in (("subject", "subject"), ("preheader", "subject"), ("html", "mjml"), ("text", "txt")):
        build(name, part)
    if faults:
        raise TemplateFault(list(dict.fromkeys(faults)))
    return Compiled(yamlfile.shown(files["mjml"]), spoken, direction, words, theme, shop, **parts)


def _files(base: Path, candidates: list[str], used: list[str]) -> tuple[str, dict[str, Path]]:
    """The files of a template for the first language that has a layout of its own ("": none has), by part."""
    for language in (*candidates, ""):
        files = {part: base.with_name(".".join(filter(None, (base.name, language, part, "j2")))) for part in PARTS}
        used += map(str, files.values())
        there = [part for part in PARTS if files[part].is_file()]
        words = base.with_name(f"{base.name}.{language}.yml").is_file()
        missing = [part for part in PARTS if part not in there and not (part == "subject" and words)]
        if not language or (there and not missing):
            return language, files
        if there:
            told = ", ".join(files[part].name for part in missing)
            raise TemplateFault([Origin(yamlfile.shown(files[there[0]]), 0).fault(f"needs its companions too: {told}")])
    raise AssertionError("the last language is none")


def _base(template: str, folder: Path) -> Path:
    if not _NAME.fullmatch(template):
        raise TemplateFault(f'"{template[:60]}" is no template; write family/name, e.g. win_back/miss_you')
    if not any((folder / f"{template}.{part}.j2").is_file() for part in PARTS):
        near = yamlfile.did_you_mean(template, names(folder))
        where = yamlfile.shown(folder / f"{template}.mjml.j2")
        raise TemplateFault(
            [Fault(where, 0, "", f'there is no template "{template}"{near or "; add its three files"}')]
        )
    return folder / template


def _candidates(locale: str) -> list[str]:
    """Languages to look for: `pt-BR`, then `pt`."""
    language, _, region = locale.replace("_", "-").partition("-")
    full = f"{language.lower()}-{region.upper()}" if region else language.lower()
    return list(dict.fromkeys(name for name in (full, language.lower()) if _LOCALE.fullmatch(name)))


def _languages(template: str, folder: Path) -> list[str]:
    base = _base(template, folder)
    found = {p.name.split(".")[1] for part in PARTS for p in base.parent.glob(f"{base.name}.*.{part}.j2")}
    found |= vocabulary.languages(base)
    for word in sorted(found):
        if not _LOCALE.fullmatch(word):
            raise TemplateFault(
                [Fault(yamlfile.shown(base), 0, "", f'"{word}" in a file name is no language such as ko or pt-BR')]
            )
    return sorted(found)


def _header_pieces(file: Path, key: str, folder: Path, theme: Theme, read: Any, words: vocabulary.Words) -> list[Piece]:
    """The pieces of the word `subject` or `preheader`, or of `subject: ...` in a .subject.j2 file (over several lines, too)."""
    shown, text = yamlfile.shown(file), ""
    if not file.is_file() and words.file and key not in words.found:
        raise TemplateFault([Fault(words.file, 1, key, f'is missing; add a line "{key}: ..."')])
    if not file.is_file() and key in words.found:
        return directives(words.pieces(key, Origin(shown, 0), markup=False), folder, theme, read, words)
    try:
        text = read(file)
    except yamlfile.InputError as error:
        raise TemplateFault(error.faults) from None
    rows = text.split("\n")
    starts = {m[1]: n for n, row in enumerate(rows) if (m := re.match(r"(subject|preheader):", row))}
    if key not in starts:
        raise TemplateFault([Fault(shown, 1, key, f'is missing; add a line "{key}: ..."')])
    begin = starts[key]
    if (
        min(starts.values()) > 0
        and (stray := next((n for n, r in enumerate(rows[: min(starts.values())]) if r.strip()), None)) is not None
    ):
        raise TemplateFault([Fault(shown, stray + 1, "", 'the file begins with "subject: ..."')])
    end = min((n for n in starts.values() if n > begin), default=len(rows))
    value = "\n".join([rows[begin].split(":", 1)[1], *rows[begin + 1 : end]])
    return directives(list(pieces_of(value, shown, begin + 1)), folder, theme, read, words)
