"""Who is who: facts per customer (features), and named sets of customers for whom a predicate over features holds.

Both speak of one instant, `now`. Features are computed in SQL from the orders that count as of then (design, section 4),
for the customers whose orders changed and those whom time moves; days of recency and scores are worked out when read.
Segments are files in include/segments; their predicates become SQL with bound values over a fixed list of features.
Logic is three-valued: what is unknown (a median gap with one order) is never a member, whether the rule asks for it, for
its opposite, or for `not` of it. Memberships are kept with entry and exit: any day can be shown.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, ValidationInfo, field_validator, model_validator
from sqlalchemy import ColumnElement, Connection, DateTime, and_, column, insert, literal, not_, or_, select, table

from postlude import db, timing
from postlude.errors import Fault, GateClosed, InputError
from postlude.settings import settings
from postlude.yamlfile import Strict, did_you_mean, load, read_text, shown

# ---------------------------------------------------------------- features


def derive_features(
    conn: Connection, now: datetime, run_id: str, keep: bool = True, full: bool = False
) -> dict[str, int]:
    """Bring the features of all customers to `now`; thresholds are settings.

    Only customers whose orders changed since the last derivation, and those whom the passing of time moves, are derived
    anew. Everybody is with `full`, and where what is there cannot be built upon: no derivation yet, one of a later
    instant, or one by other thresholds or statements. Both ways end the same.
    keep: False counts only, from scratch, and leaves the features as they are (a backfill of an old interval must not
    turn the present back).
    Returns counts: customers, new, active, at_risk, lapsed (customers per stage), orders (counted ones).
    Raises InputError when the thresholds do not rise.
    """
    thresholds = _thresholds()
    rules = hashlib.sha256(f"{db.sql(DERIVATION)}{thresholds}".encode()).hexdigest()
    if keep:
        db.run(conn, "20_lock_audience")
    state = db.run(conn, "20_feature_state").one_or_none()
    full = full or not keep or state is None or state.rules != rules or state.as_of > now
    conn.exec_driver_sql("create temporary table facts_now (like customer_facts) on commit drop")
    _question(conn, now, full, keep)
    db.run(conn, DERIVATION, now=now, **thresholds)
    if keep:
        conn.exec_driver_sql("analyze facts_now")
        if full:  # a plan made for an empty table would read it again for every customer while it fills
            conn.exec_driver_sql("set local enable_nestloop = off")
        changed = db.run(conn, "22_replace_facts", afresh=full).scalar_one() + db.run(conn, "22_drop_facts").rowcount
        if full:
            conn.exec_driver_sql("set local enable_nestloop to default")
        if full and changed:  # else the server keeps the statistics itself
            conn.exec_driver_sql("analyze customer_facts")
        db.run(conn, "22_forget_foreseen")
        db.run(conn, "22_foresee", now=now)
        db.run(conn, "23_set_borders", now=now, afresh=full)
        if not full:
            db.run(conn, "22_note_moved")
        db.run(conn, "24_mark_features", now=now, run_id=run_id, rules=rules, everybody=full)
    counted = "customer_facts" if keep else "facts_now"
    conn.exec_driver_sql(f"create temporary view customers_counted as select stage, frequency from {counted}")  # noqa: S608 - one of two names
    counts = {key: int(value) for key, value in db.run(conn, "23_count_features").mappings().one().items()}
    question = (f"{'view' if full else 'table'} customers_in_question",) if keep else ()
    db.drop_temporary(conn, "view customers_counted", "view orders_in_question", "table facts_now", *question)
    conn.exec_driver_sql("set local random_page_cost to default")
    return counts


DERIVATION = "21_derive_features"


def _thresholds() -> dict[str, Any]:
    config = settings()
    if not 0 < config.new_days <= config.active_days <= config.at_risk_days:
        raise InputError(
            f"POSTLUDE_NEW_DAYS, POSTLUDE_ACTIVE_DAYS and POSTLUDE_AT_RISK_DAYS must rise, and are {config.new_days}, "
            f"{config.active_days}, {config.at_risk_days}; stages follow each other in this order"
        )
    return {
        "new_days": config.new_days,
        "active_days": config.active_days,
        "at_risk_days": config.at_risk_days,
        "loyalty_orders": config.loyalty_orders,
        "loyalty_spend": Decimal(str(config.loyalty_spend)),
    }


def _question(conn: Connection, now: datetime, full: bool, keep: bool) -> None:
    """Make customers_in_question (all we know facts of, or those to derive anew) and the view orders_in_question."""
    if full:
        conn.exec_driver_sql("create temporary view orders_in_question as select * from orders")
        if keep:
            db.run(conn, "21_forget_touched")
            conn.exec_driver_sql(
                "create temporary view customers_in_question as select customer_id from customer_facts"
                " union all select customer_id from foreseen_changes"
            )
        return
    # few customers find their orders by the index; by the default the planner would rather read all orders
    conn.exec_driver_sql("set local random_page_cost = 1.1")
    conn.exec_driver_sql("create temporary table customers_in_question (customer_id bigint primary key) on commit drop")
    db.run(conn, "21_take_touched", now=now)
    conn.exec_driver_sql("analyze customers_in_question")
    conn.exec_driver_sql(
        "create temporary view orders_in_question as select o.* from customers_in_question as q"
        " inner join orders as o on o.customer_id = q.customer_id where o.counted_at is not null"
    )


class Feature(NamedTuple):
    """A column of customer_features that a predicate may name."""

    kind: str  # text, number or instant
    words: str
    column: str = ""  # where it differs from the name
    choices: tuple[str, ...] = ()
    past: bool = False  # an instant that never lies after `now`: fit to tell since when a predicate holds
    moves: bool = False  # with the clock or with other customers, without anything happening to this one


FEATURES: Mapping[str, Feature] = {
    "source": Feature("text", "the shop", column="source_id"),
    "stage": Feature("text", "the stage", choices=("new", "active", "at_risk", "lapsed")),
    "recency_days": Feature("number", "days since the last order", moves=True),
    "frequency": Feature("number", "the number of orders"),
    "monetary": Feature("number", "the amount spent"),
    "median_gap_days": Feature("number", "the median days between orders"),
    "r_score": Feature("number", "the recency score", moves=True),
    "f_score": Feature("number", "the frequency score", moves=True),
    "m_score": Feature("number", "the spend score", moves=True),
    "first_order_at": Feature("instant", "the first order", past=True),
    "last_order_at": Feature("instant", "the last order", past=True),
    "stage_since": Feature("instant", "the beginning of the present stage", past=True),
    "next_stage_at": Feature("instant", "the end of the present stage"),
    "points": Feature("number", "the loyalty points"),
    "tier": Feature("text", "the loyalty tier"),
    "member": Feature("text", "the membership of the loyalty club", choices=("no", "free", "paid")),
    "loyal_since": Feature("instant", "the crossing of the loyalty threshold", past=True),
}

# ---------------------------------------------------------------- predicates

Scalar = bool | int | float | str


class Operator(NamedTuple):
    """What may follow a feature's name in a predicate."""

    kinds: tuple[str, ...]
    words: str
    compile: Callable[[ColumnElement[Any], Any], ColumnElement[bool]]


