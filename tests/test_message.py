"""Bytes of a message: strict, the same every time, and read by others as they were meant."""

from __future__ import annotations

import email
import os
import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from email import policy
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import getaddresses, parsedate_to_datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from postlude.errors import Refused
from postlude.message import Address, Message, Outcome, clean, envelope, message_id, sanitise, to_bytes, uuid_of

MESSAGE = Message(
    message_id=message_id(UUID(int=7), "first"),
    campaign_id="win_back",
    kind="marketing",
    sender=Address("news@shop.example", "The Shop"),
    recipient=Address("kim@customers.example", "Kim"),
    reply_to=Address("help@shop.example", "Help, please"),
    subject="We miss you",
    text="Hello\nSee https://shop.example/u/1",
    html="<p>Hello</p>",
    date=datetime(2026, 3, 4, 5, 6, 7, 891, tzinfo=UTC),
    list_unsubscribe="https://shop.example/u/abc",
    list_unsubscribe_mail="stop@shop.example",
    list_id="win_back.shop.example",
    feedback_id="win_back:marketing:shop:main",
    return_path="b+1@shop.example",
)
MARKETING = [
    "From", "To", "Subject", "Date", "Message-ID", "X-Msg-Key", "MIME-Version", "X-Campaign", "Reply-To", "Feedback-ID",
    "Precedence", "List-ID", "List-Unsubscribe", "List-Unsubscribe-Post", "Content-Type",
]  # fmt: skip

scripts = st.one_of(
    st.text(max_size=120),
    st.text("가각나다라마바사아자차카타파하한국어 광고()", max_size=120),
    st.text("あいうえお日本語のメール　特価ー、。 ab", max_size=120),
    st.text("😀👨‍👩‍👧🇰🇷❤️ é=?utf-8?q? ", max_size=120),
    st.text('abc "\\<>@,;:().=?_\r\n\t', max_size=200),
    st.sampled_from(["Hi\r\nBcc: x@customers.example", "a\rb\nc", "x\x00y", "a\u2028b"]),
    st.sampled_from(["a\ud800b", "\u202eevil", "=?utf-8?b?aGk=?="]),
)


def parsed(raw: bytes) -> EmailMessage:
    found = email.message_from_bytes(raw, policy=policy.default)
    assert isinstance(found, EmailMessage)
    return found


def plain(raw: bytes, name: str) -> str:
    """The header as a classic reader decodes it."""
    return str(make_header(decode_header(email.message_from_bytes(raw)[name].replace("\r\n", ""))))


# ---------------------------------------------------------------- identity


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])), min_size=1, max_size=4))
def _ids_agree(conn: Connection, parts: list[str]) -> None:
    made = conn.scalar(text("select postlude.uuid_of(variadic cast(:parts as text[]))"), {"parts": parts})
    assert made == uuid_of(*parts)


def test_python_and_database_give_the_same_id_for_the_same_fact(conn: Connection) -> None:
    _ids_agree(conn)
    enrolment = UUID(int=7)
    made = conn.scalar(text("select postlude.uuid_of('message', cast(:e as text), 'first')"), {"e": enrolment})
    assert made == message_id(enrolment, "first") == MESSAGE.message_id
    assert made != message_id(enrolment, "second")
    assert made.version == 8


# ---------------------------------------------------------------- the writer against the standard parser


@settings(max_examples=400, deadline=None)
@given(subject=scripts, name=scripts, words=scripts, html=scripts)
def test_any_text_comes_out_of_a_standard_parser_as_it_went_in(subject: str, name: str, words: str, html: str) -> None:
    message = replace(
        MESSAGE, subject=f"s{subject}", text=f"t{words}", html=f"<p>{html}", sender=Address("news@shop.example", name)
    )
    raw = to_bytes(message)
    found = parsed(raw)
    assert found.keys() == MARKETING
    assert plain(raw, "Subject") == clean(f"s{subject}")
    assert [a.addr_spec for a in found["From"].addresses] == ["news@shop.example"]
    [(shown, address)] = getaddresses([email.message_from_bytes(raw)["From"].replace("\r\n", "")])
    shown = str(make_header(decode_header(shown))) if "=?" in shown else shown
    assert (shown, address) == (clean(name), "news@shop.example")
    head, _, rest = raw.partition(b"\r\n\r\n")
    assert all(len(line) <= 78 for line in head.split(b"\r\n"))
    assert raw.count(b"\r") == raw.count(b"\n") == raw.count(b"\r\n")
    assert raw.isascii()
    # 7bit where the words allow it, else base64 in short lines
    longest = 998 if b"Content-Transfer-Encoding: 7bit" in rest else 76
    assert all(len(line) <= longest for line in rest.split(b"\r\n") if not line.startswith((b"--", b"Content-")))
    for word in head.split():
        assert len(word) <= 75 or not word.startswith(b"=?")
    first, second = found.iter_parts()
    bodies = [bytes(part.get_payload(decode=True)).decode() for part in (first, second)]
    assert bodies == [
        re.sub(r"\r\n|\r|\n", "\r\n", part.replace("\ud800", "?")) for part in (message.text, message.html)
    ]
    assert (first.get_content_type(), second.get_content_type()) == ("text/plain", "text/html")


