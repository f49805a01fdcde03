"""Nothing but a complete evaluation of the pinned suite opens a gate, and no person's data leaves with the verdict."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.engine import URL

from gated_shop import NOW, Shop
from postlude import quality
from postlude.errors import InputError, Unavailable
from postlude.quality import evaluation, suites

CANARY = "kanarienvogel@customers.example"


@pytest.fixture
def shop(engine: Engine, database: URL) -> Shop:
    return Shop(engine, database)


# ---------------------------------------------------------------- it fails closed


def test_every_suite_in_the_code_is_the_pinned_one() -> None:
    assert quality.current() == quality.pinned(), "review the change of a suite, then: python -m postlude.quality --pin"
    assert set(quality.pinned()) == {"orders", "features", "plan", "deliveries", "events"}


@pytest.fixture
def altered(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replaces the batches of the gate `plan`."""

    def alter(batches: tuple[suites.Batch, ...]) -> None:
        monkeypatch.setitem(suites.GATES, "plan", replace(suites.PLAN, batches=batches))

    return alter


def test_an_empty_suite_closes_the_gate(shop: Shop, altered: Callable[..., None]) -> None:
    altered(())
    message = shop.closed("plan")
    assert (
        "suite_is_not_empty" in message and "enough_was_evaluated" in message and "suite_is_the_pinned_one" in message
    )


def test_a_thinned_suite_closes_the_gate(shop: Shop, altered: Callable[..., None]) -> None:
    first, *others = suites.PLAN.batches
    altered((replace(first, expectations=first.expectations[:-1]), *others))
    message = shop.closed("plan")
    assert "suite_is_the_pinned_one" in message and "enough_was_evaluated: 19 (expected: >= 20)" in message


def test_a_loosened_limit_and_a_softened_severity_close_the_gate(shop: Shop, altered: Callable[..., None]) -> None:
    first, *others = suites.PLAN.batches
    for last in (suites.between("days_ahead", None, 4000), replace(first.expectations[-1], severity="warn")):
        altered((replace(first, expectations=(*first.expectations[:-1], last)), *others))
        assert "suite_is_the_pinned_one" in shop.closed("plan")


def test_without_the_file_of_pins_every_gate_is_closed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(quality, "_pins", lambda: tmp_path / "gates.json")
    assert "suite_is_the_pinned_one" in shop.closed("plan")
    (tmp_path / "gates.json").write_text("[not json")
    assert "suite_is_the_pinned_one" in shop.closed("plan")