OPERATORS: Mapping[str, Operator] = {
    "is": Operator(("text", "number"), "is", lambda left, right: left == right),
    "is_not": Operator(("text", "number"), "is known and not", lambda left, right: left != right),
    "in": Operator(("text", "number"), "is one of", lambda left, right: left.in_(right)),
    "at_least": Operator(("number",), "is at least", lambda left, right: left >= right),
    "at_most": Operator(("number",), "is at most", lambda left, right: left <= right),
    "more_than": Operator(("number",), "is more than", lambda left, right: left > right),
    "less_than": Operator(("number",), "is less than", lambda left, right: left < right),
    "before": Operator(("instant",), "is before", lambda left, right: left < right),
    "after": Operator(("instant",), "is after", lambda left, right: left > right),
    "known": Operator(
        ("text", "number", "instant"), "is known", lambda left, right: left.is_not(None) if right else left.is_(None)
    ),
}
_FIELDS = {"is": "is_", "in": "in_"}  # words that Python keeps for itself


class Predicate(Strict):
    """One condition on customers: `all`, `any` or `not` of other conditions, or a feature with what it must be.

    Several operators beside one feature must all hold. Dates stand for whole days (UTC): `before` ends at their first
    instant, `after` begins behind their last. "30 days ago" and "in 30 days" are counted from the run's instant.
    """

    all: tuple[Predicate, ...] | None = Field(None, min_length=1, description="every one of these holds")
    any: tuple[Predicate, ...] | None = Field(None, min_length=1, description="at least one of these holds")
    not_: Predicate | None = Field(None, alias="not", description="this is known not to hold")
    feature: str | None = Field(None, description=f"one of {', '.join(FEATURES)}")
    is_: Scalar | None = Field(None, alias="is")
    is_not: Scalar | None = None
    in_: tuple[Scalar, ...] | None = Field(None, alias="in", min_length=1)
    at_least: Scalar | None = None
    at_most: Scalar | None = None
    more_than: Scalar | None = None
    less_than: Scalar | None = None
    before: Scalar | None = Field(None, description='a date, an instant with its zone, or "30 days ago"')
    after: Scalar | None = Field(None, description='a date, an instant with its zone, or "30 days ago"')
    known: bool | None = Field(None, description="true: there is a value; false: there is none")

    @field_validator("feature")
    @classmethod
    def _feature_exists(cls, name: str | None) -> str | None:
        if name is not None and name not in FEATURES:
            raise ValueError(f'there is no feature "{name}"{did_you_mean(name, FEATURES)}')
        return name

    @field_validator(*(_FIELDS.get(name, name) for name in OPERATORS))
    @classmethod
    def _operator_fits(cls, value: Any, info: ValidationInfo) -> Any:
        feature = info.data.get("feature")
        if value is None or feature is None:
            return value
        name = str(info.field_name).removesuffix("_")
        kind = FEATURES[feature].kind
        if kind not in OPERATORS[name].kinds:
            fitting = ", ".join(known for known, operator in OPERATORS.items() if kind in operator.kinds)
            raise ValueError(f"does not fit {feature}, which is {_KINDS[kind]}; use {fitting}")
        _operand(feature, name, value, datetime(2000, 1, 1, tzinfo=UTC))
        return value

    @model_validator(mode="after")
    def _is_one_condition(self) -> Predicate:
        forms = [
            f for f, given in zip(("all", "any", "not", "feature"), self._forms(), strict=True) if given is not None
        ]
        operators = self.operators()
        if not forms and operators:
            raise ValueError('says nothing about which feature is meant; add "feature: ..."')
        if not forms:
            raise ValueError('is no condition; write {feature: stage, is: lapsed}, or "all", "any" or "not" of such')
        if len(forms) > 1:
            raise ValueError(f"mixes {' and '.join(forms)}; put one inside the other")
        if operators and self.feature is None:
            raise ValueError(f'"{next(iter(operators))}" belongs beside a feature, not beside "{forms[0]}"')
        if self.feature is not None and not operators:
            raise ValueError(
                f'does not say what {self.feature} must be; add "is", "at_least", "known" or another operator'
            )
        return self

    def _forms(self) -> tuple[Any, ...]:
        return self.all, self.any, self.not_, self.feature

    def operators(self) -> dict[str, Any]:
        """The operators given beside the feature, by the name people write."""
        given = ((name, getattr(self, _FIELDS.get(name, name))) for name in OPERATORS)
        return {name: value for name, value in given if value is not None}


