"""YAML files that people write, read into pydantic models; every mistake gets file, line, key and cure, all at once.

YAML 1.1 has traps which are taken out here: only `true` and `false` are booleans (`no` is text), `9:30` is text and
not 570, `2026-12-01` is text until a model asks for a date, `007` keeps its zeros. Duplicate keys, tags and very deep
files are refused.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from postlude.errors import Fault, InputError

M = TypeVar("M", bound=BaseModel)
Loc = tuple[str | int, ...]

MAX_BYTES = 1_000_000
MAX_DEPTH = 24
MAX_NODES = 100_000  # after aliases are written out: a "billion laughs" file stops here

_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(0|[1-9][0-9]*)?\.[0-9]+([eE][-+]?[0-9]+)?")
_CONSTANTS = {"true": True, "false": False, "null": None, "~": None, "": None}


class Strict(BaseModel):
    """Base of everything people write in YAML: an unknown key is a mistake, a loaded file never changes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def load(path: Path | str, model: type[M]) -> M:
    """The file at `path` as `model`. Raises InputError with every fault as `file:line: key: what; how to mend`."""
    return parse(read_text(path), shown(path), model)


def load_unchanged(path: Path, model: type[M]) -> M:
    """As `load`, but the file is read again only when it has changed: for what is asked for with every message or request."""
    try:
        stamp = path.stat().st_mtime_ns
    except OSError:
        stamp = 0  # let the reader say what is wrong
    return cast(M, _kept(path, stamp, model))


@lru_cache(maxsize=64)
def _kept(path: Path, _stamp: int, model: type[BaseModel]) -> BaseModel:
    return load(path, model)


def parse(text: str, file: str, model: type[M]) -> M:
    """YAML `text` as `model`; `file` is the name used in messages. Raises InputError with every fault."""
    root, faults = _compose(text, file)
    if root is None:
        raise InputError(faults)
    try:
        # through JSON: strict about types ("yes" is no boolean, 5 is no text), yet dates and durations are text
        loaded = model.model_validate_json(json.dumps(root.plain()), strict=True)
    except ValidationError as error:
        faults += _faults_of(error, root, file, model)
    if faults:
        raise InputError(sorted(faults, key=lambda f: f.line))
    return loaded


def texts(text: str, file: str) -> dict[str, tuple[str, int]]:
    """The texts of a YAML file as dotted key -> (text, line). Raises InputError with every fault, values that are no text too."""
    root, faults = _compose(text, file)
    found: dict[str, tuple[str, int]] = {}

    def collect(node: _Node, key: str) -> None:
        for name, inner in node.content.items():
            whole, line = f"{key}{name}", node.lines[name]
            if isinstance(inner.content, dict):
                collect(inner, f"{whole}.")
            elif isinstance(inner.content, str):
                found[whole] = (inner.content.rstrip("\n"), line)
            else:
                faults.append(Fault(file, line, whole, "must be text; put it in quotes"))

    if root is not None:
        collect(root, "")
    if faults:
        raise InputError(sorted(faults, key=lambda f: f.line))
    return found


def shown(path: Path | str) -> str:
    """`path` as people see it in messages: relative to the current directory when it lies below."""
    whole = Path(path).absolute()
    here = Path.cwd()
    return whole.relative_to(here).as_posix() if whole.is_relative_to(here) else whole.as_posix()


def read_text(path: Path | str) -> str:
    """Text of a small UTF-8 file. Raises InputError when it is missing, too big, or holds a byte that is not UTF-8."""
    file = shown(path)
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError([Fault(file, 0, "", "there is no such file; check the name")]) from None
    except OSError as error:
        what = f"cannot be read ({error.strerror}); check the path and its permissions"
        raise InputError([Fault(file, 0, "", what)]) from None
    if len(content) > MAX_BYTES:
        raise InputError([Fault(file, 0, "", f"is larger than {MAX_BYTES:,} bytes; that is not a file people edit")])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        what = f"byte 0x{content[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise InputError([Fault(file, line, "", what)]) from None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean "template"?`, or the list of what is known when that is short, or nothing."""
    choices = sorted(set(known))
    lowered = {c.lower(): c for c in choices}
    close = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    if close:
        return f'; did you mean "{lowered[close[0]]}"?'
    return f"; known: {', '.join(choices)}" if 0 < len(choices) <= 15 else ""


def key_of(loc: Iterable[str | int]) -> str:
    """A place inside a file in words: ("steps", 0, "template") is `steps[0].template`."""
    key = ""
    for part in loc:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else part
    return key


def line_of(path: Path | str, loc: Sequence[str | int]) -> int:
    """Line of the key `loc` in a file that was read before, or of what surrounds it; 0 when the file cannot be read."""
    try:
        root, _ = _compose(read_text(path), "")
    except InputError:
        return 0
    return _place(root, loc, "")[1] if root else 0


