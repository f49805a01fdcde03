"""The sample shop: a seeded feed of any size, as Parquet files, one folder per entity.

    counts = generate(Path("sample"), customers=50_000, seed=7, now=datetime.now(UTC))

The feed ends at `now` and begins two years before it, so there is work due today. The same seed, size and `now`
give the same rows; customers come in chunks of `CHUNK`, and what happens to a customer depends neither on how many
follow nor on the faults.
Import this only where it is used: it needs numpy and DuckDB.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import duckdb
import numpy as np

from postlude.errors import InputError, Unavailable
from postlude.sample import catalogue, happenings, people, purchases
from postlude.sample.people import Table

ENTITIES = ("customers", "consents", "products", "orders", "order_lines", "shipments", "returns", "reviews", "tickets",
            "external_events")  # fmt: skip
CHUNK = 25_000
LARGEST = 10_000_000
CURRENCY = "EUR"

Progress = Callable[[str, int, int], None]


def generate(
    folder: Path,
    customers: int,
    seed: int,
    now: datetime,
    progress: Progress | None = None,
    *,
    bad_share: float = 0.001,
) -> dict[str, int]:
    """Write the feed of a shop with `customers` customers into `folder`/<entity>/part-<number>.parquet.

    now: aware; the last instant of the feed, in whole seconds. progress(label, done, total): called after each chunk.
    bad_share: for about this share of the rows (at most 0.02) a faulty copy is added: no id, unknown customer, year
    2099, and so on; the good rows are the same whatever it is. Parts of an earlier feed are replaced once the new one
    is complete.
    Returns the rows written per entity, faulty ones included, and the number of `faulty` ones.
    Raises InputError for an argument that makes no sense, Unavailable when the files cannot be written.
    """
    if not 1 <= customers <= LARGEST:
        raise InputError(f"customers: {customers:,} is out of range; ask for 1 to {LARGEST:,}")
    if seed < 0:
        raise InputError(f"seed: {seed} is negative; use 0 or a positive whole number")
    if not 0 <= bad_share <= 0.02:
        raise InputError(f"bad_share: {bad_share} is out of range; give a share between 0 and 0.02")
    if now.tzinfo is None:
        raise InputError("now: has no time zone; give an aware instant")
    now = now.replace(microsecond=0)
    tell = progress or (lambda label, done, total: None)
    fresh = folder / ".partial"
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        for entity in ENTITIES:
            (fresh / entity).mkdir(parents=True)
        counts = _write(fresh, customers, seed, purchases.Era(now), tell, bad_share=bad_share)
        for entity in ENTITIES:
            (folder / entity).mkdir(exist_ok=True)
            for stale in (folder / entity).glob("part-*.parquet"):
                stale.unlink()
            for part in (fresh / entity).iterdir():
                part.rename(folder / entity / part.name)
    except (OSError, duckdb.IOException) as error:
        raise Unavailable(f"the sample shop could not be written to {folder}: {error}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return counts


def _write(
    fresh: Path, total: int, seed: int, era: purchases.Era, tell: Progress, *, bad_share: float
) -> dict[str, int]:
    shelf = catalogue.catalogue(purchases.stream(seed, 0, "catalogue"))
    counts = dict.fromkeys((*ENTITIES, "faulty"), 0)
    with duckdb.connect(config={"autoinstall_known_extensions": "false"}) as engine:
        _prepare(engine, shelf, era.today)

        def put(entity: str, number: int, table: Table) -> None:
            engine.register("t", table)
            path = str(fresh / entity / f"part-{number:05d}.parquet").replace("'", "''")
            engine.execute(f"copy ({_select(entity)}) to '{path}' (format parquet, compression zstd)")
            engine.unregister("t")
            faulty = int(np.count_nonzero(table["fault"]))
            counts[entity] += len(table["fault"]) + faulty
            counts["faulty"] += faulty

        products = happenings.versions(catalogue.table(shelf, era.today), era.today)
        fault = np.zeros(len(products["product"]), dtype=np.int8)
        fault[-1] = bad_share > 0
        put("products", 0, {**products, "fault": fault})
        for number, begin in enumerate(range(0, total, CHUNK)):
            # always a whole chunk, then cut: a customer is the same in a small shop and in a large one
            for entity, table in purchases.chunk(era, shelf, seed, number, CHUNK, bad_share=bad_share).items():
                wanted = _used(entity, table)
                if begin + CHUNK > total:
                    keep = table["customer"] <= total
                    wanted = {column: values[keep] for column, values in wanted.items()}
                put(entity, number, wanted)
            tell("customers", min(begin + CHUNK, total), total)
    return counts


# ---------------------------------------------------------------- from numbers to the columns of the feed

_CUSTOMER = "'c' || lpad(customer::varchar, 8, '0')"
_ORDER = "'o' || lpad(customer::varchar, 8, '0') || '-' || lpad(nth::varchar, 3, '0')"
_FAR = "timestamptz '2099-01-01 00:00:00+00'"


def _at(column: str) -> str:
    return f"case when {column} >= 0 then to_timestamp({column}) end"


def _money(cents: str) -> str:
    return f"({cents} * 0.01::decimal(3, 2))::decimal(12, 2)"


def _one_of(words: str, position: str) -> str:
    return f"getvariable('{words}')[{position}]"


_KIND = _one_of("kinds", "kind")
_SKU, _SECOND = _one_of("skus", "product"), _one_of("skus", "second")
_DETAILS = {
    "checkout_started": f"json_object('cart', number::varchar, 'items', json_array(json_object('sku', {_SKU}, 'quantity', 1 + number % 2), "
    f"json_object('sku', {_SECOND}, 'quantity', 1)), 'url', 'https://shop.example/cart/' || number)",
    "product_watched": f"json_object('sku', {_SKU}, 'wants', case number % 2 when 0 then 'back_in_stock' else 'price_drop' end)",
    "frustration": "json_object('signal', case number % 3 when 0 then 'rage_click' when 1 then 'dead_click' else 'error' end, "
    "'page', '/checkout')",
    "payment_failed": "json_object('invoice', 'i' || number, 'amount', 5 + number % 90, 'currency', 'EUR', 'due_on', "
    "strftime(to_timestamp(\"at\") + interval 14 day, '%Y-%m-%d'), 'url', 'https://shop.example/pay/' || number)",
    "payment_succeeded": "json_object('invoice', 'i' || number, 'what', case club when 1 then 'club' else 'order' end)",
    "damaged": f"json_object('order_number', {_ORDER})",
    "carrier_exception": f"json_object('order_number', {_ORDER}, 'cause', case number % 2 when 0 then 'weather' else 'address' end)",
    "guest_order": f"json_object('order_number', {_ORDER})",
    "visited": "json_object('page', '/')",
    "lead_created": "json_object('interest', 'leather care', 'url', 'https://shop.example/guides/leather')",
    "trial_started": "json_object('plan', 'Coffee box', 'ends_on', strftime(to_timestamp(\"at\") + interval 14 day, '%Y-%m-%d'), "
    "'url', 'https://shop.example/box')",
    "loyalty_joined": "json_object('club', case club when 1 then 'paid' else 'free' end)",
    "poll_opened": "json_object('poll', 'spring', 'question', 'Which colour comes next?', 'options', json_array('sage', 'rust'), "
    "'url', 'https://shop.example/poll/spring', 'valid_until', strftime(to_timestamp(\"at\") + interval 14 day, '%Y-%m-%dT00:00:00Z'))",
    "service_notice": "json_object('text', 'Parcels take a day longer this week.', 'valid_until', "
    "strftime(to_timestamp(\"at\") + interval 5 day, '%Y-%m-%dT00:00:00Z'))",
}
_DETAIL = (
    f"cast(case {_KIND} "
    + " ".join(f"when '{kind}' then {made}" for kind, made in _DETAILS.items())
    + " else '{}' end as varchar)"
)

# what order mails say; made of what is there, so that no draw of anything else changes
_SAID_OF_ORDERS = {
    "shipping_amount": f"case when paid_at >= 0 then {_money('shipping')} end",
    "payment": "['Visa ending in 4242', 'Mastercard ending in 5454', 'PayPal'][1 + customer % 3]",
    "address": f"(1 + customer % 90) || ' Mill Row' || chr(10) || {_one_of('countries', 'zone + 1')}",
    "url": f"'https://shop.example/orders/' || {_ORDER}",
}
COLUMNS: dict[str, dict[str, str]] = {
    "customers": {
        "customer_id": _CUSTOMER,
        "email": f"case when email_known then {_CUSTOMER} || '@customers.example' end",
        "first_name": _one_of("first_names", "first_name"),
        "last_name": _one_of("last_names", "last_name"),
        "locale": _one_of("locales", "locale"),
        "time_zone": f"case when zone_known then {_one_of('zones', 'zone + 1')} end",
        "country": _one_of("countries", "zone + 1"),
        # made of the number, so that no draw of anything else changes; some tell the first of January, as forms invite to
        "birthday": "case when customer % 3 > 0 then case when customer % 40 = 1 then date '1990-01-01' "
        "else date '1948-03-01' + (customer * 7919 % 21000)::int end end",
        "renews_on": "case when customer % 50 = 7 then getvariable('today') + (customer // 50 % 40 - 5)::int end",
        "marketplace": "marketplace",
        "created_at": _at("created_at"),
        "updated_at": _at("created_at"),
    },
    "consents": {
        "customer_id": _CUSTOMER,
        "channel": "'email'",
        "topic": "'marketing'",
        "granted": "granted",
        "agreed_at": _at("agreed_at"),
        "basis": _one_of("bases", "basis"),
    },
    "products": {
        "sku": _one_of("skus", "product"),
        "name": _one_of("products", "product"),
        "category": _one_of("categories", "product"),
        "price": _money("cents"),
        "url": f"'https://shop.example/p/' || {_one_of('skus', 'product')}",
        "image_url": f"'https://shop.example/i/' || {_one_of('skus', 'product')} || '.jpg'",
        "in_stock": "in_stock",
        "cost": _money("(cents * 11 // 20)"),
        "stock": "stock::int",
        "updated_at": _at("updated_at"),
    },
    "orders": {
        "order_id": _ORDER,
        "customer_id": _CUSTOMER,
        "currency": f"'{CURRENCY}'",
        "status": _one_of("statuses", "status"),
        "placed_at": _at("placed_at"),
        "paid_at": _at("paid_at"),
        "cancelled_at": _at("cancelled_at"),
        "promised_on": "date '1970-01-01' + promised_on::int",
        "paid_amount": f"case when paid_at >= 0 then {_money('paid')} end",
        "marketplace": _one_of("marketplaces", "marketplace"),
        "gift": "gift",
        **_SAID_OF_ORDERS,
        "updated_at": _at("updated_at"),
    },
    "order_lines": {
        "order_id": _ORDER,
        "line_no": "line_no::int",
        "sku": _one_of("skus", "product"),
        "description": _one_of("products", "product"),
        "quantity": "quantity::int",
        "unit_price": _money("unit"),
        "placed_at": _at("placed_at"),
    },
    "shipments": {
        "order_id": _ORDER,
        "shipment_id": f"{_ORDER} || '-' || parcel",
        "carrier": _one_of("carriers", "carrier"),
        "tracking_url": f"'https://shop.example/track/' || {_ORDER} || '-' || parcel",
        "tracking_number": "'SP' || lpad(customer::varchar, 8, '0') || lpad(nth::varchar, 3, '0') || parcel",
        "shipped_at": _at("shipped_at"),
        "eta": "date '1970-01-01' + eta::int",
        "delivered_at": _at("delivered_at"),
    },
    "returns": {
        "order_id": _ORDER,
        "return_id": f"'r' || {_ORDER}",
        "sku": _one_of("skus", "product"),
        "requested_at": _at("requested_at"),
        "received_at": _at("received_at"),
        "refunded_at": _at("refunded_at"),
        "label_url": f"'https://shop.example/label/' || {_ORDER}",
        "closed_at": _at("refunded_at"),
    },
    "reviews": {
        "order_id": _ORDER,
        "review_id": f"'v' || {_ORDER}",
        "sku": _one_of("skus", "product"),
        "score": "score::int",
        "created_at": _at("created_at"),
        "answered_at": _at("answered_at"),
    },
    "tickets": {
        "ticket_id": f"'t' || {_ORDER}",
        "customer_id": _CUSTOMER,
        "opened_at": _at("opened_at"),
        "closed_at": _at("closed_at"),
        "topic": "case when customer % 3 = 0 then 'where_is_my_order' else 'something_else' end",
    },
    "external_events": {
        "event_id": f"{_KIND} || ':' || {_CUSTOMER} || ':' || number || ':' || \"at\"",
        "customer_id": _CUSTOMER,
        "kind": _KIND,
        "happened_at": _at('"at"'),
        "order_id": f"case when nth > 0 then {_ORDER} end",
        "detail": _DETAIL,
    },
}

# What is wrong with the faulty copies, in turn. A copy has an id of its own wherever it keeps one, and it names
# customers and orders nobody has, so the good rows stay whole.
_NOBODY = {"customer_id": "'c99' || lpad(customer::varchar, 8, '0')"}
_NO_ORDER = {"order_id": "'o99' || lpad(customer::varchar, 8, '0') || '-001'"}
_OTHER_ORDER = {"order_id": f"{_ORDER} || '-x'"}
FAULTS: dict[str, tuple[dict[str, str], ...]] = {
    "customers": ({"customer_id": "null"}, _NOBODY | {"created_at": _FAR, "updated_at": _FAR}),
    "consents": (_NOBODY, {"customer_id": "null"}, _NOBODY | {"agreed_at": "null"}),
    "products": ({"sku": "null"},),
    "orders": (
        {"order_id": "null"},
        _OTHER_ORDER | {"placed_at": _FAR, "updated_at": _FAR},
        _OTHER_ORDER | _NOBODY,
        _OTHER_ORDER | {"currency": "'??'"},
        _OTHER_ORDER | {"placed_at": "null"},
    ),
    "order_lines": (_NO_ORDER, {"order_id": "null"}, {"line_no": "line_no::int + 900", "quantity": "null"}),
    "shipments": (_NO_ORDER, {"order_id": "null"}),
    "returns": (_NO_ORDER, {"return_id": f"'r' || {_ORDER} || '-x'", "requested_at": "null"}),
    "reviews": (_NO_ORDER, {"review_id": f"'v' || {_ORDER} || '-x'", "score": "11"}),
    "tickets": (
        {"ticket_id": f"'t' || {_ORDER} || '-x'"} | _NOBODY,
        {"ticket_id": f"'t' || {_ORDER} || '-x'", "opened_at": "null"},
    ),
    "external_events": (
        {"event_id": "'x' || number || customer"} | _NOBODY,
        {"event_id": "'y' || number || customer", "kind": "'No kind!'"},
        {"event_id": "'z' || number || customer", "detail": "'{broken'"},
    ),
}


def _select(entity: str) -> str:
    """The feed's columns of one entity: the good rows, then the faulty copies."""
    columns, faults = COLUMNS[entity], FAULTS[entity]

    def listed(chosen: dict[str, str]) -> str:
        return ", ".join(f'{value} as "{name}"' for name, value in chosen.items())

    good = f"select {listed(columns)} from t"  # noqa: S608 our own words
    bad = [
        f"select {listed(columns | fault)} from t where fault > 0 and (fault - 1) % {len(faults)} = {turn}"  # noqa: S608
        for turn, fault in enumerate(faults)
    ]
    return " union all ".join([good, *bad])


