"""Wrong campaign files: each mistake is told at the line that holds it, with its cure, and the other files live on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from postlude import campaign_checks, pipeline
from postlude.calendar import load_calendar
from postlude.campaign import load_campaign
from postlude.errors import InputError
from postlude.settings import Settings, settings
from world import at

GOOD = """\
id: hello
name: Hello
owner: team
trigger: {event: delivered, entry: existing, max_age: 40 days}
exit_on: [reviewed]
stop_while: []
why: Because.
audience:
  within: [new]
  exclude: [lapsed]
steps:
  - id: ask
    template: feedback_30d/ask
    on_day: 3
    on_day_by_category: {table: feedback_days}
    expires_after: 7 days
  - id: happy
    template: feedback_30d/ask
    branch: mood
    on_day: 20
    at: "12:00"
    only_if: {feature: score, at_least: 4}
    expires_after: 7 days
  - id: others
    variants:
      - {name: short, weight: 1, template: feedback_30d/ask}
      - {name: long, weight: 2, template: feedback_30d/ask}
    branch: mood
    on_day: 20
    at: "12:00"
    expires_after: 7 days
  - id: thanks
    template: feedback_30d/ask
    wait_for: {event: clicked, timeout: 3 days, else: skip}
    only_if: {got: ask}
    expires_after: 7 days
