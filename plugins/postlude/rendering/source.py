"""From the files of a template to one text: `extends`, `include`, words and arguments are put together.

Every Jinja tag keeps the file and line where somebody wrote it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Protocol

from postlude import yamlfile
from postlude.errors import Fault, InputError
from postlude.rendering.theme import Theme


class TemplateFault(InputError):
    """A template that nobody can get: file, line and cure of every fault."""


class Origin(NamedTuple):
    """Where something was written; for a Jinja tag also the tag."""

    file: str
    line: int
    tag: str = ""

    def fault(self, message: str, key: str = "") -> Fault:
        return Fault(self.file, self.line, key, message)


@dataclass(frozen=True)
class Piece:
    """A stretch of text, or one Jinja tag, and where it was written."""

    text: str
    origin: Origin
    tag: bool = False

    @property
    def words(self) -> str:
        """Inside of a tag, without delimiters and white space control."""
        return self.text[2:-2].strip("-+ \t\r\n") if self.tag else ""

    @property
    def statement(self) -> bool:
        return self.tag and self.text.startswith("{%")


@dataclass
class Source:
    """A Jinja source and the origin of each of its lines."""

    text: str
    origins: list[Origin]
    advice: list[Fault] = field(default_factory=list)

    def at(self, lineno: int | None) -> Origin:
        return self.origins[min(max((lineno or 1) - 1, 0), len(self.origins) - 1)]


class Vocabulary(Protocol):
    """The words of a template in one language (words.py)."""

    def pieces(self, key: str, asked: Origin, *, markup: bool) -> list[Piece]: ...


class Arg(NamedTuple):
    """What an include hands over: words already put in, or an expression."""

    expression: str
    pieces: tuple[Piece, ...] | None = None


class Args(dict[str, Arg]):
    """The arguments of one include, and which of them its block asked for."""

    def __init__(self, given: dict[str, Arg] | None = None) -> None:
        super().__init__(given or {})
        self.asked = set[str]()

    def ask(self, name: str) -> Arg:
        self.asked.add(name)
        return self.get(name, Arg('""', ()))


MAX_DEPTH, MAX_CHARS = 8, 200_000
_QUOTED = r"""(?:[^"'{0}]|"[^"]*"|'[^']*'|{0}(?!\}}))*"""
_TAG = re.compile(r"\{\{" + _QUOTED.format("}") + r"\}\}|\{%" + _QUOTED.format("%") + r"%\}|\{#.*?#\}", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_NAMED = re.compile(r"""(extends|include)\s+(["'])([a-z0-9_./]+)\2(?:\s+with\s+(.+))?""", re.DOTALL)
_ARGUMENT = re.compile(
    r"""\s*([a-z_][a-z0-9_]*)\s*=\s*((?:"[^"]*"|'[^']*'|\((?:[^()"']|"[^"]*"|'[^']*')*\)|\[[^\[\]]*\]|[^,"'()\[\]])+?)\s*(?:,|$)""",
    re.DOTALL,
)
_ASKED = re.compile(r"(?<![\w.'\"])arg\.([a-z_][a-z0-9_]*)")
_SAID = re.compile(r"(?<![\w.'\"\])])t\.([a-z0-9_.]+)")
_BLOCK = re.compile(r"block\s+([a-z_]+)")
_THEME = re.compile(r"theme\.([a-z_.]+)")


# ---------------------------------------------------------------- one text out of several files


def flatten(
    folder: Path,
    path: Path,
    theme: Theme,
    *,
    markup: bool,
    read: Callable[[Path], str] | None = None,
    words: Vocabulary | None = None,
) -> list[Piece]:
    """The pieces of the template file at `path` with everything it extends and includes, comments dropped.

    `{{ theme.x }}` becomes its value here, and `{{ t.x }}` the word of this language, for both are the same for everybody.
    markup: the text is MJML. Raises TemplateFault.
    """
    flattener = _Flattener(folder, theme, markup, read or yamlfile.read_text, words)
    pieces = flattener.file(path, {}, 0)
    if sum(len(piece.text) for piece in pieces) > MAX_CHARS:
        raise TemplateFault([Origin(yamlfile.shown(path), 0).fault(f"is longer than {MAX_CHARS:,} characters in all")])
    return pieces


def directives(
    pieces: list[Piece], folder: Path, theme: Theme, read: Callable[[Path], str], words: Vocabulary | None = None
) -> list[Piece]:
    """Pieces of plain text with includes, words and theme values put in."""
    return list(_Flattener(folder, theme, False, read, words).put_together(pieces, {}, 0, Args()))


def pieces_of(text: str, file: str, first_line: int = 1, *, markup: bool = False) -> Iterator[Piece]:
    """`text` cut at its Jinja tags; in markup, comments become the line breaks they held."""
    if markup:
        text = _COMMENT.sub(lambda m: "\n" * m[0].count("\n"), text)
    position, line = 0, first_line
    for match in _TAG.finditer(text):
        for part, tag in ((text[position : match.start()], False), (match[0], True)):
            if part.startswith("{#") and tag and markup:
                yield Piece("\n" * part.count("\n"), Origin(file, line))
            elif part:
                _no_stray(part, Origin(file, line), tag)
                yield Piece(part, Origin(file, line, " ".join(part.split())[:60] if tag else ""), tag)
            line += part.count("\n")
        position = match.end()
    if position < len(text):
        _no_stray(text[position:], Origin(file, line), False)
        yield Piece(text[position:], Origin(file, line))


def _lines_of_their_own(pieces: list[Piece]) -> list[Piece]:
    """In plain text, a tag or comment alone on its line takes the whole line away; others leave the breaks alone."""
    kept = list(pieces)
    for number, piece in enumerate(pieces):
        before = pieces[number - 1].text if number else "\n"
        after = pieces[number + 1] if number + 1 < len(pieces) else Piece("\n", piece.origin)
        starts = not (number and pieces[number - 1].tag) and re.search(
            r"(?:^|\n)[ \t]*$" if number == 1 else r"\n[ \t]*$", before
        )
        if (
            piece.text.startswith(("{%", "{#"))
            and piece.tag
            and starts
            and not after.tag
            and re.match(r"[ \t]*\n", after.text)
        ):
            if number:
                kept[number - 1] = replace(kept[number - 1], text=kept[number - 1].text.rstrip(" \t"))
            if number + 1 < len(pieces):
                file, line, tag = after.origin
                rest = kept[number + 1].text.split("\n", 1)[1]
                kept[number + 1] = Piece(rest, Origin(file, line + 1, tag))
    return kept


def _no_stray(part: str, origin: Origin, tag: bool) -> None:
    stray = re.search(r"\{\{|\{%|\{#", part) if not tag else None
    if stray:
        line = origin.line + part.count("\n", 0, stray.start())
        raise TemplateFault(
            [Origin(origin.file, line).fault(f'"{stray[0]}" is never closed; check the brackets and quotes')]
        )


class _Flattener:
    def __init__(
        self, folder: Path, theme: Theme, markup: bool, read: Callable[[Path], str], words: Vocabulary | None = None
    ) -> None:
        self.folder, self.theme, self.markup, self.read, self.words = folder, theme, markup, read, words

    def file(
        self,
        path: Path,
        blocks: dict[str, list[Piece]],
        depth: int,
        asked: Origin | None = None,
        args: Args | None = None,
    ) -> list[Piece]:
        file = yamlfile.shown(path)
        if depth > MAX_DEPTH:
            raise TemplateFault([(asked or Origin(file, 1)).fault("includes itself, or is nested too deeply")])
        if asked and not path.is_file():
            known = [p.relative_to(self.folder).as_posix() for p in self.folder.rglob(f"*{path.suffix}")]
            near = yamlfile.did_you_mean(path.relative_to(self.folder).as_posix(), known)
            raise TemplateFault(
                [asked.fault(f"there is no file {file}{near if 'mean' in near else '; check the name'}")]
            )
        try:
            text = self.read(path)
        except InputError as error:
            raise TemplateFault(error.faults) from None
        pieces = list(pieces_of(text, file, markup=self.markup))
        args = Args() if args is None else args
        whole = list(self.put_together(pieces if self.markup else _lines_of_their_own(pieces), blocks, depth, args))
        if asked and (unused := sorted(set(args) - args.asked)):
            near = yamlfile.did_you_mean(unused[0], args.asked)
            raise TemplateFault([asked.fault(f'{file} has no use for "{unused[0]}"{near}', unused[0])])
        return whole

    def put_together(
        self, pieces: list[Piece], blocks: dict[str, list[Piece]], depth: int, args: Args
    ) -> Iterator[Piece]:
        base, base_at, own = None, None, dict(blocks)
        position = 0
        while position < len(pieces):
            piece = pieces[position]
            position += 1
            named = _NAMED.fullmatch(piece.words) if piece.statement else None
            block = _BLOCK.fullmatch(piece.words) if piece.statement else None
            word = piece.words.split(None, 1)[0] if piece.statement and piece.words else ""
            if named and named[1] == "extends" and not named[4]:
                base, base_at = self.folder / named[3], piece.origin
            elif named and named[1] == "include":
                given = self.arguments(named[4] or "", piece.origin, args)
                yield from self.file(self.inside(named[3], piece.origin), {}, depth + 1, piece.origin, given)
            elif block:
                end = _end_of_block(pieces, position, piece)
                inner, position = pieces[position:end], end + 1
                if base is None:  # a block of a layout: what the page says, else what the layout says
                    said = blocks.get(block[1])
                    yield from self.put_together(inner, blocks, depth, args) if said is None else said
                else:
                    own.setdefault(block[1], list(self.put_together(inner, blocks, depth, args)))
            elif word in ("extends", "include", "block", "endblock", "import", "from", "raw", "super"):
                cure = (
                    'use {% include "folder/file" %}, {% extends "folder/file" %}, {% block name %} ... {% endblock %}'
                )
                raise TemplateFault([piece.origin.fault(f"{{% {word} %}} is not used like this here; {cure}")])
            elif base is not None and (piece.tag or piece.text.strip()):
                raise TemplateFault(
                    [piece.origin.fault("a page that extends a layout holds blocks only; put this into one")]
                )
            elif base is None:
                yield from self.filled(piece, args)
        if base is not None and base_at is not None:
            yield from self.file(
                self.inside(base.relative_to(self.folder).as_posix(), base_at), own, depth + 1, base_at
            )

    def arguments(self, text: str, origin: Origin, outer: Args) -> Args:
        """What stands behind `with` in an include: name=value, ...; a value is t.key, a "text", arg.name or an expression."""
        args, position = Args(), 0
        while position < len(text.rstrip()):
            match = _ARGUMENT.match(text, position)
            if not match:
                raise TemplateFault(
                    [origin.fault(f'"{text[position:][:40].strip()}" is no name=value; separate them with commas')]
                )
            name, value, position = match[1], match[2].strip(), match.end()
            if said := _SAID.fullmatch(value):
                pieces = tuple(self.said(said[1], origin, outer))
                args[name] = Arg('"1"' if pieces else '""', pieces)
            elif passed := _ASKED.fullmatch(value):
                args[name] = outer.ask(passed[1])
            elif value[0] == value[-1] and value[0] in "\"'" and value[0] not in value[1:-1]:
                shown = html.escape(value[1:-1], quote=True) if self.markup else value[1:-1]
                args[name] = Arg(value, (Piece(shown, origin),) if shown else ())
            else:
                args[name] = Arg(f"({self.asked(value, outer)})")
        return args

    def said(self, key: str, origin: Origin, args: Args) -> list[Piece]:
        if self.words is None:
            raise TemplateFault([origin.fault(f"there are no words for t.{key}; add a file of words (docs/blocks.md)")])
        pieces = self.words.pieces(key, origin, markup=self.markup)
        filled = (replace(piece, text=self.asked(piece.text, args)) if piece.tag else piece for piece in pieces)
        return [self.themed(piece) for piece in filled]

    def asked(self, tag: str, args: Args) -> str:
        """A tag with the expressions of the include that asked for this file put in."""
        return _ASKED.sub(lambda m: args.ask(m[1]).expression, tag)

    def filled(self, piece: Piece, args: Args) -> Iterator[Piece]:
        """A piece with words, arguments and values of the theme put in."""
        if not piece.tag or piece.text.startswith("{#"):
            yield piece
        elif not piece.statement and (said := _SAID.fullmatch(piece.words)):
            yield from self.said(said[1], piece.origin, args)
        elif _SAID.search(piece.words):
            raise TemplateFault(
                [piece.origin.fault("words stand alone: write {{ t.key }}, or hand t.key to an include")]
            )
        elif not piece.statement and (asked := _ASKED.fullmatch(piece.words)):
            arg = args.ask(asked[1])
            yield from arg.pieces if arg.pieces is not None else (replace(piece, text=f"{{{{ {arg.expression} }}}}"),)
        elif _ASKED.search(piece.words):
            yield replace(piece, text=self.asked(piece.text, args))
        else:
            yield self.themed(piece)

    def inside(self, name: str, origin: Origin) -> Path:
        path = self.folder / name
        if ".." in name or not path.resolve().is_relative_to(self.folder.resolve()):
            raise TemplateFault([origin.fault(f'"{name}" lies outside of the templates')])
        return path

    def themed(self, piece: Piece) -> Piece:
        if not re.search(r"(?<![\w.'\"])theme\.", piece.words) or piece.text.startswith("{#"):
            return piece
        match = _THEME.fullmatch(piece.words)
        value = self.theme.value(match[1]) if match and not piece.statement else None
        if value is None:
            what = (
                "write {{ theme.key }} with a key of include/theme.yml that holds one text, e.g. theme.colours.accent"
            )
            raise TemplateFault([piece.origin.fault(what)])
        return replace(piece, text=html.escape(value, quote=True) if self.markup else value, tag=False)


def _end_of_block(pieces: list[Piece], position: int, opened: Piece) -> int:
    depth = 0
    for number in range(position, len(pieces)):
        word = pieces[number].words.split(None, 1)[0] if pieces[number].statement and pieces[number].words else ""
        depth += (word == "block") - (word == "endblock")
        if depth < 0:
            return number
    raise TemplateFault([opened.origin.fault("this block is never closed; add {% endblock %}")])


def assemble(pieces: Sequence[Piece]) -> Source:
    """A Jinja source in which every tag begins a line of its own (a break inside a tag means nothing), with origins."""
    out: list[str] = []
    origins = [pieces[0].origin if pieces else Origin("", 1)]
    for piece in pieces:
        file, line, _ = piece.origin
        if piece.tag:
            head = 3 if piece.text[2] in "-+" else 2
            out.append(f"{piece.text[:head]}\n{piece.text[head:]}")
            origins.append(piece.origin)
        else:
            out.append(piece.text)
        origins.extend(Origin(file, line + n + 1) for n in range(piece.text.count("\n")))
    return Source("".join(out), origins)
