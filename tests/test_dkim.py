"""Mails signed with DKIM: another implementation finds the signature good, and whoever changes the mail breaks it."""

from __future__ import annotations

import base64
import email
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import dkim as verifier
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from postlude import dkim
from postlude.errors import InputError
from postlude.message import Address, to_bytes
from test_message import MESSAGE

RSA_KEY = rsa.generate_private_key(65537, 2048)
MAILS = [
    MESSAGE,
    replace(MESSAGE, subject="(광고) 안녕하세요 " * 9, text="日本語\n\n  two  blanks \n\n\n", html=""),
    replace(MESSAGE, kind="transactional", recipient=Address("zoe@bücher.example", 'Zoë "Z", 👩‍👩‍👧')),
]


def record(key: dkim.Key) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        return b"v=DKIM1; k=rsa; p=" + base64.b64encode(key.public_key().public_bytes(*form))
    raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return b"v=DKIM1; k=ed25519; p=" + base64.b64encode(raw)


def good(raw: bytes, key: dkim.Key) -> bool:
    return bool(verifier.verify(raw, dnsfunc=lambda name, timeout=5: record(key)))


@pytest.mark.parametrize("mail", MAILS)
def test_another_implementation_finds_the_signature_good(mail) -> None:
    raw = dkim.signed(to_bytes(mail), "shop.example", "s1", RSA_KEY, mail.date)
    assert good(raw, RSA_KEY)
    assert raw == dkim.signed(to_bytes(mail), "shop.example", "s1", RSA_KEY, mail.date), "the same bytes every time"
    assert max(len(line) for line in raw.split(b"\r\n")) <= 78 + 20


def test_ed25519_signs_too() -> None:
    pytest.importorskip("nacl", reason="the verifier needs PyNaCl for Ed25519")
    key = ed25519.Ed25519PrivateKey.generate()
    assert good(dkim.signed(to_bytes(MESSAGE), "shop.example", "s1", key, MESSAGE.date), key)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n", b""),
        (b"https://shop.example/u/abc", b"https://evil.example/u/a"),
        (b"Subject: We miss you", b"Subject: We miss you!"),
        (b"\r\nTo: ", b"\r\nSubject: Another\r\nTo: "),
        (b"\r\nTo: ", b"\r\nFrom: evil@evil.example\r\nTo: "),
        (b"<p>Hello", b"<p>Hallo"),
    ],
)
def test_whoever_changes_the_mail_breaks_the_signature(before: bytes, after: bytes) -> None:
    raw = dkim.signed(to_bytes(MESSAGE), "shop.example", "s1", RSA_KEY, MESSAGE.date)
    assert before in raw
    assert not good(raw.replace(before, after, 1), RSA_KEY)


def test_the_one_click_headers_are_under_the_signature() -> None:
    raw = dkim.signed(to_bytes(MESSAGE), "shop.example", "s1", RSA_KEY, MESSAGE.date + timedelta(0))
    told = "".join(str(email.message_from_bytes(raw)["DKIM-Signature"]).split())
    names = told.partition(";h=")[2].partition(";")[0].split(":")
    assert {"from", "list-unsubscribe", "list-unsubscribe-post", "list-id", "feedback-id", "message-id"} <= set(names)
    assert names.count("from") == 2


def test_a_weak_or_missing_key_is_told(tmp_path: Path) -> None:
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    weak = tmp_path / "weak.pem"
    weak.write_bytes(rsa.generate_private_key(65537, 1024).private_bytes(*form))
    for path in (weak, tmp_path / "none.pem"):
        with pytest.raises(InputError, match="POSTLUDE_DKIM_KEY"):
            dkim.load_key(path)
