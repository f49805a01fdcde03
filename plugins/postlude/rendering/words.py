"""The words of templates, apart from their layout: one layout for all languages, one file of words for each.

`win_back/coupon` is coupon.mjml.j2 and coupon.txt.j2 (the layout, once) and coupon.en.yml, coupon.ko.yml, coupon.ja.yml (the
words, with `subject` and `preheader`). The words that blocks say (hello, footer, labels) are in _base/words.LANGUAGE.yml.
A template writes `{{ t.key }}`. A word is text, not markup; it may hold variables and `{% if %}` like any template.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from postlude import yamlfile
from postlude.errors import InputError
from postlude.rendering.source import Origin, Piece, TemplateFault, pieces_of

DEFAULT_LANGUAGE = "en"
BASE = "_base/words.{}.yml"
# Japanese has no spaces between words: one between kana or Chinese characters is a folded line of YAML
_JAPANESE = "[\u3001-\u303f\u3040-\u30ff\u4e00-\u9fff\uff01-\uff60]"
_BARE = re.compile(r"^[ \t]*([\w.]+):[ \t]*\{[{%]", re.MULTILINE)
_SPACE = re.compile(f"(?<={_JAPANESE}) (?={_JAPANESE})")


class Word(NamedTuple):
    """One text and where it was written."""

    text: str
    origin: Origin


class Words:
    """The words for one template in one language; its own come before those of the blocks."""

    def __init__(self, found: Mapping[str, Word], language: str, file: str = "") -> None:
        """file: where the template's own words are; empty when it has none."""
        self.found, self.language, self.file = found, language, file

    def spoken_in(self, locale: str) -> bool:
        """Whether `locale` is one of this language, as en-GB is of en."""
        return locale.replace("_", "-").split("-")[0].lower() == self.language

    def pieces(self, key: str, asked: Origin, *, markup: bool) -> list[Piece]:
        """The word as pieces of a template: escaped in markup, a line break there is `<br />`. Raises TemplateFault."""
        word = self.found.get(key)
        if word is None:
            near = yamlfile.did_you_mean(key, self.found)
            what = f'there is no word "{key}" in {self.language}{near if "mean" in near else "; add it to the file of words"}'
            raise TemplateFault([asked.fault(what, f"t.{key}")])
        pieces = list(pieces_of(word.text, word.origin.file, word.origin.line))
        for piece in pieces:
            if piece.tag and piece.words.startswith("t."):
                raise TemplateFault([piece.origin.fault("a word holds no other words; write it out")])
        return [_marked_up(piece) if markup and not piece.tag else piece for piece in pieces]


def _marked_up(piece: Piece) -> Piece:
    return Piece(html.escape(piece.text, quote=True).replace("\n", "<br />"), piece.origin)


def of(file: Path, read: Callable[[Path], str]) -> dict[str, Word]:
    """The words in a file, by dotted key. Raises TemplateFault."""
    shown, text = yamlfile.shown(file), ""
    try:
        text = read(file)
        found = yamlfile.texts(text, shown)
    except InputError as error:
        if bare := _BARE.search(text):
            line = text.count("\n", 0, bare.start()) + 1
            told = 'a text that begins with a tag stands in quotes: key: "{{ ... }}"'
            raise TemplateFault([Origin(shown, line).fault(told, bare[1])]) from None
        raise TemplateFault(error.faults) from None
    return {key: Word(_SPACE.sub("", text), Origin(shown, line)) for key, (text, line) in found.items()}


def load(folder: Path, base: Path, candidates: Iterable[str], read: Callable[[Path], str], used: list[str]) -> Words:
    """The words of the template at `base` in the first of `candidates` it has words in, else in English.

    A template without any words of its own gets those of the blocks alone. used: every file looked for is added, so that a
    new one is noticed.
    """
    asked = [*dict.fromkeys([*candidates, DEFAULT_LANGUAGE])]
    files = {language: base.with_name(f"{base.name}.{language}.yml") for language in asked}
    blocks = {language: folder / BASE.format(language) for language in asked}
    used += map(str, (*files.values(), *blocks.values()))
    own = next((language for language in asked if files[language].is_file()), None)
    language = own or DEFAULT_LANGUAGE
    spoken = language if blocks[language].is_file() else DEFAULT_LANGUAGE
    found = of(blocks[spoken], read) if blocks[spoken].is_file() else {}
    if own:
        found |= of(files[own], read)
    return Words(found, language, yamlfile.shown(files[own]) if own else "")


def languages(base: Path) -> set[str]:
    """The languages in which the template at `base` has words of its own."""
    return {path.name.split(".")[1] for path in base.parent.glob(f"{base.name}.*.yml")}
