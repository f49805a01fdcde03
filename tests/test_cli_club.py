"""What people at the desk see and do: recommendations, points, cases."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner

from postlude import cli, db
from postlude.errors import InputError
from test_happenings import note, tell
from world import World

Ask = Any


@pytest.fixture
def world(engine: Engine) -> World:
    return World(engine)


@pytest.fixture
def ask(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Runs a command on the test's own database; its output."""
    monkeypatch.setattr(db, "default_engine", lambda: engine)
    monkeypatch.setattr(cli, "_ready", lambda: None)

    def run(*words: str) -> str:
        done = CliRunner().invoke(cli.app, list(words), env={"COLUMNS": "200"})
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.output

    return run


def test_the_desk_sees_and_corrects_points_with_a_reason(world: World, ask: Ask) -> None:
    ana = str(world.customer())
    assert json.loads(ask("loyalty", "join", ana, "--by", "mira", "--json"))["member"] == "free"
    assert (
        json.loads(ask("loyalty", "adjust", ana, "50", "--reason", "a long wait", "--by", "mira", "--json"))["points"]
        == 50
    )
    assert json.loads(ask("loyalty", "redeem", ana, "20", "--reason", "mug", "--ref", "7", "--json"))["points"] == 30
    shown = ask("loyalty", "show", ana)
    assert f"Customer {ana}: 30 points" in shown and "a long wait" in shown and "mira" in shown and "-20" in shown
    with pytest.raises(InputError, match="member already"):
        ask("loyalty", "join", ana)


def test_the_desk_sees_open_cases_and_puts_them_right(world: World, ask: Ask) -> None:
    tell(world, world.customer(), "damaged", "2026-02-21")
    note(world, "2026-02-22")
    shown = ask("recovery", "list")
    shown = " ".join(shown.split())
    assert "1 case" in shown and "Mira Sommer" in shown and "may be" in shown and "given" in shown
    ask("recovery", "resolve", "1", "--score", "5", "--why", "sent a new one")
    assert "0 cases" in ask("recovery", "list")
    assert "sent a new one" in " ".join(ask("recovery", "list", "--all").split())


def test_the_desk_sees_what_is_recommended_and_why(world: World, ask: Ask) -> None:
    for n in range(4):
        order = world.order(world.customer(), f"2026-02-0{n + 1}")
        world.do("insert into order_lines values (:o, '2', 'soap', 'x', 1, 5, '2026-02-01')", o=order)
    ana = world.customer()
    world.order(ana, "2026-02-10")
    assert json.loads(ask("recommend", "--count", "--as-of", "2026-03-01", "--json"))["pairs"] == 1
    said = " ".join(ask("recommend", str(ana), "--as-of", "2026-03-01").split())
    assert "customers who bought Blue mug also took Lavender soap" in said
    assert "complementary: in 4 of 5 orders with it" in ask("recommend", "--product", "mug")
    with pytest.raises(InputError, match="fewer than 3 orders"):
        ask("recommend", "--product", "nothing")
