"""Jinja with almost everything taken away: templates are text written by colleagues, not programs.

A template sees plain values only and can call nothing but a few filters. What could grow without end (macros, powers,
repeated strings, deep loops) is refused when the template is read, before it is ever run.
"""

from __future__ import annotations

import datetime as dt
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any

from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_skeleton, format_timedelta, match_skeleton
from babel.lists import format_list
from babel.numbers import (
    format_currency,
    format_decimal,
    format_percent,
    get_currency_precision,
    get_decimal_symbol,
    get_group_symbol,
)
from jinja2 import Environment, StrictUndefined, Undefined, nodes, pass_context, pass_environment
from jinja2.compiler import CodeGenerator, Frame
from jinja2.defaults import DEFAULT_FILTERS, DEFAULT_TESTS
from jinja2.exceptions import SecurityError
from jinja2.filters import do_truncate
from jinja2.runtime import Context, LoopContext, missing
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import _escape_inner as _escaped
from markupsafe import escape as escape_all

from postlude.errors import Fault
from postlude.rendering.source import Source
from postlude.rendering.variables import CONTEXT, RenderError
from postlude.yamlfile import did_you_mean

MAX_RANGE, MAX_LOOPS, MAX_JOIN, MAX_URL = 100, 3, 20_000, 1900
MAX_TURNS = 20_000  # of all loops of one text together; a mail with a hundred items takes a few hundred
_URL = re.compile(
    r"(?:https?://[^\s<>\"'\\\x00-\x20]+|mailto:[^\s<>\"'\\\x00-\x20]+@[^\s<>\"'\\\x00-\x20]+)", re.IGNORECASE
)


# ---------------------------------------------------------------- filters


def _url(value: Any) -> str:
    """The address, if it is http, https or mailto; else this person's mail is not rendered."""
    address = _address(str(value)) if isinstance(value, str) and len(value) <= MAX_URL else ""
    if not address:
        raise RenderError("an address for a link is missing or not http, https or mailto")
    return address


@lru_cache(maxsize=256)
def _address(text: str) -> str:
    """Stripped; empty when it is none. Kept, for each stands in the mail several times, and some in every mail."""
    return text.strip() if _URL.fullmatch(text.strip()) else ""


@pass_context
def _money(context: Context, value: Any, currency: str) -> str:
    """`{{ 12.5|money('EUR') }}`: as people of the mail's language write it."""
    return _format_money(value, currency, context.parent["locale"])


@pass_context
def _date(context: Context, value: Any, style: str = "long") -> str:
    """`{{ order.placed_on|date }}`: short, medium, long, full, or a pattern of parts such as MMMMd (day and month)."""
    if not isinstance(value, dt.date):
        raise RenderError("a date is missing")
    return _format_date(value, style, context.parent["locale"])


@pass_context
def _number(context: Context, value: Any) -> str:
    return str(format_decimal(Decimal(str(value)), locale=babel_locale(context["locale"])))


@pass_context
def _percent(context: Context, value: Any) -> str:
    """`{{ coupon.percent|percent }}`: 15 becomes 15%, or 15 % where people write it so."""
    return _format_percent(Decimal(str(value)), context["locale"])


@pass_context
def _plural(context: Context, value: Any, **forms: str) -> str:
    """`{{ n|plural(one='# point', other='# points') }}`: the form this language uses for n, # becomes the number.

    Names of forms: zero, one, two, few, many, other (CLDR). `other` must be there; Korean and Japanese need no more.
    """
    if "other" not in forms or not all(isinstance(text, str) for text in forms.values()):
        raise RenderError("plural needs the form other='...'")
    number, locale = Decimal(str(value)), babel_locale(context["locale"])
    form = forms.get(locale.plural_form(abs(number)), forms["other"])
    return form.replace("#", str(format_decimal(number, locale=locale)))


@pass_context
def _listed(context: Context, value: Any) -> str:
    """`{{ names|listed }}`: a, b and c, as this language puts a list into a sentence."""
    return str(format_list([str(entry) for entry in value][:MAX_RANGE], locale=babel_locale(context["locale"])))


_NEAR = {"en": ("today", "tomorrow"), "ko": ("오늘", "내일"), "ja": ("本日", "明日")}


