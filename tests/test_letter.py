"""What is left out of a letter to save time is never missed in it."""

from __future__ import annotations

from dataclasses import replace
from email import message_from_bytes, policy

import pytest

from postlude import letter, letter_facts, rendering
from postlude.message import key_of, to_bytes
from test_message import MESSAGE


@pytest.mark.parametrize("template", rendering.names())
def test_a_template_gets_every_variable_it_asks_for_and_no_other_is_made(template: str) -> None:
    for found in rendering.in_all_languages(template, rendering.load_theme()):
        for person, context in list(rendering.samples(template).items())[:2]:
            links, facts, more = letter._needs(found.uses)
            cut = {name: value for name, value in context.items() if name in facts or name not in letter_facts.NAMES}
            given = context["links"].items()
            cut["links"] = {name: link for name, link in given if name in links or name not in letter._LINKS}
            if facts and not more and context["order"]:
                cut["order"] = {k: v for k, v in context["order"].items() if f"order.{k}" in letter_facts.AT_HAND}
            assert found.content(cut) == found.content(context), (template, found.locale, person)


def test_a_link_that_nobody_asks_for_is_not_signed() -> None:
    assert letter._needs(frozenset({"links.unsubscribe", "why"})) == (("unsubscribe",), set(), False)
    assert letter._needs(frozenset({"links", "items"})) == (
        letter._LINKS,
        {"items"},
        True,
    )
    assert letter._needs(frozenset({"links.score", "order.number", "order.?"})) == (("score",), {"order"}, False)
    assert letter._needs(frozenset({"order.?", "order.total"})) == ((), {"order"}, True)


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        ("Hello\n.\n.dot\n\nBye", "7bit"),
        ("tab\tand trailing blank \n", "7bit"),
        ("x" * 990, "7bit"),
        ("x" * 991, "base64"),
        ("From me to you", "base64"),
        ("Dear\nFrom here", "base64"),
        ("café", "base64"),
        ("a\0b", "base64"),
        ("a\x0bb", "base64"),
    ],
)
def test_a_body_travels_as_it_is_only_where_nothing_on_the_way_can_change_it(body: str, encoding: str) -> None:
    raw = to_bytes(replace(MESSAGE, text=body, html=""))
    parsed = message_from_bytes(raw, policy=policy.default)
    assert parsed["Content-Transfer-Encoding"] == encoding
    assert parsed.get_content().replace("\r\n", "\n").rstrip("\n") == body.rstrip("\n")
    assert max(map(len, raw.split(b"\r\n"))) <= 998


def test_a_body_that_holds_the_boundary_is_still_one_body() -> None:
    boundary = f"--=_{MESSAGE.message_id.hex}"
    for text, html in ((boundary, "<p>x</p>"), ("x", f"<p>\n{boundary}--\n</p>")):
        parsed = message_from_bytes(to_bytes(replace(MESSAGE, text=text, html=html)), policy=policy.default)
        parts = list(parsed.iter_parts())
        assert [part.get_content_type() for part in parts] == ["text/plain", "text/html"]
        assert [part.get_content().replace("\r\n", "\n").strip() for part in parts] == [text, html]


def test_the_key_of_a_message_is_base32() -> None:
    from base64 import b32encode

    assert key_of(MESSAGE.message_id) == b32encode(MESSAGE.message_id.bytes).decode().rstrip("=").lower()
