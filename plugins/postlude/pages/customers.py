"""A customer: who it is, what happened, why a message went or not; suppress, lift, export, erase.

A right of its own (`Deps.know`). The person stands in the body of a POST, never in an address; the answer is not kept, and
who looked at whom, changed or erased is logged by id.
"""

import logging
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from postlude import db, people
from postlude.errors import InputError
from postlude.pages import known
from postlude.pages.app import GUARDED, Deps, answer
from postlude.pages.why import Question, explained, meanings

log = logging.getLogger(__name__)


class Wanted(BaseModel):
    """Somebody to look up."""

    customer: str = Field(max_length=320)  # id, the source's customer id, e-mail address or number


class Person(BaseModel):
    """One customer by id."""

    customer: int = Field(ge=1, lt=2**63)


class Suppress(Person):
    """No more mail to this person."""

    scope: str = Field("marketing", max_length=20)
    why: str = Field(max_length=500)


class Lift(Person):
    """A suppression that may end."""

    suppression: int = Field(ge=1, lt=2**63)
    why: str = Field(max_length=500)


class Erase(Person):
    """An erasure; `sure` is the customer id once more, as typed."""

    why: str = Field(max_length=500)
    sure: str = Field(max_length=30)


def routes(deps: Deps) -> APIRouter:
    router = APIRouter()
    knower = Annotated[str, deps.know()]

    @router.get("/api/customer/may")
    def may(name: Annotated[str | None, Depends(deps.knowing)]) -> JSONResponse:
        campaigns = [{"id": one.id, "name": one.name} for one in known.campaigns()]
        return answer({"may_know": name is not None, "campaigns": campaigns})

    @router.post("/api/customer/find")
    def find(wanted: Wanted, by: knower) -> JSONResponse:
        if not wanted.customer.strip() or not wanted.customer.isprintable():
            raise InputError("whom? Write a customer id, the source's customer id, an e-mail address or a number")
        with db.transaction(deps.engine()) as conn:
            found = [_plain(row) for row in people.find(conn, wanted.customer)]
        return answer({"people": found})

    @router.post("/api/customer/story")
    def story(person: Person, by: knower) -> JSONResponse:
        log.info("customer %s was looked at by %s", person.customer, by)
        return answer(_story(deps, person.customer))

    @router.post("/api/customer/why")
    def why(asked: Question, _: knower) -> JSONResponse:
        return answer(explained(deps, asked))

    @router.post("/api/customer/suppress")
    def suppress(wanted: Suppress, by: knower) -> JSONResponse:
        _printable(wanted.why)
        with db.transaction(deps.engine()) as conn:
            added = people.suppress(conn, wanted.customer, wanted.scope, by, wanted.why, deps.clock())
        log.info("customer %s was suppressed by %s", wanted.customer, by)
        return answer(_story(deps, wanted.customer) | {"changed": added})

    @router.post("/api/customer/lift")
    def lift(wanted: Lift, by: knower) -> JSONResponse:
        _printable(wanted.why)
        with db.transaction(deps.engine()) as conn:
            people.lift(conn, wanted.customer, wanted.suppression, by, wanted.why, deps.clock())
        log.info("suppression %s was lifted by %s", wanted.suppression, by)
        return answer(_story(deps, wanted.customer))

    @router.post("/api/customer/export")
    def export(person: Person, by: knower) -> Response:
        with db.transaction(deps.engine()) as conn:
            found = people.export(conn, person.customer)
        log.info("customer %s was exported by %s", person.customer, by)
        headers = GUARDED | {"Content-Disposition": f'attachment; filename="customer-{person.customer}.json"'}
        return Response(db.dumps(found), media_type="application/json", headers=headers)

    @router.post("/api/customer/erase")
    def erase(wanted: Erase, by: knower) -> JSONResponse:
        _printable(wanted.why)
        if wanted.sure.strip() != str(wanted.customer):
            raise InputError(f"write the customer id {wanted.customer} to say that you are sure; it cannot be undone")
        with db.transaction(deps.engine()) as conn:
            counts = people.erase(conn, wanted.customer, by, wanted.why, deps.clock())
        log.info("customer %s was erased by %s", wanted.customer, by)
        return answer(_story(deps, wanted.customer) | {"erased": counts})

    return router


def _story(deps: Deps, customer: int) -> dict[str, Any]:
    with db.transaction(deps.engine()) as conn:
        root = people.records(conn, customer)[0]
        person = next(row for row in people.find(conn, str(root)) if row.customer_id == root)
        happened = [_plain(row) for row in people.timeline(conn, customer, deps.clock())]
        stopped = [_plain(row) for row in people.suppressions(conn, customer)]
    for one in (*happened, *stopped):
        one["meaning"] = meanings().get(one.get("reason") or "", "")
    return {"person": _plain(person), "timeline": happened, "suppressions": stopped}


def _plain(row: Any) -> dict[str, Any]:
    """A row as JSON; instants in ISO 8601, amounts as text."""
    told = {}
    for key, value in row._mapping.items():
        if hasattr(value, "isoformat"):
            told[key] = value.isoformat()
        else:
            told[key] = value if isinstance(value, int | float | str | list | None) else str(value)
    return told


def _printable(text: str) -> None:
    if not text.replace("\n", " ").isprintable():
        raise InputError("the reason holds characters that cannot be stored; type it anew")
