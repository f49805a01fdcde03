"""Banners for the shop's own pages: a message becomes a row that /b/{token} of the public pages shows until it expires.

URL: banner:      (or banner:postgresql://... for another database)

Nobody's data is in the row: no name, no address. Storing the same message again changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from postlude import db
from postlude.channels import Send
from postlude.errors import InputError, PostludeError
from postlude.message import Message, Outcome, clean

idempotent = True


@contextmanager
def connect(url: str) -> Iterator[Send]:
    if not url.startswith("banner:"):
        raise InputError("the banner URL must begin with banner:")
    named = url.removeprefix("banner:")
    engine = db.engine(named) if named else db.default_engine()

    def send(message: Message, raw: bytes, intend: Callable[[], None]) -> Outcome:
        return _send(engine, message, intend)

    try:
        yield send
    finally:
        if named:
            engine.dispose()


def events(url: str, since: datetime) -> Iterator[dict[str, Any]]:
    """A banner that is shown is not reported; a click on it is a visit of the shop."""
    return iter(())


def _send(engine: Engine, message: Message, intend: Callable[[], None]) -> Outcome:
    if not message.person or not message.expires_at:
        return Outcome("refused", "message", "a banner needs a person and an end")
    row = {
        "message": message.message_id, "person": message.person, "campaign": message.campaign_id,
        "title": clean(message.subject), "body": message.text.strip(), "link": message.link,
        "shown_from": message.date, "shown_until": message.expires_at,
    }  # fmt: skip
    try:
        with db.transaction(engine) as conn:
            db.run(conn, "48_store_banner", **row)
            try:
                intend()
            except Exception as error:
                raise _NotRecorded(type(error).__name__) from None
    except _NotRecorded as error:
        return Outcome("released", reply=f"intent not recorded: {error}")
    except (SQLAlchemyError, PostludeError) as error:
        # the row and nothing else makes it visible, and storing it twice changes nothing: it did not happen
        return Outcome("deferred", "relay", f"not stored: {type(error).__name__}")
    return Outcome("accepted", reply="stored", provider_id=f"banner-{message.message_id}")


class _NotRecorded(Exception):
    """The intent failed; the text is the class of its error."""
