"""When customers of the sample shop buy, what it costs, how it reaches them, and what they say about it.

Purchases follow BG/NBD (Fader, Hardie, Lee 2005): each customer buys at a rate of their own (gamma distributed) and
stops for good after any repeat purchase with a probability of their own (beta distributed). Order values follow
Gamma-Gamma (Fader, Hardie 2013). The clock of that process runs faster in the busy hours, weekdays and months of the
customer's own zone.

All that will happen until the end of the day of `now` (UTC) is drawn, then what lies after `now` is hidden: a feed made
later on the same day adds to the earlier one and changes nothing that had happened.

Instants are whole seconds since 1970 (int64), `NEVER` where there is none; amounts are cents.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np

from postlude.sample.catalogue import Catalogue, pick
from postlude.sample.happenings import told
from postlude.sample.people import ZONES, Table, consents, customers

DAY, HOUR = 86_400, 3_600
NEVER = -1
HISTORY = timedelta(days=730)
SHOP_ZONE = 0  # position in ZONES of the shop's own zone

# BG/NBD with time in weeks, Gamma-Gamma in EUR; chosen for the stage mix of a shop in its second year
RATE_SHAPE, RATE_SCALE, DROPOUT_A, DROPOUT_B = 0.6, 4.2, 0.8, 2.5
VALUE_P, VALUE_Q, VALUE_SCALE = 6.0, 4.0, 30.0
GROWTH = 0.0018  # new customers per day grow by this share a day
BUYERS = 0.96  # of all accounts; the rest never ordered

_MONTHS = np.array([0.90, 0.86, 0.93, 0.95, 1.00, 0.97, 0.93, 0.90, 0.97, 1.03, 1.24, 1.28])
_WEEKDAYS = np.array([1.10, 1.02, 1.00, 0.98, 0.94, 0.88, 1.12])  # from Monday
_HOURS = np.array(
    [0.35, 0.20, 0.12, 0.10, 0.10, 0.20, 0.50, 0.80, 0.95, 1.10, 1.20, 1.25,
     1.35, 1.25, 1.10, 1.05, 1.10, 1.20, 1.40, 1.70, 1.90, 1.80, 1.30, 0.75]
)  # fmt: skip
_PROMISED = np.array([zone.promised_days for zone in ZONES])
_MARGIN = np.array([zone.same_day_margin for zone in ZONES])
_TOPICS = (
    "people",
    "process",
    "baskets",
    "delivery",
    "voices",
    "faults",
    "happenings",
)  # one stream of random numbers each


class Era:
    """Two years until the end of the day of `now`, hour by hour in each zone: offset from UTC, how busy the shop is."""

    def __init__(self, now: datetime) -> None:
        self.now = int(now.timestamp())
        self.today = self.now // DAY * DAY
        self.end = self.today + DAY
        self.start = self.end - int(HISTORY.total_seconds())
        hours = (self.end - self.start) // HOUR
        instants = self.start + HOUR * np.arange(hours)
        self.offset = np.array([[_offset(zone.name, int(at)) for at in instants] for zone in ZONES], dtype=np.int64)
        local = instants + self.offset
        month = (local // DAY).astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) % 12
        busy = _MONTHS[month] * _WEEKDAYS[(local // DAY + 3) % 7] * _HOURS[local // HOUR % 24]
        grown = busy * np.exp(GROWTH * (instants - self.start) / DAY)
        self.weeks = (self.end - self.start) / (7 * DAY)
        self._elapsed = _cumulated(busy) * self.weeks
        self._joined = _cumulated(grown[:, :-24])  # until today: a shop of n customers has n at any hour of the day
        self._grid = self.start + HOUR * np.arange(hours + 1)

    def busy_weeks(self, instant: np.ndarray, zone: np.ndarray) -> np.ndarray:
        """Weeks since the start as the purchase process counts them."""
        return self._by_zone(zone, instant, lambda z, x: np.interp(x, self._grid, self._elapsed[z]))

    def instant(self, busy_weeks: np.ndarray, zone: np.ndarray) -> np.ndarray:
        """The inverse of `busy_weeks`, in whole seconds."""
        found = self._by_zone(zone, busy_weeks, lambda z, x: np.interp(x, self._elapsed[z], self._grid))
        return found.astype(np.int64)

    def joining(self, share: np.ndarray, zone: np.ndarray) -> np.ndarray:
        """The instant by which this share of the zone's customers had joined."""
        return self._by_zone(zone, share, lambda z, x: np.interp(x, self._joined[z], self._grid[:-24])).astype(np.int64)

    def seen(self, instant: np.ndarray) -> np.ndarray:
        """The instants before now; NEVER for later ones."""
        return np.where(instant < self.now, instant, NEVER)

    def utc_offset(self, instant: np.ndarray, zone: np.ndarray | int) -> np.ndarray:
        """Seconds to add for local time; the last known offset for instants to come."""
        return self.offset[zone, np.clip((instant - self.start) // HOUR, 0, self.offset.shape[1] - 1)]

    @staticmethod
    def _by_zone(zone: np.ndarray, values: np.ndarray, look_up) -> np.ndarray:  # type: ignore[no-untyped-def]
        found = np.empty(len(values))
        for number in range(len(ZONES)):
            here = zone == number
            found[here] = look_up(number, values[here])
        return found


def _offset(zone: str, instant: int) -> int:
    offset = datetime.fromtimestamp(instant, ZoneInfo(zone)).utcoffset()
    assert offset is not None
    return int(offset.total_seconds())


def _cumulated(weights: np.ndarray) -> np.ndarray:
    total = np.concatenate([np.zeros((len(weights), 1)), np.cumsum(weights, axis=1)], axis=1)
    return total / total[:, -1:]


def chunk(era: Era, shelf: Catalogue, seed: int, number: int, size: int, *, bad_share: float) -> dict[str, Table]:
    """Everything about `size` customers: chunk `number` of the shop with this seed, one table per entity.

    Each table has the columns `customer` (number from 1) and `fault`: the fault of a faulty copy of the row, or 0.
    """
    rng = {topic: stream(seed, number, topic) for topic in _TOPICS}
    people = customers(rng["people"], number * size + 1, size)
    orders, joined_at = _orders(rng["process"], era, people)
    people["created_at"] = people["since"] = joined_at - rng["people"].integers(0, 40 * 60, size)
    lines = _baskets(rng["baskets"], shelf, orders)
    parcels = _delivery(rng["delivery"], era, orders)
    voices = _voices(rng["voices"], era, orders)
    agreed = consents(rng["people"], people, people["created_at"], era.today)
    events = told(rng["happenings"], era, people, orders, len(shelf.sku))
    tables = {
        "customers": people, "consents": agreed, "orders": orders, "order_lines": lines, "shipments": parcels, **voices,
        "external_events": events,
    }  # fmt: skip
    for table in tables.values():
        rows = len(table["customer"])
        faulty = rng["faults"].random(rows) < bad_share
        table["fault"] = np.where(faulty, rng["faults"].integers(1, 7, rows), 0).astype(np.int8)
    return {
        entity: {column: values[table["since"] < era.now] for column, values in table.items()}
        for entity, table in tables.items()
    }


def stream(seed: int, number: int, topic: str) -> np.random.Generator:
    """The random numbers of one topic of one chunk; independent of every other chunk and topic."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, number, *topic.encode()])))


def _orders(rng: np.random.Generator, era: Era, people: Table) -> tuple[Table, np.ndarray]:
    """The orders, by customer and time, and the instant each customer joined (the first order, if there is one)."""
    zone = people["zone"]
    size = len(zone)
    joined_at = era.joining(rng.random(size), zone)
    rate = rng.gamma(RATE_SHAPE, 1 / RATE_SCALE, size)
    dropout = rng.beta(DROPOUT_A, DROPOUT_B, size)
    value_rate = rng.gamma(VALUE_Q, 1 / VALUE_SCALE, size)
    buying = np.flatnonzero(rng.random(size) < BUYERS)

    when = era.busy_weeks(joined_at, zone)
    rounds = [(buying, when[buying])]
    while len(buying):
        when[buying] += rng.exponential(1.0, len(buying)) / rate[buying]
        buying = buying[when[buying] < era.weeks]
        rounds.append((buying, when[buying]))
        buying = buying[rng.random(len(buying)) >= dropout[buying]]
    who = np.concatenate([who for who, _ in rounds])
    times = np.concatenate([times for _, times in rounds])
    in_order = np.argsort(who, kind="stable")  # the rounds are in order of time
    who, times = who[in_order], times[in_order]
    starts = np.flatnonzero(np.diff(who, prepend=-1))
    nth = np.arange(len(who)) - np.repeat(starts, np.diff(starts, append=len(who))) + 1

    count = len(who)
    placed_at = np.minimum(era.instant(times, zone[who]), era.end - 1)
    marketplace = people["marketplace"][who] | (rng.random(count) < 0.018)
    return {
        "customer": people["customer"][who],
        "nth": nth,
        "zone": zone[who],
        "placed_at": placed_at,
        "since": placed_at,
        "value": rng.gamma(VALUE_P, 1.0, count) / value_rate[who],
        "marketplace": np.where(marketplace, rng.integers(1, 3, count), 0),
        "gift": rng.random(count) < 0.04,
    }, joined_at


def _baskets(rng: np.random.Generator, shelf: Catalogue, orders: Table) -> Table:
    """The lines of each order, priced so that they come to about its value; sets `paid` on the orders."""
    value = orders["value"]
    counts = 1 + np.searchsorted([0.46, 0.74, 0.89, 0.96], rng.random(len(value)))
    counts = np.clip(counts, 1, np.maximum(value // 9, 1)).astype(np.int64)
    of = np.repeat(np.arange(len(value)), counts)
    starts = np.cumsum(counts) - counts
    line_no = np.arange(len(of)) - starts[of] + 1
    weight = rng.exponential(1.0, len(of)) + 0.35
    weight /= np.add.reduceat(weight, starts)[of]
    target = 100 * value[of] * weight
    quantity = np.where(target < 4000, 1 + np.searchsorted([0.78, 0.94], rng.random(len(of))), 1)
    product = pick(rng, shelf, target / quantity)
    # some second lines are what people usually take along with the first
    along = (line_no == 2) & (rng.random(len(of)) < 0.3)
    product[along] = shelf.companion[product[np.flatnonzero(along) - 1]]
    reduced = np.where(rng.random(len(of)) < 0.12, rng.choice([75, 80, 90], len(of)), 100)
    unit = shelf.cents[product] * reduced // 100
    unit[(line_no > 1) & (rng.random(len(of)) < 0.01)] = 0  # a free sample
    goods = np.add.reduceat(unit * quantity, starts)
    orders["paid"] = goods + np.where(goods < 6000, np.where(orders["zone"] == SHOP_ZONE, 490, 990), 0)
    orders["product"] = product[starts]
    orders["lines"] = counts
    return {
        "customer": orders["customer"][of], "nth": orders["nth"][of], "line_no": line_no, "product": product + 1,
        "quantity": quantity, "unit": unit, "placed_at": orders["placed_at"][of],
        "since": orders["placed_at"][of],
    }  # fmt: skip


def _delivery(rng: np.random.Generator, era: Era, orders: Table) -> Table:
    """The parcels; sets paid, cancelled, promised and arrival times and the status on the orders."""
    placed, zone, count = orders["placed_at"], orders["zone"], len(orders["zone"])
    slow = rng.random(count) < 0.03  # paid by bank transfer
    paid = placed + np.where(slow, rng.integers(10 * HOUR, 3 * DAY, count), rng.integers(5, 900, count))
    cancelled = np.where(rng.random(count) < 0.021, placed + rng.integers(HOUR // 4, 30 * HOUR, count), NEVER)
    shipped = paid + rng.integers(3 * HOUR, 40 * HOUR, count)
    promised = (placed + era.utc_offset(placed, SHOP_ZONE)) // DAY + _PROMISED[zone]

    late = rng.random(count) < 0.064
    early = np.minimum(rng.binomial(_PROMISED[zone] - 1, 0.35), _PROMISED[zone] - 2)
    day = np.where(late, promised + rng.geometric(0.45, count), promised - np.maximum(early, _MARGIN[zone]))
    delivered = day * DAY + rng.integers(9 * HOUR, 19 * HOUR, count)
    delivered -= era.utc_offset(delivered, zone)
    delivered += DAY * np.maximum(-((delivered - shipped - 14 * HOUR) // DAY), 0)
    parcels = 1 + ((orders["lines"] > 1) & (rng.random(count) < 0.14))

    of = np.repeat(np.arange(count), parcels)
    second = np.diff(of, prepend=-1) == 0
    shipped_at = shipped[of] + np.where(second, rng.integers(HOUR, 20 * HOUR, len(of)), 0)
    delivered_at = delivered[of] + np.where(
        second, DAY * rng.integers(0, 2, len(of)) + rng.integers(0, 3 * HOUR, len(of)), 0
    )
    delivered_at = np.maximum(delivered_at, shipped_at + 10 * HOUR)
    delivered_at[rng.random(len(of)) < 0.003] = NEVER  # lost

    starts = np.cumsum(parcels) - parcels
    complete = np.minimum.reduceat(delivered_at, starts) != NEVER
    kept = cancelled == NEVER
    orders["late"] = late
    orders["promised_on"] = promised
    orders["arrives_at"] = np.where(kept & complete, np.maximum.reduceat(delivered_at, starts), NEVER)
    orders["cancelled_at"] = era.seen(cancelled)
    orders["paid_at"] = era.seen(np.where(kept | (paid < cancelled), paid, NEVER))
    arrived, left = era.seen(orders["arrives_at"]), era.seen(np.where(kept, shipped, NEVER))
    orders["status"] = np.select(
        [at != NEVER for at in (orders["cancelled_at"], arrived, left, orders["paid_at"])], [5, 4, 3, 2], 1
    )
    orders["updated_at"] = np.maximum.reduce([placed, orders["cancelled_at"], orders["paid_at"], arrived, left])
    out = np.flatnonzero(kept[of])
    return {
        "customer": orders["customer"][of[out]], "nth": orders["nth"][of[out]], "parcel": 1 + second[out],
        "carrier": 1 + (zone[of[out]] + second[out]) % 4, "since": shipped_at[out], "shipped_at": shipped_at[out],
        "eta": promised[of[out]] - 1 + late[of[out]], "delivered_at": era.seen(delivered_at[out]),
    }  # fmt: skip


def _voices(rng: np.random.Generator, era: Era, orders: Table) -> dict[str, Table]:
    """What comes back: returns, reviews, tickets to customer service; sets the status `returned` on the orders."""
    count = len(orders["nth"])
    arrives, late, first = orders["arrives_at"], orders["late"], orders["product"] + 1
    here = arrives != NEVER

    asked = arrives + rng.integers(DAY // 2, 13 * DAY, count)
    received = asked + rng.integers(2 * DAY, 10 * DAY, count)
    refunded = received + rng.integers(4 * HOUR, 3 * DAY, count)
    refunded += np.where(asked // 60 % 12 == 0, 15 * DAY, 0)  # some refunds are late
    forgotten = rng.random(count) < 0.01  # asked for, never sent back, never closed
    returned = np.flatnonzero(here & (rng.random(count) < np.where(late, 0.11, 0.062)))
    asked, received, refunded = (
        asked[returned],
        *(era.seen(np.where(forgotten, NEVER, at)[returned]) for at in (received, refunded)),
    )
    orders["status"][returned[refunded != NEVER]] = 6
    np.maximum.at(orders["updated_at"], returned, np.maximum.reduce([era.seen(asked), received, refunded]))

    said_at = arrives + (rng.gamma(1.3, 7 * DAY, count)).astype(np.int64) + HOUR
    willing = rng.random(count) < np.where(orders["gift"], 0.10, 0.27)
    draw = rng.random(count)
    score = 1 + np.where(
        late, np.searchsorted([0.24, 0.44, 0.63, 0.84], draw), np.searchsorted([0.04, 0.09, 0.20, 0.48], draw)
    )
    answered = np.where(score <= 3, era.seen(said_at + rng.integers(HOUR, 5 * DAY, count)), NEVER)
    reviewed = np.flatnonzero(here & willing & (orders["marketplace"] == 0))

    opened = orders["placed_at"] + rng.integers(HOUR, 18 * DAY, count)
    closed = era.seen(opened + (rng.gamma(1.2, 2 * DAY, count)).astype(np.int64) + 600)
    closed = np.where(rng.random(count) < 0.02, NEVER, closed)
    asking = np.flatnonzero(rng.random(count) < np.where(late, 0.16, 0.03))

    def of(rows: np.ndarray, since: np.ndarray, **columns: np.ndarray) -> Table:
        return {"customer": orders["customer"][rows], "nth": orders["nth"][rows], "since": since, **columns}

    return {
        "returns": of(
            returned, asked, product=first[returned], requested_at=asked, received_at=received, refunded_at=refunded
        ),
        "reviews": of(
            reviewed, said_at[reviewed], product=first[reviewed], score=score[reviewed],
            created_at=said_at[reviewed], answered_at=answered[reviewed],
        ),
        "tickets": of(asking, opened[asking], opened_at=opened[asking], closed_at=closed[asking]),
    }  # fmt: skip
