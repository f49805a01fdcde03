"""A campaign: what it is in words, its funnel, what it sends next, whom it reaches, why it does not send, and every message to look at."""

from base64 import b64encode
from collections import Counter
from datetime import timedelta
from hashlib import sha256
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy import Connection

from postlude import db, rendering, tallies, trial
from postlude.calendar import effective, steered
from postlude.campaign import Campaign
from postlude.errors import InputError, Unavailable
from postlude.message import Message
from postlude.pages import known
from postlude.pages.app import GUARDED, STATIC, Deps, answer
from postlude.pages.why import meanings
from postlude.rendering import words
from postlude.settings import settings
from postlude.words import words_of

AHEAD, BACK = timedelta(days=45), timedelta(days=30)
EVENTS = ("delivered", "opened", "clicked", "replied", "rated", "unsubscribed", "complained", "bounced")

# what shows a mail may draw what the mail draws, and run nothing of it but our own script, named by its hash. That script
# stands in the page: without an origin, the frame could not fetch it, for no login goes with what it asks for
MAIL_SCRIPT = (STATIC / "mail-frame.js").read_text(encoding="utf-8")
MAIL_POLICY = (
    f"default-src 'none'; script-src 'sha256-{b64encode(sha256(MAIL_SCRIPT.encode()).digest()).decode()}'; "
    "style-src 'unsafe-inline'; img-src https: data:; form-action 'none'; base-uri 'none'; frame-ancestors 'self'; "
    "sandbox allow-scripts"
)
MAIL_FRAME = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>The message</title><script>{MAIL_SCRIPT}</script></head>
<body></body></html>
"""


class Chosen(BaseModel):
    """One campaign by its id."""

    campaign: str = Field(max_length=100)


class Look(BaseModel):
    """One message to look at: of a step, as a person."""

    campaign: str = Field(max_length=100)
    step: str = Field(max_length=100)
    variant: str = Field("", max_length=100)
    channel: str = Field("", max_length=20)
    person: str = Field("ana", max_length=100)  # one of the invented people; not used when there is a customer
    customer: int | None = Field(None, ge=1, lt=2**63)
    locale: str = Field("", max_length=12, pattern=r"^([a-z]{2,3}([-_][A-Za-z]{2,4})?)?$")


def routes(deps: Deps) -> APIRouter:
    router = APIRouter()
    knowing = Annotated[str | None, Depends(deps.knowing)]

    @router.get("/mail-frame")
    def mail_frame() -> HTMLResponse:
        return HTMLResponse(MAIL_FRAME, headers=GUARDED | {"Content-Security-Policy": MAIL_POLICY})

    @router.get("/api/campaign/list")
    def listed(by: Annotated[str | None, Depends(deps.steering)], knower: knowing) -> JSONResponse:
        told = [{"id": one.id, "name": one.name, "kind": one.kind, "fault": ""} for one in known.campaigns()]
        told += [{"id": name, "name": name, "kind": "", "fault": fault} for name, fault in known.faults().items()]
        people = list(rendering.samples())
        return answer(
            {"campaigns": told, "people": people, "may_steer": by is not None, "may_know": knower is not None}
        )

    @router.post("/api/campaign/story")
    def story(chosen: Chosen) -> JSONResponse:
        campaign = known.campaign(chosen.campaign)
        with db.transaction(deps.engine()) as conn:
            return answer(told(conn, campaign, deps.clock()))

    @router.post("/api/campaign/audience")
    def audience(chosen: Chosen, _: Annotated[str, deps.steer()]) -> JSONResponse:
        campaign = known.campaign(chosen.campaign)
        with db.transaction(deps.engine()) as conn:
            rows = db.run(conn, "69_campaign_sample", campaign=campaign.id)
            customers = [
                {
                    key: value if isinstance(value, int | str | None) else str(value)
                    for key, value in row._mapping.items()
                }
                for row in rows
            ]
        return answer({"customers": customers})

    @router.post("/api/campaign/preview")
    def preview(look: Look, knower: knowing) -> JSONResponse:
        message = _message(deps, look, knower)
        return answer(
            {
                "subject": message.subject, "html": message.html, "text": message.text, "from": message.sender.name,
                "bytes": len(message.html.encode()), "channel": message.channel,
            }
        )  # fmt: skip

    @router.post("/api/campaign/test")
    def test(look: Look, by: Annotated[str, deps.steer()], knower: knowing) -> JSONResponse:
        config = settings()
        url = config.catcher_url or f"smtp://127.0.0.1:{config.catcher_smtp_port}?starttls=never"
        message = _message(deps, look, knower)
        try:
            return answer({"sent_to": trial.send(message, by, url, "smtp", deps.clock())})
        except Unavailable as error:
            raise HTTPException(503, str(error)) from None

    return router


def _message(deps: Deps, look: Look, knower: str | None) -> Message:
    """The message as wished. A real customer's names a person: only who may know people gets it."""
    campaign = known.campaign(look.campaign)
    step, _ = trial.step_of(campaign, look.step, look.variant)
    channel = look.channel if look.channel in campaign.offers(step) else campaign.offers(step)[0]
    wished = (campaign, look.step, look.variant)
    try:
        if look.customer is None:
            return trial.as_invented(*wished, look.person, look.locale or "en", channel, deps.clock())
        if knower is None:
            raise HTTPException(403, "you may not see who people are; choose an invented person")
        with db.transaction(deps.engine()) as conn:
            return trial.as_customer(conn, *wished, look.customer, look.locale, channel, deps.clock())
    except rendering.RenderError as error:
        raise InputError(f"this person would not get it: {error.reason}") from None