"""

WRONG = [
    # what starts it
    ("event: delivered", "event: delivered, leaves: lapsed", 4, "these are named: event, leaves"),
    ("event: delivered", "event: deliverd", 4, 'did you mean "delivered"'),
    ("event: delivered", "external: quiz_done", 4, "a trigger by external has no order"),
    ("event: delivered", "event: delivered, days_before: 3", 4, 'goes with "date" or "occasion"'),
    ("event: delivered", "date: name_day, once_per: episode", 4, "must be one of birthday, first_order, renewal"),
    ("event: delivered, entry: existing, max_age: 40 days", "date: birthday, entry: existing, max_age: 6 hours, once_per: episode",
     4, "at least 1 day"),
    ("entry: existing, ", "", 4, "trigger.entry: is missing"),
    # what ends it
    ("exit_on: [reviewed]", "exit_on: [left_segment]", 5, 'needs a trigger that "enters" a segment'),
    ("exit_on: [reviewed]", "exit_on: [reviewed, rated_lo]", 5, 'did you mean "rated_low"'),
    ("stop_while: []", "reentry: {after: 90 dayz}", 6, "not a period of the calendar"),
    ("stop_while: []", "reentry: sometimes", 6, "never, once_per_anchor"),
    ("stop_while: []", "reentry: {after: 20 years}", 6, "longer than ten years"),
    ("max_age: 40 days}", "max_age: 40 days, once_per: customer}\nreentry: never", 5, "once in a lifetime already"),
    # feeds
    ("stop_while: []", "depends_on: [orders]", 6, 'leaves out "reviews"'),
    ("stop_while: []", "depends_on: [orders, reviews, parcels]", 6, "must be one of orders, reviews, returns"),
    ("stop_while: []", "depends_on: [orders, reviews, orders]", 6, '"orders" is named twice'),
    ("stop_while: []", "depends_on: []", 6, "depends_on"),
    ("stop_while: []", "depends_on: [orders, reviews]\nneeds_fresh_orders: false", 6, "keep one of the two"),
    ("stop_while: []", "depends_on: [orders, reviews]\nkind: transactional", 6, "transactional mail waits for no feed"),
    # for whom
    ("within: [new]", "within: [nwe]", 9, 'there is no segment "nwe"; did you mean "new"'),
    ("exclude: [lapsed]", "exclude: [champions, new]", 10, "also in audience.within"),
    ("within: [new]", "holdout: 1", 9, "at most 0.5"),
    ("event: delivered", "enters: lapsed, once_per: episode", 10, "nobody would be enrolled"),
    # templates and tables
    ("template: feedback_30d/ask", "template: feedback_30d/aks", 13, 'did you mean "feedback_30d/ask"'),
    ("{name: long, weight: 2, template: feedback_30d/ask}", "{name: long, weight: 2, template: nowhere/none}", 27, "there is no template"),
    ("{table: feedback_days}", "{table: feedback_day}", 15, 'did you mean "feedback_days"'),
    ("{table: feedback_days}", "{soap: -1}", 15, "at least 0"),
    ("{table: feedback_days}", "{soap: soon}", 15, "whole number"),
    # delays
    ("on_day: 3\n", "on_day: 999\n", 14, "at most 730"),
    ("on_day: 3\n    on_day_by_category: {table: feedback_days}", "after: 999 days", 14, "more than 730 days ahead"),
    ("on_day: 3\n    on_day_by_category: {table: feedback_days}", "on_day: 25", 19, "put the steps in the order of time"),
    ("expires_after: 7 days", "expires_after: 200 days", 16, "longer than 90 days"),
    ('at: "12:00"', 'at: "25:00"', 21, "not a time of day"),
    # variants
    ("name: long", "name: short", 27, 'two variants are called "short"'),
    ("weight: 1", "weight: 0", 26, "at least 1"),
    ("weight: 1", "weight: -2", 26, "at least 1"),
    ("      - {name: long, weight: 2, template: feedback_30d/ask}\n", "", 25, "one variant only"),
    ("    branch: mood\n    on_day: 20\n    at: \"12:00\"\n    only_if",
     "    variants: [{name: aa, template: a/b}]\n    branch: mood\n    on_day: 20\n    at: \"12:00\"\n    only_if",
     17, 'either "template" or "variants"'),
    # conditions and branches
    ("{got: ask}", "{got: thanks}", 35, "cannot wait for itself"),
    ("{feature: score, at_least: 4}", "{got: thanks}", 22, "wait for each other"),
    ("{feature: score, at_least: 4}", "{got: others}", 22, "an alternative of the same branch"),
    ("{got: ask}", "{got: aks}", 35, 'there is no step "aks"; did you mean "ask"'),
    ("{feature: score, at_least: 4}", "{feature: scor, at_least: 4}", 22, 'did you mean "score"'),
    ("{feature: score, at_least: 4}", "{feature: score}", 22, "does not say what score must be"),
    ("{feature: score, at_least: 4}", "{feature: stage, is: lost}", 22, "never \"lost\""),
    ("{feature: score, at_least: 4}", "{feature: stage, at_least: 4}", 22, "compares numbers"),
    ("{feature: score, at_least: 4}", '{feature: score, is: "4"}', 22, "without quotes"),
    ("{feature: score, at_least: 4}", "{feature: last_order_at, at_least: 4}", 22, "put the rule into a segment"),
    ("{feature: score, at_least: 4}", "{in_segment: lapsed, happened: clicked}", 22, "mixes in_segment and happened"),
    ("{feature: score, at_least: 4}", "{in_segment: lapst}", 22, 'did you mean "lapsed"'),
    ("{feature: score, at_least: 4}", "{happened: clickd}", 22, 'did you mean "clicked"'),
    ("    only_if: {feature: score, at_least: 4}\n", "", 19, "it takes everybody"),
    ("branch: mood\n    on_day: 20\n    at: \"12:00\"\n    expires", "branch: mood\n    on_day: 21\n    at: \"12:00\"\n    expires",
     28, "not due at the same time"),
    ("    branch: mood\n    on_day: 20\n    at: \"12:00\"\n    only_if", "    on_day: 20\n    at: \"12:00\"\n    only_if",
     27, "has one step only"),
    # waiting
    ("timeout: 3 days", "timeout: 400 days", 34, "between 1 hour and 90 days"),
    ("timeout: 3 days, else: skip", "timeout: 3 days", 34, "wait_for.else: is missing"),
    ("event: clicked", "event: smiled", 34, "must be one of opened"),
    ("    on_day: 3\n    on_day_by_category: {table: feedback_days}\n", "    wait_for: {event: clicked, timeout: 3 days, else: send}\n",
     14, "nothing was sent before the first step"),
    ("only_if: {got: ask}\n    expires_after: 7 days", "only_if: {got: ask}\n    expires_after: 2 hours",
     36, "at least 1 day with wait_for"),
]  # fmt: skip

OTHER = """\
id: hello
name: Hello
owner: team
trigger: {enters: lapsed, entry: existing, max_age: 3 days, once_per: episode}
why: Because.
steps:
  - {id: one, template: win_back/miss_you, on_day: 0, expires_after: 3 days}
  - {id: two, template: win_back/whats_new, on_day: 6, at: "10:00", expires_after: 3 days}
