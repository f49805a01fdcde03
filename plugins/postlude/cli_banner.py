"""`postlude banner-token`: what the shop's page asks the banner feed with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from postlude.message import uuid_of
from postlude.settings import settings
from postlude.tokens import banner_token


def banner_token_command(
    source: Annotated[str, typer.Argument(help="The shop, as in include/sources.")],
    customer: Annotated[str, typer.Argument(help="The shop's own number of the customer.")],
    days: Annotated[int, typer.Option(min=1, max=90, help="How long the address works.")] = 7,
) -> None:
    """The address at which the banners of one customer are read; it says nothing about who that is."""
    last = (datetime.now(UTC) + timedelta(days=days)).date()
    token = banner_token(uuid_of("person", source, customer), last)
    typer.echo(f"{settings().web_url.rstrip('/')}/b/{token}")
