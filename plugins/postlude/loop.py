"""Many connections of one worker in one thread: whichever link can go on goes on, and all bodies that wait for their final dot share
one commit.

Does what lanes.py does, for channels whose sessions tell in steps what they wait for (channels/smtp.py). A thread per connection
spends more on switching between threads than on mail.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from time import monotonic
from typing import Any, Generic, Protocol, TypeVar

from postlude.lanes import _PATIENCE, Item, Lanes
from postlude.message import Message, Outcome


class Intended(Protocol):
    """After its commit: why the dot must not follow; None: it is kept."""

    @property
    def refusal(self) -> Exception | None: ...


class Parcel(Protocol):
    """A message ready to be handed over."""

    @property
    def message(self) -> Message: ...

    @property
    def raw(self) -> bytes: ...

    @property
    def intent(self) -> Intended: ...


class Session(Protocol):
    """A connection: see channels.smtp.Session."""

    def send(self, message: Message, raw: bytes, /) -> Generator[Any, bool, Outcome]: ...

    def close(self) -> Generator[Any, bool, None]: ...

    def drop(self) -> None: ...


P = TypeVar("P", bound=Parcel)
_SOME = 16  # so many are prepared early at a time; longer, and the connections would wait for it


@dataclass(eq=False)
class _Line(Generic[P]):
    """One connection and what it is at."""

    session: Session
    parcel: P | None = None
    steps: Generator[Any, bool, Any] | None = None
    event: int = 0  # it waits for this; 0: for the ledger, or for nothing
    deadline: float = 0.0
    wire: Any = None  # the socket that is watched, its number, and for what
    fd: int = -1
    watched: int = 0
    rests_until: float = 0.0


class Loop(Lanes[Item], Generic[Item, P]):
    """`count` connections in one thread; the same to its caller as Lanes.

    prepare(item): the parcel, None when there is nothing to hand over; conclude(parcel, outcome): what became of it. Both in the
    loop's thread. ahead(items, following): told there that these are prepared next, and likely the following, `how_far` at most;
    whether there was something to do.
    intend(parcels): commits their intents, in a thread of its own. signal: what a session yields to ask for that.
    """

    def __init__(
        self,
        count: int,
        open_session: Callable[[], Session],
        prepare: Callable[[Item], P | None],
        conclude: Callable[[P, Outcome], None],
        intend: Callable[[list[P]], None],
        signal: object,
        tick: Callable[[], None] = lambda: None,
        ready: Callable[[Item], bool] = lambda item: True,
        ahead: Callable[[Sequence[Item], Sequence[Item]], bool] = lambda items, following: False,
        how_far: int = 0,
    ) -> None:
        super().__init__(count, _no_connection, lambda send, item: None, tick, ready)
        self._ahead, self._how_far = ahead, how_far
        self._open, self._prepare, self._conclude = open_session, prepare, conclude
        self._intend, self._signal = intend, signal
        self._poll = select.epoll()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll.register(self._bell, select.EPOLLIN)
        self._at: dict[int, _Line[P]] = {}
        self._current: _Line[P] | None = None
        self._bodies: list[_Line[P]] = []  # up to their last byte; wait for the ledger
        self._to_ledger: SimpleQueue[list[_Line[P]] | None] = SimpleQueue()
        self._from_ledger: deque[tuple[list[_Line[P]], BaseException | None]] = deque()
        self._committing = False
        self._looked = 0.0  # for those whose time has passed

    # -- for the caller

    def __enter__(self) -> Loop[Item, P]:
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._to_ledger.put(None)
        if not any(thread.is_alive() for thread in self._threads):
            with self._change:  # a stop may still ring; the number may soon be somebody else's
                bell, self._bell = self._bell, -1
            os.close(bell)
            self._poll.close()

    def put(self, items: Iterable[Item]) -> None:
        with self._change:
            self._waiting.extend(items)
        if not self._threads:
            self._threads = [
                threading.Thread(target=self._run, name="loop", daemon=True),
                threading.Thread(target=self._commit, name="ledger", daemon=True),
            ]
            for thread in self._threads:
                thread.start()
        self._ring()

    def stop(self) -> list[Item]:
        left = super().stop()
        self._ring()
        return left

    def changed(self) -> None:
        self._ring()

    def pause(self, seconds: float) -> None:
        """Of the connection whose outcome is being concluded: it begins nothing for so long."""
        if self._current:
            self._current.rests_until = monotonic() + seconds

    def _ring(self) -> None:
        with self._change:
            if self._bell >= 0:
                os.eventfd_write(self._bell, 1)

    # -- the ledger's thread

    def _commit(self) -> None:
        while (lines := self._to_ledger.get()) is not None:
            error: BaseException | None = None
            try:
                self._intend([line.parcel for line in lines if line.parcel])
            except BaseException as caught:
                error = caught
            self._from_ledger.append((lines, error))
            self._ring()

    # -- the loop's thread

    def _run(self) -> None:
        lines: list[_Line[P]] = [_Line(self._open()) for _ in range(self._count)]
        try:
            while not (self._stopped and not self._busy):
                more = self._feed(lines)
                self._to_commit(in_a_hurry=not more)
                self._turn(0 if more or self._early() else self._patience(lines))
            for line in lines:
                self._go_on(line, line.session.close())
            limit = monotonic() + _PATIENCE
            while any(line.steps for line in lines) and monotonic() < limit:
                self._turn(self._patience(lines))
        except BaseException as error:
            with self._change:
                self._error = self._error or error
                self._stopped, self._busy = True, 0
                self._change.notify_all()
                self._progress.notify_all()
        finally:
            self._to_ledger.put(None)
            for line in lines:
                line.session.drop()

    def _feed(self, lines: list[_Line[P]]) -> bool:
        """Give idle connections their next messages; True when there may be more to do at once."""
        now = monotonic()
        idle = [line for line in lines if line.steps is None and line.rests_until <= now]
        if not idle:
            return False
        items, following = self._take(len(idle))
        if not items:
            return False
        self._ahead(items, following)
        for line, item in zip(idle, items, strict=False):
            self._current = line
            parcel = self._prepare(item)
            if parcel is None:
                self._end()
                continue
            line.parcel = parcel
            self._go_on(line, line.session.send(parcel.message, parcel.raw))
        return any(line.steps is None for line in idle)

    def _take(self, most: int) -> tuple[list[Item], list[Item]]:
        """Up to `most` items that may go now, and those that wait behind them."""
        found: list[Item] = []
        left: list[Item] = []
        with self._change:
            if self._stopped:
                return found, left
            for place, item in enumerate(self._waiting):
                if len(found) == most:
                    left += self._waiting[place:]
                    break
                (found if self._ready(item) else left).append(item)
            if found:
                self._waiting = left
            self._busy += len(found)
            return found, left[: self._how_far]

    def _early(self) -> bool:
        """While all connections wait for the server or the ledger: some of what is prepared next. False: nothing is left to do."""
        with self._change:
            waiting = [] if self._stopped else self._waiting[: 2 * self._how_far]
        return any(self._ahead(waiting[at : at + _SOME], ()) for at in range(0, len(waiting), _SOME))

    def _patience(self, lines: list[_Line[P]]) -> float:
        """Seconds until something has to be looked at even if nothing comes."""
        now = monotonic()
        times = [line.deadline for line in lines if line.event] + [
            line.rests_until for line in lines if line.rests_until > now
        ]
        return max(0.0, min([*times, now + 1.0]) - now)

    def _to_commit(self, in_a_hurry: bool) -> None:
        """The larger a group, the cheaper its commit; while it is committed, the other connections get the next bodies."""
        if self._bodies and not self._committing and (in_a_hurry or len(self._bodies) >= self._count // 2):
            self._committing = True
            self._to_ledger.put(self._bodies)
            self._bodies = []

    def _turn(self, seconds: float) -> None:
        """Wait so long at most, and let everybody go on who can."""
        found = self._poll.poll(seconds)
        for fd, _ in found:
            if fd == self._bell:
                os.eventfd_read(fd)
            elif line := self._at.get(fd):
                if line.event:
                    self._step(line, True)
                else:  # the server spoke while the ledger is at it: seen before the dot
                    self._forget(line)
        while self._from_ledger:
            done, error = self._from_ledger.popleft()
            self._committing = False
            if error:
                raise error
            for line in done:
                self._intended(line)
        now = monotonic()
        if not found or now > self._looked + 0.5:
            self._looked = now
            for line in [line for line in self._at.values() if line.event and line.deadline <= now]:
                self._step(line, False)

    def _intended(self, line: _Line[P]) -> None:
        assert line.parcel
        refusal = line.parcel.intent.refusal
        if refusal is None:
            self._step(line, True)
        else:
            self._advance(line, refusal)

    def _go_on(self, line: _Line[P], steps: Generator[Any, bool, Any]) -> None:
        line.steps = steps
        self._advance(line, None)

    def _step(self, line: _Line[P], has_come: bool) -> None:
        self._advance(line, has_come)

    def _advance(self, line: _Line[P], told: bool | Exception | None) -> None:
        """Take steps until the next that waits. told: what the last one waited for has come, or not, or why it will not; None: begin."""
        assert line.steps
        self._current, line.event = line, 0
        try:
            wait = line.steps.throw(told) if isinstance(told, Exception) else line.steps.send(told)  # type: ignore[arg-type]
            while wait is not self._signal and wait[0].at_once(wait[1]):
                wait = line.steps.send(True)
        except StopIteration as end:
            parcel, line.parcel, line.steps = line.parcel, None, None
            if parcel:
                self._conclude(parcel, end.value)
                self._end()
            return
        if wait is self._signal:
            self._bodies.append(line)
            return
        link, line.event, line.deadline = wait
        if line.wire is not link.wire or line.watched != line.event:
            self._watch(line, link.wire)

    def _watch(self, line: _Line[P], wire: Any) -> None:
        """Be told when the socket can do what the line waits for. A closed one has left the kernel's list by itself."""
        fd = wire.fileno()
        if line.wire is not wire and self._at.get(line.fd) is line:
            del self._at[line.fd]
        try:
            if self._at.get(fd) is line:
                self._poll.modify(fd, line.event)
            else:
                self._poll.register(fd, line.event)
        except FileExistsError:  # the same connection, under TLS now
            self._poll.modify(fd, line.event)
        self._at[fd] = line
        line.wire, line.fd, line.watched = wire, fd, line.event

    def _forget(self, line: _Line[P]) -> None:
        del self._at[line.fd]
        self._poll.unregister(line.fd)
        line.wire, line.fd, line.watched = None, -1, 0

    def _end(self) -> None:
        """One item less under way."""
        with self._change:
            self._busy -= 1
            if len(self._waiting) <= self._enough:
                self._progress.notify_all()


@contextmanager
def _no_connection() -> Any:
    yield None
