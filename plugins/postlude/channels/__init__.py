"""Ways a message leaves the house: one module per channel, found by its file name.

A channel is a module with

    idempotent          sending the same message_id twice delivers once, so an unknown outcome may be tried again
    connect(url)        context manager that yields `send`; InputError for a URL it cannot read; opens nothing yet
    events(url, since)  what the channel has to report since then: dicts kind, at, message_id, source, detail

and `send(message, raw, intend) -> Outcome` keeps this order:

    1. everything that can fail without the message being accepted, up to the last byte of the body
    2. intend(): the caller commits the intent; called at most once, and never unless 3 follows directly
    3. the act that makes it theirs (SMTP: the final dot, a write of its own), then the answer

If intend() raises an Exception, 3 does not happen: the connection is dropped and the outcome is `released`, with the
exception's class as reply (whoever needs the exception keeps it in the closure). Any other BaseException (a signal, a
task time-out) drops the connection and passes through: before 2 nothing was handed over, after it nobody knows.
`send` never raises otherwise, belongs to one thread, and its Outcome is final: closing the connection changes nothing.

A channel that can serve many connections in one thread (postlude/loop.py) has also `sessions(url)`: it makes sessions whose
`send(message, raw)` gives the steps of a hand-over: (link, event, deadline) to wait for, INTEND at 2, at their end the Outcome.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Protocol, cast

from postlude.errors import InputError
from postlude.message import Message, Outcome

INTEND = object()  # among the steps of a hand-over: the body is theirs up to the last byte, and nothing of the dot
Send = Callable[[Message, bytes, Callable[[], None]], Outcome]


class Channel(Protocol):
    """What a channel module offers."""

    idempotent: bool

    def connect(self, url: str, /) -> AbstractContextManager[Send]: ...

    def events(self, url: str, since: datetime, /) -> Iterator[dict[str, Any]]: ...


def names() -> list[str]:
    """The channels there are."""
    return sorted(found.name for found in pkgutil.iter_modules(__path__) if not found.name.startswith("_"))


def channel(name: str) -> Channel:
    """The channel of that name. Raises InputError when there is none, or when its module lacks something."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name not in names():
        raise InputError(f'there is no channel "{name}"; write one of: {", ".join(names())}')
    module = importlib.import_module(f"{__name__}.{name}")
    missing = [part for part in ("idempotent", "connect", "events") if not hasattr(module, part)]
    if missing:
        raise InputError(f'the channel "{name}" lacks {" and ".join(missing)}; see postlude/channels/__init__.py')
    return cast(Channel, module)
