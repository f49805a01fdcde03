"""Who is to blame: the table from a phase and a reply to an Outcome. Only the recipient's own hard fault suppresses.

Phases: banner, ehlo, tls, auth, mail, rcpt, data, body (a reply that came before we were done), dot.
"""

from __future__ import annotations

from datetime import timedelta

from postlude.channels._smtp_client import Reply
from postlude.message import Outcome, Scope

_HARD = {"5.1.0", "5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1"}
_MESSAGE = {"5.3.4", "5.2.3"}
_THROTTLED = {"4.7.0", "4.7.28"}
_CREDENTIALS = {530, 534, 535, 538}
_CONNECTION = ("banner", "ehlo", "tls", "auth")  # nothing was said about a message yet

_SOON = timedelta(minutes=1)
_GREYLISTED = timedelta(minutes=5)
_MAILBOX_FULL = timedelta(hours=4)
_FULL_TRIES = 3


def lost(phase: str, why: str) -> Outcome:
    """No reply: harmless before the dot, unknowable after it."""
    if phase == "dot":
        return Outcome("ambiguous", reply=f"after the final dot: {why}")
    return Outcome("deferred", "relay", f"{phase}: {why}", retry_after=_SOON)


def judge(phase: str, reply: Reply, text: str) -> Outcome:
    """What a complete reply that is not the hoped-for one means; `text` is the reply as it may be stored.

    After the dot any 2yz is acceptance, and 3yz is as unknowable as no reply.
    """
    if phase == "dot" and reply.kind == 2:
        return Outcome("accepted", reply=text)
    if reply.kind not in (4, 5):
        return lost(phase, f"unexpected {reply.code}")
    if phase in _CONNECTION:
        blames_us = phase == "auth" and reply.kind == 5
        return Outcome("deferred", "configuration" if blames_us else "relay", text, retry_after=_SOON)
    if reply.code in _CREDENTIALS:
        return Outcome("deferred", "configuration", text, retry_after=_SOON)
    if phase == "mail":
        return _judge_sender(reply, text)
    return _temporary(phase, reply, text) if reply.kind == 4 else _permanent(phase, reply, text)


def closes_session(reply: Reply) -> bool:
    """After 421 and its kin nothing more may be said on the connection."""
    return reply.code == 421 or reply.enhanced in _THROTTLED or reply.enhanced == "4.4.2"


def _judge_sender(reply: Reply, text: str) -> Outcome:
    """MAIL FROM speaks of us: never an effect on the recipient."""
    if reply.enhanced in _MESSAGE or (reply.code == 552 and not reply.enhanced):
        return Outcome("refused", "message", text)
    if reply.kind == 5 or reply.enhanced.startswith(("4.1.", "4.7.")):
        return Outcome("deferred", "configuration", text, retry_after=_GREYLISTED)
    return Outcome("deferred", "relay", text, retry_after=_SOON)


def _temporary(phase: str, reply: Reply, text: str) -> Outcome:
    if reply.enhanced == "4.2.2":
        return Outcome("deferred", "recipient", text, retry_after=_MAILBOX_FULL, tries=_FULL_TRIES)
    if reply.enhanced in _THROTTLED or (reply.code == 421 and reply.enhanced.startswith("4.7.")):
        return Outcome("deferred", "policy", text, retry_after=_GREYLISTED)
    if reply.code == 421 or reply.enhanced == "4.4.2" or reply.enhanced.startswith("4.3."):
        return Outcome("deferred", "relay", text, retry_after=_SOON)
    return Outcome("deferred", "recipient" if phase == "rcpt" else "message", text, retry_after=_GREYLISTED)


def _permanent(phase: str, reply: Reply, text: str) -> Outcome:
    code, enhanced, at_rcpt = reply.code, reply.enhanced, phase == "rcpt"
    # at RCPT, 552 is often "too many recipients", which RFC 5321 section 4.5.3.1.10 wants taken as temporary
    crowded = at_rcpt and code == 552 and enhanced in ("", "5.5.3")
    if enhanced in _HARD or code == 556:
        return Outcome("refused", "recipient", text, suppress=True)
    if crowded:
        return Outcome("deferred", "recipient", text, retry_after=_GREYLISTED)
    if enhanced == "5.2.2":
        return Outcome("deferred", "recipient", text, retry_after=_MAILBOX_FULL, tries=_FULL_TRIES)
    scope: Scope
    if enhanced in _MESSAGE or enhanced.startswith(("5.5.", "5.6.")):
        scope = "message"
    elif enhanced.startswith("5.7.") or code == 554:
        scope = "policy"
    elif at_rcpt and code in (501, 550, 551, 553):
        scope = "recipient"  # unverified: one such reply proves nothing about the address, so nothing is suppressed
    else:
        scope = "policy" if at_rcpt or code in (550, 551, 553) else "message"
    return Outcome("refused", scope, text)
