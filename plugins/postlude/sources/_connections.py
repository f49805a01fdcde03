"""Where a shop is reached and with which secrets: by the name in the source file, never by what stands in it.

A connection `shop_eu` is the environment variable POSTLUDE_CONN_SHOP_EU, else AIRFLOW_CONN_SHOP_EU, else whatever
`look_up` finds (orchestration asks Airflow's connections). It is a URI, `scheme://login:password@host:port/path?extra=…`,
or the JSON object that Airflow writes. What it holds is never part of a message, a log line or a `repr`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from postlude.errors import InputError
from postlude.sources import Source

look_up: list[Callable[[str], str | None]] = []
"""Further places that know connections; each returns a URI or JSON text, or None."""

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Access:
    """One connection. Everything but the name may be secret, so nothing else is shown."""

    name: str
    text: str = field(repr=False)
    scheme: str = field(default="", repr=False)
    host: str = field(default="", repr=False)
    port: int | None = field(default=None, repr=False)
    login: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    path: str = field(default="", repr=False)
    extra: dict[str, Any] = field(default_factory=dict, repr=False)


def has(name: str) -> bool:
    """Is the connection set?"""
    return _text(name) is not None


def access(source: Source, name: str | None = None) -> Access:
    """The connection of a source, or another one it names. Raises InputError when it is missing or cannot be read."""
    wanted = name or source.connection or ""
    text = _text(wanted)
    if text is None:
        what = (
            f'the connection "{wanted}" is not set; set POSTLUDE_CONN_{wanted.upper()} to a URI like '
            "https://login:password@host, or make an Airflow connection of that name"
        )
        raise InputError([source.fault("connection", message=what)])
    try:
        return _from_json(wanted, text) if text.lstrip().startswith("{") else _from_uri(wanted, text)
    except (ValueError, TypeError, AttributeError):  # the text of such an error holds the secret
        what = (
            f'the connection "{wanted}" cannot be read; write scheme://login:password@host:port/path, with %40 for "@"'
        )
        raise InputError([source.fault("connection", message=what)]) from None


def web_address(source: Source, found: Access, default: str = "") -> str:
    """`https://host[:port]/path` of a shop's API, without a slash at its end. Raises InputError for a plain http address."""
    host, scheme, path = found.host or default, found.scheme, found.path.strip("/")
    if "://" in host:  # Airflow's HTTP connections may hold a whole address as host
        scheme, _, host = host.partition("://")
    host, _, below = host.partition("/")
    if path in ("http", "https"):  # ... or the scheme as "schema"
        scheme, path = path, ""
    scheme = "http" if scheme == "http" and host.partition(":")[0] in _LOOPBACK else "https" if scheme != "http" else ""
    if not scheme or not host:
        what = f'the connection "{found.name}" must name an https:// address; secrets do not travel in the clear'
        raise InputError([source.fault("connection", message=what)])
    port = f":{found.port}" if found.port else ""
    return "/".join(part for part in (f"{scheme}://{host}{port}", below.strip("/"), path) if part)


def _text(name: str) -> str | None:
    for prefix in ("POSTLUDE_CONN_", "AIRFLOW_CONN_"):
        if found := os.environ.get(prefix + name.upper()):
            return found
    return next((found for ask in look_up if (found := ask(name))), None)


def _from_uri(name: str, text: str) -> Access:
    parts = urlsplit(text)
    query = dict(parse_qsl(parts.query))
    extra = json.loads(query.pop("__extra__")) if "__extra__" in query else {}
    return Access(
        name, text, parts.scheme, unquote(parts.hostname or ""), parts.port, unquote(parts.username or ""),
        unquote(parts.password or ""), unquote(parts.path), {**query, **extra},
    )  # fmt: skip


def _from_json(name: str, text: str) -> Access:
    given = json.loads(text)
    extra = given.get("extra") or {}
    scheme = given.get("conn_type") or ""
    scheme = "" if scheme == "http" else scheme  # Airflow's name for web addresses of both schemes
    return Access(
        name, text, scheme, given.get("host") or "", int(given["port"]) if given.get("port") else None,
        given.get("login") or "", given.get("password") or "", given.get("schema") or "",
        json.loads(extra) if isinstance(extra, str) else dict(extra),
    )  # fmt: skip