"""
WITHOUT_ORDER = [
    ("enters: lapsed", "enters: lapst", 4, 'did you mean "lapsed"'),
    ("enters: lapsed", "leaves: lapst", 4, 'did you mean "lapsed"'),
    ("enters: lapsed", "occasion: black_friday", 4, "add it to occasions in include/calendar.yml"),
    (
        "enters: lapsed, entry: existing, max_age: 3 days, once_per: episode",
        "event: returned, entry: existing, max_age: 3 days",
        4,
        'write "stop_while: [ticket_open]"',
    ),
    ("why", "exit_on: [ordered, rated_low]\nwhy", 5, "this trigger has no order"),
    ("why", "at_most_every: 30 days\nwhy", 9, 'comes 6 days after "one", but at_most_every is 30 days'),
    ("why", "goal: clicked\nwhy", 1, "must also be in exit_on"),
    ('at: "10:00"', 'at: "23:00"', 8, "outside the send window of this campaign, 09:00 to 20:00"),
    ("on_day: 0", "on_day: 0, only_if: {feature: category, is: home}", 7, "it would never be known"),
    ("on_day: 0", "on_day: 0, on_day_by_category: {soap: 7}", 7, "needs an order for its main item"),
    ("on_day: 0", "on_day: 0, coupon: {pool: spring, percent: 10, valid: 3 hours}", 7, "shorter than a day"),
    ("win_back/miss_you", "win_back/mis_you", 7, 'did you mean "win_back/miss_you"'),
]


def told(file: Path) -> str:
    try:
        campaign = load_campaign(file)
    except InputError as error:
        return str(error)
    return "\n".join(map(str, campaign_checks.faults_of(file, campaign)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(settings().include / "tables", tmp_path / "tables")
    (tmp_path / "campaigns").mkdir()
    return tmp_path / "campaigns"


@pytest.mark.parametrize(("good", "bad", "line", "words"), WRONG)
def test_each_mistake_is_told_at_its_line_with_its_cure(
    folder: Path, good: str, bad: str, line: int, words: str, whole: str = GOOD
) -> None:
    file = folder / "hello.yml"
    file.write_text(whole)
    assert told(file) == ""
    assert good in whole
    file.write_text(whole.replace(good, bad, 1))
    said = told(file)
    assert [fault for fault in said.splitlines() if f"hello.yml:{line}: " in fault and words in fault], said


@pytest.mark.parametrize(("good", "bad", "line", "words"), WITHOUT_ORDER)
def test_so_are_mistakes_in_campaigns_without_an_order(
    folder: Path, good: str, bad: str, line: int, words: str
) -> None:
    test_each_mistake_is_told_at_its_line_with_its_cure(folder, good, bad, line, words, OTHER)


def test_a_template_with_an_unknown_variable_is_told_at_its_own_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    include = folder.parent
    for name in ("templates", "segments"):
        shutil.copytree(settings().include / name, include / name)
    for name in ("theme.yml", "calendar.yml"):
        shutil.copy(settings().include / name, include / name)
    text = include / "templates" / "feedback_30d" / "ask.txt.j2"
    text.write_text(text.read_text() + "\n{{ customer.frist_name }}\n")
    file = folder / "hello.yml"
    file.write_text(GOOD)
    _include(monkeypatch, include)
    line = len(text.read_text().splitlines())
    assert f"ask.txt.j2:{line}" in told(file)
    assert "frist_name" in told(file)


def _include(monkeypatch: pytest.MonkeyPatch, include: Path) -> None:
    changed = settings().model_copy(update={"include": include})

    def fake() -> Settings:
        return changed

    for module in ("campaign_checks", "pipeline.campaigns", "pipeline.files", "rendering", "rendering.theme"):
        monkeypatch.setattr(f"postlude.{module}.settings", fake, raising=False)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("pauses: [{campaign: win_bakc, from: 2026-12-20, until: 2026-12-27, why: x}]", 2, 'did you mean "win_back"'),
        ("windows:\n  feedback_30: {opens: '10:00', closes: '19:00'}", 3, 'did you mean "feedback_30d"'),
        (
            "pressure:\n  caps:\n    - {most: 1, within: 30 days, campaigns: [feedback_30d, reviews]}",
            4,
            'there is no campaign "reviews"',
        ),
        ("pressure:\n  caps:\n    - {most: 1, within: 30 days, campaigns: []}", 4, "pressure.caps[0].campaigns"),
    ],
)
def test_a_campaign_misspelt_in_the_calendar_is_told_at_its_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, line: int, words: str
) -> None:
    for file in (settings().include / "campaigns").glob("*.yml"):
        shutil.copy(file, folder / file.name)
    (folder.parent / "calendar.yml").write_text(f"window: {{opens: '09:00', closes: '20:00'}}\n{text}\n")
    _include(monkeypatch, folder.parent)
    faults = [str(fault) for fault in pipeline.validate()]
    assert [fault for fault in faults if f"calendar.yml:{line}: " in fault and words in fault], faults
    assert not [fault for fault in faults if "calendar.yml" in fault.split(" ")[0] and words not in fault]


def test_a_broken_file_or_table_takes_no_other_campaign_along(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in (settings().include / "campaigns").glob("*.yml"):
        shutil.copy(file, folder / file.name)
    (folder / "hello.yml").write_text(GOOD.replace("owner", "onwer"))
    (folder.parent / "tables" / "feedback_days.yml").write_text("soap: many\n")
    _include(monkeypatch, folder.parent)
    shipped = {file.stem for file in (settings().include / "campaigns").glob("*.yml")}
    plan = load_calendar(Path(__file__).resolve().parents[1] / "include" / "calendar.yml")
    # feedback_30d reads that table
    assert {campaign.id for campaign in pipeline.sound_campaigns(plan, at("2026-11-20"))} == shipped - {
        "feedback_30d",
        "hello",
    }
    with pytest.raises(InputError, match=r"feedback_days.yml:1: soap: must be a whole number"):
        load_campaign(folder / "feedback_30d.yml")


def test_a_template_found_clean_is_looked_at_again_when_a_block_of_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs do not render every letter for everybody awkward at each step; what may have changed is not believed."""
    shutil.copytree(settings().include, tmp_path / "include")
    monkeypatch.setenv("POSTLUDE_INCLUDE", str(tmp_path / "include"))
    monkeypatch.setenv("POSTLUDE_HOME", str(tmp_path / "home"))
    settings.cache_clear()
    try:
        file = tmp_path / "include" / "campaigns" / "birthday.yml"
        looked = []
        real = campaign_checks.rendering.check
        monkeypatch.setattr(campaign_checks.rendering, "check", lambda name: looked.append(name) or real(name))
        for _ in range(3):
            assert campaign_checks.faults_of(file, load_campaign(file), remember=True) == []
        assert looked == ["birthday/card"]
        block = tmp_path / "include" / "templates" / "_base" / "soft.mjml.j2"
        block.write_text(block.read_text() + "{{ nobody.knows }}")
        for _ in range(2):
            told = campaign_checks.faults_of(file, load_campaign(file), remember=True)
            assert any(fault.file.endswith("soft.mjml.j2") for fault in told), "what is broken is told each time"
    finally:
        monkeypatch.undo()
        settings.cache_clear()
