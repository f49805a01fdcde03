"""No shipped mail looks like spam: SpamAssassin's local rules, in all languages."""

from __future__ import annotations

import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from postlude import preview, rendering
from postlude.message import Address, Message, to_bytes, uuid_of

ALLOWED = 2.0  # 5.0 is called spam

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not shutil.which("spamassassin"), reason="needs SpamAssassin (Debian: apt-get install spamassassin)"
    ),
]


def test_every_shipped_mail_scores_well_below_spam_in_every_language(tmp_path: Path) -> None:
    """One run over one mailbox, as a receiving server would see the mails; the scores are printed."""
    theme = rendering.load_theme()
    named = [(name, language) for name in rendering.names() for language in ("en", "ko", "ja")]
    box = tmp_path / "mails.mbox"
    with box.open("wb") as file:
        for name, language in named:
            content = rendering.render(name, preview.person(name, language), language)
            message = Message(
                message_id=uuid_of(name, language), campaign_id=name.split("/")[0], kind="marketing",
                sender=Address(theme.sender.address, theme.sender.name), reply_to=Address(theme.sender.reply_to),
                recipient=Address("ana@customers.example", "Ana"), subject=content.subject, text=content.text,
                html=content.html, date=datetime.now(UTC), list_unsubscribe="https://mail.shop.example/u/sample",
                list_id="mail.shop.example", return_path="b@mail.shop.example",
            )  # fmt: skip
            file.write(b"From postlude Thu Jan  1 00:00:00 2026\n")
            file.write(
                re.sub(rb"^(>*From )", rb">\1", to_bytes(message).replace(b"\r\n", b"\n"), flags=re.MULTILINE) + b"\n"
            )
    done = subprocess.run(
        ["spamassassin", "--cf=use_bayes 0", "-L", "-t", "--mbox", str(box)],
        capture_output=True,
        timeout=280,
        check=False,
    )
    judged = re.findall(
        rb"^X-Spam-Status: \w+, score=(-?[\d.]+) .*?tests=(.*?)\n\S", done.stdout, re.MULTILINE | re.DOTALL
    )
    assert len(judged) == len(named), done.stderr[-2000:]
    scores = {
        f"{name} {language}": (float(score), b"".join(tests.split()).decode())
        for (name, language), (score, tests) in zip(named, judged, strict=True)
    }
    for mail, (score, tests) in sorted(scores.items(), key=lambda item: -item[1][0]):
        print(f"{score:5.1f}  {mail:40} {tests}")
    assert {mail: found for mail, found in scores.items() if found[0] >= ALLOWED} == {}
