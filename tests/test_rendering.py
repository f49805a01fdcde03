"""Templates: what marketers may write, what they are told when it is wrong, and that no data can break a mail."""

from __future__ import annotations

import datetime as dt
import random
import re
import time
from decimal import Decimal
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from babel.numbers import format_currency
from markupsafe import Markup

from postlude import rendering
from postlude.errors import InputError
from postlude.rendering import (
    CONTEXT,
    Content,
    RenderError,
    TemplateFault,
    check,
    mjml,
    names,
    render,
    samples,
    sandbox,
)
from postlude.rendering import source as sources

SHIPPED = [
    "feedback_30d/ask",
    "loyalty_join/invite",
    "win_back/coupon",
    "win_back/last_word",
    "win_back/miss_you",
    "win_back/whats_new",
]
START = sources.Origin("m", 1)
MAIL = "<mjml><mj-body>\n{}\n</mj-body></mjml>"
COLUMN = "<mj-section><mj-column>\n{}\n</mj-column></mj-section>"


class Shelf:
    """A folder of templates of a test's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def mail(self, body: str = "<mj-text>x</mj-text>", text: str = "x", subject: str = "s", language: str = "") -> None:
        """The template t/m, `body` inside a column from line 3 on."""
        self.write(f"t/m{language}.mjml.j2", MAIL.format(COLUMN.format(body)))
        self.write(f"t/m{language}.txt.j2", text)
        self.write(f"t/m{language}.subject.j2", f"subject: {subject}\npreheader: p\n")

    def render(self, locale: str = "en", **context: Any) -> Content:
        return render("t/m", context, locale, folder=self.folder)

    def faults(self) -> list[str]:
        return [str(fault).replace(f"{self.folder}/t/", "") for fault in check("t/m", folder=self.folder)]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "templates")


class Page(HTMLParser):
    """Tags and visible words of HTML, as a mail program reads it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data

    def all(self, tag: str, key: str) -> list[str]:
        return [attributes.get(key) or "" for name, attributes in self.tags if name == tag]


# ---------------------------------------------------------------- the shipped mails


def test_the_first_shipped_templates_are_there_and_without_fault() -> None:
    """All others: test_mail_lint.py."""
    assert set(SHIPPED) <= set(names())
    assert {name: [str(fault) for fault in check(name)] for name in SHIPPED} == {name: [] for name in SHIPPED}


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("person", samples())
def test_every_mail_is_whole_for_every_kind_of_person(name: str, person: str) -> None:
    context = samples(name)[person]
    mail = render(name, context)
    page = Page(mail.html)
    for body in (page.words, mail.text):
        assert context["why"] in body
        assert "12 Orchard Lane" in body
    assert context["links"]["unsubscribe"] in page.all("a", "href")
    assert context["links"]["unsubscribe"] in mail.text
    assert len(mail.html.encode()) < 30_000
    assert all(re.match(r"https?://|mailto:", link) for link in page.all("a", "href"))
    assert not {"script", "iframe", "form"} & {tag for tag, _ in page.tags}
    assert len(page.all("img", "alt")) == len(page.all("img", "src"))
    assert not re.search(r"\{\{(?!7\*7)|\{%|qzj\d|Undefined|None", mail.html + mail.text)
    for header in (mail.subject, mail.preheader):
        assert header == " ".join(header.split()) != ""
        assert len(header) <= 250
        assert header.isprintable() or "\u200d" in header


def test_hostile_names_arrive_as_harmless_text() -> None:
    mail = render("feedback_30d/ask", samples()["markup"])
    assert "onerror" not in mail.html, "what is no name is not greeted with"
    assert "Mug &lt;b&gt;&#34;blue&#34;&lt;/b&gt; &amp; &#39;co&#39; {{7*7}}" in mail.html
    assert "Mug <b>\"blue\"</b> & 'co' {{7*7}}" in mail.text
    assert "Mug <b>\"blue\"</b> & 'co' {{7*7}}" in mail.subject


def test_a_line_break_in_a_name_cannot_make_a_header() -> None:
    mail = render("feedback_30d/ask", samples()["header"])
    assert mail.subject == "How is your Tea Subject: free money?"
    assert "\nBcc" not in mail.text
    assert "\nSubject" not in mail.text


def test_a_person_without_a_first_name_is_greeted_without_a_gap() -> None:
    for name in SHIPPED:
        assert render(name, samples(name)["no name"]).text.startswith("Hello,\n")
        assert render(name, samples(name)["ana"]).text.startswith("Hi Ana,\n")