@pass_context
def _in_days(context: Context, value: Any) -> str:
    """`{{ coupon.expires_on|in_days }}`: today, tomorrow, in 3 days; counted from the day of the mail."""
    today = context.resolve("today")
    if not isinstance(value, dt.date) or not isinstance(today, dt.date):
        raise RenderError("a date is missing")
    days, locale = (value - today).days, babel_locale(context["locale"])
    if 0 <= days < 2 and locale.language in _NEAR:
        return _NEAR[locale.language][days]
    return str(format_timedelta(dt.timedelta(days), "day", threshold=10_000, add_direction=True, locale=locale))


def _join(value: Any, between: str = "") -> str:
    text = str(between).join(str(entry) for entry in value)
    if len(text) > MAX_JOIN:
        raise RenderError("a joined text is too long")
    return text


def _range(*bounds: int) -> range:
    numbers = range(*bounds)
    if len(numbers) > MAX_RANGE:
        raise RenderError(f"range counts more than {MAX_RANGE}")
    return numbers


@pass_environment
def _truncate(
    env: Environment, text: Any, length: int = 255, killwords: bool = False, end: str = "...", leeway: int | None = None
) -> str:
    """Jinja's own; asked for every name of an article, and seldom for anything."""
    if type(text) is str and len(end) <= length and len(text) <= length:
        return text
    return do_truncate(env, text, length, killwords, end, leeway)


_loops = threading.local()


def start_counting() -> None:
    """Called before each text: what its loops may still take."""
    _loops.left = MAX_TURNS


def _turns(value: Any) -> Any:
    """Put around whatever a loop runs over (`bounded`): loops inside loops over long lists would never end."""
    _loops.left -= len(value) if hasattr(value, "__len__") else MAX_RANGE
    if _loops.left < 0:
        raise RenderError(f"the loops of the template take more than {MAX_TURNS:,} turns")
    return value


def bounded(tree: nodes.Template) -> nodes.Template:
    """The template with every loop counted."""
    for loop in tree.find_all(nodes.For):
        loop.iter = nodes.Filter(loop.iter, "_turns", [], [], None, None, lineno=loop.lineno)
    return tree


# an amount stands in a mail two or three times, and hardly ever in the next: a large cache would only be in the way
@lru_cache(maxsize=64, typed=True)
def _format_money(amount: Any, currency: str, locale: str) -> str:
    shape = _shape_of_money(currency, locale)
    # a float of whole cents is written as the decimal it stands for, at a third of the cost
    cents = type(amount) is float and round(amount, 2) == amount
    value = (amount if cents else Decimal(str(amount))) or Decimal(0)  # nobody owes minus nothing
    if shape and 0 <= value < _MOST_MONEY:
        before, digits, symbols, after = shape
        text = format(value, digits)
        return f"{before}{text.translate(symbols) if symbols else text}{after}"
    return str(format_currency(Decimal(str(value)), currency, locale=babel_locale(locale)))


_MOST_MONEY = 10**12
_AMOUNTS = [
    Decimal(cents) / 1000
    for cents in (
        0,
        4,
        5,
        500,
        1000,
        9995,
        12345,
        12355,
        99900,
        999990,
        10**6,
        1234500,
        9999900,
        10**7,
        123456780,
        1234567885,
    )
]


@lru_cache(maxsize=512)
def _shape_of_money(currency: str, locale: str) -> tuple[str, str, dict[int, str], str] | None:
    """What stands before and after an amount, and how its digits are written: Babel works it out anew for each amount, and
    mails have many. None where a few amounts written so differ from what Babel makes of them.
    """
    known = babel_locale(locale)
    digits = f",.{get_currency_precision(currency)}f"
    symbols = {ord(","): str(get_group_symbol(known)), ord("."): str(get_decimal_symbol(known))}
    written = [str(format_currency(amount, currency, locale=known)) for amount in _AMOUNTS]
    bare = [format(amount, digits).translate(symbols) for amount in _AMOUNTS]
    before, found, after = written[-1].partition(bare[-1])
    same = all(whole == f"{before}{part}{after}" for whole, part in zip(written, bare, strict=True))
    usual = (symbols[ord(",")], symbols[ord(".")]) == (",", ".")
    return (before, digits, {} if usual else symbols, after) if found and same else None


