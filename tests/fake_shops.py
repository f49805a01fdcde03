"""Shops on loopback that answer as Shopify, WooCommerce and Stripe do, as far as Postlude asks them.

Paging, windows, headers and refusals follow the public descriptions of the APIs; the records are invented. `faults` are
taken one for each request that comes; `before_page` may change the shop while somebody turns its pages.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

SECRET = "shhh-a-secret-of-the-shop"
Record = dict[str, Any]
Answer = tuple[Any, dict[str, str]]


class FakeShop:
    """One shop. `records[resource]` are what it holds; `asked` the paths and queries that came."""

    def __init__(self) -> None:
        self.records: dict[str, list[Record]] = {}
        self.faults: list[str] = []
        self.asked: list[tuple[str, dict[str, list[str]]]] = []
        self.page_size: int | None = None  # smaller than asked for, so that few records make many pages
        self.overlap = 0  # so many records of a page come again on the next one
        self.before_page: Callable[[int], None] | None = None
        self.next_host = ""
        self.address = ""

    def put(self, resource: str, record: Record) -> None:
        """Add a record, or replace the one with its id."""
        held = [other for other in self.records.get(resource, []) if other["id"] != record["id"]]
        self.records[resource] = [*held, record]

    def allowed(self, headers: Any) -> bool:
        raise NotImplementedError

    def answer(self, path: str, query: dict[str, list[str]]) -> Answer:
        raise NotImplementedError

    def connection(self) -> str:
        """The URI of the connection to this shop."""
        raise NotImplementedError

    @contextmanager
    def open(self) -> Iterator[FakeShop]:
        """Serve on a free port of 127.0.0.1 for as long as the block lasts."""
        shop = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                shop._serve(self)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        self.address = f"127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def _serve(self, http: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(http.path)
        query = parse_qs(parts.query)
        self.asked.append((parts.path, query))
        if self.before_page:
            self.before_page(len(self.asked))
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "drop":
            http.close_connection = True
            return
        if fault == "slow":
            time.sleep(0.6)
        if fault.isdigit():
            self._send(http, int(fault), b'{"errors": "no"}', {"Retry-After": "0"} if fault in ("429", "503") else {})
            return
        if fault.startswith("wait"):
            self._send(http, 429, b"{}", {"Retry-After": fault.removeprefix("wait")})
            return
        if not self.allowed(http.headers):
            self._send(http, 401, b'{"errors": "[API] Invalid API key or access token"}', {})
            return
        found, headers = self.answer(parts.path, query)
        body = json.dumps(found).encode() if found is not None else b"{}"
        if fault == "half":  # a proxy gave up, and says the length of what is left
            body = body[: len(body) // 2]
        if fault == "html":
            body = b"<html>We are back soon</html>"
        if fault == "cut":
            http.send_response(200)
            http.send_header("Content-Length", str(len(body)))
            http.end_headers()
            http.wfile.write(body[: len(body) // 2])
            http.close_connection = True
            return
        self._send(http, 200 if found is not None else 404, body, headers)

    @staticmethod
    def _send(http: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]) -> None:
        http.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | headers).items():
            http.send_header(name, value)
        http.send_header("Content-Length", str(len(body)))
        http.end_headers()
        http.wfile.write(body)


def _time(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


class Shopify(FakeShop):
    """Admin REST API: oldest change first, next page by an opaque `page_info` beside which only `limit` may stand."""

    def connection(self) -> str:
        return f"http://:{SECRET}@{self.address}"

    def allowed(self, headers: Any) -> bool:
        return bool(headers.get("X-Shopify-Access-Token") == SECRET)

    def answer(self, path: str, query: dict[str, list[str]]) -> Answer:
        resource = path.rpartition("/")[2].removesuffix(".json")
        limit = self.page_size or int(query["limit"][0])
        begin = 0
        if "page_info" in query:
            assert set(query) <= {"page_info", "limit"}, "Shopify refuses other parameters beside page_info"
            begin, since = json.loads(base64.urlsafe_b64decode(query["page_info"][0]))
        else:
            since = query.get("updated_at_min", [""])[0]
            assert resource != "orders" or query.get("status") == ["any"], "without it only open orders come"
        found = [r for r in self.records.get(resource, []) if not since or _time(r["updated_at"]) >= _time(since)]
        found.sort(key=lambda r: (_time(r["updated_at"]), r["id"]))
        page = found[begin : begin + limit]
        headers = {"X-Shopify-Shop-Api-Call-Limit": "39/40"}
        if begin + limit < len(found):
            info = base64.urlsafe_b64encode(json.dumps([begin + limit - self.overlap, since]).encode()).decode()
            host = self.next_host or self.address
            headers["Link"] = (
                f'<http://{host}/x>; rel="previous", <http://{host}{path}?limit={limit}&page_info={info}>; rel="next"'
            )
        return {resource: page}, headers


class WooCommerce(FakeShop):
    """REST API v3: pages by number, totals in headers; deleted and changed records shift the pages."""

    def connection(self) -> str:
        return f"http://ck_1:{SECRET}@{self.address}/shop"

    def allowed(self, headers: Any) -> bool:
        return bool(headers.get("Authorization") == "Basic " + base64.b64encode(f"ck_1:{SECRET}".encode()).decode())

    def answer(self, path: str, query: dict[str, list[str]]) -> Answer:
        parts = path.removeprefix("/shop/wp-json/wc/v3/").split("/")
        if len(parts) == 3:
            found = self.records.get(f"refunds of {parts[1]}", [])
        else:
            found = self.records.get(parts[0], [])
            after = query.get("modified_after", [""])[0]
            assert not after or query["dates_are_gmt"] == ["true"]
            found = [r for r in found if not after or r["date_modified_gmt"] > after]
            if query.get("orderby") == ["modified"]:
                assert parts[0] != "customers", "customers cannot be asked by change"
                found.sort(key=lambda r: r["date_modified_gmt"], reverse=query["order"] == ["desc"])
        size, number = self.page_size or int(query["per_page"][0]), int(query["page"][0])
        begin = max(0, (number - 1) * size - (self.overlap if number > 1 else 0))
        headers = {"X-WP-Total": str(len(found)), "X-WP-TotalPages": str(-(-len(found) // size))}
        return found[begin : number * size], headers


class Stripe(FakeShop):
    """Lists, newest first; `starting_after` names the last record that was seen."""

    def connection(self) -> str:
        return f"http://:{SECRET}@{self.address}"

    def allowed(self, headers: Any) -> bool:
        return bool(headers.get("Authorization") == f"Bearer {SECRET}")

    def answer(self, path: str, query: dict[str, list[str]]) -> Answer:
        since = int(query.get("created[gte]", ["0"])[0])
        wanted = query.get("types[]")
        found = [r for r in self.records.get(path.removeprefix("/v1/"), []) if r["created"] >= since]
        found = [r for r in found if not wanted or r["type"] in wanted]
        found.sort(key=lambda r: r["created"], reverse=True)
        begin, limit = 0, self.page_size or int(query["limit"][0])
        if "starting_after" in query:
            begin = [r["id"] for r in found].index(query["starting_after"][0]) + 1 - self.overlap
        page = found[begin : begin + limit]
        return {"object": "list", "data": page, "has_more": begin + limit < len(found), "url": path}, {}


# ---------------------------------------------------------------- records, after the public descriptions


def shopify_order(number: int, placed: str, changed: str, price: float, **more: Any) -> Record:
    """An order of customer 7 with one line of two pieces."""
    person = {
        "id": 7,
        "email": "ann@customers.example",
        "first_name": "Ann",
        "updated_at": placed,
        "created_at": placed,
    }
    line = {"id": number * 10, "sku": "TEA", "name": "Tea", "quantity": 2, "price": f"{price:.2f}", "variant_id": 5}
    return {
        "id": number, "email": "ann@customers.example", "created_at": placed, "processed_at": placed, "updated_at": changed,
        "cancelled_at": None, "currency": "EUR", "financial_status": "paid", "source_name": "web", "test": False,
        "total_price": f"{2 * price:.2f}", "customer": person, "line_items": [line], "fulfillments": [], "refunds": [], **more,
    }  # fmt: skip


def woo_order(number: int, placed: str, changed: str, price: float, **more: Any) -> Record:
    """An order of customer 7 with one line of two pieces; times are GMT without an offset."""
    line = {"id": number * 10, "name": "Tea", "product_id": 5, "variation_id": 0, "quantity": 2, "total": f"{2 * price:.2f}",
            "sku": "TEA", "price": price}  # fmt: skip
    return {
        "id": number, "status": "processing", "currency": "EUR", "date_created_gmt": placed, "date_modified_gmt": changed,
        "date_paid_gmt": placed, "date_completed_gmt": None, "total": f"{2 * price:.2f}", "customer_id": 7,
        "billing": {"first_name": "Ann", "last_name": "", "country": "DE", "email": "ann@customers.example"},
        "line_items": [line], "refunds": [], "meta_data": [], **more,
    }  # fmt: skip


def stripe_charge(number: int, placed: int, price: float, **more: Any) -> Record:
    """A charge of customer cus_7 over two pieces; amounts in cents, times in seconds."""
    cents = round(200 * price)
    return {
        "id": f"ch_{number}", "object": "charge", "amount": cents, "amount_captured": cents, "amount_refunded": 0,
        "captured": True, "paid": True, "refunded": False, "status": "succeeded", "currency": "eur", "created": placed,
        "customer": "cus_7", "description": "Tea", "metadata": {"sku": "TEA"}, "receipt_email": None,
        "billing_details": {"email": "ann@customers.example", "name": "Ann", "address": {"country": "DE"}}, **more,
    }  # fmt: skip


def stripe_event(number: int, at: int, type_: str, about: Record) -> Record:
    return {"id": f"evt_{number}", "object": "event", "type": type_, "created": at, "data": {"object": about}}
