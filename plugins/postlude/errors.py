"""What can go wrong, sorted by who has to act.

PostludeError
├── InputError       a person must mend a file or an argument: "file:line: key: what is wrong; how to mend it"
├── GateClosed       data failed a check; retrying cannot help, somebody must look
├── Unavailable      the world said "not now": time-out, 4yz reply, database restart; retried
└── Refused          the world said "never": 5yz reply, invalid address; not retried
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


class PostludeError(Exception):
    """Anything Postlude raises on purpose."""


@dataclass(frozen=True)
class Fault:
    """One mistake in one file: where it is, what is wrong, how to mend it."""

    file: str
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.key + ': ' if self.key else ''}{self.message}"


class InputError(PostludeError):
    """A person must mend a file or an argument; carries every fault found, not only the first."""

    def __init__(self, faults: Iterable[Fault] | str) -> None:
        self.faults = [Fault("", 0, "", faults)] if isinstance(faults, str) else list(faults)
        super().__init__("\n".join(f.message if not f.file else str(f) for f in self.faults))


class GateClosed(PostludeError):
    """A check between two stages failed: what follows must not run."""


class Unavailable(PostludeError):
    """Not now: worth another try later."""


class Refused(PostludeError):
    """Never: another try cannot help."""
