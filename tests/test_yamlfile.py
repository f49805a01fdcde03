"""What people write in YAML is read as they mean it, and every mistake is named with its line."""

from __future__ import annotations

from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field, ValidationError, field_validator

from postlude import yamlfile
from postlude.errors import InputError
from postlude.timing import Duration, WallTime


class Step(yamlfile.Strict):
    template: str
    after: Duration = timedelta(0)
    number: int = Field(1, ge=1)


class Plan(yamlfile.Strict):
    id: str
    kind: Literal["marketing", "transactional"] = "marketing"
    active: bool = True
    at: WallTime = time(9)
    day: date | None = None
    price: Decimal = Decimal(0)
    steps: tuple[Step, ...] = ()
    by_country: dict[str, Step] = Field(default_factory=dict)
    best: Step | None = None

    @field_validator("id")
    @classmethod
    def _lower(cls, value: str) -> str:
        if value != value.lower():
            raise ValueError(f'"{value}" must be lower case')
        return value


def faults(text: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        yamlfile.parse(text, "plan.yml", Plan)
    return [str(fault) for fault in caught.value.faults]


def test_values_are_read_as_people_mean_them() -> None:
    plan = yamlfile.parse(
        "id: no\nat: 09:30\nday: 2026-12-01\nprice: 1.50\nactive: false\nsteps:\n- template: 007\n  after: 5 days\n",
        "plan.yml",
        Plan,
    )
    assert plan == Plan(
        id="no", at=time(9, 30), day=date(2026, 12, 1), price=Decimal("1.5"), active=False,
        steps=(Step(template="007", after=timedelta(days=5)),),
    )  # fmt: skip


@pytest.mark.parametrize("word", ["yes", "no", "on", "off", "Yes", "TRUE", "1", '"true"'])
def test_only_true_and_false_are_true_and_false(word: str) -> None:
    (fault,) = faults(f"id: a\nactive: {word}\n")
    assert fault.startswith("plan.yml:2: active: must be true or false, not")


@pytest.mark.parametrize(
    "word", ["2026-12-01", "12:30:00", "1e3", "0x1f", "1_000", ".inf", ".nan", "0o17", "~x", "yes"]
)
def test_words_that_yaml_1_1_would_turn_into_something_else_stay_text(word: str) -> None:
    assert yamlfile.parse(f"id: {word}\n", "plan.yml", Plan).id == word


def test_every_fault_is_told_at_once_with_its_line_and_the_cure() -> None:
    assert faults(
        """\
id: 5
kind: marketin
at: 25:00
day: 1.12.2026
price: cheap
colour: red
steps:
- tempalte: hello
  after: 5 dayz
- template: [a]
  number: 1.5
- template: b
  number: 0
by_country:
  de: {}
best: none
"""
    ) == [
        'plan.yml:1: id: must be text, not "5"; put it in quotes',
        'plan.yml:2: kind: must be one of marketing, transactional, not "marketin"; did you mean "marketing"?',
        'plan.yml:3: at: "25:00" is not a time of day; write e.g. "09:30"',
        'plan.yml:4: day: must be a date such as 2026-12-01, not "1.12.2026"',
        'plan.yml:5: price: must be a number, not "cheap"',
        "plan.yml:6: colour: unknown key; known: active, at, best, by_country, day, id, kind, price, steps",
        'plan.yml:8: steps[0].template: is missing; add a line "template: ..."',
        'plan.yml:8: steps[0].tempalte: unknown key; did you mean "template"?',
        'plan.yml:9: steps[0].after: "5 dayz" is not a duration; write e.g. "5 days" or "12 hours"',
        "plan.yml:10: steps[1].template: must be text, not a list",
        'plan.yml:11: steps[1].number: must be a whole number, not "1.5"',
        'plan.yml:13: steps[2].number: must be at least 1, not "0"',
        'plan.yml:15: by_country.de.template: is missing; add a line "template: ..."',
        'plan.yml:16: best: must be a block of "key: value" lines, not "none"',
    ]


def test_the_words_of_a_model_reach_the_reader_unchanged() -> None:
    assert faults("id: Winback\n") == ['plan.yml:1: id: "Winback" must be lower case']


def test_unknown_keys_deep_inside_get_a_suggestion_too() -> None:
    assert faults(
        "id: a\nbest:\n  template: x\n  numbr: 2\nby_country:\n  at:\n    template: x\n    aftr: 1 day\n"
    ) == [
        'plan.yml:4: best.numbr: unknown key; did you mean "number"?',
        'plan.yml:8: by_country.at.aftr: unknown key; did you mean "after"?',
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "plan.yml:1: the file is empty"),
        ("# nothing\n", "plan.yml:1: the file is empty"),
        ("- a\n", 'plan.yml:1: must be a list of "key: value" lines'),
        ("id: a\nid: b\n", "plan.yml:2: id: stands here again (first in line 1); keep one"),
        ("id: a\nsteps: [\n", "plan.yml:3: is not valid YAML"),
        ("id: a\n\tkind: b\n", "plan.yml:2: is not valid YAML: found a tab"),
        ("id: a: b\n", "plan.yml:1: is not valid YAML"),
        ("id: !!python/object:os.system x\n", "plan.yml:1: the tag "),
        ("id: a\n---\nid: b\n", "plan.yml:2: a second document starts here"),
        ("? [a]\n: b\n", "plan.yml:1: a key must be one word"),
        ("id: *nobody\n", "plan.yml:1: *nobody names no earlier &nobody"),
        ("id: &a [*a]\n", "plan.yml:1: *a names no earlier &a"),
        ("id: " + "[" * 5000 + "\n", "plan.yml:1: is nested deeper than 24 levels"),
        ("id: a\nkind: x\x07y\n", "plan.yml:2: holds a character that YAML does not allow"),
    ],
)
def test_text_that_is_no_plain_yaml_is_refused_with_its_line(text: str, fault: str) -> None:
    assert faults(text)[0].startswith(fault)