# ---------------------------------------------------------------- YAML text to nodes


@dataclass
class _Node:
    """A value with its line. `content` is a scalar, a list or a dict of nodes; `lines` are those of the keys."""

    line: int
    content: Any
    lines: dict[str, int] = field(default_factory=dict)
    size: int = 1
    height: int = 0

    def holds(self, child: _Node) -> None:
        self.size += child.size
        self.height = max(self.height, child.height + 1)

    def plain(self) -> Any:
        if isinstance(self.content, dict):
            return {key: node.plain() for key, node in self.content.items()}
        if isinstance(self.content, list):
            return [node.plain() for node in self.content]
        return self.content


class _Broken(Exception):
    def __init__(self, line: int, what: str) -> None:
        self.line, self.what = line, what


def _compose(text: str, file: str) -> tuple[_Node | None, list[Fault]]:
    """The root mapping of the only document in `text`, and faults that do not hinder reading on (duplicate keys)."""
    composer = _Composer(yaml.parse(text, Loader=yaml.CSafeLoader), file)
    try:
        root = composer.document()
        if root is None or root.content is None:
            raise _Broken(1, "the file is empty; see docs/ for what belongs into it")
        if not isinstance(root.content, dict):
            raise _Broken(root.line, 'must be a list of "key: value" lines')
    except _Broken as broken:
        return None, [Fault(file, broken.line, "", broken.what)]
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1 if isinstance(error.position, int) else 1
        return None, [Fault(file, line, "", "holds a character that YAML does not allow; remove control characters")]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        hint = "indent with spaces, not tabs" if "\t" in _line(text, mark) else "check indentation, quotes and colons"
        line = mark.line + 1 if mark else 1
        return None, [Fault(file, line, "", f"is not valid YAML: {error.problem or error.context}; {hint}")]
    except yaml.YAMLError as error:
        return None, [Fault(file, 1, "", f"is not valid YAML: {str(error).splitlines()[0]}")]
    return root, composer.faults


def _line(text: str, mark: Any) -> str:
    lines = text.splitlines()
    return lines[mark.line] if mark and mark.line < len(lines) else ""


class _Composer:
    """Nodes from YAML events, with bounds on depth and size that hold through aliases too."""

    def __init__(self, events: Iterator[Any], file: str) -> None:
        self.events, self.file = events, file
        self.anchors: dict[str, _Node] = {}
        self.faults: list[Fault] = []
        self.budget = MAX_NODES

    def document(self) -> _Node | None:
        root: _Node | None = None
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    line = event.start_mark.line + 1  # type: ignore[union-attr]
                    raise _Broken(line, 'a second document starts here; keep one per file, without "---"')
                root = self.take(next(self.events), (), 0)
        return root

    def take(self, event: Any, where: Loc, depth: int) -> _Node:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                raise _Broken(line, f"*{event.anchor} names no earlier &{event.anchor}, or the one it stands in")
            node = self.anchors[event.anchor]
            self.spend(line, node.size, depth + node.height)
            return node
        if event.tag and event.tag != "!":
            raise _Broken(line, f"the tag {event.tag} is not used here; write the plain value")
        self.spend(line, 1, depth)
        if isinstance(event, yaml.ScalarEvent):
            node = _Node(line, _scalar(event.value) if event.implicit[0] else event.value)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = _Node(line, [])
            while not isinstance(child := next(self.events), yaml.SequenceEndEvent):
                item = self.take(child, (*where, len(node.content)), depth + 1)
                node.content.append(item)
                node.holds(item)
        else:
            node = self.mapping(_Node(line, {}), where, depth)
        if event.anchor:
            self.anchors[event.anchor] = node
        return node

    def mapping(self, node: _Node, where: Loc, depth: int) -> _Node:
        while not isinstance(child := next(self.events), yaml.MappingEndEvent):
            line = child.start_mark.line + 1
            if not isinstance(child, yaml.ScalarEvent):
                raise _Broken(line, "a key must be one word, not a list or a block")
            key = str(child.value)
            value = self.take(next(self.events), (*where, key), depth + 1)
            node.holds(value)
            if key in node.content:
                again = f"stands here again (first in line {node.lines[key]}); keep one"
                self.faults.append(Fault(self.file, line, key_of((*where, key)), again))
            else:
                node.content[key], node.lines[key] = value, line
        return node

    def spend(self, line: int, nodes: int, depth: int) -> None:
        self.budget -= nodes
        if depth > MAX_DEPTH:
            raise _Broken(line, f"is nested deeper than {MAX_DEPTH} levels")
        if self.budget < 0:
            raise _Broken(line, f"holds more than {MAX_NODES:,} values when its aliases are written out")


def _scalar(text: str) -> Any:
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INT.fullmatch(text):
        return int(text) if len(text) < 100 else text
    return float(text) if _FLOAT.fullmatch(text) else text


# ---------------------------------------------------------------- pydantic's faults in our words


