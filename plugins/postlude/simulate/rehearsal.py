"""Delivery without a channel: claim, last look, intent and settlement are the outbox's own, a thousand messages at a time.

Nothing is written and nothing leaves: who answers is the relay of the simulation, which takes everything, or says what the real
one said when a past window is played again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row

from postlude import db, tokens
from postlude.calendar import Calendar
from postlude.campaign import Campaign
from postlude.ledger import Intent
from postlude.message import Outcome
from postlude.outbox import WALK, Outbox

ACCEPTED = Outcome("accepted", reply="simulated")
# what befell a message then, instead of an outcome of the relay: state, reason and detail it got
Fate = Outcome | tuple[str, str, str | None]
Answers = Callable[[Connection, list[Row[Any]]], Mapping[UUID, Fate]]


class NoChannel:
    """Stands where a channel stands; it cannot send."""

    idempotent = False

    def connect(self, url: str) -> Any:
        return nullcontext(None)

    def events(self, url: str, since: datetime) -> Any:
        return iter(())


@dataclass
class Rehearsal(Outbox):
    """One channel's deliveries, each as of one instant: one connection for all, which knows its statements.

    put_off: (message, state, reason) of everything that was not sent in the last one.
    """

    answers: Answers | None = None
    fresh: list[str] | None = None  # the stale feeds, where they were judged already
    put_off: list[tuple[UUID, str, str]] = field(default_factory=list)

    def rehearse(self, campaigns: list[Campaign], calendar: Calendar) -> None:
        """Judge everything due by the clock; what passes is settled as it would be."""
        self.campaigns, self.calendar, self.put_off = campaigns, calendar, []
        self._turns_of_ghosts(10_000)
        idle = 0
        while idle < 5 and (claimed := self.claim(self.batch)) is not None:
            idle = 0 if claimed else idle + 1
            self.put_off += [(row.message_id, row.state, row.reason) for row in claimed if row.state != "sending"]
            if mine := [row for row in claimed if row.state == "sending"]:
                self._settle_all(mine)

    def close(self) -> None:
        self._ledger.close()

    def _stale_feeds(self, conn: Connection, now: datetime) -> list[str]:
        return super()._stale_feeds(conn, now) if self.fresh is None else self.fresh

    def _settle_all(self, mine: list[Row[Any]]) -> None:
        with db.transaction(self.engine) as conn:
            conn.execute(WALK, {"sort": "on"})
            fates = self.answers(conn, mine) if self.answers else {}
            letters = {
                row.message_id: row for row in db.run(conn, "85_letters_in_short", ids=[c.message_id for c in mine])
            }
        handed: list[tuple[Row[Any], Intent, Outcome]] = []
        for claim in mine:
            fate = fates.get(claim.message_id, ACCEPTED)
            if isinstance(fate, tuple):  # it never came to a hand-over
                state, reason, detail = fate
                self._finish(claim, state, reason, detail, None)
                continue
            letter = letters[claim.message_id]
            code = letter.coupon_code
            if code is None and letter.pool:
                code = tokens.coupon_code(letter.pool, claim.message_id, claim.attempt - 1)
            handed.append((claim, Intent(claim, letter, "simulated", code), fate))
        self._ledger.intend(*[intent for _, intent, _ in handed])
        for claim, intent, fate in handed:
            if intent.error:
                raise intent.error
            if intent.kept:
                self._settle(claim, fate)
            elif intent.stop:
                self._release_stopped(claim, intent.stop)
            else:
                self._settle(claim, Outcome("released", reply="the message may not go any more"))
        self._ledger.flush()
