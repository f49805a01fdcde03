"""What a run is made of: its size, its faults, and what is drawn from the seed before it begins."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from postlude.calendar import Occasion
from postlude.campaign import Campaign, load_campaign
from simulator.crew import Hazards
from simulator.post import Mixture
from simulator.shop import DAY
from world import INCLUDE
from written import written

EVERYDAY, USUAL = Mixture(), Hazards()
Spans = list[tuple[datetime, datetime]]


@dataclass(frozen=True)
class Setup:
    """What is simulated. quiet: so many days at the end are free of faults, to see that everything comes to rest."""

    seed: str
    days: int = 40
    customers: int = 200
    quiet: int = 12
    start: datetime = datetime(2026, 2, 20, tzinfo=UTC)
    mixture: Mixture = EVERYDAY
    hazards: Hazards = USUAL
    unrest: float = 500  # how readily people unsubscribe while their mail is being handed over
    neglect: float = 400  # of a thousand evenings: nobody ends what is over
    again: int = 80  # of a thousand rows of the feed: told again up to 20 days later
    most: int = 3  # marketing messages in seven days, until somebody edits the calendar
    outage_days: tuple[int, ...] = ()  # lengths; none: drawn
    codes: int = 40  # imported loyalty codes there are in the beginning
    pace: float = 1  # 1: a customer orders every 20 to 200 days
    batches: tuple[int, ...] = (7, 40, 100)
    hours: tuple[int, ...] = (5, 7, 9, 11, 13, 15, 17, 19, 21, 23)  # of deliveries (UTC), where something is due
    passes: int = 0  # so many of the hours each day, drawn; 0: all of them
    pairs: float = 1  # how often two workers share a delivery that is worth it
    noon_feed: int = 1000  # of a thousand days: the feed tells more at noon, which no plan has seen
    occasions_every: int = 90  # days

    @property
    def calm_from(self) -> datetime:
        """From here on nothing goes wrong any more."""
        return self.start + (self.days - self.quiet) * DAY

    def outages(self) -> Spans:
        """When the feed tells nothing: one to 120 days each, about a fifth of the time."""
        draw, found, lengths = random.Random(f"{self.seed}/outages"), Spans(), list(self.outage_days)
        while not self.outage_days and sum(lengths) < self.days / 5:
            lengths.append(min(int(1 + 120 * draw.random() ** 4), max(2, self.days // 4)))
        at = self.start + 3 * DAY
        for length in lengths:
            at += timedelta(days=draw.uniform(2, max(3, self.days / 8)))
            if at + length * DAY < self.calm_from:
                found.append((at, at + length * DAY))
            at += length * DAY
        return found

    def relay_down(self) -> Spans:
        draw, found = random.Random(f"{self.seed}/relay"), Spans()
        for day in range(0, (self.calm_from - self.start).days, 6):
            at = self.start + day * DAY + timedelta(hours=draw.uniform(4, 10))
            found.append((at, at + timedelta(hours=draw.uniform(3, 9))))
        return found

    def occasions(self) -> tuple[Occasion, ...]:
        days = [self.start.date() + timedelta(days=day) for day in range(9, self.days, self.occasions_every)]
        return tuple(Occasion(id="spring", date=day, why="spring") for day in days)

    def campaigns(self, folder: Path) -> dict[str, Campaign]:
        """The shipped ones, a transactional notice, and mail to everybody that needs an approval and waits for a click."""
        found = {
            name: load_campaign(INCLUDE / "campaigns" / f"{name}.yml")
            for name in ("feedback_30d", "win_back", "loyalty_join")
        }
        found["shipped_notice"] = written(
            folder, "{event: shipped, entry: from_now_on, max_age: 2 days}", name="shipped_notice",
            steps="  - {id: go, template: feedback_30d/ask, after: 0 hours, expires_after: 2 days}\n",
            more="exit_on: [cancelled]\nstop_while: []",
        ).model_copy(update={"kind": "transactional"})  # fmt: skip
        found["spring"] = written(
            folder, "{occasion: spring, entry: existing, max_age: 3 days, once_per: episode}", name="spring",
            steps="  - {id: hello, template: win_back/whats_new, on_day: 0, expires_after: 3 days}\n"
            "  - {id: more, template: win_back/last_word, wait_for: {event: clicked, timeout: 3 days, else: skip}, "
            "after: 1 hours, expires_after: 2 days}\n",
            more="stop_while: []\nneeds_fresh_orders: false\npriority: 3\napproval: {above: 40}",
        )  # fmt: skip
        return found
