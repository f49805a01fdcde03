"""The kill switch: one word stops mail at once, everywhere, and says who said so."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine

from postlude import db, switch
from postlude.errors import InputError
from postlude.message import Message, Outcome
from test_cli import Shell, shell
from test_flow import lapsing
from world import World, at, campaign

NOW = "2026-06-01 09:30"
__all__ = ["shell"]


@pytest.fixture
def world(engine: Engine) -> World:
    return World(engine)


def stop(world: World, *words: str, too: bool = False) -> bool:
    with db.transaction(world.engine) as conn:
        return switch.stop(conn, words[0], "".join(words[1:]), "a test", "tester", at(NOW), too)


def go(world: World, *words: str) -> int:
    with db.transaction(world.engine) as conn:
        return switch.go(conn, words[0], "".join(words[1:]), "over", "tester", at(NOW))


@pytest.mark.parametrize("words", [("all",), ("campaign", "win_back"), ("channel", "email"), ("shop", "shop")])
def test_a_stop_holds_what_it_names_and_its_end_sends_what_is_still_true(world: World, words: tuple[str, ...]) -> None:
    ana = lapsing(world)
    back = campaign("win_back")
    world.plan(back, "2026-06-01 08:30")
    assert stop(world, *words)
    assert not stop(world, *words), "thrown twice is thrown once"
    for hour in (10, 12, 15):
        assert world.deliver(back, now=f"2026-06-01 {hour}:30") == {}
    assert world.received(ana) == []
    assert go(world, *words) == 1
    world.deliver(back, now="2026-06-01 16:30")
    assert world.received(ana) == ["miss_you"]
    assert world.do("select stopped_by, why, lifted_by, lift_reason from kill_switches") == [
        ("tester", "a test", "tester", "over")
    ]


@pytest.mark.parametrize("words", [("campaign", "feedback_30d"), ("channel", "console"), ("shop", "other")])
def test_a_stop_leaves_alone_what_it_does_not_name(world: World, words: tuple[str, ...]) -> None:
    world.do(
        "insert into sources (source_id, shop, kind, currency, time_zone) values ('other', 'Other', 'files', 'EUR', 'UTC')"
    )
    ana = lapsing(world)
    back = campaign("win_back")
    world.plan(back, "2026-06-01 08:30")
    stop(world, *words)
    world.deliver(back, now=NOW)
    assert world.received(ana) == ["miss_you"]


@pytest.mark.parametrize(
    ("words", "too", "goes"),
    [
        (("all",), False, True),
        (("all",), True, False),
        (("campaign", "feedback_30d"), False, False),
        (("channel", "email"), False, True),
        (("channel", "email"), True, False),
        (("shop", "shop"), False, True),
        (("shop", "shop"), True, False),
    ],
)
@pytest.mark.parametrize("while_handing_over", [False, True])
def test_transactional_mail_stops_only_when_told_so(
    world: World, words: tuple[str, ...], too: bool, goes: bool, while_handing_over: bool
) -> None:
    ana = world.customer()
    world.order(ana, "2026-03-01", delivered="2026-03-02")
    notice = campaign("feedback_30d", kind="transactional")
    world.plan(notice, "2026-03-03")
    if while_handing_over:
        world.post.before_intent = lambda message: stop(world, *words, too=too) and None
    else:
        stop(world, *words, too=too)
    world.deliver(notice, now="2026-04-01 12:00")
    assert world.received(ana) == (["ask"] if goes else [])
    if not goes and while_handing_over:
        assert world.states() == [("ask", "scheduled", "stopped")]
        assert world.one("select attempt < max_attempts and handed_over_at is null from messages")
        world.post.before_intent = None
        go(world, *words)
        world.deliver(notice, now="2026-04-01 12:10")
        assert world.received(ana) == ["ask"]


def page_of(world: World) -> Callable[[dict[str, str]], None]:
    """The button of the page in the Airflow UI: what it sends, to the app behind it."""
    from fastapi.testclient import TestClient

    from postlude.pages.app import Deps, make

    deps = Deps(
        see=lambda: None,
        steering=lambda: "kim",
        engine=lambda: world.engine,
        clock=lambda: at(NOW),
        home=Path("/nowhere"),
    )
    client = TestClient(make(deps))

    def press(body: dict[str, str]) -> None:
        reply = client.post("/api/stop", json=body, headers={"sec-fetch-site": "same-origin"})
        assert (reply.status_code, reply.json()["changed"]) == (200, 1), reply.text

    return press


@pytest.mark.parametrize("way", ["table", "file", "page", pytest.param("command line", marks=pytest.mark.slow)])
def test_a_stop_during_a_delivery_lets_at_most_one_more_message_per_worker_out(
    world: World, tmp_path: Path, shell: Shell, way: str
) -> None:
    with db.transaction(world.engine) as conn:
        conn.exec_driver_sql(
            "insert into customers (source_id, source_customer_id, email, first_name, known_at) "
            "select 'shop', 'b' || n, 'b' || n || '@customers.example', 'Bo', '2020-01-01' from generate_series(1, 400) n"
        )
        conn.exec_driver_sql(
            "insert into consents select customer_id, 'email', 'marketing', true, '2020-01-01', 'opt_in', '2020-01-01' from customers"
        )
    for number in range(4):
        lapsing(world, name=f"Ana{number}")
    back = campaign("win_back")
    world.plan(back, "2026-06-01 08:30")
    # everybody else takes the same passage
    world.do("""insert into enrolments (enrolment_id, campaign_id, version, customer_id, anchor_key, anchor_at, watch_from,
                enrolled_at, run_id)
                select uuid_of('e', c.customer_id::text), e.campaign_id, e.version, c.customer_id, 'x', e.anchor_at, e.watch_from,
                       e.enrolled_at, 'test'
                from customers c cross join (select * from enrolments limit 1) e where c.source_customer_id like 'b%'""")
    world.do("""insert into messages (message_id, enrolment_id, campaign_id, step_id, customer_id, kind, template, due_at, send_at,
                expires_at, planned_at, run_id)
                select uuid_of('m', e.customer_id::text), e.enrolment_id, e.campaign_id, m.step_id, e.customer_id, m.kind, m.template,
                       m.due_at, m.send_at, m.expires_at, m.planned_at, 'test'
                from enrolments e cross join (select * from messages where step_id = 'miss_you' limit 1) m
                where e.anchor_key = 'x'""")
    world.feed_complete_until(at(NOW))
    press = page_of(world)
    sent_at: list[float] = []
    thrown = threading.Event()
    done_at: list[float] = []
    file = tmp_path / "STOP"

    def answer(message: Message) -> Outcome:
        sent_at.append(time.monotonic())
        if len(sent_at) > 60:
            thrown.set()
            if (
                way == "command line" and not done_at
            ):  # a process takes its time to start; the delivery must still be under way
                time.sleep(0.5)
        return Outcome("accepted", reply="250 ok")

    def throw() -> None:
        thrown.wait(60)
        if way == "table":
            stop(world, "campaign", "win_back")
        elif way == "page":
            press({"scope": "campaign", "name": "win_back", "why": "wrong price"})
        elif way == "command line":
            shell("stop", "campaign", "win_back", "--why", "wrong price")
        else:
            file.write_text("campaign win_back # by hand\n")
        done_at.append(time.monotonic())

    world.post.answer = answer
    with ThreadPoolExecutor(5) as pool:
        running = [
            pool.submit(world.deliver, back, now=NOW, fresh=False, worker=f"w{n}", batch=50, stop_file=file)
            for n in range(4)
        ]
        pool.submit(throw).result(90)
        for worker in running:
            worker.result(90)
    late = len([moment for moment in sent_at if moment > done_at[0]])
    print(f"{way}: {len(sent_at)} of 404 sent, {late} of them after the stop, by 4 workers")
    assert 60 < len(sent_at) < (390 if way == "command line" else 300)
    assert late <= 4
    left = world.one("select count(*) from messages where step_id = 'miss_you' and state = 'scheduled'")
    assert left == 404 - len(sent_at)
    assert world.one("select count(*) from messages where state in ('sending', 'unknown')") == 0
    if way == "file":
        file.unlink()
    else:
        assert go(world, "campaign", "win_back") == 1
    world.deliver(back, now="2026-06-01 10:30", stop_file=file)
    assert len(world.post.taken) == len({m.message_id for m, _ in world.post.taken}) == 404


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("", ["all"]),
        ("help!", ["all"]),
        ("campaign win_back", ["campaign win_back"]),
        (
            "# since Monday\nshop olist\nchannel email transactional-too # relay on fire",
            ["shop olist", "channel email transactional-too"],
        ),
        ("all --transactional-too", ["all transactional-too"]),
        ("campain win_back", ["all"]),
        ("# only a comment", ["all"]),
    ],
)
def test_the_file_stops_what_its_lines_say_and_everything_when_in_doubt(
    tmp_path: Path, text: str, meant: list[str]
) -> None:
    file = tmp_path / "STOP"
    assert switch.stops_in_file(file) == []
    file.write_text(text)
    assert [str(found) for found in switch.stops_in_file(file)] == meant


@pytest.mark.parametrize(
    ("words", "why", "told"),
    [
        (("campaign", "win_bak"), "x", 'there is no campaign "win_bak"; there are .*feedback_30d'),
        (("shop", "nowhere"), "x", 'there is no shop "nowhere"; there are shop'),
        (("all", "win_back"), "x", "takes no name"),
        (("campaign",), "x", "which campaign"),
        (("everything",), "x", "none of all, campaign"),
        (("all",), " ", "say why"),
    ],
)
def test_a_typing_error_never_looks_like_a_stop(world: World, words: tuple[str, ...], why: str, told: str) -> None:
    with pytest.raises(InputError, match=told), db.transaction(world.engine) as conn:
        switch.stop(conn, words[0], "".join(words[1:]), why, "tester", at(NOW))


def test_stopping_and_lifting_from_the_command_line(shell: Shell) -> None:
    assert (
        shell.json("stop", "campaign", "win_back", "--why", "wrong price", "--by", "kim")["was stopped already"]
        is False
    )
    found = shell.json("switches")["switches"]
    assert [(s["from"], s["scope"], s["name"], s["why"], s["stopped_by"]) for s in found] == [
        ("table", "campaign", "win_back", "wrong price", "kim")
    ]
    assert "there is no campaign" in shell("stop", "campaign", "nobody", "--why", "x", code=2)
    (shell.home / "STOP").write_text("shop x")
    assert shell.json("go", "campaign", "win_back", "--why", "mended") == {"lifted": 1, "still in force": "shop x"}
    assert len(shell.json("switches", "--all")["switches"]) == 2
