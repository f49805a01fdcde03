"""Who is to blame for a reply: the whole table, and that nothing outside it suppresses anybody."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest

from postlude.channels._smtp_blame import judge
from postlude.channels._smtp_client import Reply

CREDENTIALS = (530, 534, 535, 538)


def reply(line: str) -> Reply:
    code, _, rest = line.partition(" ")
    word = rest.split(" ")[0]
    return Reply(int(code), word if word.count(".") == 2 else "", (rest,))


@pytest.mark.parametrize(
    ("phase", "line", "kind", "scope", "suppress"),
    [
        ("banner", "554 5.7.1 go away", "deferred", "relay", False),
        ("ehlo", "550 5.1.1 what", "deferred", "relay", False),
        ("auth", "454 4.7.0 later", "deferred", "relay", False),
        *(("auth", f"{code} 5.7.8 no", "deferred", "configuration", False) for code in (530, 534, 535, 538)),
        ("mail", "451 4.3.0 later", "deferred", "relay", False),
        ("mail", "550 5.1.8 sender domain", "deferred", "configuration", False),
        ("mail", "553 5.1.7 sender", "deferred", "configuration", False),
        ("mail", "550 5.7.1 sender", "deferred", "configuration", False),
        ("mail", "550 5.1.1 sender", "deferred", "configuration", False),
        ("mail", "530 5.7.0 STARTTLS first", "deferred", "configuration", False),
        ("mail", "552 5.3.4 too big", "refused", "message", False),
        ("rcpt", "450 4.2.0 greylisted", "deferred", "recipient", False),
        ("rcpt", "451 4.7.1 greylisted", "deferred", "recipient", False),
        ("rcpt", "421 4.7.28 rate", "deferred", "policy", False),
        ("rcpt", "450 4.7.28 rate", "deferred", "policy", False),
        ("rcpt", "421 closing", "deferred", "relay", False),
        ("rcpt", "452 4.5.3 many", "deferred", "recipient", False),
        ("rcpt", "552 too many recipients", "deferred", "recipient", False),
        ("rcpt", "552 5.5.3 too many recipients", "deferred", "recipient", False),
        ("rcpt", "452 4.3.1 space", "deferred", "relay", False),
        ("rcpt", "452 4.2.2 full", "deferred", "recipient", False),
        ("rcpt", "552 5.2.2 full", "deferred", "recipient", False),
        ("dot", "552 5.2.2 full", "deferred", "recipient", False),
        *(
            ("rcpt", f"550 5.{x} hard", "refused", "recipient", True)
            for x in ("1.0", "1.1", "1.2", "1.3", "1.6", "1.10", "2.1")
        ),
        ("rcpt", "556 5.1.10 null MX", "refused", "recipient", True),
        ("rcpt", "556 null MX", "refused", "recipient", True),
        *(("rcpt", f"{code} unknown", "refused", "recipient", False) for code in (550, 551, 553)),
        ("rcpt", "550 5.4.1 access denied", "refused", "recipient", False),
        ("rcpt", "554 denied", "refused", "policy", False),
        *(
            (phase, f"550 5.7.{x} policy", "refused", "policy", False)
            for phase in ("rcpt", "data", "dot")
            for x in (1, 23, 26, 29, 515, 606, 649)
        ),
        ("dot", "550 5.1.1 late", "refused", "recipient", True),
        ("dot", "550 content", "refused", "policy", False),
        ("dot", "554 spam", "refused", "policy", False),
        ("data", "554 no", "refused", "policy", False),
        ("dot", "552 5.3.4 big", "refused", "message", False),
        ("dot", "552 big", "refused", "message", False),
        ("dot", "554 5.6.0 malformed", "refused", "message", False),
        ("dot", "554 5.5.2 malformed", "refused", "message", False),
        ("dot", "571 what", "refused", "message", False),
        ("dot", "451 4.3.0 later", "deferred", "relay", False),
        ("dot", "450 later", "deferred", "message", False),
        ("dot", "499 later", "deferred", "message", False),
        *(("dot", f"{code} fine", "accepted", None, False) for code in (250, 251, 252, 299)),
        ("dot", "354 go", "ambiguous", None, False),
    ],
)
def test_who_is_to_blame(phase: str, line: str, kind: str, scope: str | None, suppress: bool) -> None:
    outcome = judge(phase, reply(line), line)
    assert (outcome.kind, outcome.scope, outcome.suppress) == (kind, scope, suppress)


def test_a_full_mailbox_gets_hours_and_a_greylister_minutes() -> None:
    assert judge("rcpt", reply("552 5.2.2 full"), "").retry_after == timedelta(hours=4)
    assert judge("rcpt", reply("450 4.7.1 wait"), "").retry_after == timedelta(minutes=5)


def test_every_code_and_every_enhanced_code_gets_a_verdict_and_only_hard_ones_suppress() -> None:
    hard = set()
    for phase, code, sub in itertools.product(("mail", "rcpt", "data", "body", "dot"), range(400, 600), range(0, 8)):
        for detail in range(12):
            enhanced = f"{code // 100}.{sub}.{detail}"
            outcome = judge(phase, Reply(code, enhanced, (enhanced,)), "")
            assert outcome.kind in ("refused", "deferred")
            assert not outcome.suppress or (outcome.scope == "recipient" and phase != "mail")
            if outcome.suppress and code not in (556, *CREDENTIALS):
                hard.add(enhanced)
    assert hard == {"5.1.0", "5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1"}
