"""Prints one line per message instead of sending it; nobody's data is in the line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from postlude.channels import Send
from postlude.message import Message, Outcome

idempotent = True  # nothing is delivered, so nothing is delivered twice


@contextmanager
def connect(url: str) -> Iterator[Send]:
    """Whatever the URL, the lines go to standard output."""
    yield _send


def events(url: str, since: datetime) -> Iterator[dict[str, Any]]:
    """A console bounces nothing."""
    return iter(())


def _send(message: Message, raw: bytes, intend: Callable[[], None]) -> Outcome:
    try:
        intend()
    except Exception as error:
        return Outcome("released", reply=f"intent not recorded: {type(error).__name__}")
    try:
        print(f"{message.kind} {message.campaign_id} {message.message_id} {len(raw)} bytes", flush=True)
    except OSError:
        return Outcome("ambiguous", reply="standard output is closed")
    return Outcome("accepted", reply="printed", provider_id=f"console-{message.message_id}")
