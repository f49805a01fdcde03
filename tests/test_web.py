"""The public pages: who asks to be left alone is, at once and once; looking at a page changes nothing."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, create_engine, text

from postlude import feedback
from postlude.settings import settings
from postlude.tokens import score_links, sign, unsubscribe_link
from postlude.web import MAX_BODY, MAX_COMMENT, create_app
from postlude.web.pages import TEXTS, language

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ONE_CLICK = {"List-Unsubscribe": "One-Click"}


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def client(engine: Engine, clock: Clock) -> Iterator[TestClient]:
    with TestClient(create_app(engine, clock), follow_redirects=False) as made:
        yield made


A_MESSAGE = """
insert into sources (source_id, shop, kind, currency, time_zone) values ('shop', 'Shop', 'files', 'EUR', 'UTC')
on conflict do nothing;
insert into campaign_versions (campaign_id, version, definition, first_seen) values ('win_back', 'v1', '{}', :now)
on conflict do nothing;
insert into customers (source_id, source_customer_id, email, locale, known_at)
values ('shop', :name, :email, :locale, :now);
insert into enrolments (enrolment_id, campaign_id, version, customer_id, anchor_key, anchor_at, watch_from, enrolled_at,
                        run_id)
select cast(:enrolment as uuid), 'win_back', 'v1', customer_id, 'once', :now, :now, :now, 'r'
from customers where source_customer_id = :name;
insert into messages (message_id, enrolment_id, campaign_id, step_id, customer_id, kind, template, state, due_at,
                      send_at, expires_at, finalized_at, planned_at, run_id)
select cast(:message as uuid), enrolment_id, campaign_id, 'coupon', customer_id, 'marketing', 'win_back/coupon', 'sent',
       :now, :now, cast(:now as timestamptz) + interval '1 day', :now, :now, 'r'
