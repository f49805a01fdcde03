"""Lists that providers keep of what became of messages, read page by page: what their web hooks would have told, once more.

A module that can be asked offers `lists(url) -> {list: pages}`, where `pages(since)` yields `Page`s. The web hook is faster;
the list is complete where the landing was down. Reports carry the keys the web hooks give them, so each counts once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import httpx

from postlude.channels._http import MAX_ANSWER, Answer, Endpoint, _tls
from postlude.errors import InputError, Unavailable

MAX_PAGE = 64 * MAX_ANSWER  # 4 MB


@dataclass(frozen=True)
class Page:
    """Reports (key of the web hook, as the provider tells it), and up to when the list has been read with it.

    until None: later pages hold older entries, so nothing has been read completely yet.
    """

    reports: list[tuple[str, dict[str, Any]]] = field(repr=False)
    until: datetime | None


Pages = Callable[[datetime], Iterator[Page]]
Ask = Callable[[str], Any]


@contextmanager
def asking(endpoint: Endpoint, provider: str, headers: Mapping[str, str]) -> Iterator[Ask]:
    """`ask(address) -> JSON` over one connection; only of the provider's own host, which alone is shown the key.

    Raises Unavailable where it should be asked again later (429, 5yz, no answer), InputError where the key or the URL is wrong.
    """
    at = endpoint.timeouts
    timeout = httpx.Timeout(connect=at["connect"], write=at["write"], read=at["answer"], pool=1)
    with httpx.Client(transport=httpx.HTTPTransport(verify=_tls(endpoint.ca)), timeout=timeout) as client:

        def ask(address: str) -> Any:
            if urlsplit(address)[:2] != urlsplit(endpoint.base)[:2]:
                raise Unavailable(f"{provider}: the next page is said to be at another address; it is not asked for")
            answer = _get(client, address, headers, provider)
            if answer.status == 200:
                return _json(answer, provider)
            if answer.status in (401, 402, 403, 404):
                raise InputError(
                    f"{provider} answers {answer.status}: its key may not read this, or the domain is not known there"
                )
            wait = answer.retry_after
            told = f"; it asks to wait {wait.total_seconds():.0f} s" if wait else ""
            raise Unavailable(
                f"{provider} answers {answer.status}{told}: what was read is kept, the next run goes on there"
            )

        yield ask


def _get(client: httpx.Client, address: str, headers: Mapping[str, str], provider: str) -> Answer:
    try:
        with client.stream("GET", address, headers={**headers, "accept": "application/json"}) as response:
            body = b""
            for part in response.iter_bytes():
                body += part
                if len(body) > MAX_PAGE:
                    raise Unavailable(f"{provider}: a page is longer than {MAX_PAGE // 2**20} MB")
            return Answer(response.status_code, response.headers, body)
    except httpx.HTTPError as error:
        raise Unavailable(f"{provider} does not answer: {type(error).__name__}") from None


def _json(answer: Answer, provider: str) -> Any:
    try:
        return answer.json
    except ValueError:
        raise Unavailable(f"{provider} answers what is no JSON") from None