@settings(max_examples=300, deadline=None)
@given(scripts)
def test_cleaning_is_done_once_and_leaves_one_printable_line(value: str) -> None:
    done = clean(value)
    assert clean(done) == done
    assert len(done) <= 250
    assert not set(done) & set("\r\n\t\v\f\x00\x85\u2028\u2029\u202e\u2066")
    assert "  " not in done


@pytest.mark.parametrize(
    "evil", ["\r\nBcc: x", "\nBcc: x", "\r\n\r\n<script>", "\x0bBcc: x", "\u2028Bcc: x", "\x85Bcc: x"]
)
@pytest.mark.parametrize("place", ["subject", "sender", "recipient", "campaign_id", "list_id", "feedback_id"])
def test_a_line_end_in_the_data_makes_no_header(place: str, evil: str) -> None:
    value: Any = Address("kim@customers.example", f"Kim{evil}") if place in ("sender", "recipient") else f"win{evil}"
    found = parsed(to_bytes(replace(MESSAGE, **{place: value})))
    assert found.keys() == MARKETING


def test_long_ascii_subjects_fold_at_spaces_and_stay_readable() -> None:
    subject = "A plain subject of quite some length " * 5
    raw = to_bytes(replace(MESSAGE, subject=subject))
    assert b"=?utf-8" not in raw
    assert plain(raw, "Subject") == subject.strip()
    assert parsed(raw)["Subject"] == subject.strip()


# ---------------------------------------------------------------- what every mail carries


def test_marketing_can_be_unsubscribed_with_one_click() -> None:
    found = parsed(to_bytes(MESSAGE))
    assert found["List-Unsubscribe"] == "<https://shop.example/u/abc>, <mailto:stop@shop.example>"
    assert found["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert found["List-ID"] == "<win_back.shop.example>"
    assert found["Precedence"] == "bulk"
    assert found["Reply-To"] == '"Help, please" <help@shop.example>'
    assert found["X-Msg-Key"] == str(MESSAGE.message_id)


def test_marketing_without_a_way_out_is_not_written() -> None:
    for url in (None, "", "javascript:alert(1)", "https://x.example/a b", "https://x.example/>,<b"):
        with pytest.raises(Refused, match="one-click"):
            to_bytes(replace(MESSAGE, list_unsubscribe=url))


def test_a_transactional_mail_asks_robots_not_to_answer() -> None:
    found = parsed(to_bytes(replace(MESSAGE, kind="transactional", list_unsubscribe=None)))
    assert found["Auto-Submitted"] == "auto-generated"
    assert "NDR" not in found["X-Auto-Response-Suppress"].replace(" ", "").split(",")
    assert not [name for name in found if name.startswith("List-") or name == "Precedence"]


def test_the_message_id_is_made_from_the_message_and_the_senders_domain() -> None:
    found = parsed(to_bytes(replace(MESSAGE, sender=Address("news@bücher.example"))))
    token, _, domain = found["Message-ID"].strip("<>").partition("@")
    assert (len(token), domain) == (26, "xn--bcher-kva.example")
    assert found["Message-ID"] != parsed(to_bytes(replace(MESSAGE, message_id=UUID(int=1))))["Message-ID"]


def test_the_date_is_the_messages_own_whatever_the_zone_of_the_session() -> None:
    seoul = replace(MESSAGE, date=MESSAGE.date.astimezone(timezone(timedelta(hours=9))))
    assert to_bytes(seoul) == to_bytes(MESSAGE)
    assert parsedate_to_datetime(parsed(to_bytes(MESSAGE))["Date"]) == MESSAGE.date.replace(microsecond=0)
    with pytest.raises(ValueError, match="aware"):
        to_bytes(replace(MESSAGE, date=datetime(2026, 1, 1)))


def test_an_empty_subject_or_text_is_not_sent() -> None:
    with pytest.raises(Refused, match="subject"):
        to_bytes(replace(MESSAGE, subject=" \u200e\r\n"))
    with pytest.raises(Refused, match="text"):
        to_bytes(replace(MESSAGE, text=" \n"))


def test_a_mail_without_html_has_one_part() -> None:
    found = parsed(to_bytes(replace(MESSAGE, html="")))
    assert found.get_content_type() == "text/plain"
    assert found.get_content().splitlines() == MESSAGE.text.splitlines()


def test_a_message_too_large_is_not_sent() -> None:
    with pytest.raises(Refused, match="bytes"):
        to_bytes(replace(MESSAGE, html="x" * 8_000_000))


def test_the_same_message_gives_the_same_bytes_in_every_process() -> None:
    code = (
        "import hashlib, sys; sys.path.insert(0, 'tests'); from test_message import *;"
        "m = replace(MESSAGE, subject='광고 😀' * 30, sender=Address('a@shop.example', '한국 \"x\"'));"
        "print(hashlib.sha256(to_bytes(m)).hexdigest())"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env=os.environ | {"PYTHONHASHSEED": seed, "TZ": zone, "LC_ALL": "C.UTF-8"},
        ).stdout
        for seed, zone in (("1", "Asia/Seoul"), ("99", "America/New_York"))
    ]  # fmt: skip
    assert runs[0] == runs[1] != ""


