"""Segments: files people write, three-valued logic, and memberships that tell who came and went on any day."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, text

from postlude import audience, yamlfile
from postlude.audience import Predicate, Segment
from postlude.errors import GateClosed, InputError
from postlude.settings import settings as postlude_settings
from test_features import DAY, NOW, TICK, Order, add_orders, insert

FOLDER = postlude_settings().include / "segments"


def predicate(yaml: str) -> Predicate:
    return yamlfile.parse(yaml, "p.yml", Predicate)


def segment(name: str, where: str, since: str | None = None) -> Segment:
    return Segment(id=name, name=name, description=name, where=predicate(where), since=since)


def look(conn: Connection, segments: list[Segment], now: datetime) -> dict[str, int]:
    audience.derive_features(conn, now, "run")
    return audience.update_segments(conn, segments, now, "run")


def history(conn: Connection) -> list[tuple[str, int, datetime, datetime, datetime | None]]:
    rows = conn.execute(
        text("select segment_id, customer_id, entered_at, seen_at, left_at from segment_memberships order by 1, 2, 4")
    )
    return [tuple(row) for row in rows]


def members(conn: Connection, where: str, now: datetime = NOW) -> set[int]:
    query = audience._membership(segment("any", where), now).select
    return {row.customer_id for row in conn.execute(query)}


# ---------------------------------------------------------------- what people write


def faults(yaml: str, model: type[Any] = Predicate) -> list[str]:
    with pytest.raises(InputError) as caught:
        yamlfile.parse(yaml, "s.yml", model)
    return [str(fault) for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("yaml", "complaint"),
    [
        ("feature: stagee\nis: lapsed", 's.yml:1: feature: there is no feature "stagee"; did you mean "stage"?'),
        ("feature: stage\nis: laspd", 's.yml:2: is: stage is one of new, active, at_risk, lapsed, never "laspd"'),
        (
            "feature: stage\nat_least: 3",
            "s.yml:2: at_least: does not fit stage, which is text; use is, is_not, in, known",
        ),
        (
            "feature: last_order_at\nmore_than: 3",
            "s.yml:2: more_than: does not fit last_order_at, which is a point in time; use before, after, known",
        ),
        ("feature: frequency\nat_least: many", 's.yml:2: at_least: frequency is a number, "many" is not; write'),
        ("feature: frequency\nin: [1, true]", 's.yml:2: in: frequency is a number, "True" is not; write e.g. 30'),
        (
            "feature: last_order_at\nbefore: 30 dayz ago",
            's.yml:2: before: "30 dayz" is not a duration; write e.g. "5 days" or "12 hours"',
        ),
        (
            "feature: last_order_at\nbefore: 2026-12-01T09:30",
            's.yml:2: before: last_order_at is a point in time, "2026-12-01T09:30" is not; '
            'write e.g. "30 days ago", 2026-12-01 or 2026-12-01T09:30Z',
        ),
        ("feature: last_order_at\nafter: 99999999999999999999 days ago", "is more than a hundred years away"),
        ("feature: stage\nlike: lapsed", "s.yml:2: like: unknown key"),
        ("feature: stage", 's.yml:1: does not say what stage must be; add "is"'),
        ("is: lapsed", 's.yml:1: says nothing about which feature is meant; add "feature: ..."'),
        ("feature: stage\nis: new\nnot: {feature: stage, is: new}", "mixes not and feature; put one inside the other"),
        ("all: [{feature: stage, is: new}]\nis: new", '"is" belongs beside a feature, not beside "all"'),
        ("all: []", "all: needs at least 1 entries, has 0"),
        ("known: true", "says nothing about which feature is meant"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_condition_is_named_with_its_line_and_its_cure(yaml: str, complaint: str) -> None:
    said = faults(yaml)
    assert len(said) == 1
    assert complaint in said[0]


def test_a_mistake_deep_inside_is_found_where_it_stands() -> None:
    said = faults(
        "id: x\nname: X\ndescription: X\nwhere:\n  all:\n    - feature: stage\n      is: new\n"
        "    - not:\n        any:\n          - {feature: frequency, at_least: 3}\n"
        "          - feature: monatery\n            at_least: 3\n"
        "since: next_stage_at\n",
        Segment,
    )
    assert said == [
        's.yml:11: where.all[1].not.any[1].feature: there is no feature "monatery"; did you mean "monetary"?',
        's.yml:13: since: must name a feature that is a point in the past, and "next_stage_at" is none'
        "; known: first_order_at, last_order_at, loyal_since, stage_since",
    ]


def test_all_faults_of_all_files_come_at_once(tmp_path: Path) -> None:
    (tmp_path / "one.yml").write_text("id: two\nname: N\ndescription: D\nwhere: {feature: stage, is: new}\n")
    (tmp_path / "bad.yml").write_text("id: bad\nname: N\ndescription: D\nwhere: {feature: stage, is: old}\nwhy: x\n")
    (tmp_path / "odd.yaml").write_text("id: odd\nname: N\ndescription: D\nwhere: {feature: stage, is: new}\n")
    with pytest.raises(InputError) as caught:
        audience.load_segments(tmp_path)
    said = "\n".join(map(str, caught.value.faults))
    assert "bad.yml:4: where.is: stage is one of" in said
    assert "bad.yml:5: why: unknown key" in said
    assert 'odd.yaml:1: id: "odd" is not the name of the file; name the file odd.yml, or mend the id' in said
    assert 'one.yml:1: id: "two" is not the name of the file' in said
    assert len(caught.value.faults) == 4


def test_an_empty_folder_is_a_mistake_and_not_a_reason_to_let_everybody_leave(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no segment file"):
        audience.load_segments(tmp_path)


def test_the_segments_that_come_along_are_valid_and_can_be_read_aloud() -> None:
    found = {s.id: audience.in_words(s.where) for s in audience.load_segments(FOLDER)}
    assert found == {
        "new": "the stage is new",
        "active": "the stage is active",
        "at_risk": "the stage is at_risk",
        "lapsed": "the stage is lapsed",
        "loyalty_eligible": "the crossing of the loyalty threshold is known",
        "champions": "the recency score is at least 4 and the frequency score is at least 4"
        " and the spend score is at least 4",
    }


def test_nested_conditions_read_without_doubt() -> None:
    where = (
        "any: [{all: [{feature: stage, in: [new, active]}, {feature: frequency, more_than: 1}]},"
        " {not: {any: [{feature: monetary, less_than: 9.5}, {feature: median_gap_days, known: false}]}}]"
    )
    assert audience.in_words(predicate(where)) == (
        "(the stage is one of new, active and the number of orders is more than 1) or it is known not to hold that "
        "(the amount spent is less than 9.5 or the median days between orders is unknown)"
    )


# ---------------------------------------------------------------- what it selects


def test_what_is_unknown_is_never_a_member_whichever_way_it_is_asked(conn: Connection) -> None:
    [once, often] = insert(conn, [[Order(10 * DAY)], [Order(50 * DAY), Order(10 * DAY)]])
    audience.derive_features(conn, NOW, "run")
    gap = "feature: median_gap_days"
    assert members(conn, f"{{{gap}, at_least: 30}}") == {often}
    assert members(conn, f"{{{gap}, less_than: 30}}") == set()
    for negative in (
        f"{{{gap}, is_not: 30}}",
        f"not: {{{gap}, less_than: 30}}",
        f"not: {{not: {{{gap}, at_least: 30}}}}",
        f"not: {{all: [{{{gap}, less_than: 30}}, {{feature: frequency, at_least: 1}}]}}",
    ):
        assert members(conn, negative) == {often}, negative
    # what decides without the unknown decides: false and unknown is false, true or unknown is true
    assert members(conn, f"not: {{all: [{{{gap}, less_than: 30}}, {{feature: frequency, at_least: 9}}]}}") == {
        once,
        often,
    }
    assert members(conn, f"any: [{{{gap}, at_least: 30}}, {{feature: frequency, is: 1}}]") == {once, often}
    assert members(conn, f"{{{gap}, known: false}}") == {once} == members(conn, f"not: {{{gap}, known: true}}")


def test_dates_stand_for_whole_days_and_distances_count_from_the_run(conn: Connection) -> None:
    noon = NOW.replace(hour=12) - 30 * DAY
    [early, late, last] = insert(conn, [[Order(NOW - noon + DAY)], [Order(NOW - noon)], [Order(NOW - noon - DAY)]])
    audience.derive_features(conn, NOW, "run")
    day = f"{noon:%Y-%m-%d}"
    assert members(conn, f"{{feature: last_order_at, before: {day}}}") == {early}
    assert members(conn, f"{{feature: last_order_at, after: {day}}}") == {last}
    assert members(conn, f"{{feature: last_order_at, after: '{noon.isoformat()}'}}") == {last}
    assert members(conn, "{feature: last_order_at, before: 30 days ago}") == {early}
    assert members(conn, "{feature: last_order_at, before: 30 days ago}", NOW + DAY) == {early, late}
    assert members(conn, "{feature: next_stage_at, before: in 7 hours}") == {late}
    assert members(conn, "{feature: source, in: [shop0, other], is_not: shop1}") == {early, late, last}


HOSTILE = ["x' or '1'='1", "'; drop table orders; --", ":now", "%(now)s", "$1", "\\", "x\u0000", "${x}", "{{x}}"]


@pytest.mark.parametrize("value", HOSTILE)
def test_values_are_bound_and_never_become_sql(conn: Connection, value: str) -> None:
    insert(conn, [[Order(10 * DAY)]])
    audience.derive_features(conn, NOW, "run")
    where = json.dumps({"feature": "source", "is": value})
    if "\x00" in value:
        assert "source is text" in faults(where)[0]
    else:
        assert members(conn, where) == set()
        assert value not in str(audience.compile_predicate(predicate(where), NOW))


KNOWN = {
    "frequency": [1, 2, 3],
    "median_gap_days": [None, Decimal(10), Decimal(20)],
    "stage": ["new", "active", "lapsed"],
    "loyal_since": [None, NOW - 40 * DAY, NOW - 10 * DAY],
}
leaves = st.one_of(
    st.builds(
        lambda f, op, v: {"feature": f, op: v},
        st.sampled_from(["frequency", "median_gap_days"]),
        st.sampled_from(["is", "is_not", "at_least", "at_most", "more_than", "less_than"]),
        st.sampled_from([1, 2, 10, 20]),
    ),
    st.builds(
        lambda op, v: {"feature": "stage", op: v}, st.sampled_from(["is", "is_not"]), st.sampled_from(["new", "lapsed"])
    ),
    st.builds(lambda f, v: {"feature": f, "known": v}, st.sampled_from([*KNOWN]), st.booleans()),
    st.builds(lambda op: {"feature": "loyal_since", op: "30 days ago"}, st.sampled_from(["before", "after"])),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(lambda parts: {"all": parts}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda parts: {"any": parts}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda part: {"not": part}, inner),
    ),
    max_leaves=8,
)


def kleene(tree: dict[str, Any], row: dict[str, Any]) -> bool | None:
    """Strong Kleene logic, written out."""
    if "not" in tree:
        value = kleene(tree["not"], row)
        return None if value is None else not value
    for word, decides in (("all", False), ("any", True)):
        if word in tree:
            values = [kleene(part, row) for part in tree[word]]
            return decides if decides in values else None if None in values else not decides
    value = row[tree["feature"]]
    [(op, wanted)] = [(k, v) for k, v in tree.items() if k != "feature"]
    if op == "known":
        return (value is not None) == wanted
    if value is None:
        return None
    wanted = NOW - 30 * DAY if wanted == "30 days ago" else wanted
    return {
        "is": lambda: value == wanted,
        "is_not": lambda: value != wanted,
        "at_least": lambda: value >= wanted,
        "at_most": lambda: value <= wanted,
        "more_than": lambda: value > wanted,
        "less_than": lambda: value < wanted,
        "before": lambda: value < wanted,
        "after": lambda: value > wanted,
    }[op]()


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=trees)
def test_any_nesting_of_conditions_selects_what_three_valued_logic_says(engine: Engine, tree: dict[str, Any]) -> None:
    rows = [dict(zip(KNOWN, values, strict=True)) for values in itertools.product(*KNOWN.values())]
    with engine.connect() as conn:
        conn.execute(
            text(
                "create temporary table customer_features (customer_id int, frequency int, median_gap_days numeric,"
                " stage text, loyal_since timestamptz)"
            )
        )
        conn.execute(
            text("insert into customer_features values (:id, :frequency, :median_gap_days, :stage, :loyal_since)"),
            [{"id": number, **row} for number, row in enumerate(rows)],
        )
        conn.execute(text("set local search_path = pg_temp, postlude"))
        assert members(conn, json.dumps(tree)) == {n for n, row in enumerate(rows) if kleene(tree, row) is True}


# ---------------------------------------------------------------- who came and went

LAPSED = "{feature: stage, is: lapsed}"


def test_a_lapsed_customer_entered_at_the_exact_instant_and_leaves_by_ordering(conn: Connection) -> None:
    lapsed = [segment("lapsed", LAPSED, "stage_since")]
    [ana, ben] = insert(conn, [[Order(200 * DAY)], [Order(179 * DAY)]])
    assert look(conn, lapsed, NOW) == {"segments": 1, "members": 1, "entered": 1, "departed": 0, "members_lapsed": 1}
    assert look(conn, lapsed, NOW + 3 * DAY)["entered"] == 1
    add_orders(conn, ana, [Order(-4 * DAY)])
    counts = look(conn, lapsed, NOW + 5 * DAY)
    assert counts == {"segments": 1, "members": 1, "entered": 0, "departed": 1, "members_lapsed": 1}
    assert history(conn) == [
        ("lapsed", ana, NOW - 20 * DAY, NOW, NOW + 5 * DAY),
        ("lapsed", ben, NOW + DAY, NOW + 3 * DAY, None),
    ]
    sizes = conn.execute(text("select as_of, customers, entered, departed from segment_sizes order by 1")).all()
    assert sizes == [(NOW, 1, 1, 0), (NOW + 3 * DAY, 2, 1, 0), (NOW + 5 * DAY, 1, 0, 1)]


def test_a_second_look_at_the_same_instant_changes_nothing(conn: Connection) -> None:
    everything = audience.load_segments(FOLDER)
    insert(conn, [[Order(d * DAY)] * n for d in (1, 20, 80, 100, 170, 179, 200) for n in (1, 3)])
    look(conn, everything, NOW)
    first = look(conn, everything, NOW + 15 * DAY)
    assert first["entered"] > 0 and first["departed"] > 0

    def stored() -> list[Any]:
        return [
            history(conn),
            conn.execute(text("select * from segment_sizes order by 1, 2")).all(),
            conn.execute(text("select * from segment_definitions order by 1")).all(),
        ]

    before = stored()
    assert look(conn, everything, NOW + 15 * DAY) == first
    assert stored() == before


def test_whoever_left_and_came_back_between_two_looks_is_a_new_entry(conn: Connection) -> None:
    lapsed = [segment("lapsed", LAPSED, "stage_since")]
    [ana] = insert(conn, [[Order(200 * DAY)]])
    look(conn, lapsed, NOW)
    add_orders(conn, ana, [Order(-10 * DAY)])
    counts = look(conn, lapsed, NOW + 200 * DAY)  # nobody looked while ana was active
    assert (counts["entered"], counts["departed"]) == (1, 1)
    assert history(conn) == [
        ("lapsed", ana, NOW - 20 * DAY, NOW, NOW + 200 * DAY),
        ("lapsed", ana, NOW + 190 * DAY, NOW + 200 * DAY, None),
    ]


def test_an_order_that_arrives_late_corrects_the_entry_and_is_no_new_one(conn: Connection) -> None:
    lapsed = [segment("lapsed", LAPSED, "stage_since")]
    [ana] = insert(conn, [[Order(200 * DAY)]])
    look(conn, lapsed, NOW)
    add_orders(conn, ana, [Order(190 * DAY)])
    counts = look(conn, lapsed, NOW + DAY)
    assert (counts["entered"], counts["departed"]) == (0, 0)
    assert history(conn) == [("lapsed", ana, NOW - 10 * DAY, NOW, None)]


def test_without_a_since_feature_a_member_entered_when_first_seen(conn: Connection) -> None:
    [ana] = insert(conn, [[Order(20 * DAY), Order(10 * DAY)]])
    regulars = [segment("regulars", "{feature: frequency, at_least: 2}")]
    look(conn, regulars, NOW)
    look(conn, regulars, NOW + DAY)
    assert history(conn) == [("regulars", ana, NOW, NOW, None)]


def test_setting_the_clock_back_undoes_what_was_seen_later(conn: Connection) -> None:
    everything = audience.load_segments(FOLDER)
    insert(conn, [[Order(d * DAY)] * n for d in (1, 20, 80, 100, 170, 179, 200) for n in (1, 3)])
    days = [NOW + n * 12 * DAY for n in range(5)]
    told: list[Any] = []
    for day in days:
        look(conn, everything, day)
        told.append((history(conn), conn.execute(text("select * from segment_sizes order by 1, 2")).all()))
    for back in (3, 1, 0):
        look(conn, everything, days[back])
        assert (history(conn), conn.execute(text("select * from segment_sizes order by 1, 2")).all()) == told[back]
    look(conn, everything, days[0] - 2 * DAY)  # before the first look of all
    assert {row[3] for row in history(conn)} == {days[0] - 2 * DAY}


def test_members_of_a_segment_whose_file_is_gone_leave(conn: Connection) -> None:
    insert(conn, [[Order(200 * DAY)]])
    lapsed, small = segment("lapsed", LAPSED, "stage_since"), segment("small", "{feature: monetary, at_most: 10}")
    look(conn, [lapsed, small], NOW)
    counts = look(conn, [lapsed], NOW + DAY)
    assert counts == {"segments": 1, "members": 1, "entered": 0, "departed": 1, "members_lapsed": 1}
    assert [(row[0], row[4]) for row in history(conn)] == [("lapsed", None), ("small", NOW + DAY)]


def test_a_changed_file_is_a_new_version_of_its_definition(conn: Connection) -> None:
    def stored() -> tuple[str, datetime, str]:
        row = conn.execute(text("select version, updated_at, definition ->> 'in_words' from segment_definitions"))
        return tuple(row.one())

    insert(conn, [[Order(200 * DAY)]])
    look(conn, [segment("s", LAPSED)], NOW)
    first = stored()
    look(conn, [segment("s", LAPSED)], NOW + DAY)
    assert stored() == first == (first[0], NOW, "the stage is lapsed")
    look(conn, [segment("s", "{feature: stage, is: new}")], NOW + 2 * DAY)
    assert stored()[0] != first[0]
    assert stored()[1:] == (NOW + 2 * DAY, "the stage is new")


def test_segments_are_refused_when_the_features_speak_of_another_instant(conn: Connection) -> None:
    insert(conn, [[Order(200 * DAY)]])
    some = [segment("lapsed", LAPSED)]
    with pytest.raises(GateClosed, match="speak of no instant yet"):
        audience.update_segments(conn, some, NOW, "run")
    audience.derive_features(conn, NOW, "run")
    with pytest.raises(GateClosed, match="derive the features for the same instant first"):
        audience.update_segments(conn, some, NOW + TICK, "run")
    assert history(conn) == []


def test_the_same_instant_in_another_zone_is_the_same_instant(conn: Connection) -> None:
    insert(conn, [[Order(200 * DAY)]])
    look(conn, [segment("lapsed", LAPSED)], NOW.astimezone(ZoneInfo("Asia/Tokyo")))
    assert audience.update_segments(conn, [segment("lapsed", LAPSED)], NOW, "run")["entered"] == 1


def test_the_public_view_shows_present_members_only(conn: Connection) -> None:
    lapsed = [segment("lapsed", LAPSED, "stage_since")]
    [ana, ben] = insert(conn, [[Order(200 * DAY)], [Order(300 * DAY)]])
    look(conn, lapsed, NOW)
    add_orders(conn, ana, [Order(timedelta(0))])
    look(conn, lapsed, NOW + DAY)
    rows = conn.execute(text("select segment, customer_id, entered_at from public.segments")).all()
    assert rows == [("lapsed", ben, datetime(2026, 4, 2, 6, tzinfo=UTC) - 120 * DAY)]
