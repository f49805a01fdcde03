"""A consent that the law of the recipient's country lets end is refused, with a reason, at planning and at the last look."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from postlude import cli, consents, db, legal
from postlude.calendar import Occasion
from postlude.errors import InputError
from world import World, at, calendar
from written import written

NOW = "2026-03-02 10:00"


class Letters:
    """A mailing to everybody on 2 March 2026."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.world = World(engine)
        self.world.calendar = calendar(occasions=(Occasion(id="spring", date=date(2026, 3, 2), why="spring"),))
        self.campaign = written(
            folder, "{occasion: spring, entry: existing, max_age: 3 days, once_per: episode}", name="spring",
            steps="  - {id: hello, template: win_back/whats_new, on_day: 0, expires_after: 3 days}\n",
            more="stop_while: []\nneeds_fresh_orders: false",
        )  # fmt: skip
        with db.transaction(engine) as conn:
            consents.remember_terms(conn)

    def person(self, country: str, basis: str, agreed: str, bought: str | None = None) -> int:
        customer = self.world.customer(consent=None)
        self.world.do("update customers set country = :country where customer_id = :c", country=country, c=customer)
        self.world.do("insert into consents values (:c, 'email', 'marketing', true, :at, :basis, :at)",
                      c=customer, at=at(agreed), basis=basis)  # fmt: skip
        if bought:
            self.world.order(customer, bought)
        return customer

    def outcome(self, customer: int) -> str | None:
        """`sent`, or why not."""
        if self.world.received(customer):
            return "sent"
        refused = self.world.do("select reason from refusals where customer_id = :c", c=customer)
        return refused[0][0] if refused else self.world.states(customer)[0][2]


@pytest.fixture
def letters(engine: Engine, tmp_path: Path) -> Letters:
    return Letters(engine, tmp_path)


def test_an_implied_consent_ends_by_the_law_of_the_recipients_country(letters: Letters) -> None:
    people = {
        ("CA", "soft_opt_in", "2023-01-10", "2024-03-03"): "sent",  # a day less than 24 months
        ("CA", "soft_opt_in", "2023-01-10", "2024-03-01"): "consent_aged",
        ("Canada", "soft_opt_in", "2023-01-10", "2024-03-01"): "consent_aged",
        ("CA", "soft_opt_in", "2024-03-01", None): "consent_aged",
        ("CA", "soft_opt_in", "2024-03-03", None): "sent",
        ("CA", "inquiry", "2025-09-01", None): "consent_aged",
        ("CA", "inquiry", "2025-09-03", None): "sent",
        ("CA", "inquiry", "2025-01-01", "2025-01-05"): "sent",  # became a buyer
        ("CA", "opt_in", "2015-01-01", None): "sent",  # agreed in so many words
        ("DE", "soft_opt_in", "2015-01-01", "2015-01-01"): "sent",
    }
    found = {letters.person(*person): person for person in people}
    letters.world.plan(letters.campaign, NOW)
    letters.world.deliver(letters.campaign, now=NOW)
    assert {person: letters.outcome(customer) for customer, person in found.items()} == people


def test_a_consent_that_ends_between_plan_and_hand_over_is_seen_at_the_last_look(letters: Letters) -> None:
    inquirer = letters.person("CA", "inquiry", "2025-09-03 09:00")
    letters.world.plan(letters.campaign, NOW)
    letters.world.deliver(letters.campaign, now="2026-03-03 10:00")
    assert letters.world.states(inquirer) == [("hello", "skipped", "consent_aged")]
    with db.transaction(letters.world.engine) as conn:
        conn.exec_driver_sql("delete from messages")
        rule = (
            legal.load_law()
            .rule("CA", "en")
            .model_copy(update={"implied_by_inquiry": None, "implied_by_purchase": None})
        )
        consents.remember_terms(conn, legal.Law(countries={"CA": rule}))  # the file no longer says so
        ended = "select consent_ended(customer_id, country, 'email', 'marketing', '2026-03-03') from customers"
        assert conn.exec_driver_sql(ended).scalars().all() == [None]


def test_who_agreed_in_korea_is_told_so_every_two_years_or_gets_no_more_marketing(
    letters: Letters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, late, young = (letters.person("KR", "opt_in", day) for day in ("2021-01-01", "2021-01-01", "2024-03-20"))
    monkeypatch.setattr(db, "default_engine", lambda: letters.world.engine)
    monkeypatch.setattr(cli, "_ready", lambda: None)
    run = CliRunner().invoke(cli.app, ["consents", "due", "--within", "30", "--as-of", f"{NOW}Z"])
    lines = run.stdout.splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == [str(told), str(late), str(young)], run.output
    assert lines[-1].endswith(",KR,2024-03-20,2026-03-20")

    file = tmp_path / "told.csv"
    file.write_text("\n".join(lines[:2]), encoding="utf-8")
    words = ["consents", "told", str(file), "--by", "ana", "--at", "2026-02-01T09:00Z", "--as-of", f"{NOW}Z"]
    assert "1 notices recorded, 0 were known" in CliRunner().invoke(cli.app, words).stdout
    assert "0 notices recorded, 1 were known" in CliRunner().invoke(cli.app, words).stdout
    letters.world.plan(letters.campaign, NOW)
    letters.world.deliver(letters.campaign, now=NOW)
    assert [letters.outcome(c) for c in (told, late, young)] == ["sent", "consent_notice_due", "sent"]
    with db.transaction(letters.world.engine) as conn:
        assert [row.customer_id for row in consents.due(conn, at(NOW), timedelta(0))] == [late]
        for customers, when in (([told], "2026-03-03"), ([told, 10**9], "2026-03-01")):
            with pytest.raises(InputError):
                consents.told(conn, customers, at(when), "ana", at(NOW))


def test_two_plans_at_once_learn_a_new_law_without_getting_in_each_others_way(engine: Engine) -> None:
    with db.transaction(engine) as conn:
        conn.execute(text("delete from consent_terms"))

    def plan() -> int:
        with db.transaction(engine) as conn:
            consents.remember_terms(conn)
            return int(conn.execute(text("select count(*) from consent_terms")).scalar_one())

    with ThreadPoolExecutor(1) as other:
        with db.transaction(engine) as first:
            consents.remember_terms(first)
            second = other.submit(plan)  # the first is not committed yet
            with pytest.raises(TimeoutError):
                second.result(timeout=0.5)
        assert second.result(timeout=10) > 0
        with db.transaction(engine) as first:  # nothing new: nobody waits
            consents.remember_terms(first)
            assert other.submit(plan).result(timeout=10) > 0


def test_a_term_that_is_no_time_of_the_calendar_is_told_at_its_line(tmp_path: Path) -> None:
    path = tmp_path / "legal.yml"
    path.write_text(
        legal.settings().include.joinpath("legal.yml").read_text(encoding="utf-8").replace("24 months", "730 days")
    )
    with pytest.raises(InputError, match=r'legal.yml:\d+: countries.CA.implied_by_purchase: "730 days" is not a time'):
        legal.load_law(path)