_KINDS = {"text": "text", "number": "a number", "instant": "a point in time"}
_REFERENCE = re.compile(r"(?P<past>.+) ago|in (?P<future>.+)")
_FURTHEST = timedelta(days=36525)


def _operand(feature: str, operator: str, value: Any, now: datetime) -> Any:
    """The value to bind for what stands in the file. Raises ValueError when it does not fit the feature."""
    if operator == "known":
        return value
    if operator == "in":
        return [_operand(feature, "is", item, now) for item in value]
    kind, choices = FEATURES[feature].kind, FEATURES[feature].choices
    if kind == "number":
        if isinstance(value, bool | str):
            raise ValueError(f'{feature} is a number, "{value}" is not; write e.g. 30')
        return Decimal(str(value))
    if kind == "instant":
        return _instant(feature, value, now, whole_day=operator == "after")
    if choices and value not in choices:
        raise ValueError(f'{feature} is one of {", ".join(choices)}, never "{value}"')
    if not isinstance(value, str) or "\x00" in value:
        raise ValueError(f'{feature} is text, "{value}" is not; put it in quotes')
    return value


def _instant(feature: str, value: Any, now: datetime, whole_day: bool) -> datetime:
    relative = _REFERENCE.fullmatch(str(value).strip())
    if relative:
        try:
            distance = timing.parse_duration(relative["past"] or relative["future"])
        except OverflowError:
            distance = timedelta.max
        if distance > _FURTHEST:
            raise ValueError(f'"{value}" is more than a hundred years away')
        return now - distance if relative["past"] else now + distance
    try:
        day = date.fromisoformat(str(value))
        return datetime.combine(day + timedelta(days=1 if whole_day else 0), time(), UTC) - (
            timedelta(microseconds=1) if whole_day else timedelta()
        )
    except (ValueError, OverflowError):
        pass
    try:
        moment = datetime.fromisoformat(str(value))
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError(
        f'{feature} is a point in time, "{value}" is not; write e.g. "30 days ago", 2026-12-01 or 2026-12-01T09:30Z'
    )


