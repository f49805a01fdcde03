"""Asking a shop's API: patient with what passes by itself, clear about what does not, and silent about secrets.

Asked again, with growing pauses or after the time the shop names: 429, 408, 5xx, time-outs, cut connections, bodies
that end too early or are not JSON. When that does not help: Unavailable. 401, 403, 404, other 4xx and redirections are for
a person to mend: InputError. An answer is used whole or not at all, and never more than MAX_BYTES of it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx
import tenacity

from postlude.errors import InputError, Unavailable
from postlude.sources import Source

MAX_BYTES = 64_000_000
TRIES = 7
PAUSE = 1.0  # seconds before the second try; doubled each time
TIMEOUT = 60.0  # seconds without a byte
LONGEST_PAUSE = 120.0  # who asks for more is asked again by the next try of the task

_PASSING = (408, 425, 429)
_MEND = {
    401: "refuses the secret of the connection; renew it",
    403: "does not allow this; give the access token or key the right to read it",
    404: "knows no such address; check the address of the connection, and the version",
}


class _Again(Exception):
    def __init__(self, what: str, after: float | None = None) -> None:
        super().__init__(what)
        self.after = after


class Api:
    """The API of one shop. Headers and credentials go to `base` only: an address elsewhere is refused."""

    def __init__(
        self, source: Source, base: str, *, headers: Mapping[str, str] | None = None, auth: tuple[str, str] | None = None,
        refusal: Callable[[Any], str | None] | None = None,
    ) -> None:  # fmt: skip
        """refusal: says what is wrong with an answer that came with status 200 and may be asked for again, else None."""
        self.source, self.base, self.refusal = source, base, refusal
        self.client = httpx.Client(
            headers={"Accept": "application/json", "User-Agent": "postlude", **(headers or {})},
            auth=auth,
            timeout=httpx.Timeout(TIMEOUT, connect=min(15.0, TIMEOUT)),
            follow_redirects=False,
        )

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def get(self, url: str, params: Mapping[str, Any] | None = None) -> tuple[Any, httpx.Headers]:
        """The JSON at `url` (below the base, or a whole address of the same host) and the headers of the answer."""
        return self.ask("GET", url, params=params or None)

    def ask(self, method: str, url: str, **more: Any) -> tuple[Any, httpx.Headers]:
        """As `get`, by another method."""
        whole = url if "://" in url else f"{self.base}/{url.lstrip('/')}"
        if urlsplit(whole)[:2] != urlsplit(self.base)[:2]:
            raise self.mend("names a next page on another host; that is not followed")
        patience = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Again),
            stop=tenacity.stop_after_attempt(TRIES),
            wait=_pause,
            sleep=rest,
            reraise=True,
        )
        try:
            return patience(self._once, method, whole, more)
        except _Again as error:
            raise Unavailable(f"{self.source.id}: the shop {error}; asked {TRIES} times") from None

    def mend(self, what: str) -> InputError:
        """An error about this shop for a person."""
        return InputError([self.source.fault("connection", message=f"the shop {what}")])

    def _once(self, method: str, url: str, more: dict[str, Any]) -> tuple[Any, httpx.Headers]:
        body = bytearray()
        try:
            with self.client.stream(method, url, **more) as answer:
                self._judge(answer)
                for chunk in answer.iter_bytes():
                    body += chunk
                    if len(body) > MAX_BYTES:
                        raise self.mend(f"sends more than {MAX_BYTES:,} bytes at once; ask for smaller pages")
        except httpx.TimeoutException:
            raise _Again("does not answer in time") from None
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise _Again(f"breaks off ({type(error).__name__})") from None
        except (httpx.InvalidURL, UnicodeError):
            raise self.mend("has no usable address; check the connection") from None
        try:
            found = json.loads(body, parse_constant=_no_number)
        except (ValueError, RecursionError):
            raise _Again("sends an answer that is cut off or is not JSON") from None
        if self.refusal and (told := self.refusal(found)):
            raise _Again(told)
        return found, answer.headers

    def _judge(self, answer: httpx.Response) -> None:
        status = answer.status_code
        if status in _PASSING or status >= 500:
            told = _retry_after(answer.headers.get("Retry-After"))
            if told is not None and told > LONGEST_PAUSE:
                raise Unavailable(f"{self.source.id}: the shop asks for a pause of {told:,.0f} seconds")
            raise _Again(f"answers {status}", told)
        if status != 200:
            other = "redirects; write its final address" if 300 <= status < 400 else "does not understand the question"
            raise self.mend(f"answers {status}: it {_MEND.get(status, other)}")


def rest(seconds: float) -> None:
    """Wait: the one place where sources sleep."""
    time.sleep(seconds)


def _pause(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    told = error.after if isinstance(error, _Again) else None
    return float(min(LONGEST_PAUSE, PAUSE * 2 ** (state.attempt_number - 1))) if told is None else told


def _retry_after(given: str | None) -> float | None:
    """Seconds from "2.0" or from an HTTP date."""
    try:
        return max(0.0, float(given)) if given else None
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(str(given)) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _no_number(word: str) -> Any:
    raise ValueError(word)
