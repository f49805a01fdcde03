"""The canonical rows every source is brought to: their columns, how a delivered value is read, what is wrong with one.

A mapping file gives text as delivered, or values of the right type. Text is read with functions that give null for what
they cannot read, so that one bad value refuses one row and never stops a delivery.
"""

from __future__ import annotations

from dataclasses import dataclass

# `id`: text without outer blanks. `!`: must be mapped and filled in every row; `?`: must be filled where it is mapped.
_ROWS = """
customers: source_customer_id id!, email id, first_name text, last_name text, locale id, time_zone id, country text,
    phone id, birthday date, renews_on date, marketplace boolean, email_verified boolean, person_key id, created_at timestamptz,
    updated_at timestamptz
consents: source_customer_id id!, channel id?, topic id!, granted boolean!, at timestamptz!, basis id!
products: sku text!, name text, category text, price numeric, url id, image_url id, in_stock boolean,
    stock numeric, cost numeric, updated_at timestamptz
orders: source_order_id id!, source_customer_id id, currency id?, status id, placed_at timestamptz!,
    paid_at timestamptz, cancelled_at timestamptz, promised_on date, paid_amount numeric, marketplace id, gift boolean,
    shipping_amount numeric, discount_amount numeric, tax_amount numeric, payment text, address text, url id,
    updated_at timestamptz
order_lines: source_order_id id!, line_key id?, sku text, description text, quantity numeric!, unit_price numeric!,
    placed_at timestamptz?
shipments: source_order_id id!, shipment_key id!, carrier text, tracking_url id, tracking_number id, shipped_at timestamptz, eta date,
    delivered_at timestamptz
returns: source_order_id id!, return_key id!, sku text, requested_at timestamptz!, received_at timestamptz,
    refunded_at timestamptz, exchanged_at timestamptz, refund_amount numeric, refund_due_on date, label_url id,
    closed_at timestamptz
reviews: source_order_id id!, review_key id!, sku text, score numeric, created_at timestamptz!, answered_at timestamptz
tickets: source_customer_id id!, ticket_key id!, opened_at timestamptz!, closed_at timestamptz, topic id
external_events: source_customer_id id!, event_key id!, kind id!, at timestamptz!, source_order_id id, detail text
"""
# what names a row: two different rows of one name in one file cannot both be right
UNIQUE = {
    "customers": ("source_customer_id",),
    "products": ("sku",),
    "orders": ("source_order_id",),
    "order_lines": ("source_order_id", "line_key"),
    "shipments": ("source_order_id", "shipment_key"),
    "returns": ("source_order_id", "return_key"),
    "reviews": ("source_order_id", "review_key"),
    "tickets": ("ticket_key",),
    "external_events": ("event_key",),
}
DEFAULTS = {
    ("orders", "currency"): "cast(:currency as text)",
    ("consents", "channel"): "'email'",
    ("products", "name"): "m.sku",
}
_BASES = "('opt_in', 'double_opt_in', 'soft_opt_in', 'inquiry', 'unsubscribe', 'preference')"
_RULES = {  # further checks of a value; {c} is the column of the typed row
    ("customers", "birthday"): ("{c} > cast(:now as date) or {c} < date '1880-01-01'", "not a day of birth"),
    ("orders", "currency"): ("{c} <> :currency", "not the currency of the shop"),
    ("orders", "status"): ("{c} <> all(cast(:statuses as text[]))", "not a known status"),
    ("orders", "paid_amount"): ("{c} < 0", "negative"),
    ("products", "price"): ("{c} < 0", "negative"),
    ("consents", "basis"): (f"{{c}} not in {_BASES}", "not a known basis"),
    ("reviews", "score"): ("{c} not between 0 and 10 or {c} <> round({c})", "not a whole number from 0 to 10"),
    ("external_events", "kind"): ("{c} !~ '^[a-z][a-z0-9_]{{1,47}}$'", "not a word like payment_failed"),
    ("external_events", "detail"): (
        "case when not pg_input_is_valid({c}, 'jsonb') then true else jsonb_typeof(cast({c} as jsonb)) <> 'object' end",
        "not a JSON object",
    ),
}
_UNREADABLE = {
    "numeric": "not a plain number",
    "timestamptz": "not a time like 2026-12-01 09:30:00",
    "date": "not a date like 2026-12-01",
    "boolean": "not true or false",
}
_WORDS = ("text", "character varying", "character")
_NUMBERS = ("smallint", "integer", "bigint", "numeric", "real", "double precision")
BOOKKEEPING = ("_file", "_line", "_row", "problems", "raw")