def compile_predicate(predicate: Predicate, now: datetime) -> ColumnElement[bool]:
    """The predicate as a condition on rows of customer_features; every value is a bound parameter.

    Plain SQL logic does the right thing: what is unknown is null, `not` of null is null, and null selects no row.
    """
    if predicate.all is not None:
        return and_(*(compile_predicate(part, now) for part in predicate.all)).self_group()
    if predicate.any is not None:
        return or_(*(compile_predicate(part, now) for part in predicate.any)).self_group()
    if predicate.not_ is not None:
        return not_(compile_predicate(predicate.not_, now).self_group())
    assert predicate.feature is not None  # the model holds one of the four
    left = _column(predicate.feature)
    return and_(
        *(
            OPERATORS[name].compile(left, _operand(predicate.feature, name, value, now))
            for name, value in predicate.operators().items()
        )
    ).self_group()


def _column(feature: str) -> ColumnElement[Any]:
    return column(FEATURES[feature].column or feature)


def in_words(predicate: Predicate, inside: bool = False) -> str:
    """The predicate as a sentence part: "the number of orders is at least 3 and the stage is lapsed"."""
    if predicate.not_ is not None:
        return f"it is known not to hold that {in_words(predicate.not_, inside=True)}"
    if predicate.feature is not None:
        parts = [_leaf_in_words(predicate.feature, name, value) for name, value in predicate.operators().items()]
        glue = " and "
    else:
        parts = [in_words(part, inside=True) for part in predicate.all or predicate.any or ()]
        glue = " and " if predicate.all else " or "
    return f"({glue.join(parts)})" if inside and len(parts) > 1 else glue.join(parts)


def _leaf_in_words(feature: str, operator: str, value: Any) -> str:
    words = f"{FEATURES[feature].words} {OPERATORS[operator].words}"
    if operator == "known":
        return words if value else f"{FEATURES[feature].words} is unknown"
    return f"{words} {', '.join(map(str, value)) if operator == 'in' else value}"


# ---------------------------------------------------------------- segments


class Segment(Strict):
    """A named set of customers: those for whom `where` holds at the instant of a run. One file in include/segments."""

    id: str = Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60, description="the name of the file, without .yml")
    name: str = Field(min_length=1, max_length=100)
    description: str = Field(min_length=1, description="who is in it, in words for people")
    owner: str | None = Field(None, description="whom to ask about it")
    where: Predicate
    since: str | None = Field(None, description="the feature that is the instant at which `where` became true")

    @field_validator("since")
    @classmethod
    def _since_is_a_past_instant(cls, name: str | None) -> str | None:
        fitting = [known for known, feature in FEATURES.items() if feature.past]
        if name is not None and name not in fitting:
            close = did_you_mean(name, fitting)
            raise ValueError(f'must name a feature that is a point in the past, and "{name}" is none{close}')
        return name


def load_segments(folder: Path) -> list[Segment]:
    """Every segment of a folder, by id. Raises InputError with all faults of all files."""
    found: list[Segment] = []
    faults: list[Fault] = []
    for path in sorted(folder.glob("*.y*ml")):
        try:
            segment = load(path, Segment)
        except InputError as error:
            faults += error.faults
            continue
        if path.name == f"{segment.id}.yml":
            found.append(segment)
        else:
            line = next((n for n, text in enumerate(read_text(path).splitlines(), 1) if text.startswith("id:")), 1)
            what = f'"{segment.id}" is not the name of the file; name the file {segment.id}.yml, or mend the id'
            faults.append(Fault(shown(path), line, "id", what))
    if not found and not faults:
        faults.append(Fault(shown(folder), 0, "", "holds no segment file (*.yml); check the folder"))
    if faults:
        raise InputError(faults)
    return found


_features = table("customer_features", column("customer_id"), *(column(f.column or n) for n, f in FEATURES.items()))
_moved = table("moved_now", column("customer_id"))
_members = table("members_now", column("segment_id"), column("customer_id"), column("since"))


