"""Invented people to try a template on: the usual one, one about whom little is known, and awkward ones."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from postlude import event_kinds

# names of the sample shop in the languages that ship, so that a preview reads like a mail and not like a test
_NAMES = {
    "ko": {
        "Ana": "지민",
        "Waxed canvas weekender bag": "왁스 캔버스 위켄더 백",
        "Linen market tote": "리넨 장바구니",
        "Leather luggage tag": "가죽 여행 이름표",
        "Merino travel blanket": "메리노 여행 담요",
        "Oak travel mug": "오크 텀블러",
        "Cotton packing cubes": "면 여행 파우치 세트",
        "Canvas wash bag": "캔버스 세면 가방",
        "Brass key ring": "황동 열쇠고리",
        "Silver": "실버",
        "Gold": "골드",
        "Free shipping on every order": "모든 주문 무료 배송",
        "60 days for returns": "60일까지 반품",
        "Our returns now take 60 days": "이제 60일까지 반품하실 수 있어요",
        "You asked for more time, so we doubled it.": "시간이 더 필요하다는 말씀을 듣고 두 배로 늘렸어요.",
    },
    "ja": {
        "Ana": "美咲",
        "Waxed canvas weekender bag": "ワックスキャンバスの旅行かばん",
        "Linen market tote": "リネンのマーケットバッグ",
        "Leather luggage tag": "レザーのネームタグ",
        "Merino travel blanket": "メリノのトラベルブランケット",
        "Oak travel mug": "オークのマグ",
        "Cotton packing cubes": "コットンのポーチセット",
        "Canvas wash bag": "キャンバスの洗面ポーチ",
        "Brass key ring": "真鍮のキーリング",
        "Silver": "シルバー",
        "Gold": "ゴールド",
        "Free shipping on every order": "すべてのご注文が送料無料",
        "60 days for returns": "返品は60日間",
        "Our returns now take 60 days": "返品の期間が60日になりました",
        "You asked for more time, so we doubled it.": "もっと時間がほしいというお声をいただき、2倍にしました。",
    },
}  # fmt: skip


def in_words(value: Any, language: str) -> Any:
    """The sample values with the names of products and people in this language; what it has none for stays."""
    names = _NAMES.get(language, {})
    if isinstance(value, dict):
        return {key: in_words(inner, language) for key, inner in value.items()}
    if isinstance(value, list):
        return [in_words(inner, language) for inner in value]
    return names.get(value, value) if isinstance(value, str) else value


def with_pictures(value: Any) -> Any:
    """The sample values with a picture for every product: an address that ends in the article number."""
    if isinstance(value, list):
        return [with_pictures(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    whole = {key: with_pictures(inner) for key, inner in value.items()}
    return whole | ({"image_url": f"https://shop.example/i/{value['sku']}.jpg"} if value.get("sku") else {})


def samples(template: str = "") -> dict[str, dict[str, Any]]:
    """Contexts of invented people, by name: the usual one, one without a first name, and awkward ones."""
    item = {
        "name": "Waxed canvas weekender bag",
        "sku": "BAG-114",
        "url": "https://shop.example/p/bag-114",
        "image_url": None,
        "category": "bags",
        "quantity": 1,
        "unit_price": Decimal("129.00"),
        "amount": Decimal("129.00"),
    }
    cheap: dict[str, Any] = {"unit_price": Decimal("24.50"), "amount": Decimal("49.00"), "quantity": 2}
    others: list[Any] = [
        item,
        {**item, **cheap, "name": "Linen market tote", "sku": "BAG-120", "url": "https://shop.example/p/bag-120"},
        {**item, **cheap, "name": "Leather luggage tag", "sku": "ACC-031", "url": "https://shop.example/p/acc-031"},
        {**item, **cheap, "name": "Merino travel blanket", "sku": "HOM-208", "url": "https://shop.example/p/hom-208"},
    ]
    parcel = {
        "number": 1,
        "of": 2,
        "state": "shipped",
        "carrier": "DHL",
        "tracking_number": "JD014600006281230704",
        "tracking_url": "https://carrier.example/t/JD014600006281230704",
        "shipped_on": dt.date(2026, 9, 15),
        "eta_on": dt.date(2026, 9, 18),
        "delivered_on": None,
        "items": [{"name": "Waxed canvas weekender bag", "quantity": 1}, {"name": "Linen market tote", "quantity": 2}],
    }
    rest = [{"name": "Leather luggage tag", "quantity": 2}, {"name": "Merino travel blanket", "quantity": 2}]
    second = {
        **parcel, "number": 2, "state": "packed", "tracking_number": None, "tracking_url": None, "shipped_on": None,
        "eta_on": dt.date(2026, 9, 22), "items": rest,
    }  # fmt: skip
    product = {
        "name": "Oak travel mug",
        "sku": "MUG-007",
        "url": "https://shop.example/p/mug-007",
        "image_url": None,
        "price": Decimal("18.00"),
        "currency": "EUR",
    }
    link = "https://mail.shop.example"
    ana: dict[str, Any] = {
        "customer": {"first_name": "Ana", "locale": "en", "country": "GB"},
        "today": dt.date(2026, 10, 19),
        "order": {
            "number": "10482",
            "state": "shipped",
            "placed_on": dt.date(2026, 9, 14),
            "shipped_on": dt.date(2026, 9, 15),
            "promised_on": dt.date(2026, 9, 19),
            "delivered_on": dt.date(2026, 9, 18),
            "currency": "EUR",
            "subtotal": Decimal("276.00"),
            "shipping": Decimal("0"),
            "discount": Decimal("12.00"),
            "tax": Decimal("42.15"),
            "total": Decimal("264.00"),
            "payment": "Visa •••• 4242",
            "address": ["Ana Sample", "4 Mill Row", "Bath BA1 1AA", "United Kingdom"],
            "url": "https://shop.example/orders/10482",
        },
        "item": item,
        "items": others,
        "shipment": parcel,
        "shipments": [parcel, second],
        "refund": {
            "state": "received",
            "amount": Decimal("49.00"),
            "currency": "EUR",
            "due_on": dt.date(2026, 10, 26),
            "label_url": "https://shop.example/label/10482",
        },
        "bill": {
            "amount": Decimal("9.90"),
            "currency": "EUR",
            "due_on": dt.date(2026, 10, 26),
            "pay_url": "https://shop.example/pay/10482",
        },
        "coupon": {"code": "K7RW2MXQ94", "percent": 15, "expires_on": dt.date(2026, 11, 2)},
        "referral": {"code": "H4XB7QWKM2", "url": "https://shop.example/?friend=H4XB7QWKM2"},
        "recommendations": [
            {**product, "reason": "complementary", "because": "Waxed canvas weekender bag"},
            {
                **product,
                "name": "Cotton packing cubes",
                "sku": "BAG-140",
                "url": "https://shop.example/p/bag-140",
                "price": Decimal("29.00"),
                "reason": "bought_together",
                "because": "Linen market tote",
            },
            {
                **product,
                "name": "Canvas wash bag",
                "sku": "BAG-131",
                "url": "https://shop.example/p/bag-131",
                "price": Decimal("34.50"),
                "reason": "similar",
                "because": "Waxed canvas weekender bag",
            },
            {
                **product,
                "name": "Brass key ring",
                "sku": "ACC-044",
                "url": "https://shop.example/p/acc-044",
                "price": Decimal("12.00"),
                "reason": "bestseller",
                "because": None,
            },
        ],
        "loyalty": {
            "points": 1240,
            "tier": "Silver",
            "next_tier": "Gold",
            "points_to_next": 260,
            "expiring": 150,
            "expires_on": dt.date(2026, 11, 18),
            "renews_on": dt.date(2026, 11, 2),
            "perks": ["Free shipping on every order", "60 days for returns"],
        },
        "free_shipping": {"missing": Decimal("6.00"), "threshold": Decimal("50.00"), "currency": "EUR"},
        "cart": {
            "items": others[1:3],
            "amount": Decimal("98.00"),
            "currency": "EUR",
            "url": "https://shop.example/cart/abc",
        },
        "product": {**product, "old_price": Decimal("24.00")},
        "rating": {"score": 5},
        "contact": {"name": "Mara Lind", "email": "mara@shop.example", "phone": None},
        "notice": {
            "title": "Our returns now take 60 days",
            "text": "You asked for more time, so we doubled it.",
            "valid_until": dt.date(2026, 12, 31),
        },
        "event": event_kinds.sample(),
        "links": {
            "unsubscribe": f"{link}/u/sample",
            "preferences": f"{link}/p/sample",
            "score": {str(n): f"{link}/s/sample-{n}" for n in range(1, 6)},
            "delivery": {str(n): f"{link}/s/sample-{n}-delivery" for n in range(1, 6)},
            "nps": {str(n): f"{link}/s/sample-{n}-shop" for n in range(11)},
            "page": f"{link}/me/sample",
            "booking": "https://meet.example/book",
            "shop": "https://shop.example/",
        },
        "campaign": {"id": template.split("/", 1)[0] or "sample", "name": "Sample", "marketing": True},
        "step": {"id": template.rpartition("/")[2] or "sample"},
        "why": "You get this mail because you bought from us and agreed to hear from us.",
    }

    def named(first: str, /, **item_too: Any) -> dict[str, Any]:
        return {**ana, "customer": {**ana["customer"], "first_name": first}, "item": {**item, **item_too}}

    return {
        "ana": ana,
        "no name": {**named("", url=None, image_url=None, category=None), "items": []} | _bare(ana),
        "picture": named("Ana", image_url="https://shop.example/i/bag-114.jpg"),
        "markup": named("<img src=x onerror=alert(1)>", name="Mug <b>\"blue\"</b> & 'co' {{7*7}}"),
        "header": named("Eve\r\nBcc: all@customers.example", name="Tea\r\nSubject: free\u2028money"),
        "right to left": named("נועה", name="תיק בד"),
        "emoji": named("Zoë 👩‍👩‍👧", name="Party hat 🎉"),
        "long": named("A" * 300, name="Very long product name " * 40),
    }


def _bare(full: Mapping[str, Any]) -> dict[str, Any]:
    """The variables of somebody about whom the shop knows little: every value that may be none is none, every list empty."""
    order = dict.fromkeys(full["order"]) | {
        key: full["order"][key]
        for key in ("number", "state", "placed_on", "delivered_on", "currency", "subtotal", "total")
    }
    parcel = dict.fromkeys(full["shipment"]) | {"number": 1, "of": 1, "state": "shipped", "items": []}
    loyalty = dict.fromkeys(full["loyalty"]) | {"points": 0, "tier": "Member", "perks": []}
    return {
        "order": order | {"address": []},
        "shipment": parcel,
        "shipments": [parcel],
        "refund": dict.fromkeys(full["refund"]) | {"state": "requested", "currency": "EUR"},
        "recommendations": [],
        "loyalty": loyalty,
        "free_shipping": None,
        "contact": None,
        "links": full["links"] | {"page": None, "booking": None},
    }
