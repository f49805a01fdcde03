"""Links and coupon codes: what they prove, what they hide, what survives a change of keys."""

from __future__ import annotations

import concurrent.futures
import os
import random
import stat
import string
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from postlude import tokens
from postlude.errors import InputError
from postlude.settings import settings
from postlude.tokens import BadToken, coupon_code, score_links, sign, unsubscribe_link, verify

OLD, NEW = "old-" + "k" * 40, "new-" + "k" * 40
Configure = Callable[..., None]


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Iterator[Configure]:
    def to(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(f"POSTLUDE_{name.upper()}", value)
        settings.cache_clear()
        tokens._keys_of.cache_clear()

    yield to
    monkeypatch.undo()
    settings.cache_clear()
    tokens._keys_of.cache_clear()


def test_a_signed_link_gives_back_what_was_signed() -> None:
    message = str(uuid4())
    assert verify("score", sign("score", message, "4")) == (message, "4")


def test_a_score_link_never_unsubscribes_anybody() -> None:
    with pytest.raises(BadToken):
        verify("unsubscribe", sign("score", str(uuid4())))


def test_no_changed_token_is_accepted() -> None:
    token = sign("unsubscribe", str(uuid4()))
    chance = random.Random(7)
    alphabet = string.ascii_letters + string.digits + "-_.~="
    changed = set()
    for _ in range(10_000):
        letters = list(token)
        for place in chance.sample(range(len(token)), chance.choice((1, 1, 1, 2))):
            letters[place] = chance.choice(alphabet)
        changed.add("".join(letters))
    changed |= {
        token + "=",
        token[:-1],
        token + "A",
        token + ".",
        " " + token,
        "",
        "...",
        token.replace("1.", "2.", 1),
        "é" * 9,
    }
    changed.discard(token)
    accepted = []
    for attempt in changed:
        try:
            verify("unsubscribe", attempt)
            accepted.append(attempt)
        except BadToken:
            pass
    assert accepted == []
    assert len(changed) > 5_000


def test_parts_cannot_be_shifted_between_each_other() -> None:
    with pytest.raises(ValueError, match="ids only"):
        sign("score", "a~b")
    assert sign("score", "ab", "c") != sign("score", "a", "bc")


@pytest.mark.parametrize("personal", ["ana@customers.example", "Ana Lima", "", "a" * 65, "x.y"])
def test_personal_data_cannot_be_put_into_a_link(personal: str) -> None:
    with pytest.raises(ValueError, match="ids only"):
        sign("unsubscribe", personal)


def test_after_a_change_of_keys_links_in_old_mails_still_work(configure: Configure) -> None:
    configure(secret=OLD)
    token = sign("unsubscribe", "m1")
    configure(secret=NEW, old_secrets=f"{'x' * 40}, {OLD}")
    assert verify("unsubscribe", token) == ("m1",)
    assert sign("unsubscribe", "m1") != token, "a retired key signs nothing new"


def test_after_a_key_is_dropped_its_links_stop_working(configure: Configure) -> None:
    configure(secret=OLD)
    token = sign("unsubscribe", "m1")
    configure(secret=NEW, old_secrets="")
    with pytest.raises(BadToken):
        verify("unsubscribe", token)


def test_a_short_secret_is_refused_with_a_way_to_make_a_good_one(configure: Configure) -> None:
    configure(secret="hunter2")
    with pytest.raises(InputError, match="POSTLUDE_SECRET is shorter than 32 characters"):
        sign("unsubscribe", "m1")


def test_many_processes_that_start_at_once_agree_on_one_new_secret(tmp_path: Path) -> None:
    home = tmp_path / "home"
    env = {key: value for key, value in os.environ.items() if key != "POSTLUDE_SECRET"} | {"POSTLUDE_HOME": str(home)}
    program = "from postlude.tokens import sign; print(sign('unsubscribe', 'm1'))"

    def run(_: int) -> str:
        return subprocess.run(
            [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
        ).stdout

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        signed = set(pool.map(run, range(6)))
    assert len(signed) == 1
    assert stat.S_IMODE((home / "secret").stat().st_mode) == 0o600
    assert [path.name for path in home.iterdir()] == ["secret"], "no draft is left behind"


def test_many_threads_of_one_race_see_one_whole_secret(tmp_path: Path) -> None:
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        secrets = set(pool.map(lambda _: tokens._kept(tmp_path / "home"), range(64)))
    assert len(secrets) == 1
    assert len(secrets.pop()) >= 43


def test_a_coupon_code_is_the_messages_own_and_cannot_be_misread() -> None:
    messages = [uuid4() for _ in range(20_000)]
    codes = [coupon_code("winback", message) for message in messages]
    assert len(set(codes)) == len(codes)
    assert {len(code) for code in codes} == {10}
    assert not set("".join(codes)) & set("01ILOUAEY")
    assert codes[:5] == [coupon_code("winback", str(message)) for message in messages[:5]]
    assert coupon_code("club", messages[0]) != codes[0]
    assert coupon_code("winback", messages[0], attempt=1) != codes[0]


def test_the_links_of_a_message_lead_to_the_public_pages(configure: Configure) -> None:
    configure(web_url="https://mail.shop.example/")
    message = uuid4()
    assert unsubscribe_link(message).startswith("https://mail.shop.example/u/1.")
    links = score_links(message)
    assert list(links) == ["1", "2", "3", "4", "5"]
    assert verify("score", links["5"].rpartition("/")[2]) == (str(message), "5")
    assert len(unsubscribe_link(message)) < 120
