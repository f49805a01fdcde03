"""The blocks mails are built from: in every language, for every kind of person, as markup and as text."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from postlude import preview, rendering
from postlude.errors import InputError
from postlude.rendering import check, render, samples
from postlude.settings import settings

LANGUAGES = ("en", "ko", "ja")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped blocks, and templates that use all of them: t/all, t/rest, and t/cart for the items of a cart."""
    folder = preview.block_shelf(tmp_path_factory.mktemp("blocks") / "templates", LANGUAGES)
    (folder / "t").mkdir()
    cart = {"mjml": "items=cart.items, currency=cart.currency", "txt": "items=cart.items, currency=cart.currency"}
    for kind, given in cart.items():
        sheets = [(folder / f"blocks/sheet_{n}.{kind}.j2").read_text() for n in (1, 2, 3)]
        rows = ["\n".join(re.findall(r'\{% include "_base/(?!footer).*?%\}', sheet)) for sheet in sheets]
        bodies = {
            "all": rows[0] + rows[1],
            "rest": rows[2],
            "cart": f'{{% include "_base/items.{kind}.j2" with {given} %}}',
        }
        for name, body in bodies.items():
            whole = '{% extends "_base/mail.mjml.j2" %}{% block card %}' + body + "{% endblock %}"
            text = body + '\n{% include "_base/footer.txt.j2" %}\n'
            (folder / f"t/{name}.{kind}.j2").write_text(whole if kind == "mjml" else text)
    for language in LANGUAGES:
        for name in ("all", "rest", "cart"):
            shutil.copy(folder / f"blocks/sheet_1.{language}.yml", folder / f"t/{name}.{language}.yml")
    return folder


def test_every_block_is_whole_for_every_person_in_every_language(shelf: Path) -> None:
    assert [str(fault) for fault in check("t/all", folder=shelf)] == []
    assert [str(fault) for name in ("t/rest", "t/cart") for fault in check(name, folder=shelf)] == []


def test_every_block_there_is_stands_in_the_manual_and_here() -> None:
    folder = settings().include / "templates" / "_base"
    parts = {"mail", "look", "footer", "gap", "ends", "answers", "reason", "scores", "tips"}
    there = {path.name.split(".")[0] for path in folder.glob("*.j2")} - parts
    manual = (Path(__file__).parents[1] / "docs" / "blocks.md").read_text()
    assert there == set(preview.BLOCKS)
    assert [name for name in there if f"`{name}`" not in manual] == []
    assert [name for name in there if len(list(folder.glob(f"{name}.*.j2"))) != 2] == []


def test_the_three_languages_say_the_same_things() -> None:
    folder = settings().include / "templates" / "_base"
    from postlude.rendering.words import of

    keys = {language: set(of(folder / f"words.{language}.yml", Path.read_text)) for language in LANGUAGES}
    assert keys["ko"] == keys["en"] == keys["ja"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_text_says_the_same_links_as_the_markup(shelf: Path, language: str) -> None:
    for name, least in (("t/all", 10), ("t/rest", 20)):
        mail = render(name, samples()["ana"], language, folder=shelf)
        links = set(re.findall(r'href="(https://[^"]+)"', mail.html))
        assert len(links) >= least
        assert [link for link in links if link.replace("&amp;", "&") not in mail.text] == []


def test_a_split_order_is_told_plainly(shelf: Path) -> None:
    said = {language: render("t/all", samples()["ana"], language, folder=shelf).text for language in LANGUAGES}
    assert "1 of 2: on its way, expected Friday, September 18\n" in said["en"]
    assert "2 of 2: follows, expected Tuesday, September 22\n" in said["en"]
    assert "2개 중 2번째: 뒤이어 출발해요, 9월 22일 화요일 도착 예정\n" in said["ko"]
    assert "2個中2個目: 続いてお送りします、9月22日火曜日にお届けの予定\n" in said["ja"]
    one = samples()["ana"]["shipments"][:1]
    assert "1 of" not in render("t/all", samples()["ana"] | {"shipments": one}, folder=shelf).text


def test_every_recommendation_comes_with_its_reason(shelf: Path) -> None:
    text = render("t/all", samples()["ana"], folder=shelf).text
    for reason in (
        "Goes well with Waxed canvas",
        "Often bought together with Linen",
        "Similar to Waxed",
        "Loved by many",
    ):
        assert reason in text


def test_amounts_are_written_as_the_language_writes_them(shelf: Path) -> None:
    said = {language: render("t/all", samples()["ana"], language, folder=shelf).text for language in ("en", "ko", "ja")}
    assert all("€264.00" in text for text in said.values())
    assert "1,240 points" in said["en"]
    assert "1,240포인트" in said["ko"]
    assert "1,240ポイント" in said["ja"]


def test_a_shop_of_its_own_look_keeps_the_rest_of_the_theme(tmp_path: Path) -> None:
    (tmp_path / "themes").mkdir()
    shutil.copy(settings().include / "theme.yml", tmp_path)
    own = tmp_path / "themes" / "second.yml"
    own.write_text("colours:\n  accent: '#aa0000'\nshop:\n  name: Second\n")
    common = rendering.load_theme(tmp_path / "theme.yml")
    theme = rendering.load_theme(tmp_path / "theme.yml", shop="second")
    assert (theme.colours.accent, theme.colours.ink) == ("#aa0000", common.colours.ink)
    assert (theme.shop.name, theme.shop.url) == ("Second", common.shop.url)
    assert rendering.load_theme(tmp_path / "theme.yml", shop="second") is theme
    assert rendering.load_theme(tmp_path / "theme.yml", shop="third") == common
    own.write_text("colours:\n  acent: '#aa0000'\n  ink: red\n")
    with pytest.raises(InputError) as error:
        rendering.load_theme(tmp_path / "theme.yml", shop="second")
    assert {(fault.line, fault.key) for fault in error.value.faults} == {(2, "colours.acent"), (3, "colours.ink")}
