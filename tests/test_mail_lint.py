"""`postlude lint`: what is wrong with mails although they can be rendered, and that the shipped ones have nothing of it."""

from __future__ import annotations

import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from postlude import mail_lint, preview, rendering
from postlude.errors import InputError
from postlude.rendering import RenderError, names, render, samples
from postlude.settings import settings

GOOD = '{% extends "_base/mail.mjml.j2" %}\n{% block card %}\n<mj-section><mj-column>\nBODY\n</mj-column></mj-section>\n{% endblock %}\n'
FOOT = '{% include "_base/footer.txt.j2" %}\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The shipped blocks, and one mail t/m of a test's own."""
    shutil.copytree(settings().include / "templates" / "_base", tmp_path / "_base")
    (tmp_path / "t").mkdir()
    return tmp_path


def told(folder: Path, body: str, text: str = FOOT, frame: str = GOOD) -> list[str]:
    (folder / "t/m.mjml.j2").write_text(frame.replace("BODY", body))
    (folder / "t/m.txt.j2").write_text(text)
    for language in ("en", "ko", "ja"):
        (folder / f"t/m.{language}.yml").write_text("subject: s\npreheader: p\n")
    return [str(fault).replace(f"{folder}/t/", "") for fault in mail_lint.lint(["t/m"], folder=folder).faults]


def test_every_shipped_mail_and_every_block_is_in_order(tmp_path: Path) -> None:
    found = mail_lint.lint()
    assert [str(fault) for fault in found.faults] == []
    assert [str(warning) for warning in found.warnings] == []
    shelf = preview.block_shelf(tmp_path / "templates")
    assert [
        str(fault)
        for fault in mail_lint.lint(["blocks/sheet_1", "blocks/sheet_2", "blocks/sheet_3"], folder=shelf).faults
    ] == []


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("<mj-text>fine</mj-text>", ""),
        ('<mj-text><a href="https://shop.example/only-here">a</a></mj-text>',
         'the text part does not hold the link "https://shop.example/only-here"'),
        ('<mj-text><a href="https://localhost/x">a</a></mj-text>', 'the link "https://localhost/x" has no host'),
        ('<mj-text><a href="mailto:nobody">a</a></mj-text>', 'the link "mailto:nobody" is no mail address'),
        ('<mj-button href="https://shop.example/" inner-padding="4px 8px">a</mj-button>', "is 28 px high; a finger needs 44"),
        ('<mj-text><a href="https://shop.example/" style="display: block; padding: 6px 0; line-height: 20px;">a</a></mj-text>',
         "is 32 px high"),
        ('<mj-text><img src="https://shop.example/a.png" alt="a" /></mj-text>', "has no width"),
        ('<mj-text color="#bbbbbb">pale</mj-text>', '"pale" is #bbbbbb on #ffffff, a contrast of 1.9'),
        ('<mj-text><p style="color: #777777; background-color: #eeeeee;">pale</p></mj-text>', "a contrast of 3.9"),
        ('<mj-text>\n<p style="margin: 0; display: flex;">a</p></mj-text>', "m.mjml.j2:5: style: display: flex is not known to Outlook"),
        ('<mj-text><p style="position: absolute">a</p></mj-text>', "m.mjml.j2:4: style: position is not known to Gmail"),
        ('<mj-text><p style="width: calc(1px)">a</p></mj-text>', "calc() is not known"),
        ('<mj-text><p style="margin: -4px 0">a</p></mj-text>', "a negative length is not known"),
        ('<mj-image src="https://shop.example/a.png" />', "m.mjml.j2:4: alt: is missing"),
    ],
)  # fmt: skip
def test_what_readers_would_stumble_over_is_told(folder: Path, body: str, expected: str) -> None:
    faults = told(folder, body)
    assert any(expected in fault for fault in faults) if expected else faults == [], faults


def test_a_mail_without_footer_misses_returns_contact_and_the_way_out(folder: Path) -> None:
    styles = '<mj-head><mj-style>\n@import "x";\n</mj-style></mj-head>'
    bare = f"<mjml>{styles}<mj-body><mj-section><mj-column>BODY</mj-column></mj-section></mj-body></mjml>"
    faults = told(folder, "<mj-text>a</mj-text>", "a\n", bare)
    for missing in (
        "returns policy",
        "reach a person",
        "way out",
        "language and direction",
        "m.mjml.j2:2: style: @import",
    ):
        assert any(missing in fault for fault in faults), (missing, faults)


def test_a_language_without_words_is_a_warning_and_an_unknown_word_a_fault(folder: Path) -> None:
    assert told(folder, "<mj-text>a</mj-text>") == []
    (folder / "t/m.ja.yml").unlink()
    (folder / "t/m.ko.yml").write_text("subject: s\npreheadr: p\n")
    found = mail_lint.lint(["t/m"], folder=folder)
    assert [str(w).replace(f"{folder}/", "") for w in found.warnings] == [
        "t/m.ja.yml: is not there; who reads ja gets the English mail"
    ]
    assert any("preheader" in str(fault) for fault in found.faults), found.faults


def test_colours_that_cannot_be_read_are_told_at_their_line_light_and_dark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    include = tmp_path / "include"
    shutil.copytree(settings().include / "templates", include / "templates")
    (include / "themes").mkdir()
    shutil.copy(settings().include / "theme.yml", include)
    (include / "themes" / "pale.yml").write_text("colours:\n  soft: '#999999'\n  dark_ink: '#444444'\n")
    changed = settings().model_copy(update={"include": include})
    for module in ("mail_lint", "rendering", "rendering.theme", "rendering.short"):
        monkeypatch.setattr(f"postlude.{module}.settings", lambda: changed)
    faults = [str(fault) for fault in mail_lint.lint(["win_back/coupon"]).faults]
    assert any("pale.yml:2: colours.soft: #999999 on card" in fault for fault in faults), faults
    assert any("pale.yml:3: colours.dark_ink: #444444 on dark_card" in fault for fault in faults), faults
    assert all("pale.yml" in fault for fault in faults)


def test_a_family_is_looked_at_whole_and_a_name_that_is_not_there_is_said() -> None:
    assert mail_lint.lint(["how_to_apparel"]) == ([], [], 4)
    with pytest.raises(InputError, match='there is no template "how_to_aparel"; did you mean "how_to_apparel"'):
        mail_lint.lint(["how_to_aparel"])


def test_addresses_that_nobody_answers_are_found_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Site(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200 if self.path == "/there" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    here = f"http://127.0.0.1:{server.server_port}"
    dead = [str(f) for f in mail_lint._dead({f"{here}/there": "", f"{here}/gone": "", "https://shop.example/": ""})]
    server.shutdown()
    server.server_close()
    assert dead == [f"{here}/gone: answers 404; mend the address where it is written"]


# ---------------------------------------------------------------- people nobody thought of


@pytest.mark.parametrize(
    "name", ["{{7*7}}", "<script>alert(1)</script>", "Eve\r\nBcc: all@customers.example", "'; drop table", "\u202eanA"]
)
def test_a_hostile_name_is_shown_harmlessly_or_not_at_all(name: str) -> None:
    for template in names():
        context = samples(template)["ana"]
        context["customer"] = context["customer"] | {"first_name": name}
        mail = render(template, context)
        assert "<script" not in mail.html
        assert "49" not in mail.subject
        assert "\r" not in mail.subject + mail.preheader
        assert "\n" not in mail.subject + mail.preheader
        assert not any(line.startswith("Bcc:") for line in mail.text.splitlines())
        assert "\u202e" not in mail.subject + mail.text


@pytest.mark.real_data
def test_no_naughty_string_breaks_a_mail(real_data: Path) -> None:
    """Each of the Big List of Naughty Strings as name, as product, as reason, in a mail with all of it."""
    strings = json.loads((real_data / "strings" / "blns.json").read_text())
    assert len(strings) > 500
    template = "feedback_30d/ask"
    usual = samples(template)["ana"]
    tags = render(template, usual).html.count("<")
    for naughty in strings:
        context = usual | {
            "customer": usual["customer"] | {"first_name": naughty},
            "item": usual["item"] | {"name": naughty},
        }
        try:
            mail = render(template, context)
        except RenderError as error:
            assert error.reason.startswith("the subject is empty"), (naughty, error)
            continue
        assert mail.html.count("<") == tags, f"{naughty!r} made or broke a tag"
        assert "\n" not in mail.subject
        assert mail.subject.isprintable() or any(ord(char) > 127 for char in mail.subject)
        assert usual["links"]["unsubscribe"] in mail.text


def test_a_huge_include_is_refused_and_one_that_calls_itself_too(folder: Path) -> None:
    (folder / "_base/huge.mjml.j2").write_text("<mj-text>" + "x" * 250_000 + "</mj-text>")
    assert any(
        "is longer than 200,000 characters" in fault for fault in told(folder, '{% include "_base/huge.mjml.j2" %}')
    )
    (folder / "_base/vast.mjml.j2").write_text("x" * 1_100_000)
    assert any(
        "is larger than 1,000,000 bytes" in fault for fault in told(folder, '{% include "_base/vast.mjml.j2" %}')
    )
    (folder / "_base/self.mjml.j2").write_text('{% include "_base/self.mjml.j2" with text=arg.text %}')
    assert any("includes itself" in fault for fault in told(folder, '{% include "_base/self.mjml.j2" with text="x" %}'))
    (folder / "_base/wide.mjml.j2").write_text('{% include "_base/huge2.mjml.j2" %}' * 100)
    (folder / "_base/huge2.mjml.j2").write_text("<mj-text>" + "x" * 50_000 + "</mj-text>")
    assert any("is longer than" in fault for fault in told(folder, '{% include "_base/wide.mjml.j2" %}'))


@pytest.mark.parametrize(
    "word",
    [
        "{{ ''.__class__ }}",
        "{{ 'a' * 10**9 }}",
        "{% for a in range(10**9) %}x{% endfor %}",
        "{% include 'theme.yml' %}",
        "{{ why.upper() }}",
    ],
)
def test_words_reach_no_more_of_python_than_templates_do(folder: Path, word: str) -> None:
    told(folder, "<mj-text>{{ t.say }}</mj-text>", "{{ t.say }}\n" + FOOT)
    (folder / "t/m.en.yml").write_text(f"subject: s\npreheader: p\nsay: {json.dumps(word)}\n")
    with pytest.raises((rendering.TemplateFault, RenderError)) as refusal:
        render("t/m", samples("t/m")["ana"], folder=folder)
    assert "m.en.yml:3" in str(refusal.value)
