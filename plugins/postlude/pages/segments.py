"""Segments: who is in each, in words; its size over time, entries and exits per day, overlap of two, a sample, export."""

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, Field
from sqlalchemy import Connection, text

from postlude import audience, csvsafe, db
from postlude.audience import Segment
from postlude.errors import InputError
from postlude.pages import known
from postlude.pages.app import GUARDED, Deps, answer
from postlude.settings import settings
from postlude.yamlfile import load_unchanged

COLUMNS = (
    "customer", "source", "source_customer_id", "in_since", "stage", "orders", "spent", "last_order",
)  # fmt: skip
NAMED = text("select segment_id, definition ->> 'name' as name from segment_definitions where segment_id = :id")


class Chosen(BaseModel):
    """One segment by its id."""

    segment: str = Field(max_length=100)


class Two(BaseModel):
    """Two segments by their ids."""

    one: str = Field(max_length=100)
    other: str = Field(max_length=100)


def routes(deps: Deps) -> APIRouter:
    router = APIRouter()

    @router.get("/api/segments")
    def segments(name: Annotated[str | None, Depends(deps.steering)]) -> JSONResponse:
        sound, faults = files()
        with db.transaction(deps.engine()) as conn:
            sizes = {row.segment_id: row for row in db.run(conn, "62_segment_newest", now=deps.clock())}
            told = [_told(segment, sizes.get(segment.id)) for segment in sound]
            used = _used_by()
        for one in told:
            one["campaigns"] = used.get(one["id"], [])
        return answer({"segments": told, "faults": faults, "may_steer": name is not None})

    @router.post("/api/segment/days")
    def days(chosen: Chosen) -> JSONResponse:
        with db.transaction(deps.engine()) as conn:
            _known(conn, chosen.segment)
            found = db.run(conn, "62_segment_days", segment=chosen.segment, now=deps.clock())
            return answer({"days": [dict(row._mapping) | {"day": str(row.day)} for row in found]})

    @router.post("/api/segment/overlap")
    def overlap(two: Two) -> JSONResponse:
        with db.transaction(deps.engine()) as conn:
            for wanted in (two.one, two.other):
                _known(conn, wanted)
            # both lie in the index in the order of customers: to walk along them takes less than a hash of one of them
            conn.execute(text("select set_config('enable_hashjoin', 'off', true)"))
            return answer(dict(db.run(conn, "62_segment_overlap", one=two.one, other=two.other).mappings().one()))

    @router.post("/api/segment/sample")
    def sample(chosen: Chosen, _: Annotated[str, deps.steer()]) -> JSONResponse:
        with db.transaction(deps.engine()) as conn:
            _known(conn, chosen.segment)
            found = db.run(conn, "62_segment_sample", segment=chosen.segment)
            return answer({"customers": [{key: _plain(value) for key, value in row._mapping.items()} for row in found]})

    @router.post("/api/segment/export")
    def export(chosen: Chosen, _: Annotated[str, deps.steer()]) -> StreamingResponse:
        with db.transaction(deps.engine()) as conn:
            _known(conn, chosen.segment)
        headers = GUARDED | {"Content-Disposition": f'attachment; filename="{chosen.segment}.csv"'}
        return StreamingResponse(rows(deps, chosen.segment), media_type="text/csv; charset=utf-8", headers=headers)

    return router


def files() -> tuple[list[Segment], list[str]]:
    """The segments whose files can be read, and what is wrong with the others."""
    sound, faults = [], []
    for path in sorted((settings().include / "segments").glob("[!.]*.yml")):
        try:
            sound.append(load_unchanged(path, Segment))
        except InputError as error:
            faults.append(str(error))
    return sound, faults


def rows(deps: Deps, segment: str) -> Iterator[str]:
    """The members as CSV, a few thousand at a time; ids and figures, no name and no address."""
    yield csvsafe.line(COLUMNS)
    with db.transaction(deps.engine()) as conn:
        found = db.run(conn.execution_options(yield_per=5000), "62_segment_export", segment=segment)
        for part in found.partitions():
            yield "".join(csvsafe.line(row) for row in part)


def _told(segment: Segment, size: Any) -> dict[str, Any]:
    return {
        "id": segment.id,
        "name": segment.name,
        "description": segment.description,
        "owner": segment.owner or "",
        "words": audience.in_words(segment.where),
        "customers": size.customers if size else None,
        "entered": size.entered if size else None,
        "departed": size.departed if size else None,
        "as_of": size.as_of.isoformat() if size else None,
    }


def _used_by() -> dict[str, list[str]]:
    """Segment to the names of the campaigns that start from it, keep to it or leave it out."""
    used: dict[str, list[str]] = {}
    for campaign in known.campaigns():
        trigger, chosen = campaign.trigger, campaign.audience
        named = {trigger.enters, trigger.leaves, *chosen.within, *chosen.exclude}
        for segment in sorted(filter(None, named)):
            used.setdefault(segment, []).append(campaign.name)
    return used


def _known(conn: Connection, segment: str) -> None:
    if conn.execute(NAMED, {"id": segment}).one_or_none() is None:
        raise InputError(f'nobody was ever counted in a segment "{segment}"; the DAG segment does it every day')


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | str | None) else str(value)