def _faults_of(error: ValidationError, root: _Node, file: str, model: type[BaseModel]) -> list[Fault]:
    found: dict[tuple[int, str], list[str]] = {}
    for detail in error.errors(include_url=False):
        loc, line = _place(root, detail["loc"], detail["type"])
        words = _in_words(detail, loc, model)
        said = found.setdefault((line, key_of(loc)), [])
        if words not in said:  # the branches of a union complain one by one
            said.append(words)
    return [Fault(file, line, key, ", or: ".join(said)) for (line, key), said in found.items()]


def _place(root: _Node, loc: Sequence[str | int], kind: str) -> tuple[Loc, int]:
    """The part of pydantic's location that exists in the file (union branches do not), and its line."""
    node, line, path = root, root.line, list[str | int]()
    for number, part in enumerate(loc):
        last = number == len(loc) - 1
        if isinstance(part, str) and isinstance(node.content, dict) and part in node.content:
            line, node = node.lines[part], node.content[part]
            path.append(part)
        elif isinstance(part, int) and isinstance(node.content, list) and part < len(node.content):
            node = node.content[part]
            line = node.line
            path.append(part)
        elif last and kind == "missing":
            path.append(part)
    return tuple(path), line


def _in_words(detail: Any, loc: Loc, model: type[BaseModel]) -> str:
    kind, ctx = detail["type"], detail.get("ctx", {})
    given = _given(detail["input"])
    if kind == "missing":
        return f'is missing; add a line "{loc[-1]}: ..."'
    if kind == "extra_forbidden":
        return "unknown key" + did_you_mean(str(loc[-1]), _keys_at(model, loc[:-1]))
    if kind in ("value_error", "assertion_error"):
        return str(ctx["error"])
    if kind in ("literal_error", "enum"):
        choices = re.findall(r"'([^']*)'|(\b\d+\b)", ctx["expected"])
        names = [a or b for a, b in choices]
        close = did_you_mean(str(detail["input"]), names) if isinstance(detail["input"], str) else ""
        return f"must be one of {', '.join(names)}, not {given}" + (close if "mean" in close else "")
    for kinds, words in _TYPES.items():
        if kind in kinds.split():
            return f"{words}, not {given}" + ("; put it in quotes" if kind == "string_type" and given[0] == '"' else "")
    other = f"{detail['msg'][:1].lower()}{detail['msg'][1:]}, not {given}"
    return _BOUNDS[kind].format(**ctx, given=given) if kind in _BOUNDS else other


_TYPES = {
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "int_type int_from_float int_parsing": "must be a whole number",
    "float_type float_parsing decimal_type decimal_parsing finite_number": "must be a number",
    "tuple_type list_type set_type frozen_set_type": 'must be a list (lines that start with "- ")',
    "dict_type model_type": 'must be a block of "key: value" lines',
    "date_type date_parsing date_from_datetime_parsing": "must be a date such as 2026-12-01",
}
_BOUNDS = {
    "string_pattern_mismatch": "{given} does not have the form {pattern}",
    "string_too_short": "needs at least {min_length} characters, not {given}",
    "string_too_long": "allows at most {max_length} characters; shorten it",
    "too_short": "needs at least {min_length} entries, has {actual_length}",
    "too_long": "allows at most {max_length} entries, has {actual_length}",
    "greater_than": "must be greater than {gt}, not {given}",
    "greater_than_equal": "must be at least {ge}, not {given}",
    "less_than": "must be less than {lt}, not {given}",
    "less_than_equal": "must be at most {le}, not {given}",
}


def _given(value: Any) -> str:
    if isinstance(value, str | int | float):
        return f'"{json.dumps(value) if isinstance(value, bool) else value}"'
    return {dict: "a block of keys", list: "a list", type(None): "nothing"}.get(type(value), "this value")


def _keys_at(model: type[BaseModel], loc: Loc) -> set[str]:
    """Keys that the models allowed at `loc` know, for "did you mean"."""
    here: list[Any] = [model]
    for part in loc:
        inside: list[Any] = []
        for annotation in _branches(here):
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                inside += [f.annotation for name, f in annotation.model_fields.items() if part in (name, f.alias)]
            else:
                inside += list(get_args(annotation))
        here = inside
    return {
        field.alias or name
        for found in _branches(here)
        if isinstance(found, type) and issubclass(found, BaseModel)
        for name, field in found.model_fields.items()
    }


def _branches(annotations: list[Any]) -> Iterator[Any]:
    """The annotations themselves and, for unions and Annotated, what they are made of."""
    for annotation in annotations:
        yield annotation
        if not isinstance(annotation, type):
            origin = getattr(annotation, "__origin__", None)
            if origin is None or not isinstance(origin, type):  # a | b, Optional, Annotated; not list[...] or dict[...]
                yield from _branches([a for a in get_args(annotation) if not isinstance(a, str | int)])
