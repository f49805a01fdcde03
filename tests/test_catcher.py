"""The mail catcher: keeps every copy, durably, and shows it safely."""

from __future__ import annotations

import os
import re
import signal
import smtplib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postlude.catcher import Catcher, Store, opened
from postlude.channels import smtp
from postlude.errors import InputError
from postlude.message import Address, Message, to_bytes

EVIL = '"><script>alert(1)</script>'
MESSAGE = Message(
    message_id=UUID(int=1),
    campaign_id="win_back",
    kind="transactional",
    sender=Address("news@shop.example", "The Shop"),
    recipient=Address("kim@customers.example", "Kim"),
    subject="보고 싶어요, Kim",
    text="Hello\n.\nKim",
    html='<html><head><title>x</title></head><body><p>Hello</p><a href="https://shop.example">go</a></body></html>',
    date=datetime(2026, 1, 2, tzinfo=UTC),
)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def catcher(tmp_path: Path) -> Iterator[Catcher]:
    with Catcher(tmp_path / "mail") as running:
        yield running


def send(catcher: Catcher, *messages: Message) -> None:
    with smtp.connect(catcher.smtp_url) as hand_over:
        for message in messages:
            outcome = hand_over(message, to_bytes(message), lambda: None)
            assert outcome.kind == "accepted", outcome


def get(catcher: Catcher, path: str, **params: str | int) -> httpx.Response:
    return httpx.get(f"{catcher.http_url}{path}", params=params or None, trust_env=False)


# ---------------------------------------------------------------- keeping


def test_a_caught_mail_is_byte_for_byte_what_was_sent(catcher: Catcher) -> None:
    send(catcher, MESSAGE)
    [mail] = catcher.mails
    assert catcher.raw(mail) == to_bytes(MESSAGE)
    assert (mail.recipients, mail.subject, mail.campaign) == (("kim@customers.example",), MESSAGE.subject, "win_back")
    assert mail.key == str(MESSAGE.message_id)


def test_every_copy_is_kept_and_counted(catcher: Catcher) -> None:
    send(catcher, MESSAGE, MESSAGE, replace(MESSAGE, message_id=UUID(int=2)))
    listed = get(catcher, "/api/messages").json()
    assert listed["total"] == 3
    assert sorted(row["copies"] for row in listed["messages"]) == [1, 2, 2]
    assert 'class="twice"' in get(catcher, "/").text
    assert "arrived 2 times" in get(catcher, f"/messages/{catcher.mails[0].id}").text
    assert "arrived" not in get(catcher, f"/messages/{catcher.mails[2].id}").text


def test_no_file_name_names_a_person_and_only_the_owner_reads_them(catcher: Catcher) -> None:
    send(catcher, MESSAGE)
    names = {path.name for path in catcher.folder.iterdir()}
    assert len(names) == 2 and "index.jsonl" in names
    [name] = names - {"index.jsonl"}
    assert re.fullmatch(r"\d{8}T\d{12}Z-[0-9a-f]{8}\.eml", name)
    assert (catcher.folder / name).stat().st_mode & 0o077 == 0
    assert catcher.folder.stat().st_mode & 0o077 == 0


def test_the_mail_is_on_disk_before_it_is_answered_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "mail")
    synced = []
    real = os.fsync

    def noted(handle: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))
        real(handle)

    monkeypatch.setattr(os, "fsync", noted)
    mail = store.add(to_bytes(MESSAGE), ["kim@customers.example"])
    store.close()
    assert len(synced) == 2
    assert Path(synced[0]).name.startswith(".half-") and synced[1] == str(tmp_path / "mail")
    assert (tmp_path / "mail" / f"{mail.id}.eml").read_bytes() == to_bytes(MESSAGE)


