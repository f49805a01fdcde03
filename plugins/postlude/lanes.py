"""Several connections of one worker: each a thread of its own with its own `send`, all fed from one list.

With one lane everything happens in the caller's thread, in order.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")

_PATIENCE = 30.0  # seconds a lane has to end its message when the worker is told to stop
_TICK = 0.05


class Lanes(Generic[Item]):
    """`count` lanes over connect(); work(send, item) hands one item over. Use as a context manager.

    ready(item): may it go now? Asked under the lanes' lock, each time a lane looks for work; an item that may not is passed
    over until `changed` is called. tick: called in the caller's thread while it waits.
    """

    def __init__(
        self,
        count: int,
        connect: Callable[[], AbstractContextManager[Any]],
        work: Callable[[Any, Item], None],
        tick: Callable[[], None] = lambda: None,
        ready: Callable[[Item], bool] = lambda item: True,
    ) -> None:
        self._count, self._connect, self._work, self._tick, self._ready = count, connect, work, tick, ready
        self._waiting: list[Item] = []
        self._busy = 0
        self._stopped = False
        self._error: BaseException | None = None
        lock = threading.Lock()
        self._change = threading.Condition(lock)  # lanes wait for it
        self._progress = threading.Condition(lock)  # the caller waits for it
        self._enough = 0
        self._threads: list[threading.Thread] = []
        self._own = ExitStack()
        self._send: Any = None

    def __enter__(self) -> Lanes[Item]:
        if self._count == 1:
            self._send = self._own.enter_context(self._connect())
        else:
            with self._connect():  # a URL that cannot be read is the caller's to hear of
                pass
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        with self._progress:
            self._enough = 0
            self._progress.wait_for(lambda: not self._busy, _PATIENCE)
        for thread in self._threads:
            thread.join(_PATIENCE if not self._busy else 0)
        self._own.__exit__(kind, error, trace)

    def put(self, items: Iterable[Item]) -> None:
        """Hand these over; with one lane it is done on return, unless the lanes were stopped meanwhile."""
        with self._change:
            self._waiting.extend(items)
            self._change.notify_all()
        if self._count == 1:
            while (item := self._next(wait=False)) is not None:
                self._work(self._send, item)
            return
        while len(self._threads) < min(self._count, len(self._waiting)):
            thread = threading.Thread(target=self._run, name=f"lane-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def wait(self, at_most: int = 0) -> None:
        """Until at most so many items wait (0: and none is under way), or the lanes were stopped. Raises what a lane raised."""

        def over() -> bool:
            left = len(self._waiting) + (self._busy if not at_most else 0)
            return self._error is not None or left <= at_most or (self._stopped and not self._busy)

        while True:
            with self._progress:
                self._enough = at_most
                done = self._progress.wait_for(over, _TICK)
                error, self._error = self._error, None
            if error:
                raise error
            if done or self._count == 1:
                return
            self._tick()

    def stop(self) -> list[Item]:
        """No lane begins another item; returns those that were not begun. What is under way is finished."""
        with self._change:
            self._stopped = True
            left, self._waiting = self._waiting, []
            self._change.notify_all()
            self._progress.notify_all()
        return left

    @property
    def stopped(self) -> bool:
        return self._stopped

    @property
    def busy(self) -> bool:
        """Is anything waiting or under way?"""
        return bool(self._waiting or self._busy)

    def changed(self) -> None:
        """What `ready` says may have changed."""
        with self._change:
            self._change.notify_all()

    def pause(self, seconds: float) -> None:
        """Of the calling lane; ends early when the lanes are stopped."""
        with self._change:
            self._change.wait_for(lambda: self._stopped, seconds)

    def _next(self, wait: bool = True) -> Item | None:
        with self._change:
            while not self._stopped:
                for place, item in enumerate(self._waiting):
                    if self._ready(item):
                        del self._waiting[place]
                        self._busy += wait
                        return item
                if not wait:
                    return None
                self._change.wait(1.0)
            return None

    def _run(self) -> None:
        try:
            with self._connect() as send:
                while (item := self._next()) is not None:
                    try:
                        self._work(send, item)
                    finally:
                        with self._change:
                            self._busy -= 1
                            self._change.notify()  # what was not ready may be so now
                            if len(self._waiting) <= self._enough:
                                self._progress.notify_all()
        except BaseException as error:
            with self._change:
                self._error = self._error or error
                self._stopped = True
                self._change.notify_all()
                self._progress.notify_all()