def update_segments(conn: Connection, segments: Sequence[Segment], now: datetime, run_id: str) -> dict[str, int]:
    """Bring memberships to what holds as of `now`; members of a segment that is not among `segments` leave it.

    Where a condition changes only with the customer's own facts, only customers derived anew since the last look are
    judged; where it moves with the clock or with other customers (recency in days, scores, "30 days ago"), all are.
    Entry is the instant in the segment's `since` feature, else `now`; exit is `now`. A second look at the same instant
    gives the same rows. When the clock was set back, looks after `now` are undone first.
    Returns counts: segments, members, entered, departed, and members_<id> for each segment.
    Raises GateClosed when the features do not speak of `now`: members would be made from other days' facts.
    """
    db.run(conn, "20_lock_audience")
    state = db.run(conn, "20_feature_state").one_or_none()
    as_of = state.as_of if state else None
    if state is None or as_of != now:
        known = f"{as_of:%Y-%m-%d %H:%M:%S%z}" if as_of else "no instant yet"
        raise GateClosed(
            f"segments are due as of {now:%Y-%m-%d %H:%M:%S%z}, but the features speak of {known}; "
            "derive the features for the same instant first"
        )
    held: dict[str, str] = state.segments or {}
    if db.run(conn, "27_forget_sizes", now=now).rowcount:
        db.run(conn, "27_forget_entries", now=now)
        db.run(conn, "27_reopen_exits", now=now)
        held = {}

    for definition in (
        "moved_now (customer_id bigint primary key)",
        "members_before (segment_id text not null, customer_id bigint not null, seen_at timestamptz not null)",
        "members_now (segment_id text not null, customer_id bigint not null, since timestamptz)",
    ):
        conn.exec_driver_sql(f"create temporary table {definition} on commit drop")
    db.run(conn, "27_take_moved")
    conn.exec_driver_sql("analyze moved_now")
    conditions = {segment.id: _condition(segment, now) for segment in segments if not _moves(segment.where)}
    in_part = [name for name, condition in conditions.items() if held.get(name) == condition]
    db.run(conn, "28_members_before", in_part=in_part)
    sizes: dict[str, int] = {}
    for segment in segments:
        _define(conn, segment, now)
        found = _membership(segment, now, moved_only=segment.id in in_part)
        sizes[segment.id] = conn.execute(found, execution_options={"preserve_rowcount": True}).rowcount
    conn.exec_driver_sql("analyze members_now, members_before")
    departed = _per_segment(conn, "28_leave_segments", now=now)
    db.run(conn, "28_correct_entries")
    entered = _per_segment(conn, "28_enter_segments", now=now)
    sizes |= _per_segment(conn, "29_count_members", in_part=in_part)
    db.run(conn, "29_mark_segments", segments=db.dumps(conditions))
    db.drop_temporary(conn, "table moved_now", "table members_before", "table members_now")
    for name in sizes | departed:
        db.run(
            conn,
            "29_segment_size",
            segment_id=name,
            now=now,
            customers=sizes.get(name, 0),
            entered=entered.get(name, 0),
            departed=departed.get(name, 0),
        )
    return {
        "segments": len(segments),
        "members": sum(sizes.values()),
        "entered": sum(entered.values()),
        "departed": sum(departed.values()),
        **{f"members_{name}": size for name, size in sizes.items()},
    }


def _membership(segment: Segment, now: datetime, moved_only: bool = False) -> Any:
    """Insert the present members of a segment, or those of them who moved, into members_now."""
    since = _column(segment.since) if segment.since else literal(None, DateTime(timezone=True))
    members = select(literal(segment.id), column("customer_id"), since).select_from(_features)
    members = members.where(compile_predicate(segment.where, now))
    if moved_only:
        members = members.where(column("customer_id").in_(select(_moved.c.customer_id)))
    return insert(_members).from_select(["segment_id", "customer_id", "since"], members)


def _moves(predicate: Predicate) -> bool:
    """May the predicate turn true or false for somebody to whom nothing happened?"""
    parts = [*(predicate.all or ()), *(predicate.any or ()), *([predicate.not_] if predicate.not_ else ())]
    if predicate.feature is None:
        return any(_moves(part) for part in parts)
    distances = (_REFERENCE.fullmatch(str(value).strip()) for value in predicate.operators().values())
    return FEATURES[predicate.feature].moves or (
        FEATURES[predicate.feature].kind == "instant" and any(distance is not None for distance in distances)
    )


def _condition(segment: Segment, now: datetime) -> str:
    """Hash of the statement that finds the members: another one means that everybody is looked at again."""
    statement = _membership(segment, now).compile()
    return hashlib.sha256(f"{statement}{statement.params}".encode()).hexdigest()[:16]


def _define(conn: Connection, segment: Segment, now: datetime) -> None:
    definition = segment.model_dump(mode="json", by_alias=True, exclude_none=True)
    content = db.dumps(definition | {"in_words": in_words(segment.where)})
    version = hashlib.sha256(content.encode()).hexdigest()[:12]
    db.run(conn, "26_define_segment", segment_id=segment.id, definition=content, version=version, now=now)


def _per_segment(conn: Connection, name: str, /, **params: Any) -> dict[str, int]:
    return {row.segment_id: row.customers for row in db.run(conn, name, **params)}