def test_a_mail_that_cannot_be_kept_is_not_answered_for(catcher: Catcher, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with smtp.connect(catcher.smtp_url) as hand_over:
        outcome = hand_over(MESSAGE, to_bytes(MESSAGE), lambda: None)
    assert (outcome.kind, outcome.scope) == ("deferred", "relay")
    assert catcher.mails == []


def test_what_was_caught_is_there_after_a_restart_even_without_the_index(tmp_path: Path) -> None:
    with Catcher(tmp_path) as first:
        send(first, MESSAGE, MESSAGE)
        before = first.mails
    (tmp_path / ".half-leftover").write_bytes(b"half a mail")
    with Catcher(tmp_path) as second:
        assert second.mails == before
    with (tmp_path / "index.jsonl").open("r+b") as index:
        index.truncate(40)
    (tmp_path / "stranger.eml").write_bytes(b"not ours")
    with Catcher(tmp_path) as third:
        assert [mail.id for mail in third.mails] == [mail.id for mail in before]
        assert get(third, "/api/messages").json()["messages"][0]["copies"] == 2
        send(third, MESSAGE)
        assert len(third.mails) == 3
    assert not (tmp_path / ".half-leftover").exists()


def test_any_sender_is_taken_not_only_ours(catcher: Catcher) -> None:
    two = ["x@customers.example", "y@customers.example"]
    with smtplib.SMTP("127.0.0.1", catcher.smtp_port) as plain:
        plain.sendmail("a@shop.example", two, b"Subject: =?utf-8?b?!!?=\r\n\r\nhi")
        plain.sendmail("a@shop.example", ["x@customers.example"], b"\xff\xfe no header at all")
    send(catcher, replace(MESSAGE, recipient=Address("한글@customers.example")))
    send(catcher, replace(MESSAGE, recipient=Address("a..b@docomo.example")))
    assert [len(mail.recipients) for mail in catcher.mails] == [2, 1, 1, 1]
    assert [get(catcher, f"/messages/{mail.id}").status_code for mail in catcher.mails] == [200] * 4
    assert get(catcher, "/").status_code == 200


def test_two_connections_at_once_lose_nothing_and_ids_stay_in_order(catcher: Catcher) -> None:
    from concurrent.futures import ThreadPoolExecutor

    many = [replace(MESSAGE, message_id=UUID(int=number)) for number in range(1, 61)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda part: send(catcher, *part), [many[start::4] for start in range(4)]))
    ids = [mail.id for mail in catcher.mails]
    assert ids == sorted(set(ids)) and len(ids) == 60


BROKEN = [
    b"Subject: =?utf-8?b?4?=\r\n", b"Subject: =?\xff?q?a?=\r\n", b"To: \xff\xfe\r\n", b"X-Msg-Key: x\r\n", b"\r\n",
    b"--x\r\n", b"=\xff=\r\n", b"MIME-Version: 1.0\r\n", b"Content-Transfer-Encoding: base64\r\n",
    b"Content-Type: message/rfc822\r\n", b"Content-Type: text/html; charset=no-such\r\n",
    b"Content-Type: multipart/mixed\r\n", b"Content-Type: multipart/mixed; boundary=x\r\n",
    b'Content-Type: text/plain; charset="\xff"\r\n',
]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.lists(
            st.sampled_from(BROKEN),
            max_size=8,
        ).map(b"".join),
    )
)
def test_no_mail_is_too_broken_to_be_looked_at(raw: bytes) -> None:
    from postlude.catcher.store import _describe

    found = opened(raw)
    assert set(found) == {"headers", "text", "html"}
    assert _describe("20260101T000000000000Z-00000000", raw, ()).size == len(raw)


# ---------------------------------------------------------------- showing


def test_a_hostile_mail_stays_inert_on_every_page(catcher: Catcher) -> None:
    hostile = replace(
        MESSAGE,
        subject=f"{EVIL}'{{{{7919*104729}}}}",
        text=EVIL,
        html=f"<p>{EVIL}</p>",
        campaign_id=EVIL,
        sender=Address("a@shop.example", EVIL),
    )
    send(catcher, hostile)
    [mail] = catcher.mails
    pages = ["/", f"/messages/{mail.id}", f"/messages/{mail.id}?view=text", f"/messages/{mail.id}?view=headers"]
    for path in [*pages, f"/?q={EVIL}", f"/?q={EVIL}x"]:
        response = httpx.get(f"{catcher.http_url}{path}", trust_env=False)
        assert response.status_code == 200
        assert "<script" not in response.text and "829348951" not in response.text.split("<main>")[1].split(mail.id)[0]
        policy = response.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'") and "script-src" not in policy and "unsafe" not in policy
    [frame] = re.findall(r"<iframe[^>]*>", get(catcher, pages[1]).text)
    assert 'sandbox="allow-popups allow-popups-to-escape-sandbox"' in frame
    preview = get(catcher, f"/messages/{mail.id}/html")
    assert "<script>" in preview.text  # shown as it is, but nothing in it may run:
    policy = preview.headers["content-security-policy"]
    assert policy.startswith("sandbox ") and "allow-scripts" not in policy and "allow-same-origin" not in policy
    assert "default-src 'none'" in policy and "http:" not in policy
    with_images = get(catcher, f"/messages/{mail.id}/html", images=1)
    assert "img-src data: https: http:" in with_images.headers["content-security-policy"]


def test_one_mail_can_be_read_as_html_text_headers_and_file(catcher: Catcher) -> None:
    send(catcher, MESSAGE)
    [mail] = catcher.mails
    assert '<head><base target="_blank">' in get(catcher, f"/messages/{mail.id}/html").text
    assert "Hello\r\n.\r\nKim" in get(catcher, f"/messages/{mail.id}", view="text").content.decode()
    assert "X-Auto-Response-Suppress" in get(catcher, f"/messages/{mail.id}", view="headers").text
    raw = get(catcher, f"/messages/{mail.id}/raw")
    assert raw.content == to_bytes(MESSAGE)
    assert raw.headers["content-disposition"] == f'attachment; filename="{mail.id}.eml"'
    answer = get(catcher, f"/api/messages/{mail.id}").json()
    assert (answer["subject"], answer["to"], answer["copies"]) == (MESSAGE.subject, ["kim@customers.example"], 1)
    assert "<p>Hello</p>" in answer["html"] and ["X-Campaign", "win_back"] in answer["headers"]