@pytest.mark.parametrize(
    "name", ["http://evil.example", "www.evil.example", "a@customers.example", "X" * 41, "{{7*7}}", "Call 0800555"]
)
def test_what_is_no_name_is_not_greeted_with(name: str) -> None:
    context = samples()["ana"] | {"customer": {"first_name": name, "locale": "en", "country": "GB"}}
    mail = render("win_back/miss_you", context)
    assert mail.subject == "It has been a while"
    assert name not in mail.html + mail.text


def test_the_feedback_mail_names_the_item_and_asks_with_five_links() -> None:
    context = samples()["ana"]
    mail = render("feedback_30d/ask", context)
    assert "Waxed canvas weekender bag" in mail.subject
    links = [link for link in Page(mail.html).all("a", "href") if "/s/" in link]
    assert links == list(context["links"]["score"].values())
    assert all(link in mail.text for link in links)


def test_the_first_win_back_mail_holds_no_discount_and_the_third_does() -> None:
    context = samples()["ana"]
    first, third = render("win_back/miss_you", context), render("win_back/coupon", context)
    assert context["coupon"]["code"] not in first.html + first.text
    assert "%" not in first.subject + first.text
    assert context["coupon"]["code"] in Page(third.html).words
    assert "November 2, 2026" in third.text
    assert third.subject.startswith("15% off")


def test_a_coupon_mail_without_a_coupon_skips_that_person() -> None:
    with pytest.raises(
        RenderError,
        match=r"a value is missing \(.*win_back/coupon\.en\.yml:1: \{\{ coupon\.percent\|percent \}\}\)",
    ):
        render("win_back/coupon", samples()["ana"] | {"coupon": None})


def test_one_mail_takes_less_than_a_millisecond_after_the_first() -> None:
    context = samples()["ana"]
    render("win_back/coupon", context)
    begin = time.process_time()
    for _ in range(300):
        render("win_back/coupon", context)
    assert (time.process_time() - begin) / 300 < 0.001  # about 0.1 ms on a quiet machine


def test_the_same_input_gives_the_same_bytes() -> None:
    assert render("feedback_30d/ask", samples()["ana"]) == render("feedback_30d/ask", samples()["ana"])


# ---------------------------------------------------------------- MJML and Jinja together


def test_loops_survive_inside_tables_between_sections_and_between_columns(shelf: Shelf) -> None:
    rows = (
        "<mj-table>{% for i in items %}<tr>{% if i.url %}<td>{{ i.name }}</td>{% endif %}</tr>{% endfor %}</mj-table>"
    )
    shelf.write(
        "t/m.mjml.j2",
        MAIL.format(
            "{% for i in items %}<mj-section>{% for j in items %}<mj-column>{% if j.url %}<mj-text>"
            "({{ i.name }}{{ j.name }})</mj-text>{% endif %}</mj-column>{% endfor %}</mj-section>{% endfor %}"
            "<mj-wrapper>{% for i in items %}" + COLUMN.format(rows) + "{% endfor %}</mj-wrapper>"
        ),
    )
    shelf.write("t/m.txt.j2", "x")
    shelf.write("t/m.subject.j2", "subject: s\npreheader: p")
    items = [{"name": name, "url": "https://shop.example"} for name in "abc"]
    html = shelf.render(items=items).html
    assert re.findall(r"\((\w\w)\)", html) == [i + j for i in "abc" for j in "abc"]
    assert re.findall(r"<tr><td>(\w)</td></tr>", html) == list("abcabcabc")
    assert "<td>" not in shelf.render(items=[]).html.split("<body", 1)[1].split("(", 1)[0].replace("<td style", "")