def escape(value: Any) -> str:
    """As markupsafe does it, without wrapping what only goes into the text: a mail has dozens of values."""
    kind = type(value)
    return _escaped(value) if kind is str else str(value) if kind is int else escape_all(value)


def as_ascii(text: str) -> str:
    """HTML with references for all that is not ASCII, as `&#233;`: it needs no transfer encoding, and says the same."""
    return text if text.isascii() else text.encode("ascii", "xmlcharrefreplace").decode()


def escape_as_ascii(value: Any) -> str:
    """`escape`, for a mail that is ASCII throughout."""
    return as_ascii(escape(value))


@lru_cache(maxsize=512)
def _format_percent(value: Decimal, locale: str) -> str:
    return str(format_percent(value / 100, locale=babel_locale(locale)))


@lru_cache(maxsize=4096)
def _format_date(value: dt.date, style: str, locale: str) -> str:
    if style in ("short", "medium", "long", "full"):
        return str(format_date(value, style, locale=babel_locale(locale)))
    known = babel_locale(locale)
    nearest = match_skeleton(style, known.datetime_skeletons)
    if nearest is None:
        return str(format_skeleton(style, value, locale=known))
    pattern = str(known.datetime_skeletons[nearest].pattern)
    for letter, short in (
        ("M", "MMM"),
        ("E", "E{1,3}"),
    ):  # CLDR: the nearest pattern takes the width that was asked for
        if letter * 4 in style:
            pattern = re.sub(rf"(?<![{letter}(]){short}(?!{letter})", letter * 4, pattern)
    return str(format_date(value, pattern, locale=known))


@lru_cache(maxsize=512)
def babel_locale(locale: str) -> Locale:
    """What Babel knows about `locale`: itself, else its language, else English."""
    for name in (locale, re.split(r"[-_]", locale)[0], "en"):
        try:
            return Locale.parse(name.replace("-", "_"))
        except (UnknownLocaleError, ValueError):
            continue
    raise AssertionError("Babel knows English")


_FILTER_NAMES = """
abs capitalize count d default first float int last length list lower map max min reject rejectattr reverse round select
selectattr sort sum title trim truncate unique upper
"""
_TEST_NAMES = """
defined undefined none true false boolean number string mapping sequence odd even divisibleby in
eq equalto == ne != lt lessthan < le <= gt greaterthan > ge >=
"""
FILTERS: Mapping[str, Callable[..., Any]] = {name: DEFAULT_FILTERS[name] for name in _FILTER_NAMES.split()} | {
    "url": _url,
    "money": _money,
    "date": _date,
    "number": _number,
    "percent": _percent,
    "plural": _plural,
    "listed": _listed,
    "in_days": _in_days,
    "join": _join,
    "truncate": _truncate,
}
TESTS = {name: DEFAULT_TESTS[name] for name in _TEST_NAMES.split()}
_METHODS: Mapping[type, frozenset[str]] = {
    dict: frozenset({"items", "keys", "values", "get"}),
    dt.date: frozenset({"year", "month", "day"}),
    dt.datetime: frozenset({"year", "month", "day", "hour", "minute"}),
}


# ---------------------------------------------------------------- the environment


class _Code(CodeGenerator):
    """Takes the key of a plain dict where it stands, as Sandbox.getattr would; whatever else there is, that is asked."""

    def visit_Getattr(self, node: nodes.Getattr, frame: Frame) -> None:
        if not isinstance(node.node, nodes.Name):
            super().visit_Getattr(node, frame)
            return
        name, key = frame.symbols.ref(node.node.name), repr(node.attr)
        self.write(f"({name}[{key}] if type({name}) is dict and {key} in {name} else ")
        super().visit_Getattr(node, frame)
        self.write(")")


class _AsciiCode(_Code):
    """What stands in the template itself is made ASCII when it is compiled, once for all mails."""

    def _output_const_repr(self, group: Iterable[Any]) -> str:
        return repr(as_ascii("".join(group)))


