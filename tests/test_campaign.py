"""Campaign and calendar files: what may be written, and what people are told when it is wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from postlude import yamlfile
from postlude.calendar import load_calendar
from postlude.campaign import Campaign, Trigger, load_campaign, load_campaigns
from postlude.conditions import Condition
from postlude.errors import InputError
from postlude.settings import settings

ROOT = Path(__file__).resolve().parents[1]
GOOD = """\
id: hello
name: Hello
owner: team
trigger: {enters: lapsed, entry: existing, max_age: 3 days, once_per: episode}
exit_on: [ordered]
why: Because.
steps:
  - id: one
    template: win_back/miss_you
    on_day: 0
    expires_after: 3 days
"""

WRONG = [
    ("id: hello", "id: other", 1, 'must be the file name, "hello"'),
    ("owner: team", "ownr: team", 3, 'did you mean "owner"'),
    ("entry: existing, ", "", 4, "trigger.entry"),
    ("entry: existing", "entry: everybody", 4, "from_now_on"),
    ("max_age: 3 days", "max_age: 3 dayz", 4, "not a duration"),
    ("max_age: 3 days", "max_age: 1 month", 4, "not a duration"),
    ("enters: lapsed, ", "", 4, "none is named"),
    ("enters: lapsed", "enters: lapsed, event: delivered", 4, "these are named: event, enters"),
    ("once_per: episode", "once_per: order", 4, "once_per: episode"),
    ("exit_on: [ordered]", "exit_on: [bought]", 5, "ordered"),
    ("exit_on: [ordered]", "exit_on: [reviewed]", 5, "no order"),
    ("why: Because.", "goal: reviewed\nwhy: Because.", 1, "must also be in exit_on"),
    ("why: Because.", "audience: {holdout: 1.0}\nwhy: Because.", 6, "holdout"),
    ("why: Because.", "audience: {holdout: 10 %}\nwhy: Because.", 6, "holdout"),
    ("why: Because.", "kind: spam\nwhy: Because.", 6, "marketing"),
    ("on_day: 0", "on_day: -1", 10, "on_day"),
    ("on_day: 0", "on_day: 0\n    after: 3 hours", 8, 'either "on_day"'),
    ("    on_day: 0\n", "", 8, 'either "on_day"'),
    ("on_day: 0", "on_day: 0\n    at: 9:75", 11, "time of day"),
    ("on_day: 0", "on_day: zero", 10, "on_day"),
    ("expires_after: 3 days", "expires_after: 10 minutes", 8, "at least 1 hour"),
    ("template: win_back/miss_you", "tempalte: win_back/miss_you", 9, 'did you mean "template"'),
    ("template: win_back/miss_you", "template: ../../etc/passwd", 9, "template"),
    ("expires_after: 3 days", "expires_after: 3 days\n    coupon: {pool: x1, percent: 95, valid: 1 week}", 12, "percent"),
    ("steps:\n", "steps: []\nother:\n", 7, "steps"),
    ("why: Because.", "why: Because.\nwhy: Again.", 7, "why"),
    ("name: Hello", "name: [Hello", 3, "indentation, quotes"),
]  # fmt: skip


@pytest.mark.parametrize(("good", "bad", "line", "told"), WRONG)
def test_every_mistake_is_told_with_its_line_and_cure(
    tmp_path: Path, good: str, bad: str, line: int, told: str
) -> None:
    file = tmp_path / "hello.yml"
    file.write_text(GOOD)
    assert load_campaign(file).id == "hello"
    assert good in GOOD
    file.write_text(GOOD.replace(good, bad, 1))
    with pytest.raises(InputError) as error:
        load_campaign(file)
    assert f"hello.yml:{line}:" in str(error.value)
    assert told in str(error.value)


def test_all_mistakes_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "hello.yml").write_text(
        GOOD.replace("owner: team", "ownr: team").replace("3 dayz", "x").replace("on_day: 0", "on_day: x")
    )
    (tmp_path / "other.yml").write_text(GOOD)
    with pytest.raises(InputError) as error:
        load_campaigns(tmp_path)
    told = str(error.value)
    assert "hello.yml:3: ownr" in told
    assert "on_day" in told
    assert "other.yml:1: id" in told


def test_two_steps_with_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "hello.yml").write_text(GOOD + GOOD.partition("steps:\n")[2])
    with pytest.raises(InputError, match='two steps are called "one"'):
        load_campaign(tmp_path / "hello.yml")


def test_the_shipped_files_are_in_order_and_in_words() -> None:
    campaigns = load_campaigns(settings().include / "campaigns")
    assert {"feedback_30d", "win_back", "loyalty_join"} <= {c.id for c in campaigns}
    for campaign in campaigns:
        assert campaign.in_words()[0].startswith("Starts when")
        assert (
            Campaign.model_validate({k: v for k, v in campaign.definition().items() if k in Campaign.model_fields})
            == campaign
        )
    load_calendar(settings().include / "calendar.yml")


def test_the_version_follows_the_content_and_not_the_spelling(tmp_path: Path) -> None:
    file = tmp_path / "hello.yml"
    file.write_text(GOOD)
    first = load_campaign(file).version
    file.write_text("# a comment\n" + GOOD.replace("3 days", "72 hours"))
    assert load_campaign(file).version == first
    file.write_text(GOOD.replace("on_day: 0", "on_day: 1"))
    assert load_campaign(file).version != first


def test_the_schema_for_editors_is_up_to_date() -> None:
    kept = json.loads((ROOT / "docs" / "campaign.schema.json").read_text())
    assert kept == Campaign.model_json_schema(), "run: postlude schema > docs/campaign.schema.json"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("window: {opens: '20:00', closes: '09:00'}", "it must open first"),
        ("window: {opens: '9 am', closes: '20:00'}", "time of day"),
        ("window: {opens: '09:00', closes: '20:00', days: []}", "at least one"),
        (
            "window: {opens: '09:00', closes: '20:00'}\npauses: [{campaign: all, from: 2026-12-27, until: 2026-12-20, why: x}]",
            "before it begins",
        ),
        ("window: {opens: '09:00', closes: '20:00'}\nblackout_days: [{date: 2026-02-30, why: x}]", "is not a date"),
        ("window: {opens: '09:00', closes: '20:00'}\nblackouts: []", 'did you mean "blackout_days"'),
    ],
)
def test_an_impossible_calendar_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "calendar.yml").write_text(text)
    with pytest.raises(InputError, match=told):
        load_calendar(tmp_path / "calendar.yml")


def test_the_manual_names_every_key_of_a_campaign_file() -> None:
    manual = (ROOT / "docs" / "campaigns.md").read_text()
    named = set(re.findall(r"[a-z_]+", " ".join(re.findall(r"`([^`\n]+)`", manual))))
    schema = Campaign.model_json_schema()
    blocks = [schema, *schema["$defs"].values()]
    keys = {key for block in blocks for key in block.get("properties", {})}
    words = {
        word
        for word in re.findall(r'"(?:const|enum)": \[?([^\]}]+)', json.dumps(schema))
        for word in re.findall(r'"(\w+)"', word)
    }
    assert len(keys) > 50
    assert len(words) > 30
    assert keys - named == set()
    assert words - named == set()


def test_the_examples_of_the_manual_are_read_as_they_stand() -> None:
    manual = (ROOT / "docs" / "campaigns.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", manual, re.DOTALL)
    assert len(blocks) >= 5
    for block in blocks:
        for line in re.findall(r"^(trigger|only_if): (\{.*\})$", block, re.MULTILINE):
            model = {"trigger": Trigger, "only_if": Condition}[line[0]]
            yamlfile.parse(line[1], "manual", model)
    branch = next(block for block in blocks if "branch: mood" in block)
    yamlfile.parse(GOOD.partition("steps:")[0] + "steps:\n" + branch, "manual", Campaign)
    yamlfile.parse(blocks[0], "manual", Campaign)