def test_mjml_is_compiled_once_for_any_number_of_people(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    original = mjml.mjml2html
    monkeypatch.setattr(mjml, "mjml2html", lambda *a, **k: compiled.append(1) or original(*a, **k))
    shelf.mail("<mj-text>{{ why }} once only</mj-text>")
    for number in range(20):
        assert f"{number} once only" in shelf.render(why=str(number)).html
    assert len(compiled) == 1


def test_an_edited_template_is_used_by_the_next_mail(shelf: Shelf) -> None:
    shelf.write("_base/part.mjml.j2", "<mj-text>first</mj-text>")
    shelf.mail('{% include "_base/part.mjml.j2" %}')
    assert "first" in shelf.render().html
    shelf.write("_base/part.mjml.j2", "<mj-text>second word</mj-text>")
    assert "second word" in shelf.render().html


def test_a_tag_that_mjml_would_lose_is_named_instead_of_vanishing(shelf: Shelf) -> None:
    shelf.mail('<mj-text>a</mj-text>\n<mj-image src="https://shop.example/a.png" alt="a" width="{{ why }}" />')
    (fault,) = shelf.faults()
    assert fault.startswith("m.mjml.j2:4: {{ why }}: ")


def test_a_tag_that_mjml_repeats_or_moves_is_a_fault() -> None:
    tags = [
        sources.Piece(text, sources.Origin("m", n + 1, text), True)
        for n, text in enumerate(("{% if a %}", "{% endif %}"))
    ]
    assert [p.text for p in mjml._tags_back("<p>qzj0zqxqzj1zq</p>", tags, START)] == [
        "<p>",
        "{% if a %}",
        "x",
        "{% endif %}",
        "</p>",
    ]
    for compiled in ("qzj1zq qzj0zq", "qzj0zq qzj1zq qzj1zq", "qzj0zq qzj0zq qzj1zq"):
        with pytest.raises(TemplateFault, match="moves or repeats"):
            list(mjml._tags_back(compiled, tags, START))


def test_a_layout_holds_the_frame_and_the_page_fills_its_blocks(shelf: Shelf) -> None:
    shelf.write(
        "_base/mail.mjml.j2", MAIL.format(COLUMN.format("{% block card %}<mj-text>default</mj-text>{% endblock %}"))
    )
    shelf.mail()
    shelf.write(
        "t/m.mjml.j2",
        '{# a note #}\n{% extends "_base/mail.mjml.j2" %}\n{% block card %}<mj-text>mine</mj-text>{% endblock %}',
    )
    html = shelf.render().html
    assert "mine" in html
    assert "default" not in html
    shelf.write("t/m.mjml.j2", '{% extends "_base/mail.mjml.j2" %}')
    assert "default" in shelf.render().html


def test_text_keeps_its_line_breaks_and_tags_alone_on_a_line_leave_none(shelf: Shelf) -> None:
    shelf.mail(
        text="{% if why %}Hi {{ why }},{% else %}Hi,{% endif %}\n\n"
        "{% if why %}\n  one\n{% endif %}\n{# note #}\ntwo\n\n\n\nthree"
    )
    assert shelf.render(why="Ana").text == "Hi Ana,\n\n  one\ntwo\n\nthree\n"
    assert shelf.render(why="").text == "Hi,\n\ntwo\n\nthree\n"


def test_fixed_values_of_the_theme_may_stand_where_mjml_wants_sizes_and_colours(shelf: Shelf) -> None:
    shelf.mail('<mj-text color="{{ theme.colours.ink }}">x</mj-text>')
    assert rendering.load_theme().colours.ink in shelf.render().html
    shelf.mail("<mj-text>\n{{ theme.colours.inc }}</mj-text>")
    assert shelf.faults()[0].startswith("m.mjml.j2:4: write {{ theme.key }}")


# ---------------------------------------------------------------- languages


def test_a_language_with_files_of_its_own_is_written_in_it(shelf: Shelf) -> None:
    shelf.mail(text="{{ order.placed_on|date }}", subject="English")
    shelf.mail(text="{{ order.placed_on|date }}", subject="한국어", language=".ko")
    order = {"placed_on": dt.date(2026, 3, 1)}
    assert shelf.render("ko", order=order)[0::3] == ("한국어", "2026년 3월 1일\n")
    assert shelf.render("ko_KR", order=order).subject == "한국어"
    assert shelf.render("en-GB", order=order)[0::3] == ("English", "1 March 2026\n")
    assert shelf.render("en", order=order).text == "March 1, 2026\n"


def test_a_missing_language_falls_back_with_english_dates_in_the_english_text(shelf: Shelf) -> None:
    shelf.mail(text="{{ order.placed_on|date }} {{ coupon.percent|percent }} {{ 1234.5|money('EUR') }}")
    context: dict[str, Any] = {"order": {"placed_on": dt.date(2026, 3, 1)}, "coupon": {"percent": 15}}
    for locale in ("de", "xx", "", "../../etc", "pt-BR"):
        assert shelf.render(locale, **context).text == "March 1, 2026 15% €1,234.50\n"


def test_a_language_with_only_some_of_its_files_is_a_fault(shelf: Shelf) -> None:
    shelf.mail()
    shelf.write("t/m.ko.txt.j2", "x")
    (fault,) = check("t/m", folder=shelf.folder)
    assert "m.ko.mjml.j2, m.ko.subject.j2" in str(fault)


def test_a_mail_is_laid_out_once_and_worded_once_per_language(shelf: Shelf) -> None:
    shelf.write("_base/words.en.yml", "bye: See you\nhello: Hi\n")
    shelf.write("_base/words.ko.yml", "bye: 안녕히 계세요\nhello: 안녕하세요\n")
    shelf.write("_base/box.mjml.j2", '<mj-text><a href="{{ arg.href|url }}">{{ arg.text }}</a> {{ t.bye }}</mj-text>')
    shelf.write(
        "t/m.mjml.j2", MAIL.format(COLUMN.format('{% include "_base/box.mjml.j2" with text=t.go, href=item.url %}'))
    )
    shelf.write("t/m.txt.j2", "{{ t.hello }} {{ t.go }}: {{ item.url|url }} {{ t.bye }}")
    shelf.write("t/m.en.yml", 'subject: s {{ why }}\npreheader: p\ngo: "<b>Go & see</b> {{ item.name }}"\n')
    shelf.write("t/m.ko.yml", "subject: 제목\npreheader: p\ngo: |\n  보러\n  가기\nhello: 여보세요\n")
    item = {"name": "<i>", "url": "https://shop.example/x"}
    english, korean = (shelf.render(language, item=item, why="w") for language in ("en", "ko"))
    assert '<a href="https://shop.example/x">&lt;b&gt;Go &amp; see&lt;/b&gt; &lt;i&gt;</a> See you' in english.html
    assert (english.subject, english.text) == ("s w", "Hi <b>Go & see</b> <i>: https://shop.example/x See you\n")
    assert ">보러<br />가기</a> 안녕히 계세요" in korean.html
    assert (korean.subject, korean.text[:4]) == ("제목", "여보세요"), "the template's own word comes first"
    assert shelf.render("de", item=item, why="w") == english
    shelf.write("t/m.de.yml", "subject: Betreff\npreheader: p\ngo: Los\n")
    assert shelf.render("de", item=item, why="w").text.startswith("Hi Los:"), (
        "blocks speak English where they lack the language"
    )


@pytest.mark.parametrize(
    ("words", "layout", "expected"),
    [
        ("go: x", "{{ t.gos }}", 'm.mjml.j2:3: t.gos: there is no word "gos" in en; did you mean "go"?'),
        ("go: '{{ item.nane }}'", "{{ t.go }}", "m.en.yml:3: items.nane: no mail has this variable"),
        ("go: '{{ why|safe }}'", "{{ t.go }}", "m.en.yml:3: {{ why|safe }}: no filter named 'safe'"),
        ("go: [1]", "{{ t.go }}", "m.en.yml:3: go: must be text; put it in quotes"),
        ("go: {{ why }}", "{{ t.go }}", "m.en.yml:3: go: a text that begins with a tag stands in quotes"),
        ("go: x", "{{ t.go|upper }}", "m.mjml.j2:3: words stand alone"),
        ("go: '{{ t.go }}'", "{{ t.go }}", "m.en.yml:3: a word holds no other words"),
        (
            "go: x",
            '{% include "_base/b.mjml.j2" with texd=t.go %}',
            'm.mjml.j2:3: texd: _base/b.mjml.j2 has no use for "texd"',
        ),
        ("go: x", '{% include "_base/b.mjml.j2" with t.go %}', '"t.go" is no name=value'),
    ],
)
def test_a_mistake_in_words_or_arguments_is_named_with_its_line(
    shelf: Shelf, words: str, layout: str, expected: str
) -> None:
    shelf.write("_base/b.mjml.j2", "{{ arg.text }}")
    shelf.mail("<mj-text>" + layout + "</mj-text>")
    (shelf.folder / "t/m.subject.j2").unlink()
    shelf.write("t/m.en.yml", f"subject: s\npreheader: p\n{words}\n")
    faults = [fault.replace(f"{shelf.folder}/", "") for fault in shelf.faults()]
    assert any(expected.replace("items.nane", "item.nane") in fault for fault in faults), faults


def test_numbers_lists_and_near_dates_are_said_as_the_language_says_them(shelf: Shelf) -> None:
    shelf.mail(
        text="{{ items|length|plural(one='# piece', other='# pieces') }}; {{ items|listed }}; {{ order.placed_on|in_days }}"
    )
    shelf.mail(text="{{ items|listed }}; {{ order.placed_on|in_days }}", language=".ko")
    today = dt.date(2026, 3, 1)

    def said(locale: str, days: int, *items: str) -> str:
        order = {"placed_on": today + dt.timedelta(days)}
        return shelf.render(locale, items=list(items), order=order, today=today).text.strip()

    assert said("en", 3, "a") == "1 piece; a; in 3 days"
    assert said("en", 1, "a", "b", "c") == "3 pieces; a, b, and c; tomorrow"
    assert said("ko", 0, "a", "b") == "a 및 b; 오늘"
    assert said("ko", 5, "a") == "a; 5일 후"


# ---------------------------------------------------------------- what is refused, with file and line


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("<mj-txt>a</mj-txt>", '3: <mj-txt> is no tag that is used here; did you mean "mj-text"?'),
        (
            "\n<mj-text colour='red'>a</mj-text>",
            '4: colour: <mj-text> has no attribute of this name; did you mean "color"?',
        ),
        ("<mj-text>a", "</mj-column> closes what was not opened: <mj-text> of line 3 is still open"),
        ("<mj-text><script>alert(1)</script></mj-text>", "3: <script> does not belong into a mail"),
        ("<mj-text>a < b</mj-text>", "3: this is no tag that can be read"),
        ("stray words<mj-text>a</mj-text>", '3: the text "stray" stands between elements'),
        ("{{ why }}<mj-text>a</mj-text>", "3: a variable stands between elements"),
        ("<mj-text>{{ why</mj-text>", '3: "{{" is never closed'),
        ("<mj-text>{% if why %}a</mj-text>", "unexpected end of template"),
        ("<mj-text>\n{% endif %}</mj-text>", "4: {% endif %}: encountered unknown tag 'endif'"),
        ("<mj-text>{{ why|nosuch }}</mj-text>", "3: {{ why|nosuch }}: no filter named 'nosuch'"),
        (
            "<mj-text>\n\n{{ customer.fist_name }}</mj-text>",
            '5: customer.fist_name: no mail has this variable; did you mean "first_name"?',
        ),
        (
            "<mj-text>{{ custmer.first_name }}</mj-text>",
            '3: custmer: no mail has this variable; did you mean "customer"?',
        ),
        (
            "<mj-text>{% for i in items %}\n{{ i.nane }}{% endfor %}</mj-text>",
            '4: items[].nane: no mail has this variable; did you mean "name"?',
        ),
        ('<mj-image src="{{ item.image_url|url }}" />', "3: alt: is missing"),
        ('<mj-text><a href="{{ item.url }}">a</a></mj-text>', "3: href: write one variable with the filter url"),
        ('<mj-text><a href="{{ item.url if why else item.url|url }}">a</a></mj-text>', "3: href: write one variable"),
        ('<mj-text><a href="javascript:{{ item.url|url }}">a</a></mj-text>', "3: href: write one variable"),
        (
            '<mj-button href="javascript:alert(1)">a</mj-button>',
            '3: href: "javascript:alert(1)" must start with https://',
        ),
        ('<mj-text><p style="color: {{ why }}">a</p></mj-text>', "3: style: no variables here"),
        ('<mj-text><p onclick="{{ why }}">a</p></mj-text>', "3: onclick: no variables here"),
        ("<mj-text><p {% if why %}>a</p></mj-text>", "3: a Jinja tag stands inside <p>"),
        ("<mj-text>{{ why|safe }}</mj-text>", "no filter named 'safe'"),
        (
            "<mj-text>{% autoescape false %}{{ why }}{% endautoescape %}</mj-text>",
            "3: {% autoescape false %}: this is not used in templates",
        ),
        ("<mj-text>{% raw %}{{ why }}{% endraw %}</mj-text>", "3: {% raw %} is not used like this here"),
        ('<mj-text>{% import "x" as y %}</mj-text>', "3: {% import %} is not used like this here"),
        ('{% include "_base/nosuch.mjml.j2" %}', "3: there is no file"),
        ('{% include "../../secret" %}', "outside of the templates"),
        ('{% include "t/m.mjml.j2" %}', "includes itself"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_a_cure(shelf: Shelf, body: str, expected: str) -> None:
    shelf.mail(body)
    faults = shelf.faults()
    assert any(expected in fault for fault in faults), faults
    assert all(fault.startswith("m.mjml.j2") for fault in faults)


def test_all_mistakes_are_told_at_once_and_in_included_files_too(shelf: Shelf) -> None:
    shelf.write("_base/part.mjml.j2", "<mj-text>\n<mj-bad /></mj-text>")
    shelf.mail('<mj-txt></mj-txt>\n{% include "_base/part.mjml.j2" %}', text="a\n{{ why|nosuch }}", subject="{{ nosuch")
    faults = [str(fault) for fault in check("t/m", folder=shelf.folder)]
    assert [re.search(r"[\w.]+\.j2:\d+", fault)[0] for fault in faults] == [  # type: ignore[index]
        "m.subject.j2:1", "part.mjml.j2:2", "m.mjml.j2:3", "m.txt.j2:2",
    ]  # fmt: skip


def test_a_template_that_is_not_there_is_named_with_the_nearest_that_is() -> None:
    with pytest.raises(TemplateFault, match='did you mean "win_back/miss_you"'):
        render("win_back/mis_you", samples()["ana"])
    with pytest.raises(TemplateFault, match="write family/name"):
        render("../../etc/passwd", {})
    assert issubclass(TemplateFault, InputError)


def test_a_blank_greeting_is_found_before_it_is_sent(shelf: Shelf) -> None:
    shelf.mail(text="Hi {{ customer.first_name }}, hello")
    assert "leaves a gap where the first name is empty" in shelf.faults()[0]


def test_a_subject_file_without_a_preheader_is_a_fault(shelf: Shelf) -> None:
    shelf.mail()
    shelf.write("t/m.subject.j2", "Subject: s\n")
    assert [fault.split(": ", 1)[0] for fault in shelf.faults()] == ["m.subject.j2:1", "m.subject.j2:1"]


def test_every_documented_variable_can_be_used_and_the_samples_fill_it(shelf: Shelf) -> None:
    absent = ("subject", "preheader", "shop.logo.")  # only in the mail itself; the sample shop writes its name
    plain = [path for path in CONTEXT if "[]" not in path and "*" not in path and not path.startswith(absent)]
    shelf.mail(
        text="\n".join(f"{path}={{{{ {path} }}}}" for path in plain)
        + "\n{{ links.score['3'] }} {{ items[0].sku|default('') }}"
    )
    assert check("t/m", samples()["ana"], folder=shelf.folder) == []


# ---------------------------------------------------------------- the sandbox

ATTACKS = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ why.__class__ }}",
    "{{ customer|attr('__class__') }}",
    "{{ ''['__class__'] }}",
    "{{ customer.__init__.__globals__ }}",
    "{{ self.__init__.__globals__.__builtins__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ lipsum.__globals__['os'].environ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ joiner() }}",
    "{{ config }}",
    "{{ range.__self__ }}",
    "{{ '%s'|format(customer) }}",
    "{{ '{0.__class__}'.format(why) }}",
    "{{ ''.join.__self__.__class__ }}",
    "{{ why.upper() }}",
    "{{ items|map('attr', '__class__')|list }}",
    "{{ items|map(attribute='__class__')|list }}",
    "{{ [customer]|sort(attribute='__class__') }}",
    "{{ customer.clear() }}",
    "{{ customer.update({'a': 1}) }}",
    "{{ items.append(1) }}",
    "{{ items.pop() }}",
    "{{ (1).real.__class__ }}",
    "{{ order.placed_on.today() }}",
    "{{ order.placed_on.__reduce__() }}",
    "{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}",
    "{% include 'theme.yml' %}",
    "{% set x = cycler %}{{ x }}",
    "{{ self }}",
    "{{ loop }}",
    "{{ customer.items.__func__ }}",
    "{{ url_for.__globals__ }}",
    "{{ environ('DB_PASSWORD') }}",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_template_reaches_python(shelf: Shelf, attack: str) -> None:
    """Refused when it is read, or for the one person; at worst it prints nothing of Python."""
    shelf.mail(text=f"[{attack}]")
    try:
        text = shelf.render(**samples()["ana"], why2=1).text
    except (TemplateFault, RenderError):
        return
    assert not re.search(r"class|module|function|object at|environ|<", text), text


