"""Approvals: what is held and why, the difference to the last release, a sample; approve or reject with a comment.

The same decision as in Airflow's Required Actions and on the command line (docs/approvals.md). An answer names the hash of
the audience the reader saw; when it is no longer that audience, nothing is released and the reader is told what changed.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy import Connection

from postlude import db, pipeline, volume
from postlude.errors import InputError
from postlude.pages import known
from postlude.pages.app import Deps, answer

DECIDED = 20  # so many of the past are shown


class Answer(BaseModel):
    """A yes or a no to one request, about the audience with this hash."""

    approval: int = Field(ge=1, lt=2**63)
    approve: bool
    audience: str = Field(max_length=100)
    comment: str = Field(max_length=1000)
    at_most: int | None = Field(None, ge=1, lt=2**31)


def routes(deps: Deps) -> APIRouter:
    router = APIRouter()

    @router.get("/api/approvals")
    def approvals(name: Annotated[str | None, Depends(deps.steering)]) -> JSONResponse:
        with db.transaction(deps.engine()) as conn:
            return answer(_state(conn, deps, name))

    @router.post("/api/approval/decide")
    def decide(given: Answer, by: Annotated[str, deps.steer()]) -> JSONResponse:
        if not given.comment.strip() or not given.comment.replace("\n", " ").isprintable():
            raise InputError("say why, in words that can be stored; it is kept with the decision")
        engine = deps.engine()
        with db.transaction(engine) as conn:
            asked = volume.approvals(conn, deps.clock(), given.approval)[0]
            if not _may(asked.campaign_id, by):
                raise HTTPException(403, f"{asked.campaign_id} names who may approve, and you are not among them")
            if asked.audience_hash != given.audience:
                raise HTTPException(409, "this is not the audience you looked at; load the page again")
        run_id = f"page-{deps.clock():%Y%m%dT%H%M%S}-{given.approval}"
        done = pipeline.decide(
            given.approval, given.approve, by, "page", deps.clock(), run_id, "manual", comment=given.comment.strip(),
            at_most=given.at_most if given.approve else None,
        )  # fmt: skip
        with db.transaction(engine) as conn:
            return answer(
                _state(conn, deps, by) | {"done": {key: value for key, value in done.items() if key != "campaign"}}
            )

    return router


def _may(campaign_id: str, name: str) -> bool:
    """Whether this person may answer: the campaign's file may name who; one that cannot be read lets nobody; a one-off has none."""
    if campaign_id in known.faults():
        return False
    named = _called(campaign_id)[1]
    return not named or name in named


def _called(campaign_id: str) -> tuple[str, list[str]]:
    """The campaign's name and those who alone may answer for it."""
    try:
        campaign = known.campaign(campaign_id)
    except InputError:
        return campaign_id, []
    return campaign.name, list(campaign.approval.by)


def _state(conn: Connection, deps: Deps, name: str | None) -> dict[str, Any]:
    now = deps.clock()
    rows = volume.approvals(conn, now, only_open=True)
    waiting = [_told(conn, row, name) for row in rows]
    past = [row for row in volume.approvals(conn, now) if row.decision != "open"][:DECIDED]
    return {
        "open": waiting,
        "decided": [_decision(row) for row in past],
        "now": now.isoformat(),
        "may_steer": name is not None,
    }


def _told(conn: Connection, row: Any, name: str | None) -> dict[str, Any]:
    facts = dict(row.facts)
    sample = facts.pop("sample", None) or []
    bound = db.run(conn, "38_bound_audience", approval_id=row.approval_id).scalar_one()
    called, by = _called(row.campaign_id)
    return {
        "approval": row.approval_id,
        "campaign": row.campaign_id,
        "name": called,
        "messages": row.messages,
        "people": row.people,
        "waiting": row.waiting,
        "asked_at": row.asked_at.isoformat(),
        "expires_at": row.expires_at.isoformat(),
        "audience": row.audience_hash,
        "changed": bound != row.audience_hash,
        "causes": [cause | {"words": volume.cause_in_words(cause)} for cause in row.causes],
        "facts": facts,
        "sample": sample if name is not None else [],
        "by": by,
        "may": name is not None and _may(row.campaign_id, name),
    }


def _decision(row: Any) -> dict[str, Any]:
    return {
        "approval": row.approval_id,
        "campaign": row.campaign_id,
        "messages": row.messages,
        "people": row.people,
        "asked_at": row.asked_at.isoformat(),
        "decision": row.decision,
        "by": row.decided_by or "",
        "via": row.via or "",
        "at": row.decided_at.isoformat() if row.decided_at else None,
        "comment": row.comment or "",
        "released": row.released or 0,
        "cancelled": row.cancelled or 0,
    }
