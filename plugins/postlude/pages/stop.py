"""Stop mail: the kill switch as a page. What is stopped, by whom, since when and why; stop and go with a reason."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy import Connection

from postlude import db, pipeline, switch
from postlude.campaign import load_campaign
from postlude.errors import InputError
from postlude.pages.app import Deps, answer

LIFTED = 20  # so many of the past are shown


class Wanted(BaseModel):
    """A switch to throw or to lift."""

    scope: switch.Scope
    name: str = Field("", max_length=200)
    why: str = Field(max_length=500)
    transactional_too: bool = False


def routes(deps: Deps) -> APIRouter:
    router = APIRouter()

    @router.get("/api/stops")
    def stops(name: Annotated[str | None, Depends(deps.steering)]) -> JSONResponse:
        with db.transaction(deps.engine()) as conn:
            return answer(state(conn) | {"may_steer": name is not None, "names": _names(conn)})

    @router.post("/api/stop")
    def stop(wanted: Wanted, by: Annotated[str, deps.steer()]) -> JSONResponse:
        with db.transaction(deps.engine()) as conn:
            _printable(wanted)
            thrown = switch.stop(
                conn, wanted.scope, wanted.name, wanted.why, by, deps.clock(), wanted.transactional_too
            )
            return answer(state(conn) | {"changed": int(thrown)})

    @router.post("/api/go")
    def go(wanted: Wanted, by: Annotated[str, deps.steer()]) -> JSONResponse:
        with db.transaction(deps.engine()) as conn:
            _printable(wanted)
            lifted = switch.go(conn, wanted.scope, wanted.name, wanted.why, by, deps.clock())
            return answer(state(conn) | {"changed": lifted})

    return router


def state(conn: Connection) -> dict[str, Any]:
    """{"stops": those in force, oldest first, "lifted": the newest of the past}."""
    rows = [_row(row) for row in switch.switches(conn, lifted_too=True)]
    in_file = [asdict(stop) | {"from": "file"} for stop in switch.stops_in_file(switch.stop_file())]
    lifted = sorted((row for row in rows if row["lifted_at"]), key=lambda row: row["lifted_at"], reverse=True)
    return {"stops": [row for row in rows if not row["lifted_at"]] + in_file, "lifted": lifted[:LIFTED]}


def _row(row: Any) -> dict[str, Any]:
    said = dict(row._mapping) | {"from": "table"}
    for key in ("since", "lifted_at"):
        said[key] = said[key].isoformat() if said[key] else None
    return said


def _names(conn: Connection) -> dict[str, list[dict[str, str]]]:
    """What can be stopped by name, per scope; a campaign with the name marketers gave it."""
    called = dict(_campaign_names())
    return {
        scope: [{"id": name, "called": called.get(name, "") if scope == "campaign" else ""} for name in sorted(names)]
        for scope, names in switch.names(conn).items()
    }


def _campaign_names() -> Iterator[tuple[str, str]]:
    for file in pipeline.campaign_files():
        try:
            campaign = load_campaign(Path(file))
        except InputError:  # what its file says is of no interest to somebody who wants to stop it
            continue
        yield campaign.id, campaign.name


def _printable(wanted: Wanted) -> None:
    if not f"{wanted.name}{wanted.why}".replace("\n", " ").isprintable():
        raise InputError("the reason holds characters that cannot be stored; type it anew")