# ---------------------------------------------------------------- addresses

HOSTILE = [
    "", "@", "a", "a@", "@customers.example", "a b@customers.example", "a@b c.example", "a@customers.example\r\n",
    "a@customers.example\nBcc: x", "a\r@customers.example", "<a@customers.example>", "a@customers.example>",
    "a<b@c.example", "a@@customers.example", "a@b@customers.example", "a,b@customers.example",
    "a;b@customers.example", "a:b@customers.example", "a\x00@customers.example", "a@customers.example\x00",
    "a\t@customers.example", " a@customers.example", "a@customers.example ", "a@localhost", "a@127.0.0.1",
    "a@[127.0.0.1]", "a@customers..example", "a@.example", "a@customers.example.", "a@-x.example", "a@x-.example",
    "a@exa_mple.example", "a" * 65 + "@customers.example", "a@" + "x" * 64 + ".example",
    "a@" + ".".join(["x" * 60] * 5) + ".example", 'a"b@customers.example', '"a b"@customers.example',
    "a\\b@customers.example", "a\u2028b@customers.example", "a\u202eb@customers.example",
    "a\u00a0b@customers.example", "a(b)@customers.example", "Kim <kim@customers.example>", "a@exam\uff20ple.example",
    "a@\u2028.example", "한@" + "국" * 64 + ".example", "a\u200b@customers.example", "a\ufeff@customers.example",
]  # fmt: skip


@pytest.mark.parametrize("address", HOSTILE)
def test_what_is_no_address_is_refused_without_being_repeated(address: str) -> None:
    with pytest.raises(Refused) as refused:
        envelope(address)
    assert not address or len(address) < 3 or address not in str(refused.value)
    with pytest.raises(Refused):
        to_bytes(replace(MESSAGE, recipient=Address(address)))


@pytest.mark.parametrize(
    ("address", "wire"),
    [
        ("kim@customers.example", "kim@customers.example"),
        ("Kim.Lee+tag@Customers.Example", "Kim.Lee+tag@customers.example"),
        ("o'brien@customers.example", "o'brien@customers.example"),
        ("a..b@docomo.example", '"a..b"@docomo.example'),
        ("a.@ezweb.example", '"a."@ezweb.example'),
        (".a@ezweb.example", '".a"@ezweb.example'),
        ('"a..b"@docomo.example', '"a..b"@docomo.example'),
        ("a@faß.de", "a@xn--fa-hia.de"),
        ("a@straße.example", "a@xn--strae-oqa.example"),
        ("a@BÜCHER.example", "a@xn--bcher-kva.example"),
        ("a@例え。jp", "a@xn--r8jz45g.jp"),
        ("a@한국.example", "a@xn--3e0b707e.example"),
        ("한글@한국.example", "한글@xn--3e0b707e.example"),
        ("a@xn--bcher-kva.example", "a@xn--bcher-kva.example"),
    ],
)
def test_an_address_is_never_corrected_only_written_as_the_wire_wants_it(address: str, wire: str) -> None:
    assert envelope(address) == wire


def test_an_unusual_address_survives_the_header() -> None:
    raw = to_bytes(replace(MESSAGE, recipient=Address("a..b@docomo.example", "山田 太郎")))
    [to] = parsed(raw)["To"].addresses
    assert (to.username, to.domain, to.display_name) == ("a..b", "docomo.example", "山田 太郎")


# ---------------------------------------------------------------- outcomes


def test_only_the_recipients_own_refusal_can_suppress() -> None:
    assert Outcome("refused", "recipient", suppress=True).suppress
    for kind, scope in (("refused", "policy"), ("deferred", "recipient"), ("accepted", None)):
        with pytest.raises(ValueError):
            Outcome(kind, scope, suppress=True)  # type: ignore[arg-type]


def test_a_stored_reply_holds_no_address() -> None:
    said = (
        '550 5.1.1 <kim.lee@customers.example>: user kim.lee unknown; also "x"@b.example,\r\n SRS0=a=b=kim@c.example '
    )
    said += "x" * 300
    kept = sanitise(said, "kim.lee@customers.example")
    assert "kim" not in kept and "@" not in kept and len(kept) <= 200
    assert kept.startswith("550 5.1.1 <address>: user <address> unknown")
