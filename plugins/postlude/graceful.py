"""A process that is told to stop (SIGTERM) ends what it is doing first, and then dies of the signal as it would have."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def told_to_stop(stop: Callable[[], None]) -> Iterator[None]:
    """While the block runs, SIGTERM calls stop(), which must return at once; after the block the signal is delivered again.

    Outside the main thread signals are not ours to handle, and nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    told: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        told.append(number)
        stop()

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
        if told:
            os.kill(os.getpid(), signal.SIGTERM)
