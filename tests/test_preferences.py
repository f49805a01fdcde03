"""People choose what they get: topics, a break, nothing at all; the pages' own database role can do this and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from html import unescape
from uuid import UUID, uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from postlude import db
from postlude.campaign import Campaign, Step
from postlude.errors import InputError
from postlude.tokens import preferences_link, score_links, sign, unsubscribe_link
from postlude.web import PREFERENCES_FOR, create_app
from postlude.web.pages import TEXTS
from postlude.web.topics import load_topics
from test_web import a_message, path, stored, suppressed
from world import World, at, campaign

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TODAY = NOW.date()


@pytest.fixture
def pages(database: URL) -> Iterator[Engine]:
    """Connected as the public pages are."""
    made = db.engine(database.set(username=db.WEB_ROLE))
    yield made
    made.dispose()


class Clock:
    now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def client(pages: Engine, clock: Clock) -> Iterator[TestClient]:
    with TestClient(create_app(pages, clock), follow_redirects=False) as made:
        yield made


def letters(steps: list[dict[str, object]]) -> Campaign:
    return campaign("win_back", steps=tuple(Step.model_validate_json(db.dumps(step)) for step in steps))


def agreed(engine: Engine, message: UUID, topic: str = "marketing", when: datetime = NOW) -> bool:
    with engine.connect() as conn:
        return bool(
            conn.scalar(
                text("select consented(customer_id, 'email', :topic, :now) from messages where message_id = :m"),
                {"topic": topic, "now": when, "m": message},
            )
        )


def grant(engine: Engine, message: UUID) -> None:
    with engine.begin() as conn:
        conn.execute(
            text("""insert into consents select customer_id, 'email', 'marketing', true, '2020-01-01', 'opt_in', '2020-01-01'
                    from messages where message_id = :m"""),
            {"m": message},
        )


# ---------------------------------------------------------------- the page


def test_looking_at_the_page_changes_nothing_and_shows_a_masked_address(engine: Engine, client: TestClient) -> None:
    message = a_message(engine)
    grant(engine, message)
    before = stored(engine)
    answer = client.get(path(preferences_link(message, TODAY)))
    assert answer.status_code == 200
    assert "customers.example" not in answer.text and "Ana" not in answer.text
    assert "a…@c….example" in answer.text
    assert re.search(r'name="topic_marketing" value="yes" checked', answer.text)
    assert not re.search(r"<script|javascript:|\son\w+=", answer.text)
    assert stored(engine) == before


def test_unticking_a_topic_withdraws_it_at_once_and_ticking_it_agrees_again(
    engine: Engine, client: TestClient, clock: Clock
) -> None:
    message = a_message(engine)
    grant(engine, message)
    link = path(preferences_link(message, TODAY))
    page = client.post(link, data={"do": "save"})
    assert page.status_code == 200 and "Saved" in page.text
    assert not agreed(engine, message)
    rows = stored(engine)
    assert client.post(link, data={"do": "save"}).status_code == 200
    assert stored(engine) == rows, "saying the same again stores nothing"
    clock.now = NOW + timedelta(minutes=5)
    client.post(link, data={"do": "save", "topic_marketing": "yes"})
    assert agreed(engine, message, when=clock.now)


def test_nothing_at_all_suppresses_the_address_and_asking_again_lifts_only_that(
    engine: Engine, client: TestClient, clock: Clock
) -> None:
    message = a_message(engine)
    grant(engine, message)
    link = path(preferences_link(message, TODAY))
    assert "unsubscribed from everything" in client.post(link, data={"do": "nothing"}).text
    assert suppressed(engine) == [("ana@customers.example", "marketing", "unsubscribed")]
    assert 'value="yes" checked' not in client.get(link).text
    with engine.begin() as conn:
        conn.execute(text("insert into suppressions (address, scope, reason, since) values "
                          "('ana@customers.example', 'marketing', 'complained', now())"))  # fmt: skip
    clock.now = NOW + timedelta(minutes=1)
    page = client.post(link, data={"do": "save", "topic_marketing": "yes"})
    assert suppressed(engine) == [("ana@customers.example", "marketing", "complained")]
    assert "We do not write to this address" in unescape(page.text)
    with engine.connect() as conn:
        assert (
            conn.scalar(text("select lifted_by from suppressions where reason = 'unsubscribed'")) == "preferences page"
        )


def test_a_link_older_than_90_days_shows_nothing_of_the_person_but_still_unsubscribes(
    engine: Engine, client: TestClient
) -> None:
    message = a_message(engine)
    grant(engine, message)
    link = path(preferences_link(message, TODAY - PREFERENCES_FOR - timedelta(days=1)))
    page = client.get(link)
    assert page.status_code == 200 and "older than 90 days" in page.text
    assert "…@" not in page.text and "topic_" not in page.text
    before = stored(engine)
    client.post(link, data={"do": "save"})
    client.post(link, data={"do": "pause_30"})
    assert stored(engine) == before
    client.post(link, data={"do": "nothing"})
    assert suppressed(engine) == [("ana@customers.example", "marketing", "unsubscribed")]


@pytest.mark.parametrize("data", [{}, {"do": "drop"}, {"do": "pause_9999"}, {"topic_marketing": "no"}])
def test_a_form_that_says_nothing_we_know_changes_nothing(
    engine: Engine, client: TestClient, data: dict[str, str]
) -> None:
    message = a_message(engine)
    before = stored(engine)
    assert client.post(path(preferences_link(message, TODAY)), data=data).status_code == 200
    assert stored(engine) == before


def test_links_of_other_purposes_and_forged_ones_are_refused(engine: Engine, client: TestClient) -> None:
    message = a_message(engine)
    day = TODAY.isoformat()
    real = sign("preferences", str(message), day)
    forged = real[:-1] + ("y" if real.endswith("x") else "x")
    for token in (
        unsubscribe_link(message).rpartition("/")[2], score_links(message)["1"].rpartition("/")[2],
        sign("unsubscribe", str(message), day), forged, "1.2.3.4", "x" * 600,
    ):  # fmt: skip
        assert client.post(f"/p/{token}", data={"do": "nothing"}).status_code == 404
    assert suppressed(engine) == []


def test_an_unknown_message_gets_the_same_page_without_a_person(client: TestClient) -> None:
    assert client.get(path(preferences_link(uuid4(), TODAY))).status_code == 200
    assert client.post(path(preferences_link(uuid4(), TODAY)), data={"do": "pause_30"}).status_code == 200


def test_every_language_has_every_word_of_the_page() -> None:
    shapes = {language: sorted(words["preferences"]) for language, words in TEXTS.items()}
    assert len({tuple(keys) for keys in shapes.values()}) == 1
    assert len({tuple(sorted(words["preferences"]["done"])) for words in TEXTS.values()}) == 1  # type: ignore[call-overload]


def test_a_topic_file_without_english_words_names_the_topic(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "topics.yml").write_text("survey:\n  ko: {name: 설문}\n")
    with pytest.raises(InputError, match=r"topics.yml:1.*survey: has no words in English"):
        load_topics(tmp_path / "topics.yml")


# ---------------------------------------------------------------- a break


def test_a_break_puts_marketing_off_and_sends_after_it_what_is_still_true(engine: Engine, database: URL) -> None:
    world = World(engine)
    ana, bea = world.customer("Ana"), world.customer("Bea")
    for person in (ana, bea):
        world.order(person, "2025-06-01")
    planned = letters([{"id": "soon", "template": "win_back/miss_you", "on_day": 0, "expires_after": "5 days"},
                              {"id": "later", "template": "win_back/whats_new", "on_day": 0, "expires_after": "60 days"}])  # fmt: skip
    world.plan(planned, "2025-11-28T08:00")
    moment = at("2025-11-28T09:00")
    a_mail = world.one("select message_id from messages where customer_id = :c limit 1", c=ana)
    pages = db.engine(database.set(username=db.WEB_ROLE))
    with TestClient(create_app(pages, lambda: moment)) as client:
        answer = client.post(path(preferences_link(a_mail, moment.date())), data={"do": "pause_30"})
        assert "On a break until 2025-12-28" in answer.text
    world.deliver(planned, now="2025-11-28T12:00")
    assert world.received(bea) == ["soon", "later"] and world.received(ana) == []
    assert {reason for _, _, reason in world.states(ana)} == {"on_break"}
    world.deliver(planned, now="2025-12-27T12:00")
    assert world.received(ana) == []
    assert ("soon", "expired", "on_break") in world.states(ana)
    world.deliver(planned, now="2025-12-29T12:00")
    assert world.received(ana) == ["later"]
    pages.dispose()


def test_a_topic_withdrawn_while_the_mail_is_being_handed_over_stops_it_before_the_final_dot(
    engine: Engine, database: URL
) -> None:
    world = World(engine)
    ana = world.customer("Ana")
    world.order(ana, "2025-06-01")
    planned = letters([{"id": "soon", "template": "win_back/miss_you", "on_day": 0, "expires_after": "5 days"}])
    world.plan(planned, "2025-11-28T08:00")
    moment = at("2025-11-28T12:00")
    pages = db.engine(database.set(username=db.WEB_ROLE))

    def says_no(message) -> None:  # type: ignore[no-untyped-def]
        with TestClient(create_app(pages, lambda: moment)) as client:
            client.post(path(preferences_link(message.message_id, moment.date())), data={"do": "save"})

    world.post.before_intent = says_no
    world.deliver(planned, now=moment)
    assert world.received(ana) == []
    world.post.before_intent = None
    world.deliver(planned, now="2025-11-28T13:00")
    assert world.states(ana) == [("soon", "skipped", "no_consent")]
    pages.dispose()


def test_an_answer_to_a_mail_pauses_promotions_and_raises_a_ticket_event(engine: Engine) -> None:
    world = World(engine)
    ana = world.customer("Ana")
    world.order(ana, "2025-06-01")
    planned = letters([{"id": "one", "template": "win_back/miss_you", "on_day": 0, "expires_after": "3 days"},
                              {"id": "two", "template": "win_back/whats_new", "on_day": 2, "expires_after": "20 days"}])  # fmt: skip
    world.plan(planned, "2025-11-28T08:00")
    world.deliver(planned, now="2025-11-28T12:00")
    sent = world.one("select message_id from messages where state = 'sent'")
    world.post.reports = [{"kind": "replied", "message_id": str(sent), "at": "2025-11-29T10:00:00+00:00"}]
    assert world.feedback("2025-11-29T11:00")["paused"] == 1
    assert world.feedback("2025-11-29T12:00")["paused"] == 0
    assert world.do("select kind, event_key from external_events") == [("ticket_opened", f"reply:{sent}")]
    world.deliver(planned, now="2025-11-30T12:00")
    assert world.received(ana) == ["one"]
    world.deliver(planned, now="2025-12-07T12:00")
    assert world.received(ana) == ["one", "two"]


# ---------------------------------------------------------------- what the pages may do


def test_the_role_of_the_pages_reads_no_table_and_writes_none(engine: Engine, pages: Engine) -> None:
    a_message(engine)
    with engine.connect() as conn:
        tables = conn.execute(
            text("select schemaname || '.' || tablename from pg_tables where schemaname in ('postlude', 'public') "
                 "union all select schemaname || '.' || viewname from pg_views where schemaname in ('postlude', 'public')")
        ).scalars().all()  # fmt: skip
    assert len(tables) > 30
    for table in tables:
        for statement in (
            f"select * from {table} limit 1",
            f"delete from {table}",
            f"insert into {table} default values",
        ):
            with pages.connect() as conn, pytest.raises(DBAPIError, match=r"permission denied|cannot (insert|delete)"):
                conn.execute(text(statement))


def test_the_role_of_the_pages_may_execute_exactly_the_functions_of_the_pages(engine: Engine) -> None:
    with engine.connect() as conn:
        able = conn.execute(
            text("""select p.proname from pg_proc as p where p.pronamespace = 'postlude'::regnamespace and p.prosecdef
                    and has_function_privilege('postlude_web', p.oid, 'execute') order by 1""")
        ).scalars().all()  # fmt: skip
        others = conn.execute(
            text("""select count(*) from pg_proc as p, aclexplode(p.proacl) as a
                    where p.pronamespace = 'postlude'::regnamespace and p.prosecdef and a.grantee = 0""")
        ).scalar_one()
    assert able == [
        "public_banners", "public_calendar_changes", "public_land", "public_land_report", "public_locale", "public_planned",
        "public_prefer", "public_preferences", "public_take_token", "public_unsubscribe",
    ]  # fmt: skip
    assert others == 0, "nobody else may act with the owner's rights"


def test_the_page_of_a_mail_is_the_same_for_the_same_mail() -> None:
    message = UUID(int=7)
    assert preferences_link(message, date(2026, 3, 1)) == preferences_link(message, date(2026, 3, 1))
