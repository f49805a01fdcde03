"""Recommendations: what is bought together, counted nightly and only where new orders touched it.

Two articles count together once for each distinct order that holds both. That count is exact. The score that ranks them is
the cosine of weighted counts: an order of very many articles (a reseller's) says less about each pair, so it weighs
HOT / articles instead of 1; and it is shrunk by n / (n + SHRINK), so that three common orders do not beat three hundred.
Weights are whole thousandths, so a count in parts and one from scratch agree to the last digit.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, text

from postlude import db
from postlude.errors import InputError
from postlude.settings import settings

if TYPE_CHECKING:
    import numpy as np

HOT = 50  # articles in one order from which it weighs less
SHRINK = 10.0
MOST = 12  # recommendations of each kind for an article
UNIT = 1000  # weight of an ordinary order
_BASKETS = "select order_id, sku, asked from baskets where source_id = :source order by order_id, sku"


def count(conn: Connection, now: datetime, run_id: str, full: bool = False) -> dict[str, int]:
    """Bring counts, recommendations, bestsellers and gaps to `now`.

    Only articles in orders that changed since the last count are counted anew; all are with `full`, after a change of the
    rules, and when the clock was set back. Both ways end the same.
    Returns counts: articles (counted anew), pairs (written), recommendations (written).
    """
    conn.execute(text("select pg_advisory_xact_lock(72060024)"))
    rules = (
        f"{HOT} {SHRINK} {MOST} {settings().pair_orders} {db.sql('24_recommend_rank')} {db.sql('24_recommend_baskets')}"
    )
    rules = hashlib.sha256(rules.encode()).hexdigest()
    state = conn.execute(text("select as_of, rules from recommend_state")).first()
    full = full or state is None or state.rules != rules or state.as_of > now
    for name in ("articles_in_question", "articles_affected"):
        conn.exec_driver_sql(
            f"create temporary table {name} (source_id text, sku text, primary key (source_id, sku)) on commit drop"
        )
    db.run(conn, "24_recommend_question", before=state.as_of if state else now, now=now)
    conn.exec_driver_sql("analyze articles_in_question")
    db.run(conn, "24_recommend_baskets", now=now, everything=full)
    if full:
        conn.exec_driver_sql("delete from articles_in_question")
        conn.exec_driver_sql("insert into articles_in_question select distinct source_id, sku from baskets")
        conn.exec_driver_sql("truncate co_purchases, product_orders, recommendations")
    conn.exec_driver_sql("analyze articles_in_question, baskets")
    db.run(conn, "24_recommend_affected")  # what was together with them before
    if not full:
        db.run(conn, "24_recommend_forget")
    pairs = sum(
        _count_source(conn, source) for source in conn.scalars(text("select distinct source_id from baskets")).all()
    )
    conn.exec_driver_sql("analyze co_purchases, product_orders")
    db.run(conn, "24_recommend_affected")  # and what is now
    conn.exec_driver_sql("analyze articles_affected")
    conn.exec_driver_sql(
        "delete from recommendations as r using articles_affected as a where (r.source_id, r.sku) = (a.source_id, a.sku)"
    )
    counts = {
        "articles": int(conn.scalar(text("select count(*) from articles_in_question")) or 0),
        "pairs": pairs,
        "recommendations": db.run(conn, "24_recommend_rank", shrink=SHRINK, most=MOST).rowcount,
    }
    conn.exec_driver_sql("delete from bestsellers")
    conn.exec_driver_sql("delete from product_gaps")
    db.run(conn, "24_recommend_bestsellers", now=now, most=30)
    db.run(conn, "24_recommend_gaps", now=now, categories=list(settings().consumables))
    db.run(conn, "24_recommend_mark", now=now, run_id=run_id, rules=rules)
    conn.exec_driver_sql("drop table articles_in_question, articles_affected, baskets")
    return counts


def _count_source(conn: Connection, source: str) -> int:
    """Count the articles in question of one source; the pairs written."""
    import numpy as np

    rows = conn.execute(text(_BASKETS), {"source": source}).all()
    names: dict[str, int] = {}
    articles = np.fromiter((names.setdefault(row.sku, len(names)) for row in rows), dtype=np.int64, count=len(rows))
    orders = np.fromiter((row.order_id for row in rows), dtype=np.int64, count=len(rows))
    orders = np.unique(orders, return_inverse=True)[1]
    asked = np.zeros(len(names), dtype=bool)
    asked[articles[[row.asked for row in rows]]] = True
    together = co_purchases(orders, articles, asked, settings().pair_orders)
    skus = list(names)
    raw: Any = conn.connection.driver_connection
    with raw.cursor() as cursor:
        with cursor.copy("copy product_orders (source_id, sku, orders, weight) from stdin") as copy:
            for article, (held, weight) in together.single.items():
                copy.write_row((source, skus[article], held, weight))
        with cursor.copy("copy co_purchases (source_id, sku, other, orders, weight) from stdin") as copy:
            for one, other, both, weight in together.pairs:
                first, second = sorted((skus[one], skus[other]))
                copy.write_row((source, first, second, both, weight))
    return len(together.pairs)


class Together:
    """What was counted: `single`, article -> (orders, weight); `pairs`, (article, article, orders, weight), each pair once."""

    def __init__(self, single: dict[int, tuple[int, int]], pairs: list[tuple[int, int, int, int]]) -> None:
        self.single, self.pairs = single, pairs


def co_purchases(orders: np.ndarray, articles: np.ndarray, asked: np.ndarray, least: int) -> Together:
    """Count the articles that are `asked` alone and together with every other one.

    orders, articles: int arrays of equal length, an article of an order each, numbered from 0, each pair once; every order with
    an asked article is there whole. asked: bool per article. least: pairs of fewer common orders are left out.
    """
    import numpy as np
    from scipy.sparse import csr_array

    if not len(orders):
        return Together({}, [])
    ones = csr_array((np.ones(len(orders), dtype=np.int64), (orders, articles)), shape=(orders.max() + 1, len(asked)))
    size = np.asarray(ones.sum(axis=1)).ravel()
    weight = np.where(size > HOT, np.maximum(UNIT * HOT // np.maximum(size, 1), 1), UNIT).astype(np.int64)
    chosen = np.flatnonzero(asked)
    few = ones[:, chosen].T.tocsr()
    counts, weights = few @ ones, few @ ones.multiply(weight[:, None]).tocsr()
    for product in (counts, weights):
        product.sort_indices()  # both have the same cells: no weight is zero
    at = counts.tocoo()
    one, other, both, weighs = chosen[at.row], at.col, at.data, weights.data
    alone = one == other
    cells = zip(one[alone].tolist(), both[alone].tolist(), weighs[alone].tolist(), strict=True)
    single = {article: (held, weight) for article, held, weight in cells}
    # a pair of two asked articles comes twice
    kept = ~alone & (both >= least) & ~(asked[other] & (other < one))
    pairs = list(zip(*(values[kept].tolist() for values in (one, other, both, weighs)), strict=True))
    return Together(single, pairs)


# ---------------------------------------------------------------- looking


def for_customer(conn: Connection, customer: int, now: datetime, most: int = 8) -> list[dict[str, Any]]:
    """What would be recommended to this customer now, best first, with `why` in a sentence. Raises InputError for nobody."""
    if not conn.scalar(text("select exists (select from customers where customer_id = :id)"), {"id": customer}):
        raise InputError(f"there is no customer {customer}")
    found = conn.execute(
        text("select * from recommended(:customer, null, :most, :now)"), {"customer": customer, "most": most, "now": now}
    ).mappings()  # fmt: skip
    return [dict(row) | {"why": in_words(row["reason"], row["because"], row["name"])} for row in found]


def for_product(conn: Connection, sku: str) -> list[dict[str, Any]]:
    """What goes with an article, best first by kind. Raises InputError when nothing is known of it."""
    found = [dict(row) for row in db.run(conn, "24_recommend_product", sku=sku).mappings()]
    if not found:
        raise InputError(
            f'nothing is recommended for "{sku}": fewer than {settings().pair_orders} orders hold it together with one other '
            "article, or `postlude recommend --count` has not run yet"
        )
    return found


def in_words(reason: str, because: str | None, name: str) -> str:
    return {
        "similar": f"because you bought {because}",
        "complementary": f"customers who bought {because} also took {name}",
        "bought_together": f"customers who bought {because} also took {name}",
        "category_bestseller": f"bestseller of {because}",
        "bestseller": "bestseller of the shop",
    }[reason]