@pytest.mark.parametrize(
    "path", ["/messages/x", "/messages/..%2f..%2fetc%2fpasswd/raw", "/api/messages/index.jsonl", "/messages/x/html"]
)
def test_what_is_not_there_is_not_found(catcher: Catcher, path: str) -> None:
    assert get(catcher, path).status_code == 404


def test_mails_are_searched_and_paged_newest_first(catcher: Catcher) -> None:
    some = [
        replace(MESSAGE, message_id=UUID(int=n), subject=f"Number {n:03}", recipient=Address(f"p{n}@customers.example"))
        for n in range(1, 121)
    ]
    send(catcher, *some)
    subjects = [re.findall(r">(Number \d+)<", get(catcher, "/", page=page).text) for page in (1, 2, 3)]
    assert [len(found) for found in subjects] == [50, 50, 20]
    assert [subject for page in subjects for subject in page] == [f"Number {n:03}" for n in range(120, 0, -1)]
    assert re.findall(r">(Number \d+)<", get(catcher, "/", page=99).text) == subjects[2]
    found = get(catcher, "/api/messages", q="NUMBER p77@customers").json()["messages"]
    assert [row["subject"] for row in found] == ["Number 077"]
    assert get(catcher, "/api/messages", q="win_back", size=7, page=2).json()["messages"][0]["subject"] == "Number 113"
    assert get(catcher, "/api/messages", q=str(UUID(int=5))).json()["total"] == 1
    assert "No mail matches" in get(catcher, "/", q="nobody").text


def test_an_empty_catcher_says_so(catcher: Catcher) -> None:
    assert "No mail yet" in get(catcher, "/").text
    assert get(catcher, "/healthz").json() == {"status": "ok", "messages": 0}


def test_a_web_site_elsewhere_cannot_read_the_mail_through_a_name_of_its_own(catcher: Catcher) -> None:
    answer = httpx.get(f"{catcher.http_url}/", headers={"Host": "evil.example"}, trust_env=False)
    assert answer.status_code == 400


# ---------------------------------------------------------------- reporting


def test_every_stored_mail_with_a_key_is_reported_as_delivered(
    catcher: Catcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    from postlude.catcher import pages

    monkeypatch.setattr(pages, "_EVENTS", 2)
    send(catcher, *[replace(MESSAGE, message_id=UUID(int=n)) for n in (1, 2, 2, 3, 4)])
    with smtplib.SMTP("127.0.0.1", catcher.smtp_port) as plain:
        plain.sendmail("a@shop.example", ["x@customers.example"], b"Subject: no key\r\n\r\nhi")
    events = list(smtp.events(catcher.smtp_url, LONG_AGO))
    assert [event["message_id"].int for event in events] == [1, 2, 2, 3, 4]
    assert [event["at"] for event in events] == [mail.at for mail in catcher.mails[:5]]
    later = list(smtp.events(catcher.smtp_url, events[2]["at"]))
    assert [event["message_id"].int for event in later] == [2, 3, 4]
    assert list(smtp.events(catcher.smtp_url, catcher.mails[-1].at + timedelta(seconds=1))) == []
    assert get(catcher, "/api/events", since="0001-01-01T00:00:00").status_code == 200
    assert get(catcher, "/api/events", since="yesterday").status_code == 422


# ---------------------------------------------------------------- running


@pytest.mark.parametrize(("setting", "which"), [("POSTLUDE_CATCHER_SMTP_PORT", 0), ("POSTLUDE_CATCHER_HTTP_PORT", 1)])
def test_a_taken_port_is_named_with_its_setting(tmp_path: Path, setting: str, which: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        smtp_port, http_port = (port, 0) if which == 0 else (0, port)
        with pytest.raises(InputError, match=rf"port {port}.*taken.*{setting}"):
            Catcher(tmp_path, smtp_port, http_port).start()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_asked_to_stop(tmp_path: Path, how: signal.Signals) -> None:
    code = "import sys; from pathlib import Path; from postlude.catcher import serve; serve(Path(sys.argv[1]), 0, 0)"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        hit = re.search(r"(http://\S+), SMTP on port (\d+)", process.stdout.readline())
        assert hit
        try:
            with smtp.connect(f"smtp://127.0.0.1:{hit[2]}") as hand_over:
                assert hand_over(MESSAGE, to_bytes(MESSAGE), lambda: None).kind == "accepted"
            assert httpx.get(f"{hit[1]}/healthz", trust_env=False).json()["messages"] == 1
            began = time.monotonic()
            process.send_signal(how)
            assert process.wait(15) == 0
            assert time.monotonic() - began < 10
        finally:
            process.kill()
    assert len(list(tmp_path.glob("*.eml"))) == 1