def test_a_file_that_explodes_through_aliases_is_refused_at_once() -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    for last, letter in zip("abcdefghij", "bcdefghijk", strict=True):
        bomb += f"{letter}: &{letter} [{', '.join([f'*{last}'] * 9)}]\n"
    assert "holds more than 100,000 values when its aliases are written out" in faults(bomb)[0]
    chain = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [[[*a{n - 1}]]]\n" for n in range(1, 200))
    assert "is nested deeper than 24 levels" in faults(chain)[0]


def test_aliases_in_moderation_are_fine() -> None:
    plan = yamlfile.parse("id: a\nsteps:\n- &s {template: x}\n- *s\n", "plan.yml", Plan)
    assert plan.steps == (Step(template="x"), Step(template="x"))


def test_files_are_named_relative_to_where_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "include").mkdir()
    file = tmp_path / "include" / "plan.yml"
    file.write_bytes(b"id: a\nkind: caf\xe9\n")
    with pytest.raises(InputError, match=r"^include/plan.yml:2: byte 0xe9 is not UTF-8; save the file as UTF-8$"):
        yamlfile.load(file, Plan)
    with pytest.raises(InputError, match=r"^include/none.yml: there is no such file; check the name$"):
        yamlfile.load(tmp_path / "include" / "none.yml", Plan)
    with pytest.raises(InputError, match=r"^include: cannot be read"):
        yamlfile.load("include", Plan)
    monkeypatch.chdir(tmp_path / "include")
    file.write_bytes(b"\xef\xbb\xbfid: Big\n")
    with pytest.raises(InputError, match=r"^plan.yml:1: id:"):
        yamlfile.load(file, Plan)
    assert yamlfile.line_of(file, ("id",)) == 1


def test_what_was_loaded_does_not_change() -> None:
    plan = yamlfile.parse("id: a\n", "plan.yml", Plan)
    with pytest.raises(ValidationError):
        plan.id = "b"  # type: ignore[misc]