BOMBS = [
    "{{ 'a' * 10**9 }}",
    "{{ 'a' * 1000000000 }}",
    "{{ why * 1000000000 }}",
    "{{ items * 100000000 }}",
    "{{ 10 ** 10 ** 9 }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '{:1000000000}'.format(1) }}",
    "{{ why.ljust(1000000000) }}",
    "{{ range(100000000)|list|length }}",
    "{{ lipsum(n=100000) }}",
    "{% for a in range(99) %}{% for b in range(99) %}{% for c in range(99) %}{% for d in range(99) %}x"
    + "{% endfor %}" * 4,
    "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "{% set a = 'xxxxxxxx' %}" + "{% set a = a ~ a %}" * 40 + "{{ a }}",
    "{% set a %}xx{% endset %}" + "{% set a %}{{ a }}{{ a }}{% endset %}" * 40,
    "{{ range(100)|join(range(100)|join(range(100)|join(range(100)|join('x')))) }}",
    "{{ 'x'|center(1000000000) }}",
    "{{ items|batch(1000000000, 'x')|list }}",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
]


@pytest.mark.parametrize("bomb", BOMBS)
def test_no_template_eats_the_worker(shelf: Shelf, bomb: str) -> None:
    shelf.mail(text=bomb)
    begin = time.process_time()
    with pytest.raises((TemplateFault, RenderError)):
        shelf.render(why="x", items=[1, 2, 3])
    assert time.process_time() - begin < 5