def _used(entity: str, table: Table) -> Table:
    """Only the columns the feed is made of."""
    text = _select(entity)
    return {column: values for column, values in table.items() if column in text}


def _prepare(engine: duckdb.DuckDBPyConnection, shelf: catalogue.Catalogue, today: int) -> None:
    """Fix the session's zone and day (seconds since 1970), and give it the words that stand behind the numbers."""
    engine.execute("set TimeZone = 'UTC'")
    engine.execute("set variable today = to_timestamp($1)::date", [today])
    words = {
        "first_names": people.FIRST_NAMES,
        "last_names": people.LAST_NAMES,
        "locales": list(people.LOCALES),
        "zones": [zone.name for zone in people.ZONES],
        "countries": [zone.country for zone in people.ZONES],
        "bases": ["opt_in", "double_opt_in", "preference", "unsubscribe"],
        "skus": shelf.sku,
        "products": shelf.name,
        "categories": shelf.category,
        "statuses": ["pending", "paid", "shipped", "delivered", "cancelled", "returned"],
        "marketplaces": ["bazaar", "market-square"],
        "kinds": list(happenings.KINDS),
        "carriers": ["Swift Parcel", "Blue Van", "Letterbox", "Harbour Freight"],
    }
    for name, values in words.items():
        engine.execute(f"set variable {name} = $1", [values])
