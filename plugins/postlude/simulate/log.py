"""What a simulation notes down while its days pass, beside what stands in the tables of the copy at the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Any
from uuid import UUID


@dataclass
class Log:
    put_off: list[tuple[date, UUID, str, str]] = field(default_factory=list)  # day, message, state, reason
    gates: list[dict[str, Any]] = field(default_factory=list)
    stock: list[dict[str, Any]] = field(default_factory=list)  # of coupons, at the end of each day
    assumptions: list[str] = field(default_factory=list)
    passes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)  # by kind of work

    def spent(self, what: str, seconds: float) -> None:
        self.seconds[what] = self.seconds.get(what, 0.0) + seconds