@pytest.mark.parametrize(
    "bomb",
    [
        "{% for a in items %}{% for b in items %}{% for c in items %}{% endfor %}{% endfor %}{% endfor %}",
        "{% for a in items %}{% for b in items %}{% if a.x == b.x %}{% endif %}{% endfor %}{% endfor %}",
        "{% for a in items %}{{ why }}{{ why }}{{ why }}{{ why }}{{ why }}{{ why }}{{ why }}{{ why }}{{ why }}{{ why }}{% endfor %}",
        "{% for a in range(100) %}{% for b in range(100) %}{% for c in range(100) %}{{ why }}{% endfor %}{% endfor %}{% endfor %}",
    ],
)
def test_no_long_list_makes_a_loop_that_never_ends(shelf: Shelf, bomb: str) -> None:
    shelf.mail(text=bomb)
    begin = time.process_time()
    with pytest.raises(RenderError, match=r"(more than 20,000 turns|more than 500,000 characters) \(.*m\.txt\.j2:1"):
        shelf.render(why="x" * 2000, items=[{"x": n} for n in range(2000)])
    assert time.process_time() - begin < 2


class Row(dict[str, Any]):
    """What a database driver might hand over."""


@pytest.mark.parametrize(
    "value",
    [object(), Markup("<b>x</b>"), Row(a=1), (1, 2), {1: 2}, {"a": {1, 2}}, b"x", len, Path("x"), dt.timedelta(1)],
)
def test_only_plain_values_reach_a_template(shelf: Shelf, value: Any) -> None:
    shelf.mail("<mj-text>{{ why }}</mj-text>")
    with pytest.raises(RenderError, match="plain"):
        shelf.render(why=value)
    with pytest.raises(RenderError, match="plain"):
        shelf.render(why="x", items=[{"deep": [value]}])


