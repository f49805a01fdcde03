"""Progress for whoever waits: a spinner on a terminal, plain lines elsewhere (CI logs, pipes)."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console


class Step:
    """One step being told: call it with what it waits for at the moment."""

    def __init__(self, teller: Teller, what: str) -> None:
        self._teller, self._what = teller, what
        self.began = self._told = time.monotonic()
        self.note = ""

    def __call__(self, doing: str) -> None:
        seconds = time.monotonic() - self.began
        if self._teller.status:
            self._teller.status.update(f"{self._what} [dim]{doing} · {seconds:.0f} s[/dim]")
        elif time.monotonic() - self._told >= 10:
            self._told = time.monotonic()
            self._teller.line(f"    {self._what}: {doing}, {seconds:.0f} s")


class Teller:
    def __init__(self, console: Console | None = None) -> None:
        tty = sys.stdout.isatty()
        self.console = console or Console(width=None if tty else 110, highlight=False)
        self.status = None if not self.console.is_terminal else self.console.status("")

    def line(self, text: str = "") -> None:
        self.console.print(text, markup=False, soft_wrap=True)
        self.console.file.flush()

    @contextmanager
    def step(self, what: str) -> Iterator[Step]:
        """Tell that something goes on; at its end how long it took, with `step.note` if the block sets one."""
        step = Step(self, what)
        if self.status:
            self.status.update(what)
            self.status.start()
        try:
            yield step
        except BaseException:
            self._end("✗", step, what)
            raise
        self._end("✓", step, what)

    def _end(self, sign: str, step: Step, what: str) -> None:
        if self.status:
            self.status.stop()
        note = f": {step.note}" if step.note else ""
        self.line(f"  {sign} {what}{note} ({time.monotonic() - step.began:.1f} s)")