@dataclass(frozen=True)
class Column:
    """A canonical column. `required`: a mapping must give it; `filled`: it must not be empty where it is given."""

    name: str
    type: str
    required: bool
    filled: bool

    @property
    def sql_type(self) -> str:
        return "text" if self.type == "id" else self.type


def _parsed() -> dict[str, tuple[Column, ...]]:
    entities = {}
    for row in _ROWS.replace("\n    ", " ").strip().splitlines():
        entity, _, rest = row.partition(": ")
        pairs = [word.split(" ") for word in rest.split(", ")]
        entities[entity] = tuple(
            Column(name, kind.rstrip("!?"), kind.endswith("!"), kind[-1] in "!?") for name, kind in pairs
        )
    return entities


COLUMNS = _parsed()
ENTITIES = tuple(COLUMNS)


def reading(value: str, given: str, wanted: str) -> str | None:
    """SQL that reads `value` of type `given` as canonical type `wanted`, null if it cannot be read.

    None: a value of type `given` can never be a `wanted`.
    """
    if wanted in ("id", "text"):
        plain = {} if wanted == "text" else {"uuid": f"cast({value} as text)"}
        plain |= {kind: f"cast({value} as text)" for kind in (*_WORDS, *_NUMBERS)}
        trimmed = plain.get(given) and (f"btrim({plain[given]})" if wanted == "id" else plain[given])
        return trimmed and f"nullif({trimmed}, '')"
    if given in _WORDS:
        reader = {"numeric": "to_number({})", "boolean": "to_flag({})", "date": "to_day({})"}
        return reader.get(wanted, "to_instant({}, :zone)").format(value)
    wall = f"local_instant(cast({value} as timestamp), :zone)"
    return {
        **{("numeric", kind): f"nullif(cast({value} as numeric), 'NaN')" for kind in _NUMBERS},
        ("boolean", "boolean"): value,
        ("date", "date"): value,
        ("date", "timestamp without time zone"): f"cast({value} as date)",
        ("date", "timestamp with time zone"): f"cast({value} at time zone :zone as date)",
        ("timestamptz", "timestamp with time zone"): value,
        ("timestamptz", "timestamp without time zone"): wall,
        ("timestamptz", "date"): wall,
    }.get((wanted, given))


def checks(entity: str, column: Column, given: str | None) -> list[str]:
    """SQL expressions, each a sentence when a value of the typed row `t` is wrong, else null."""
    value, delivered = f"t.{column.name}", f"(t.delivered).{column.name}"
    found = []
    blank = f"{value} is null"
    if given in _WORDS and column.sql_type != "text":
        found.append((f"{value} is null and btrim({delivered}) <> ''", _UNREADABLE[column.type]))
        blank += f" and coalesce(btrim({delivered}), '') = ''"
    if given is not None and column.filled:
        found.append((blank, "missing"))
    if column.type == "timestamptz":
        found.append((f"{value} > cast(:now as timestamptz) + interval '10 minutes'", "in the future"))
    if (entity, column.name) in _RULES:
        condition, words = _RULES[entity, column.name]
        found.append((condition.format(c=value), words))
    return [f"case when {condition} then '{column.name}: {words}' end" for condition, words in found]