def told(conn: Connection, campaign: Campaign, now: Any) -> dict[str, Any]:
    """All of a campaign's page but the messages; from counts that are kept, so it does not grow with the shop."""
    campaign = steered(campaign, effective(conn, now))
    counts = [dict(row._mapping) for row in db.run(conn, "69_campaign_tallies", campaign=campaign.id)]
    days = db.run(
        conn, "69_day_tallies", campaign=campaign.id, first=(now - BACK).date(), last=(now + AHEAD).date()
    ).mappings()  # fmt: skip
    counted = tallies.counted_at(conn)
    segment = campaign.trigger.enters
    size = next((row for row in db.run(conn, "62_segment_newest", now=now) if row.segment_id == segment), None)
    return {
        "id": campaign.id,
        "name": campaign.name,
        "words": [{"heading": heading, "sentences": sentences} for heading, sentences in words_of(campaign)],
        "counted_at": counted.isoformat() if counted else None,
        "funnel": _funnel(campaign, counts),
        "passages": _passages(counts),
        "reasons": _reasons(counts),
        "days": _days(days, now),
        "segment": {"id": segment, "customers": size.customers} if size else None,
        "steps": [
            {
                "id": step.id, "channels": list(campaign.offers(step)), "variants": [v.name for v in step.variants],
                "locales": languages(step.templates),
            }
            for step in campaign.steps
        ],
    }  # fmt: skip


def languages(templates: tuple[str, ...]) -> list[str]:
    """Languages a step has words of its own in, English first."""
    folder = settings().include / "templates"
    return ["en", *sorted({name for template in templates for name in words.languages(folder / template)} - {"en"})]


def _funnel(campaign: Campaign, counts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per step: planned, then what became of it; steps that the file no longer has come last."""
    order = {step.id: place for place, step in enumerate(campaign.steps)}
    steps: dict[str, Counter[str]] = {step.id: Counter() for step in campaign.steps}
    for row in counts:
        if row["what"] == "message":
            step = steps.setdefault(row["step"], Counter())
            step["planned"] += row["count"]
            step[row["state"]] += row["count"]
        elif row["what"] == "event" and row["state"] in EVENTS:
            steps.setdefault(row["step"], Counter())[f"{row['state']}"] += row["count"]
    keys = ("planned", "scheduled", "held", "sent", "unknown", "skipped", "cancelled", "expired", "failed", *EVENTS)
    return [
        {"step": step, "gone": step not in order, **{key: steps[step][key] for key in keys}}
        for step in sorted(steps, key=lambda name: (order.get(name, 99), name))
    ]


def _passages(counts: list[dict[str, Any]]) -> dict[str, Any]:
    rows = [row for row in counts if row["what"] == "passage"]
    ended: Counter[str] = Counter()
    for row in rows:
        if not row["open"] and row["state"] == "treated":
            ended[row["reason"]] += row["count"]
    return {
        "begun": sum(row["count"] for row in rows if row["state"] == "treated"),
        "left_alone": sum(row["count"] for row in rows if row["state"] == "holdout"),
        "under_way": sum(row["count"] for row in rows if row["open"] and row["state"] == "treated"),
        "ended": [{"reason": reason, "count": count} for reason, count in ended.most_common()],
    }


def _reasons(counts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Why not: candidates refused, messages stopped or put off; the most frequent first, each with its meaning."""
    found: Counter[tuple[str, str]] = Counter()
    for row in counts:
        if row["what"] == "refusal":
            found["not enrolled", row["reason"]] += row["count"]
        elif row["what"] == "message" and row["reason"] and row["state"] != "sent":
            found["put off" if row["state"] == "scheduled" else row["state"], row["reason"]] += row["count"]
    return [
        {"what": what, "reason": reason, "count": count, "meaning": meanings().get(reason, "")}
        for (what, reason), count in found.most_common(40)
    ]


def _days(rows: Any, now: Any) -> list[dict[str, Any]]:
    """Every day of the span, sent before today and planned from today on; what is overdue is planned for today."""
    days = {
        day: {"day": str(day), "sent": 0, "planned": 0, "held": 0}
        for day in ((now - BACK).date() + timedelta(days=n) for n in range((BACK + AHEAD).days + 1))
    }
    for row in rows:
        key = {"sent": "sent", "scheduled": "planned", "held": "held"}.get(row["state"])
        if key:
            days[max(row["day"], now.date()) if row["open"] else row["day"]][key] += row["count"]
    return list(days.values())
