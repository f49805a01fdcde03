"""Intents and settlements of one worker, committed in groups: one durable commit serves all connections that wait for one.

Whoever comes first commits for everybody who came meanwhile; with one connection that is one commit per message. An intent
is durable before `intend` returns, and its dot follows directly: of a dead worker at most one message per connection is
`unknown` without having been sent. A settlement waits for the next group unless its caller waits for it.
"""

from __future__ import annotations

import threading
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

import psycopg
from sqlalchemy import Connection, Engine

from postlude import db
from postlude.errors import PostludeError, Unavailable


class LostClaim(PostludeError):
    """The claim is no longer ours, or the message must not go any more: nothing is handed over."""


class Claim(Protocol):
    """The part of a claimed row that names the claim. key: the id as text."""

    message_id: UUID
    key: str
    attempt: int


@dataclass(eq=False)
class Intent:
    """One message about to be handed over. `kept`: durable; else `stop` names the switch that stopped it, if one did.

    keep: letter and raw of 44_keep_letters, committed with the intent: what a second hand-over would send.
    """

    claim: Claim
    letter: Any
    content_hash: str
    coupon: str | None
    keep: dict[str, Any] | None = None
    kept: bool = False
    stop: str = ""
    error: Exception | None = None
    done: bool = False

    @property
    def refusal(self) -> Exception | None:
        """Why the dot must not follow."""
        if self.kept and not self.error:
            return None
        return self.error or LostClaim(self.stop or "the claim was lost, or the message may not go any more")


@dataclass(eq=False)
class Settlement:
    """What became of one claim: the fields of 45_settle. suppress: the mailbox does not exist, for the relay said so."""

    claim: Claim
    fields: dict[str, Any]
    suppress: bool = False
    settled: bool = False
    error: Exception | None = None
    done: bool = False


class Ledger:
    """Group commit of one worker. obey(intents, conn) marks those that a switch stops: conn None reads the file only.

    told(settlement) is called after each commit, under the ledger's lock. Safe for many threads.
    """

    def __init__(
        self,
        engine: Engine,
        worker: str,
        clock: Callable[[], datetime],
        lease: timedelta,
        obey: Callable[[list[Intent], Connection | None], None],
        told: Callable[[Settlement], None],
    ) -> None:
        self._engine, self._worker, self._clock, self._lease = engine, worker, clock, lease
        self._obey, self._told = obey, told
        self._pipe: db.Pipe | None = None
        self._committing = threading.RLock()
        self._error: Exception | None = None  # of a settlement that nobody waited for
        self._queue: list[Intent | Settlement] = []
        self._guard = threading.Lock()  # of the queue

    def intend(self, *intents: Intent) -> None:
        """Returns once it is known of each whether it is kept (its `refusal`), with all that waited to be settled."""
        with self._guard:
            self._queue += intents
        with self._committing:
            if not all(intent.done for intent in intents):
                self._commit()

    def settle(self, settlement: Settlement, wait: bool) -> None:
        """Store an outcome; wait: not later but now. Raises what the database raised, when waiting."""
        with self._guard:
            self._queue.append(settlement)
        if wait:
            with self._committing:
                if not settlement.done:
                    self._commit()
            if settlement.error:
                raise settlement.error

    def flush(self) -> None:
        """Commit what waits. Raises what befell a settlement since the last time; what was to be settled is left to recovery."""
        with self._committing:
            self._commit()
            error, self._error = self._error, None
        if error:
            raise error

    def close(self) -> None:
        with self._committing:
            self._disconnect()

    # -- one group

    def _commit(self) -> None:
        with self._guard:
            group, self._queue = self._queue, []
        try:
            self._write(group)
        except Exception as error:
            if not isinstance(error, psycopg.Error) or len(group) == 1:
                self._blame(group, error)
            else:  # one of them is at fault: the others go without it
                for entry in group:
                    try:
                        self._write([entry])
                    except Exception as own:
                        self._blame([entry], own)
        finally:
            for entry in group:
                entry.done = True

    def _blame(self, group: list[Intent | Settlement], error: Exception) -> None:
        for entry in group:
            entry.error = error
            if isinstance(entry, Intent):
                entry.kept = False
            else:
                self._error = self._error or error

    def _write(self, group: list[Intent | Settlement]) -> None:
        intents = [entry for entry in group if isinstance(entry, Intent)]
        settlements = [entry for entry in group if isinstance(entry, Settlement)]
        if intents:
            self._obey(intents, None)
            intents = [intent for intent in intents if not intent.stop]
        if not intents and not settlements:
            return
        kept, settled = self._transaction(intents, settlements)
        for intent in intents:
            intent.kept = intent.claim.key in kept
        for settlement in settlements:
            settlement.settled = settlement.claim.key in settled
            self._told(settlement)

    def _transaction(self, intents: list[Intent], settlements: list[Settlement]) -> tuple[set[str], set[str]]:
        now = self._clock()
        statements = []
        if intents:
            statements.append(("44_intend", self._intents(intents, now)))
        if settlements:
            statements.append(("45_settle", self._settlements(settlements, now)))
        if any(intent.keep for intent in intents):
            statements.append(("44_keep_letters", self._letters(intents, now)))
        if dead := [s.claim.message_id for s in settlements if s.suppress]:
            # with it or not at all: a settled message is not looked at again
            statements.append(("47_suppress_recipients", {"ids": dead, "now": now}))
        was_open = self._pipe is not None
        try:
            self._pipe = self._pipe or db.Pipe(self._engine)
            found = self._pipe.run(*statements)
        except Unavailable:
            self._disconnect()
            if not was_open:
                raise
            # the server may be back: a fresh connection decides, and what was kept after all is kept no second time
            return self._transaction(intents, settlements)
        except BaseException:
            self._disconnect()
            raise
        kept = set(found[0]) if intents else set()
        settled = set(found[bool(intents)]) if settlements else set()
        if refused := [intent for intent in intents if intent.claim.key not in kept]:
            with db.transaction(self._engine) as conn:
                self._obey(refused, conn)
        return kept, settled

    def _intents(self, intents: list[Intent], now: datetime) -> dict[str, Any]:
        return {
            "ids": db.array([i.claim.key for i in intents]),
            "attempts": db.array([i.claim.attempt for i in intents]),
            "hashes": db.array([i.content_hash for i in intents]),
            "codes": [i.coupon for i in intents] if any(i.coupon for i in intents) else db.array(["null"] * len(intents)),
            "worker": self._worker, "now": now, "lease": self._lease,
        }  # fmt: skip

    def _letters(self, intents: list[Intent], now: datetime) -> dict[str, Any]:
        # one document, and no arrays: the driver would escape each quotation mark of a letter by itself, at twice the cost of writing it
        kept = ", ".join(
            f'{{"message_id": "{i.claim.message_id}", "attempt": {i.claim.attempt}, "letter": {i.keep["letter"]}, '
            f'"raw": "{b64encode(i.keep["raw"]).decode()}"}}'
            for i in intents
            if i.keep
        )
        return {"rows": f"[{kept}]", "worker": self._worker, "now": now}

    def _settlements(self, settlements: list[Settlement], now: datetime) -> dict[str, Any]:
        rows = [
            {
                "message_id": s.claim.key,
                "attempt": s.claim.attempt,
                **{name: value for name, value in s.fields.items() if value is not None},
            }
            for s in settlements
        ]
        return {"rows": db.dumps(rows), "worker": self._worker, "now": now}

    def _disconnect(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
        self._pipe = None