def test_a_suite_of_which_a_part_is_not_evaluated_closes_the_gate(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    real = evaluation._expectation
    dropped = suites.PLAN.batches[0].expectations[-1]

    def forgetful(expect: suites.Expect, number: int, values: Any) -> Any:
        return real(suites.rows() if expect is dropped else expect, 99 if expect is dropped else number, values)

    monkeypatch.setattr(evaluation, "_expectation", forgetful)
    message = shop.closed("plan")
    assert "planned.days_ahead expect_column_values_to_be_between: was not evaluated" in message
    assert "enough_was_evaluated: 19" in message


def test_an_error_inside_great_expectations_closes_the_gate(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError(f"could not judge {CANARY}")

    monkeypatch.setattr(evaluation, "_expectation", broken)
    message = shop.closed("plan")
    assert "evaluated_without_error: RuntimeError" in message and CANARY not in message
    assert shop.verdicts()[0].evaluated == 0


def test_a_missing_column_closes_the_gate_and_is_named(shop: Shop) -> None:
    shop.stage()
    shop.do("alter table staging_toys_order_lines drop column unit_price")
    message = shop.closed("orders")
    assert 'UndefinedColumn: column "unit_price" does not exist' in message
    (row,) = shop.verdicts()
    assert row.evaluated < quality.pinned()["orders"]["expectations"]


def test_a_column_of_the_wrong_type_closes_the_gate_without_quoting_a_value(shop: Shop) -> None:
    shop.stage()
    shop.do("alter table staging_toys_order_lines alter column quantity type text")
    shop.do("update staging_toys_order_lines set quantity = :canary", canary=CANARY)
    message = shop.closed("orders")
    assert "order_lines" in message and CANARY not in message and CANARY not in str(shop.verdicts())


def test_a_gate_that_is_not_done_in_time_is_closed(shop: Shop) -> None:
    shop.plan()
    with shop.engine.begin() as other:
        other.execute(text("lock table messages in access exclusive mode"))
        started = time.monotonic()
        message = shop.closed("plan", limit=timedelta(seconds=2))
        assert time.monotonic() - started < 60
    assert "QueryCanceled" in message or "finished_in_time" in message
    assert not shop.verdicts()[0].success


def test_a_great_expectations_that_hangs_is_left_behind(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(evaluation, "_evaluate", lambda *_, **__: release.wait(60))
    try:
        assert "finished_in_time: not finished within 0.5 s" in shop.closed("plan", limit=timedelta(seconds=0.5))
    finally:
        release.set()


def test_a_verdict_that_cannot_be_kept_opens_nothing(shop: Shop) -> None:
    shop.do("drop table gate_results")
    with pytest.raises(Exception, match="gate_results"):
        shop.check("plan")
    with pytest.raises(Unavailable):
        quality.check(shop.url.set(database="no_such_database"), "plan", subject="hello", now=NOW, run_id="r")


def test_the_gate_can_only_read(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        evaluation, "literal", lambda *_: "select setval(pg_get_serial_sequence('customers', 'customer_id'), 9) as n"
    )
    assert "ReadOnlySqlTransaction" in shop.closed("plan")


def test_an_unknown_gate_or_subject_is_a_mistake_of_the_caller(shop: Shop) -> None:
    with pytest.raises(InputError, match="there is no gate"):
        shop.check("weather")
    for gate, subject in (("orders", ""), ("features", "toys"), ("orders", 'x"; drop table messages')):
        with pytest.raises(InputError, match=f"gate {gate} needs"):
            shop.check(gate, subject=subject)


# ---------------------------------------------------------------- verdicts, Data Docs, people's data


def test_a_verdict_is_kept_even_when_the_gate_closes(shop: Shop, tmp_path: Path) -> None:
    shop.stage(orders=0)
    shop.closed("orders", docs=tmp_path)
    shop.check("orders", minimum_rows=0, docs=tmp_path, run_id="run-2")
    bad, good = shop.verdicts()
    assert (bad.gate, bad.subject, bad.run_id, bad.as_of, bad.success) == ("orders", "toys", "run-1", NOW, False)
    assert (
        good.success and good.failures == [] and good.suite_hash == bad.suite_hash == quality.pinned()["orders"]["hash"]
    )
    assert Path(bad.docs) == tmp_path / "orders" / "run-1.toys" / "index.html"
    assert Path(good.docs).is_file()


def test_a_verdict_counts_while_it_is_fresh_and_its_suite_is_still_in_force(
    shop: Shop, conn: Connection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hours = timedelta(hours=6)
    assert not quality.latest(conn, "plan", "hello", NOW, hours), "no verdict is no permission"
    shop.check("plan")
    assert quality.latest(conn, "plan", "hello", NOW + hours, hours)
    assert not quality.latest(conn, "plan", "hello", NOW + hours + timedelta(seconds=1), hours), "too old"
    assert not quality.latest(conn, "plan", "hello", NOW - hours, hours), "not known yet"
    assert not quality.latest(conn, "plan", "other", NOW, hours)
    shop.plan()
    shop.do("delete from consents")
    shop.closed("plan", now=NOW + timedelta(hours=1))
    assert not quality.latest(conn, "plan", "hello", NOW + timedelta(hours=2), hours), "the newest verdict holds"
    assert quality.latest(conn, "plan", "hello", NOW, hours), "as of then it was open"
    monkeypatch.setattr(quality, "_pins", lambda: tmp_path / "gates.json")
    assert not quality.latest(conn, "plan", "hello", NOW, hours)


def test_data_docs_show_counts_and_ask_no_foreign_host(shop: Shop, tmp_path: Path) -> None:
    shop.stage()
    shop.do("update staging_toys_orders set currency = 'euro' where source_order_id = 'o3'")
    message = shop.closed("orders", docs=tmp_path, run_id="scheduled__2026-03-01T06:00:00+00:00")
    folder = tmp_path / "orders" / "scheduled__2026-03-01T06-00-00-00-00.toys"
    assert str(folder / "index.html") in message
    assert sorted(page.name for page in folder.iterdir()) == sorted(
        ["index.html", *(f"{batch.name}.html" for batch in suites.ORDERS.batches)]
    )
    index, page = ((folder / name).read_text() for name in ("index.html", "orders.html"))
    assert "expect_column_values_to_match_regex" in index and "<td>1</td><td>200</td>" in index
    assert "1 unexpected values found" in page and "must match this regular expression" in page
    for content in (index, page):
        assert not any(mark in content for mark in ("<script", "<link", "<img", "src=", "@import", "url("))
        assert "http" not in content


def test_data_docs_that_cannot_be_written_do_not_hold_good_data(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "plan").write_text("a file where a folder should be")
    verdict = shop.check("plan", docs=tmp_path)
    assert verdict.success and verdict.docs is None


def test_no_persons_data_leaves_the_database(
    shop: Shop, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """A canary in every column a failing expectation looks at: it must be in no page, log, output, message or "
    "verdict."""
    shop.stage(orders=20)
    for column in ("source_order_id", "source_customer_id", "currency"):
        shop.do(f"update staging_toys_orders set {column} = :canary", canary=CANARY)
    shop.do(
        "update staging_toys_order_lines set sku = :canary, source_order_id = null, unit_price = null", canary=CANARY
    )
    shop.hear()
    for table in ("messages", "events"):
        shop.unguarded(table)
    shop.do("alter table events drop constraint events_message_id_fkey")
    shop.do("update customers set email = :canary, first_name = :canary", canary=CANARY)
    shop.do(
        "update messages set reason = :canary, kind = :canary, content_hash = :canary, template = :canary",
        canary=CANARY,
    )
    shop.do("update events set kind = :canary, source = :canary, message_id = null, customer_id = null", canary=CANARY)
    shop.do(
        "insert into messages (message_id, enrolment_id, campaign_id, step_id, customer_id, kind, template, due_at, "
        "send_at, expires_at, "
        "planned_at, run_id) select gen_random_uuid(), enrolment_id, 'hello', :canary, customer_id, :canary, "
        ":canary, :now, :now, "
        ":now, :now, 'r' from messages",
        canary=CANARY,
    )
    caplog.set_level(logging.DEBUG)
    told = [shop.closed(gate, docs=tmp_path) for gate in ("orders", "plan", "deliveries", "events")]
    out, err = capfd.readouterr()
    pages = [page.read_text(errors="replace") for page in tmp_path.rglob("*") if page.is_file()]
    assert len(pages) > 10
    kept = str(shop.do("select cast(g as text) from gate_results as g"))
    names = " ".join(str(path) for path in tmp_path.rglob("*"))
    for where in (*told, *pages, caplog.text, out, err, kept, names):
        assert "kanarienvogel" not in where.lower()


def test_great_expectations_is_silent_in_the_log(shop: Shop, tmp_path: Path) -> None:
    script = (
        "import logging, sys; logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)\n"
        "from datetime import datetime, UTC; from sqlalchemy.engine import make_url; from postlude import quality\n"
        "assert 'great_expectations' not in sys.modules and 'pandas' not in sys.modules\n"
        f"url = make_url({shop.url.render_as_string(hide_password=False)!r})\n"
        "quality.check(url, 'plan', subject='hello', now=datetime(2026, 3, 1, tzinfo=UTC), run_id='r')\n"
        "import os; assert os.environ['GX_ANALYTICS_ENABLED'] == 'false'"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if "quality" not in line] == []
    assert len(done.stdout.splitlines()) == 1 and done.stderr == ""


def test_the_table_of_gates_in_the_docs_is_the_one_of_the_code() -> None:
    page = Path(__file__).resolve().parents[1] / "docs" / "gates.md"
    assert quality.table_of_gates() in page.read_text(encoding="utf-8")