from enrolments where enrolment_id = cast(:enrolment as uuid)
"""


def a_message(engine: Engine, email: str | None = "Ana@customers.example", locale: str | None = "en") -> UUID:
    """A sent mail to a new customer."""
    message, name = uuid4(), str(uuid4())
    given = {"name": name, "email": email, "locale": locale, "now": NOW, "enrolment": uuid4(), "message": message}
    with engine.begin() as conn:
        for statement in A_MESSAGE.split(";"):
            conn.execute(text(statement), given)
    return message


def path(link: str) -> str:
    return link.removeprefix(settings().web_url)


def stored(engine: Engine) -> dict[str, int]:
    """Rows of every table of the schema."""
    with engine.connect() as conn:
        tables = conn.scalars(text("select tablename from pg_tables where schemaname = 'postlude' order by 1")).all()
        return {table: conn.execute(text(f"select count(*) from postlude.{table}")).scalar_one() for table in tables}


def inbox(engine: Engine) -> list[dict[str, object]]:
    with engine.connect() as conn:
        return [dict(row) for row in conn.execute(text("select payload from event_inbox order by inbox_id")).scalars()]


def suppressed(engine: Engine) -> list[tuple[str, str, str]]:
    with engine.connect() as conn:
        rows = conn.execute(text("select address, scope, reason from suppressions where lifted_at is null order by 1"))
        return [tuple(row) for row in rows]


# ---------------------------------------------------------------- looking


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"])
def test_nothing_but_a_post_changes_anything(engine: Engine, client: TestClient, method: str) -> None:
    message = a_message(engine)
    before = stored(engine)
    for link in (unsubscribe_link(message), *score_links(message).values()):
        answer = client.request(method, path(link))
        assert answer.status_code == (200 if method in ("GET", "HEAD") else 405)
    assert stored(engine) == before


def test_the_unsubscribe_page_is_one_button_that_posts_without_any_script(engine: Engine, client: TestClient) -> None:
    page = client.get(path(unsubscribe_link(a_message(engine)))).text
    assert '<form method="post">' in page
    assert 'name="List-Unsubscribe" value="One-Click"' in page
    assert page.count("<button>") == 1
    assert not re.search(r"<script|javascript:|\son\w+=|http-equiv", page)
    assert "customers.example" not in page, "a forwarded mail must not show whose it was"


def test_the_score_page_shows_the_chosen_score_and_a_way_to_change_it(engine: Engine, client: TestClient) -> None:
    page = client.get(path(score_links(a_message(engine))["4"])).text
    assert "You chose 4 of 5" in page
    assert re.findall(r'value="(\d)" checked', page) == ["4"]
    assert 'name="comment"' in page


# ---------------------------------------------------------------- unsubscribing


@pytest.mark.parametrize(
    "body",
    [
        {"data": ONE_CLICK},
        {"files": {"List-Unsubscribe": (None, "One-Click")}},
        {
            "content": b"List-Unsubscribe=One-Click",
            "headers": {"content-type": "application/x-www-form-urlencoded; charset=UTF-8"},
        },
        {"content": b"List-Unsubscribe=One-Click"},
        {"content": b""},
        {"content": b"\xff\x00broken", "headers": {"content-type": "multipart/form-data; boundary=x"}},
        {
            "data": {**ONE_CLICK, "more": "x" * 5000},
            "headers": {"cookie": "a=b", "referer": "https://elsewhere.example"},
        },
    ],
    ids=["urlencoded", "multipart", "charset", "no type", "empty", "broken", "large"],
)
def test_one_click_works_however_the_provider_sends_it(engine: Engine, client: TestClient, body: dict) -> None:  # type: ignore[type-arg]
    message = a_message(engine)
    answer = client.post(path(unsubscribe_link(message)), **body)
    assert answer.status_code == 200
    assert "location" not in answer.headers
    assert "set-cookie" not in answer.headers
    assert suppressed(engine) == [("ana@customers.example", "marketing", "unsubscribed")]
    assert inbox(engine) == [{"kind": "unsubscribed", "message_id": str(message), "at": NOW.isoformat()}]


def test_twenty_posts_at_once_store_one_row_and_all_succeed(engine: Engine, client: TestClient) -> None:
    link = path(unsubscribe_link(a_message(engine)))
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: client.post(link, data=ONE_CLICK).status_code, range(20)))
    assert answers == [200] * 20
    assert len(inbox(engine)) == len(suppressed(engine)) == 1


def test_the_feedback_stage_understands_what_the_pages_leave(engine: Engine, client: TestClient) -> None:
    message = a_message(engine)
    client.post(path(unsubscribe_link(message)), data=ONE_CLICK)
    client.post(path(score_links(message)["2"]), data={"comment": "Strap tore."})
    with engine.begin() as conn:
        counts = feedback.apply(conn, NOW + timedelta(minutes=1))
        assert (counts["taken"], counts["not_understood"]) == (2, 0)
        events = conn.execute(text("select kind, message_id, detail from events order by kind")).all()
    assert [(e.kind, e.message_id, e.detail) for e in events] == [
        ("rated", message, {"score": 2, "comment": "Strap tore."}),
        ("unsubscribed", message, {}),
    ]
    assert len(suppressed(engine)) == 1


def test_all_people_of_one_address_are_left_alone_and_nobody_else(engine: Engine, client: TestClient) -> None:
    one, _same, _other = (
        a_message(engine),
        a_message(engine, " ANA@customers.example "),
        a_message(engine, "bo@customers.example"),
    )
    client.post(path(unsubscribe_link(one)))
    assert suppressed(engine) == [("ana@customers.example", "marketing", "unsubscribed")]


def test_who_came_back_and_asks_again_is_obeyed_again(engine: Engine, client: TestClient) -> None:
    link = path(unsubscribe_link(a_message(engine)))
    client.post(link)
    with engine.begin() as conn:
        conn.execute(
            text("update suppressions set lifted_at = :now, lift_reason = 'opted in', lifted_by = 'form'"), {"now": NOW}
        )
    assert suppressed(engine) == []
    client.post(link)
    assert suppressed(engine) == [("ana@customers.example", "marketing", "unsubscribed")]


def test_a_person_we_no_longer_know_gets_the_same_answer(engine: Engine, client: TestClient) -> None:
    known, erased, unknown = a_message(engine), a_message(engine, email=None), uuid4()
    answers = [client.post(path(unsubscribe_link(m))) for m in (known, known, erased, unknown)]
    assert len({(a.status_code, a.text, frozenset(a.headers.items())) for a in answers}) == 1
    assert len({client.get(path(unsubscribe_link(m))).text for m in (known, erased, unknown)}) == 1


def test_without_a_database_nobody_is_told_that_it_worked(tmp_path: Path) -> None:
    gone = create_engine(f"postgresql+psycopg://postgres@/none?host={tmp_path}")
    with TestClient(create_app(gone)) as client:
        for answer in (
            client.post(path(unsubscribe_link(uuid4()))),
            client.post(path(score_links(uuid4())["1"])),
            client.get("/healthz"),
        ):
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "60"
            assert str(tmp_path) not in answer.text


# ---------------------------------------------------------------- scores


def test_a_score_is_kept_once_however_often_it_is_sent(engine: Engine, client: TestClient) -> None:
    message = a_message(engine)
    link = path(score_links(message)["5"])
    with ThreadPoolExecutor(10) as pool:
        assert {client.post(link).status_code for _ in pool.map(lambda _: client.post(link), range(20))} == {200}
    assert inbox(engine) == [{"kind": "rated", "message_id": str(message), "score": 5, "at": NOW.isoformat()}]
    assert suppressed(engine) == []


def test_one_link_cannot_fill_the_table(engine: Engine, client: TestClient) -> None:
    link = path(score_links(a_message(engine))["5"])
    for number in range(40):
        client.post(link, data={"score": str(number % 7), "comment": f"number {number}"})
    assert len(inbox(engine)) == 5


def test_a_changed_mind_on_the_page_counts_and_nonsense_does_not(engine: Engine, client: TestClient) -> None:
    link = path(score_links(a_message(engine))["5"])
    client.post(link, data={"score": "2"})
    client.post(link, data={"score": "99"})
    assert [row["score"] for row in inbox(engine)] == [2, 5]


def test_item_delivery_and_shop_are_answered_apart(engine: Engine, client: TestClient) -> None:
    message = a_message(engine)
    for about, score in (("item", "5"), ("delivery", "1"), ("shop", "10"), ("shop", "4")):
        link = path(score_links(message, about)[score])
        assert f'value="{score}" checked' in client.get(link).text
        assert client.post(link).status_code == 200
    assert [(row["score"], row.get("about"), row.get("scale")) for row in inbox(engine)] == [
        (5, None, None), (1, "delivery", None), (10, "shop", "10"), (4, "shop", "10"),
    ]  # fmt: skip
    # eleven only where 0 to 10 was asked
    client.post(path(score_links(message, "delivery")["2"]), data={"score": "10"})
    assert inbox(engine)[-1]["score"] == 2


@pytest.mark.parametrize(
    ("comment", "kept"),
    [
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("'); drop table messages; --", "'); drop table messages; --"),
        ("{{7*7}} {% raw %}", "{{7*7}} {% raw %}"),
        ("a\x00b\x1b[31mc\u202ed", "ab[31mcd"),
        ("two\r\nlines ", "two\nlines"),
        ("긴 의견 " + "가" * 5000, ("긴 의견 " + "가" * 5000)[:MAX_COMMENT]),
        ("   ", None),
    ],
)
def test_a_comment_is_kept_as_plain_text_and_never_shown_back(
    engine: Engine, client: TestClient, comment: str, kept: str | None
) -> None:
    answer = client.post(path(score_links(a_message(engine))["3"]), data={"comment": comment})
    assert answer.status_code == 200
    assert inbox(engine)[0].get("comment") == kept
    assert "alert" not in answer.text
    assert "49" not in answer.text


def test_a_garbled_form_still_counts_as_the_score_of_the_link(engine: Engine, client: TestClient) -> None:
    garbled = [
        b"comment=%ff%fe%00",
        b"comment=%ed%a0%80",
        b"\xff\xfe",
        b"&&&===",
        b"score=7&score=x" * 500,
        b"comment[]=1",
    ]
    form = "application/x-www-form-urlencoded"
    for kind in (
        form,
        f"{form}; charset=nonsense",
        "multipart/form-data; boundary=x",
        "multipart/form-data",
        "text/plain",
        "",
    ):
        for body in garbled:
            message = a_message(engine)
            answer = client.post(path(score_links(message)["3"]), content=body, headers={"content-type": kind})
            assert answer.status_code == 200, (kind, body)
            newest = inbox(engine)[-1]
            assert (newest["message_id"], newest["score"]) == (str(message), 3)


# ---------------------------------------------------------------- bad links, floods, headers


def test_a_bad_link_changes_nothing_and_always_looks_the_same(engine: Engine, client: TestClient, clock: Clock) -> None:
    message = str(a_message(engine))
    good, score = sign("unsubscribe", message), sign("score", message, "1")
    before = stored(engine)
    changed = (good[:-1], good + "x", good.upper(), good.replace("1.", "1..", 1), "x", "%00", "%ff")
    bad = [f"/u/{token}" for token in (*changed, score, sign("unsubscribe", "no-uuid"))]
    bad += [f"/s/{token}" for token in (good, score[:-2], score.replace("~1.", "~5."), sign("score", "no-uuid", "1"))]
    pages = set()
    for address in bad:
        for answer in (client.get(address), client.post(address, data=ONE_CLICK)):
            pages.add((answer.status_code, answer.text))
        clock.now += timedelta(minutes=2)
    assert {status for status, _ in pages} == {404}
    assert len(pages) == 1
    assert stored(engine) == before


def test_guessing_is_slowed_down_but_providers_never_are(engine: Engine, clock: Clock) -> None:
    app = create_app(engine, clock)
    robot, provider = TestClient(app, client=("203.0.113.9", 1)), TestClient(app, client=("198.51.100.1", 1))
    assert [robot.get("/u/guess").status_code for _ in range(31)] == [404] * 30 + [429]
    assert robot.get("/u/guess").headers["retry-after"] == "60"
    assert provider.get("/u/guess").status_code == 404
    messages = [a_message(engine) for _ in range(3)]
    assert {robot.post(path(unsubscribe_link(m))).status_code for m in messages * 20} == {200}, (
        "a good link always works"
    )
    clock.now += timedelta(seconds=61)
    assert robot.get("/u/guess").status_code == 404


def test_one_network_of_ipv6_counts_as_one(engine: Engine, clock: Clock) -> None:
    app = create_app(engine, clock)
    answers = [TestClient(app, client=(f"2001:db8:1:1::{n:x}", 1)).get("/s/guess").status_code for n in range(31)]
    assert answers[-1] == 429
    assert TestClient(app, client=("2001:db8:1:2::1", 1)).get("/s/guess").status_code == 404


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_64_kb_is_refused_and_nothing_is_stored(engine: Engine, client: TestClient, chunked: bool) -> None:
    link = path(unsubscribe_link(a_message(engine)))
    before = stored(engine)
    parts = (b"x" * 1024 for _ in range(65))
    answer = client.post(link, content=parts if chunked else b"x" * (MAX_BODY + 1))
    assert answer.status_code == 413
    assert stored(engine) == before
    assert client.post(link, content=b"x" * MAX_BODY).status_code == 200


def test_every_answer_forbids_storing_framing_scripts_and_telling_others(engine: Engine, client: TestClient) -> None:
    message = a_message(engine)
    unsubscribe, score = path(unsubscribe_link(message)), path(score_links(message)["1"])
    answers = [
        client.get(unsubscribe), client.post(unsubscribe), client.get(score), client.post(score), client.get("/u/bad"),
        client.get("/nowhere"), client.put(unsubscribe), client.get("/healthz"), client.get("/"),
        client.post(unsubscribe, content=b"x" * (MAX_BODY + 1)),
    ]  # fmt: skip
    for answer in answers:
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-robots-tag"] == "noindex, nofollow"
        assert answer.headers["x-content-type-options"] == "nosniff"
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "set-cookie" not in answer.headers
        assert "location" not in answer.headers


def test_no_address_of_the_pages_redirects(engine: Engine, client: TestClient) -> None:
    link = path(unsubscribe_link(a_message(engine)))
    assert client.post(f"{link}/").status_code == 404
    assert client.post(f"/{link}").status_code == 404
    for other in ("/docs", "/openapi.json", "/redoc", "/u", "/u/", "/s/"):
        assert client.get(other).status_code == 404


# ---------------------------------------------------------------- languages


def test_a_page_speaks_the_customers_language_before_the_browsers(engine: Engine, client: TestClient) -> None:
    korean, silent = a_message(engine, locale="ko-KR"), a_message(engine, locale=None)
    japanese = {"accept-language": "fr-CH, ja;q=0.8, en;q=0.7"}
    assert '<html lang="ko">' in client.get(path(unsubscribe_link(korean)), headers=japanese).text
    assert "수신 거부가 완료되었습니다" in client.post(path(unsubscribe_link(korean)), headers=japanese).text
    assert "配信を停止する" in client.get(path(unsubscribe_link(silent)), headers=japanese).text
    assert '<html lang="en">' in client.get(path(unsubscribe_link(silent))).text


@pytest.mark.parametrize("accepted", ["", "*", ";;;q=,", "xx", "ko;q=abc", "," * 5000, "é\x00"])
def test_an_odd_accept_language_means_english(accepted: str) -> None:
    assert language(None, accepted) == "en"


def test_the_three_languages_say_the_same_things() -> None:
    def shape(words: object) -> object:
        if isinstance(words, dict):
            return {key: shape(value) for key, value in words.items()}
        if isinstance(words, list):
            return [shape(value) for value in words]
        return sorted(field for _, field, _, _ in string.Formatter().parse(str(words)) if field)

    assert set(TEXTS) == {"en", "ko", "ja"}
    assert shape(TEXTS["ko"]) == shape(TEXTS["en"]) == shape(TEXTS["ja"])