def test_plain_values_of_every_kind_are_welcome(shelf: Shelf) -> None:
    shelf.mail(text="{{ items|join(' ') }}")
    values = ["a", 1, 1.5, Decimal("2.50"), dt.date(2026, 1, 2), dt.datetime(2026, 1, 2, 3), True, None]
    assert shelf.render(items=values).text == "a 1 1.5 2.50 2026-01-02 2026-01-02 03:00:00 True None\n"


def test_the_reason_of_a_refusal_holds_nothing_about_the_person(shelf: Shelf) -> None:
    for tag in (
        "{{ links.score[customer.first_name] }}",
        "{{ customer.first_name + 1 }}",
        "{{ customer.first_name|url }}",
        "{{ customer.first_name|date }}",
        "{{ customer.first_name|money('EUR') }}",
        "{{ customer.first_name.upper() }}",
        "{{ range(customer.first_name) }}",
    ):
        shelf.mail(text=f"line\n{tag}")
        with pytest.raises((RenderError, TemplateFault)) as refusal:
            shelf.render(customer={"first_name": "Persephone"}, links={"score": {}})
        assert "Persephone" not in str(refusal.value)
        assert "m.txt.j2:2" in str(refusal.value)


@pytest.mark.parametrize(
    "link",
    [
        "javascript:alert(1)", "JaVaScRiPt:alert(1)", "java\nscript:alert(1)", "vbscript:x", "data:text/html,x",
        "//evil.example", "https:evil", "https://a b", 'https://a"b', "https://x\\y", "https://" + "a" * 3000,
        "mailto:", "", None, 5,
    ],
)  # fmt: skip
def test_only_web_and_mail_addresses_become_links(shelf: Shelf, link: Any) -> None:
    shelf.mail('<mj-text><a href="{{ item.url|url }}">a</a></mj-text>')
    with pytest.raises(RenderError, match="an address for a link"):
        shelf.render(item={"url": link})
    good = "https://shop.example/p?a=1&b=2#c"
    assert good in Page(shelf.render(item={"url": good}).html).all("a", "href")


