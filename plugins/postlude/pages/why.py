"""Why somebody got a message or not: the trace of `why.explain`, for a person who asks about one customer.

The customer stands in the body of a POST, so that no address that is logged names anybody; the answer is not kept.
"""

import re
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy import Connection

from postlude import db, pipeline, switch
from postlude import why as reasons
from postlude.calendar import Calendar, effective
from postlude.campaign import Campaign
from postlude.errors import InputError
from postlude.pages import known
from postlude.pages.app import Deps, answer
from postlude.settings import PROJECT


class Question(BaseModel):
    customer: str = Field(max_length=320)  # id, the source's customer id, or e-mail address
    campaign: str = Field("", max_length=200)  # empty: all
    at: str = Field("", max_length=40)  # ISO 8601, UTC unless it says otherwise; empty: now


def routes(deps: Deps) -> APIRouter:
    router = APIRouter()

    @router.get("/api/campaigns")
    def campaigns(name: Annotated[str | None, Depends(deps.steering)]) -> JSONResponse:
        called = {one.id: one.name for one in known.campaigns()}
        broken = {Path(file).stem: Path(file).stem for file in pipeline.campaign_files()} | called
        listed = [{"id": one, "name": name} for one, name in {**called, **broken}.items()]
        return answer({"campaigns": listed, "may_steer": name is not None})

    @router.post("/api/why")
    def why(asked: Question, _: Annotated[str, deps.steer()]) -> JSONResponse:
        return answer(explained(deps, asked))

    return router


def explained(deps: Deps, asked: Question) -> dict[str, Any]:
    """The trace of one campaign, or of all, for everybody who answers to what was asked. Raises InputError."""
    if not asked.customer.strip() or not asked.customer.isprintable():
        raise InputError("whose messages? Write a customer id, the source's customer id or an e-mail address")
    now = _instant(asked.at) if asked.at else deps.clock()
    files = [file for file in pipeline.campaign_files() if asked.campaign in ("", Path(file).stem)]
    if not files:
        raise InputError(f'there is no campaign "{asked.campaign}"')
    with db.transaction(deps.engine()) as conn:
        calendar = effective(conn, now)
        stops = switch.at(conn, now if asked.at else None)
        sound, faults = _read(files)
        people = []
        for person in reasons.people(conn, asked.customer.strip()):
            shared = reasons.shared(conn, person, sound, calendar, now, stops)
            traces = [_trace(conn, person, campaign, calendar, shared, now) for campaign in sound]
            people.append(_person(person) | {"campaigns": traces + faults})
    return {"as_of": now.isoformat(), "people": people}


def _person(person: Any) -> dict[str, Any]:
    """What is known of a customer, without a name or an address."""
    return {
        "customer_id": person.customer_id,
        "source": person.source_id,
        "source_customer_id": person.source_customer_id,
        "zone": person.zone,
        "stage": person.stage,
        "orders": person.frequency,
        "recency_days": person.recency_days,
    }


def _read(files: list[str]) -> tuple[list[Campaign], list[dict[str, Any]]]:
    """The campaigns of these files; where a file has mistakes, these instead."""
    sound, faults = [], []
    for file in files:
        try:
            sound.append(known.of(file))
        except InputError as error:
            stem = Path(file).stem
            faults.append({"id": stem, "name": stem, "fault": str(error), "lines": []})
    return sound, faults


def _trace(
    conn: Connection, person: Any, campaign: Campaign, calendar: Calendar, shared: reasons.Shared, now: datetime
) -> dict[str, Any]:
    lines = [
        {"predicate": line.predicate, "verdict": line.verdict, "detail": line.detail, "meaning": _meaning(line.detail)}
        for line in reasons.explain(conn, person, campaign, calendar, now, shared)
    ]
    return {"id": campaign.id, "name": campaign.name, "fault": "", "lines": lines}


def _instant(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"{text!r} is not an instant; write e.g. 2026-11-20T06:00") from None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def _meaning(detail: str) -> str:
    """What the reason words in a line mean, from the list in the docs."""
    words = dict.fromkeys(re.findall(r"[a-z_]+(?=\)|$)", detail))  # it stands in brackets, or last
    return "; ".join(meanings()[word] for word in words if word in meanings())


@lru_cache
def meanings() -> dict[str, str]:
    """Reason word to its meaning: the tables of docs/reasons.md; empty where the docs are not installed."""
    path = PROJECT / "docs" / "reasons.md"
    found: dict[str, str] = {}
    column = 1
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if "meaning" in cells:
            column = cells.index("meaning")
        elif line.startswith("| `") and column < len(cells):
            for word in re.findall(r"`(\w+)`", cells[0]):
                plain = re.sub(
                    r" ?\(\[[^\]]*\]\([^)]*\)\)", "", cells[column]
                )  # "([why](gates.md))" leads nowhere here
                found.setdefault(word, re.sub(r"[`*]", "", plain))
    return found
