"""The time machine: the real stages on a copy of the database, under a virtual clock, with a transport that sends nothing.

`run` answers what will go out from an instant on, to whom, and why not; `contract.compare` does it with and without a changed
calendar and tells the difference in people.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args

from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import URL

from postlude import db
from postlude.calendar import Calendar
from postlude.errors import InputError
from postlude.simulate.copying import copied
from postlude.simulate.days import Days
from postlude.simulate.figures import Story, story
from postlude.simulate.future import draw_orders
from postlude.simulate.past import Past, rewind

Future = Literal["no-new-orders", "replay-history", "sampled"]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Wanted:
    """What is simulated. first: aware UTC; calendar: instead of the one in force; every: so often something is delivered.

    grant: a plan that the volume gate holds is approved at once (it is told in `gates`); else it waits and expires.
    """

    first: datetime
    days: int = 45
    future: Future = "no-new-orders"
    seed: int = 7
    calendar: Calendar | None = None
    every: timedelta = timedelta(hours=1)
    grant: bool = True

    @property
    def until(self) -> datetime:
        return self.first + timedelta(days=self.days)


def run(url: URL, wanted: Wanted, progress: Progress | None = None, *, template: bool = True) -> Story:
    """Simulate on a copy of the database at `url`, which is only read. progress(days done, of how many).

    Raises InputError when it cannot be simulated so, Unavailable without a server.
    """
    _check(wanted)
    began = time.perf_counter()
    with copied(url, template) as copy:
        engine = engine_of(copy)
        try:
            past = rewind(engine, wanted.first)
            if wanted.future == "replay-history":
                world = Past(engine, wanted.first, wanted.until, past, wanted.calendar)
                world.run(progress)
                return story(engine, wanted, world.log, time.perf_counter() - began, url)
            if wanted.future == "sampled":
                draw_orders(engine, wanted.first, wanted.until, wanted.seed)
            days = Days(engine, wanted.first, wanted.until, wanted.calendar, wanted.every, wanted.grant)
            days.run(progress)
            return story(engine, wanted, days.log, time.perf_counter() - began)
        finally:
            engine.dispose()


def engine_of(copy: URL) -> Engine:
    """As the library's own, but what is committed need not survive a crash: the copy does not either.

    The copy was written just now and is in memory: a row by an index costs what a row in passing costs.
    """
    options = "-csearch_path=postlude,public -ctimezone=UTC -csynchronous_commit=off -cjit=off -crandom_page_cost=1.1"
    return create_engine(
        db._psycopg(copy),
        connect_args={"options": options},
        json_serializer=db.dumps,
        hide_parameters=True,
        pool_use_lifo=True,
    )


def _check(wanted: Wanted) -> None:
    if wanted.first.tzinfo is None:
        raise ValueError("the first instant needs a zone")
    if not 1 <= wanted.days <= 730:
        raise InputError(f"--days: {wanted.days} days cannot be simulated; write 1 to 730")
    if wanted.future not in get_args(Future):
        raise InputError(f'--future: there is no "{wanted.future}"; choose {", ".join(get_args(Future))}')
    if wanted.every < timedelta(minutes=1):
        raise InputError("deliveries closer than a minute are not simulated")
    if wanted.future == "replay-history" and wanted.until > datetime.now(UTC):
        raise InputError(
            f"replay-history plays what has happened, and the window from {wanted.first:%Y-%m-%d} ends on {wanted.until:%Y-%m-%d}; "
            "choose an earlier --from, fewer --days, or another --future"
        )


__all__ = ["Future", "Story", "Wanted", "run"]