def test_a_mail_too_big_for_gmail_is_refused_for_that_person(shelf: Shelf) -> None:
    shelf.mail("<mj-text>{% for item in items %}{{ item.name }}{% endfor %}</mj-text>")
    items = [{"name": "x" * 1000}] * 90
    assert len(shelf.render(items=items).html) > 90_000
    with pytest.raises(RenderError, match="more than 102 KB is cut off"):
        shelf.render(items=items * 2)


def test_a_theme_with_mistakes_tells_all_of_them_with_lines(tmp_path: Path) -> None:
    text = (rendering.settings().include / "theme.yml").read_text()
    path = tmp_path / "theme.yml"
    path.write_text(text.replace('accent: "#1f6b4a"', "accent: green").replace("privacy_url:", "privcy_url:"))
    with pytest.raises(InputError) as error:
        rendering.load_theme(path)
    assert {fault.key for fault in error.value.faults} == {"colours.accent", "shop.privcy_url", "shop.privacy_url"}
    assert all(fault.line for fault in error.value.faults)


@pytest.mark.parametrize(
    "locale", ["en", "de", "de-CH", "fr", "es", "pl", "pt-BR", "ko", "ja", "ar", "hi", "sv", "en-IN"]
)
def test_money_is_written_as_babel_writes_it(locale: str) -> None:
    draw = random.Random(locale)
    for currency in ("EUR", "USD", "KRW", "JPY", "CHF", "KWD"):
        for _ in range(25):
            amount = (
                draw.choice([-1, 1, 1, 1])
                * Decimal(draw.randrange(10 ** draw.randrange(1, 14)))
                / draw.choice([1, 10, 100, 1000])
            )
            wanted = format_currency(amount or 0, currency, locale=sandbox.babel_locale(locale))
            assert sandbox._format_money(amount, currency, locale) == wanted, (amount, currency)


