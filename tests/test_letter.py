"""What is left out of a letter to save time is never missed in it."""

from __future__ import annotations

from dataclasses import replace
from email import message_from_bytes, policy

import pytest

from postlude import letter, letter_facts, rendering
from postlude.channels.smtp import _stuffed
from postlude.message import key_of, to_bytes
from test_message import MESSAGE


@pytest.mark.parametrize("template", rendering.names())
def test_a_template_gets_every_variable_it_asks_for_and_no_other_is_made(template: str) -> None:
    for found in rendering.in_all_languages(template, rendering.load_theme()):
        for person, context in list(rendering.samples(template).items())[:2]:
            links, facts, of_order, _ = letter._needs(found.uses)
            cut = {name: value for name, value in context.items() if name in facts or name not in letter_facts.NAMES}
            given = context["links"].items()
            cut["links"] = {name: link for name, link in given if name in links or name not in letter._LINKS}
            if "order" in facts and of_order and context["order"]:
                cut["order"] = {k: v for k, v in context["order"].items() if k in of_order}
            assert found.content(cut) == found.content(context), (template, found.locale, person)


def test_what_nobody_asks_for_is_neither_signed_nor_read() -> None:
    def needs(*paths: str) -> tuple[tuple[str, ...], set[str], tuple[str, ...], set[str]]:
        links, facts, of_order, parts = letter._needs(frozenset(paths))
        return links, set(facts), of_order, set(parts)

    assert needs("links.unsubscribe", "why") == (("unsubscribe",), set(), ("number",), set())
    assert needs("links", "items") == (letter._LINKS, {"items"}, ("number",), {"lines"})
    assert needs("links.score", "order.number", "order.?") == (("score",), {"order"}, ("number",), set())
    assert needs("order.?", "order.total") == ((), {"order"}, ("number", "total"), {"lines"})
    assert needs("order.state")[2:] == (("number", "state"), {"parcels", "return"})
    # used as a whole: whatever belongs to it
    assert needs("order") == ((), {"order"}, (), {"lines", "parcels", "return"})
    assert needs("refund", "rating", "shipments")[3] == {"return", "event", "score", "parcels"}
    assert set().union(*letter_facts._READ.values()) == set(letter_facts.PARTS)


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        ("Hello\n.\n.dot\n\nBye", "7bit"),
        ("tab\tand trailing blank \n", "7bit"),
        ("x" * 990, "7bit"),
        ("x" * 991, "base64"),
        (f"{'x' * 990}\n{'y' * 990}\n.z", "7bit"),
        (f"{'x' * 990}\n{'y' * 991}\n", "base64"),
        ("Far away, From me", "7bit"),
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
    # what the writer says goes over the wire is what a careful look at the bytes would make of them
    assert (raw.stuffed or raw) == _stuffed(bytes(raw))


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