class Sandbox(ImmutableSandboxedEnvironment):
    """Plain values, listed filters, no method calls; a key of a mapping comes before its methods."""

    code_generator_class = _Code

    intercepted_binops = frozenset({"*", "%", "+", "**"})

    def __init__(self, *, autoescape: bool, as_ascii: bool = False) -> None:
        """as_ascii: for HTML whose every text may be written with references."""
        super().__init__(
            autoescape=autoescape,
            undefined=StrictUndefined,
        )
        self.as_ascii = as_ascii
        if as_ascii:
            self.code_generator_class = _AsciiCode
        self.filters = {**FILTERS, "_turns": _turns}
        self.tests = dict(TESTS)
        self.globals = {"range": _range}
        self.evaluation = nodes.EvalContext(self)

    def getattr(self, obj: Any, attribute: str) -> Any:
        if type(obj) is dict and attribute in obj:
            return obj[attribute]
        if self.is_safe_attribute(obj, attribute, None):
            return getattr(obj, attribute)
        return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        try:
            return obj[argument] if type(obj) in (dict, list, str) else self.undefined(obj=obj, name=argument)
        except (LookupError, TypeError):
            return self.undefined(obj=obj, name=argument)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, Undefined):
            return False
        if isinstance(obj, LoopContext):
            return not attr.startswith("_")
        return attr in _METHODS.get(type(obj), ())

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        # "x" * 10**9 and "%1000000000d" % 1 fill the memory of a worker from one short line
        if operator == "**" or not all(isinstance(side, int | float | Decimal) for side in (left, right)):
            raise SecurityError(f"{operator} works on numbers only; join texts with ~")
        return super().call_binop(context, operator, left, right)


class Sheet(Context):
    """The variables of one text: what the template sets itself, then `values` (not copied, for all texts of a mail have them)."""

    def __init__(self, env: Sandbox, values: Mapping[str, Any]) -> None:
        self.environment, self.parent, self.eval_ctx = env, values, env.evaluation  # type: ignore[assignment]
        self.vars, self.exported_vars, self.globals_keys = {}, set(), set()
        self.name, self.blocks = None, {}

    def resolve_or_missing(self, key: str) -> Any:
        if key in self.vars:
            return self.vars[key]
        if key in self.parent:
            return self.parent[key]
        return self.environment.globals.get(key, missing)


# ---------------------------------------------------------------- what a template may contain

_ALLOWED: tuple[type[nodes.Node], ...] = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.Assign, nodes.Name, nodes.Const,
    nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Filter, nodes.Test, nodes.Call, nodes.Keyword, nodes.Compare,
    nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.CondExpr, nodes.Concat, nodes.Add, nodes.Sub, nodes.Mul,
    nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.Neg, nodes.Pos, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair,
)  # fmt: skip


_GROWING: tuple[type[nodes.Node], ...] = (nodes.Concat, nodes.Add, nodes.Mul)


def refused(tree: nodes.Template, source: Source) -> list[Fault]:
    """Faults for everything in a template that is not on the list, and for loops that are too deep."""
    return list(_refused(tree, source, 0))


def _refused(node: nodes.Node, source: Source, loops: int) -> Iterator[Fault]:
    what = ""
    if isinstance(node, nodes.Scope):
        pass  # around what the next one refuses; has no line of its own
    elif not isinstance(node, _ALLOWED):
        what = "this is not used in templates; keep to if, for, set, variables and filters"
    elif isinstance(node, nodes.For):
        loops += 1
        if loops > MAX_LOOPS or node.recursive:
            what = f"loops stand at most {MAX_LOOPS} deep inside each other, and never call themselves"
    elif isinstance(node, nodes.Assign) and any(node.find(kind) for kind in _GROWING):
        what = "set takes a value as it is; put texts together where they are shown"
    elif isinstance(node, nodes.Call) and not _callable(node.node):
        what = "only range(...), loop.cycle(...) and .items() .keys() .values() .get() can be called"
    elif isinstance(node, nodes.Name) and node.name in ("self", "super", "caller", "varargs", "kwargs"):
        what = f"{node.name} is not used in templates"
    if what:
        yield source.at(node.lineno).fault(what, source.at(node.lineno).tag)
    for child in node.iter_child_nodes():
        yield from _refused(child, source, loops)


def _callable(node: nodes.Expr) -> bool:
    if isinstance(node, nodes.Getattr):
        return node.attr in _METHODS[dict] or (
            node.attr == "cycle" and isinstance(node.node, nodes.Name) and node.node.name == "loop"
        )
    return isinstance(node, nodes.Name) and node.name == "range"