def test_a_mail_in_latin_letters_is_ascii_throughout_and_says_the_same(shelf: Shelf) -> None:
    """Such HTML travels as it is; written as base64 it would be a third longer. Style sheets know no references."""
    shelf.write("t/m.mjml.j2", MAIL.format(COLUMN.format("<mj-text>{{ t.go }} {{ item.name }} – 5 ×</mj-text>")))
    shelf.write("t/m.txt.j2", "{{ t.go }} {{ item.name }}")
    shelf.write("t/m.en.yml", "subject: s {{ why }}\npreheader: p\ngo: Café\n")
    shelf.write("t/m.ko.yml", "subject: s\npreheader: p\ngo: 카페\n")
    item = {"name": "Ørsted & 민준 😀"}
    english, korean = (shelf.render(language, item=item, why="ü") for language in ("en", "ko"))
    assert english.html.isascii()
    assert "Café Ørsted & 민준 😀 – 5 ×" in unescape(english.html)
    # what is markup in the data stays escaped once
    assert "&lt;" not in english.html and "&amp; &#48124;" in english.html
    assert english.subject == "s ü" and english.text == "Café Ørsted & 민준 😀\n"
    assert "카페 Ørsted &amp; 민준 😀 – 5 ×" in korean.html
    style = '<mj-head><mj-style>.x::before {{ content: "»"; }}</mj-style></mj-head>'
    shelf.write(
        "t/m.mjml.j2", MAIL.replace("<mjml>", f"<mjml>{style}").format(COLUMN.format("<mj-text>{{ t.go }}</mj-text>"))
    )
    assert 'content: "»"' in shelf.render("en", item=item, why="w").html
