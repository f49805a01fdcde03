"""From claimed rows to mails as they go out: read for a batch at once, written one by one, many in a row."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row

from postlude import claims as about_products
from postlude import db, letter_extras, letter_facts, rendering
from postlude.errors import InputError, PostludeError, Refused
from postlude.letter import Desk, definition_of
from postlude.message import Message, thawed, to_bytes

# so many mails are written at a time: one after the other is done sooner than each between other work
AHEAD = 64


class Written(NamedTuple):
    """A mail as it goes out."""

    message: Message
    coupon: str | None
    raw: bytes
    content_hash: str


@dataclass(eq=False, slots=True)
class Mail:
    """A claim, what its template needs to know, and where its batch is written; then the mail, or why there is none."""

    claim: Row[Any]
    letter: Row[Any]
    desk: Desk
    written: Written | PostludeError | None = None
    tried: bool = False  # by write_all
    _composed: tuple[Message, str | None] | None = None

    def write(self, now: datetime) -> None:
        """Once. What befalls this mail is no other's concern; what was handed over before, answer lost, is not written anew."""
        self.compose(now)
        self.seal()

    def compose(self, now: datetime) -> None:
        """The first half of `write`: what it says."""
        if self.written or self._composed:
            return
        letter = self.letter
        try:
            if letter.kept_letter:
                self._composed = thawed(letter.kept_letter), letter.coupon_code
            else:
                self._composed = self.desk.write(letter, now)
        except (rendering.RenderError, Refused, InputError) as error:
            self.written = error.with_traceback(None)

    def seal(self) -> None:
        """The second half: its bytes."""
        if not self._composed:
            return
        (message, coupon), self._composed = self._composed, None
        try:
            raw = (
                bytes(self.letter.kept_raw) if self.letter.kept_letter else self.desk.signed(message, to_bytes(message))
            )
        except (Refused, InputError) as error:
            self.written = error.with_traceback(None)
        else:
            self.written = Written(message, coupon, raw, hashlib.sha256(raw).hexdigest())


def write_all(mails: Sequence[Mail], now: datetime) -> None:
    """First what they all say, then the bytes of all: each half finds its code and tables where it left them, a tenth sooner done."""
    for step in (lambda mail: mail.compose(now), Mail.seal):
        for mail in mails:
            try:
                step(mail)
            except Exception:  # noqa: S112 - what nobody foresaw is raised when it is this mail's turn
                continue
    for mail in mails:
        mail.tried = True


def read(conn: Connection, claims: Sequence[Row[Any]], channel: str, now: datetime) -> list[Mail]:
    """What the templates of these claims ask for, as far as they ask."""
    desk = Desk()  # whatever was edited meanwhile holds from this batch on
    uses = {name: desk.speaks_of(name, channel) for name in {claim.template for claim in claims}}
    desk.read = frozenset(part for paths in uses.values() for part in letter_facts.parts(paths))
    speaks = {name: {path.partition(".")[0].removesuffix("[]") for path in paths} for name, paths in uses.items()}
    ids = db.array([claim.message_id for claim in claims])
    rows = db.light(db.run(conn, "43_letters", ids=ids, facts=sorted(desk.read), now=now))
    more = letter_extras.of(conn, rows, speaks, now)
    desk.goods = about_products.catalogue(conn, rows)
    desk.extras = {message_id: rendering.plain(found) for message_id, found in more.items()}
    for row in rows:
        if row.definition:
            definition_of(row)
    letters = {row.message_id: row for row in rows}
    return [Mail(claim, letters[claim.message_id], desk) for claim in claims]