def used_variables(tree: nodes.Template) -> frozenset[str]:
    """What a template asks for: `why`, `links.score`; a name alone where it is used as a whole, or its part is not written out.

    `order.?`: only whether there is one, as in {% if order %}.
    """
    return frozenset(_used(tree))


def _tested(node: nodes.Node) -> Iterator[str]:
    if isinstance(node, nodes.Name):
        yield f"{node.name}.?"
    elif isinstance(node, nodes.Not | nodes.And | nodes.Or):
        for child in node.iter_child_nodes():
            yield from _tested(child)
    else:
        yield from _used(node)


def _used(node: nodes.Node) -> Iterator[str]:
    if isinstance(node, nodes.If | nodes.CondExpr):
        yield from _tested(node.test)
        for child in node.iter_child_nodes(exclude=("test",)):
            yield from _used(child)
        return
    if isinstance(node, nodes.Name):
        yield node.name
        return
    if isinstance(node, nodes.Getattr | nodes.Getitem) and isinstance(node.node, nodes.Name):
        part = node.attr if isinstance(node, nodes.Getattr) else getattr(node.arg, "value", None)
        if isinstance(part, str):
            yield f"{node.node.name}.{part}"
            return
    for child in node.iter_child_nodes():
        yield from _used(child)


def unknown_variables(tree: nodes.Template, source: Source) -> list[Fault]:
    """Faults for variables that no mail has, with the nearest that exists."""
    own = {node.name: None for node in tree.find_all(nodes.Name) if node.ctx == "store"}
    return list(_Variables(source).faults(tree, own))


class _Variables:
    """Follows names through a template: what a path of `a.b[0].c` stands for, and whether CONTEXT knows it."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.known = set[str]()
        for path in CONTEXT:
            parts = path.replace("[]", ".[]").split(".")
            self.known |= {".".join(parts[: n + 1]) for n in range(len(parts))}

    def faults(self, node: nodes.Node, local: Mapping[str, str | None]) -> Iterator[Fault]:
        if isinstance(node, nodes.For):
            yield from self.faults(node.iter, local)
            inner = {**local, "loop": None, **{n.name: None for n in node.target.find_all(nodes.Name)}}
            if isinstance(node.target, nodes.Name):
                path = self.path(node.iter, local)
                inner[node.target.name] = f"{path}.[]" if path else None
            for child in [*node.body, *([node.test] if node.test else [])]:
                yield from self.faults(child, inner)
            for child in node.else_:
                yield from self.faults(child, local)
            return
        if isinstance(node, nodes.Name | nodes.Getattr | nodes.Getitem):
            yield from self.unknown(node, local)
        for child in node.iter_child_nodes():
            yield from self.faults(child, local)

    def unknown(
        self, node: nodes.Name | nodes.Getattr | nodes.Getitem, local: Mapping[str, str | None]
    ) -> Iterator[Fault]:
        if isinstance(node, nodes.Name):
            parent: str | None = ""
            name: Any = node.name
            if node.ctx != "load" or name in local or name == "range":
                return
        else:
            parent = self.path(node.node, local)
            name = node.attr if isinstance(node, nodes.Getattr) else getattr(node.arg, "value", None)
        if (
            parent is None
            or not isinstance(name, str)
            or (parent and parent not in self.known)
            or name in _METHODS[dict]
        ):
            return
        siblings = {path.rpartition(".")[2] for path in self.known if path.rpartition(".")[0] == parent}
        if name in siblings or not {"*", "[]"}.isdisjoint(siblings) or not siblings:
            return
        shown = f"{parent}.{name}" if parent else name
        at = self.source.at(node.lineno)
        yield at.fault(f"no mail has this variable{did_you_mean(name, siblings)}", shown.replace(".[]", "[]"))

    def path(self, node: nodes.Node, local: Mapping[str, str | None]) -> str | None:
        """Dotted path in CONTEXT; None when it cannot be told."""
        if isinstance(node, nodes.Name):
            return local.get(node.name, node.name)
        if isinstance(node, nodes.Getattr):
            parent = self.path(node.node, local)
            return f"{parent}.{node.attr}" if parent else None
        if isinstance(node, nodes.Getitem):
            parent = self.path(node.node, local)
            key = getattr(node.arg, "value", None)
            return f"{parent}.{key}" if parent and isinstance(key, str) else f"{parent}.[]" if parent else None
        return None
