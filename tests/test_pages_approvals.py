"""The Approvals page: what is held and why; an answer holds for the audience the reader saw, and names who gave it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from paged import EVIL, Pages
from postlude import db, volume
from postlude.pages import known
from postlude.settings import settings
from sink import Sink
from test_flow import lapsing
from world import World, at, campaign

pytestmark = pytest.mark.airflow
MINUTE = timedelta(minutes=1)


@pytest.fixture
def world(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(db, "default_engine", lambda: engine)
    yield World(engine)


def held(world: World, people: int = 4, since: str = "2026-06-01 08:00") -> Any:
    """A plan that waits for a yes: more than the campaign's file allows by itself. since: when they lapsed."""
    back = campaign("win_back")
    back = back.model_copy(update={"approval": back.approval.model_copy(update={"above": 2})})
    for _ in range(people):
        lapsing(world, since)
    world.plan(back, at(since) + 30 * MINUTE, release=False)
    with db.transaction(world.engine) as conn:
        volume.assess(conn, back, at(since) + 31 * MINUTE, "run-1")
    return back


def test_a_plan_is_looked_at_and_approved_here_with_a_comment(world: World, tmp_path: Path) -> None:
    held(world)
    pages = Pages(world, tmp_path, "2026-06-01 08:40")
    asked = pages.get("viewer", "api/approvals")["open"][0]
    assert (asked["messages"], asked["people"], asked["waiting"], asked["may"], asked["sample"]) == (
        16,
        4,
        16,
        False,
        [],
    )
    assert [cause["words"] for cause in asked["causes"]] == ["more messages than a run may release by itself"]
    asked = pages.get("kim", "api/approvals")["open"][0]
    assert len(asked["sample"]) == 4 and asked["facts"]["steps"]["miss_you"] == 4
    body = {"approval": asked["approval"], "approve": True, "audience": asked["audience"], "comment": f"sale {EVIL}"}
    for who, status in ((None, 401), ("viewer", 403)):
        assert pages.post(who, "api/approval/decide", body) and pages.status == status
    assert pages.post("kim", "api/approval/decide", body | {"comment": " "}) and pages.status == 422
    assert "not the audience" in pages.post("kim", "api/approval/decide", body | {"audience": "0" * 64})["detail"]
    assert pages.status == 409 and world.one("select count(*) from approval_decisions") == 0
    done = pages.post("kim", "api/approval/decide", body)
    assert (done["done"]["released"], done["open"]) == (16, [])
    assert world.do("select decision, decided_by, via, comment from approval_decisions") == [
        ("approved", "kim", "page", body["comment"])
    ]
    # the form once more: the same person has answered, and nothing is done again
    again = pages.post("kim", "api/approval/decide", body)
    assert pages.status == 200 and again["done"]["released"] == 16
    other = pages.post("lee", "api/approval/decide", body | {"approve": False})
    assert pages.status == 422 and "was approved by kim" in other["detail"]
    assert world.one("select count(*) from messages where state = 'scheduled'") == 16


def test_an_audience_that_changed_is_shown_and_a_yes_releases_nothing(world: World, tmp_path: Path) -> None:
    held(world)
    pages = Pages(world, tmp_path, "2026-06-01 08:40")
    asked = pages.get("kim", "api/approvals")["open"][0]
    # somebody in psql moves a message to another customer: no longer those who were asked about
    world.do("update messages set step_id = 'other' where message_id = (select message_id from messages limit 1)")
    assert pages.get("kim", "api/approvals")["open"][0]["changed"] is True
    body = {"approval": asked["approval"], "approve": True, "audience": asked["audience"], "comment": "x"}
    told = pages.post("kim", "api/approval/decide", body)
    assert (told["done"]["changed"], told["done"]["released"]) == (1, 0)
    assert world.one("select count(*) from messages where state <> 'held'") == 0


def test_what_expires_can_no_longer_be_approved(world: World, tmp_path: Path) -> None:
    held(world)
    pages = Pages(world, tmp_path, "2026-06-01 08:40")
    asked = pages.get("kim", "api/approvals")["open"][0]
    pages.now = at("2026-12-01")
    assert pages.get("kim", "api/approvals")["open"] == []
    body = {"approval": asked["approval"], "approve": True, "audience": asked["audience"], "comment": "x"}
    assert "expired at" in pages.post("kim", "api/approval/decide", body)["detail"] and pages.status == 422


def test_only_those_a_campaign_names_may_answer(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    back = held(world)
    named = back.model_copy(update={"approval": back.approval.model_copy(update={"by": ("lee",)})})
    monkeypatch.setattr(known, "campaign", lambda _: named)
    pages = Pages(world, tmp_path, "2026-06-01 08:40")
    asked = pages.get("kim", "api/approvals")["open"][0]
    body = {"approval": asked["approval"], "approve": False, "audience": asked["audience"], "comment": "no"}
    assert asked["may"] is False and "names who may approve" in pages.post("kim", "api/approval/decide", body)["detail"]
    assert pages.post("lee", "api/approval/decide", body)["done"]["cancelled"] == 16


def test_those_who_may_approve_are_told_by_mail_and_a_broken_notifier_stops_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    held(world)
    approval = world.one("select approval_id from approvals")
    with Sink() as sink:
        monkeypatch.setenv("POSTLUDE_CATCHER_URL", f"smtp://127.0.0.1:{sink.port}?starttls=never")
        monkeypatch.setenv("POSTLUDE_APPROVAL_MAIL", "mia@shop.example, bo@shop.example")
        monkeypatch.setenv("POSTLUDE_APPROVAL_NOTIFIER", "airflow.providers.nowhere.Notifier")
        monkeypatch.setenv("AIRFLOW_HOME", os.environ["POSTLUDE_HOME"])
        settings.cache_clear()
        try:
            from postlude import orchestration

            monkeypatch.setattr(orchestration, "use_connection", lambda: None)
            monkeypatch.setattr(orchestration, "wall_clock", lambda: at("2026-06-01 08:40"))
            task = type("Ti", (), {"xcom_pull": lambda self, name: {"approval": approval}})()
            orchestration.Notice("assess").notify({"ti": task})
        finally:
            monkeypatch.undo()
            settings.cache_clear()
        mails = [message_from_bytes(entry.raw, policy=policy.default) for entry in sink.ledger]
        assert [mail["to"] for mail in mails] == ["mia@shop.example", "bo@shop.example"]
        text = mails[0].get_body(("plain",)).get_content()
        assert (
            mails[0]["subject"] in text
            and "16 messages of win_back to 4 customers" in text
            and "postlude-approvals" in text
        )
