"""When a message that was put off is tried again: by what was said, by whom, and how often before. Pure, and the same at every replay.

The reply table itself is in channels/_smtp_blame.py: it says who is to blame and what to wait at least.
"""

from __future__ import annotations

from datetime import timedelta
from hashlib import sha256
from uuid import UUID

from postlude.message import Outcome

TRIES = 5  # hand-overs that may fail by the message's or recipient's fault; column default of messages.max_attempts
# minutes until the next try; greylisters want five, then more. The message's own expiry ends them.
_LADDER = (5, 15, 45, 120, 240)
# a relay that is down, or a configuration at fault: no try is used up
_RELAY_LADDER = (1, 2, 5, 10, 15)
_JITTER = 0.2


def next_try(outcome: Outcome, attempt: int, max_attempts: int, message_id: UUID) -> timedelta | None:
    """How long to wait after this outcome (deferred or released); None: it has been tried often enough.

    attempt: hand-overs started, from 1. max_attempts: TRIES, and one more for each that was nobody's fault here.
    """
    spared = max(0, max_attempts - TRIES)
    if outcome.kind == "released":
        return timedelta(0)
    if blameless(outcome):
        ladder, place = _RELAY_LADDER, spared
    else:
        place = max(0, attempt - spared - 1)
        if place + 1 >= (outcome.tries or TRIES):
            return None
        ladder = _LADDER
    least = outcome.retry_after or timedelta(0)
    wait = max(least, timedelta(minutes=ladder[min(place, len(ladder) - 1)]))
    return max(least, wait * (1 + _JITTER * _dice(message_id, attempt)))


def blameless(outcome: Outcome) -> bool:
    """Neither the message nor its recipient is at fault: no try is used up."""
    return outcome.kind == "released" or outcome.scope in ("relay", "configuration")


def _dice(message_id: UUID, attempt: int) -> float:
    """From -1 to 1, always the same for this try."""
    return int.from_bytes(sha256(message_id.bytes + attempt.to_bytes(4, "big")).digest()[:4], "big") / 2**31 - 1
