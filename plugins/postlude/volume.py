"""The volume gate: is what a campaign is about to send as much as it usually sends? If not, a named person must say so.

A plan inside the campaign's own band is released as ever. Outside it, all its messages are held (`awaiting_approval`) and a
request is written down with the counts, the band, a sample and the hash of its audience. An approval releases the messages
of that request and no others: a plan made meanwhile has a request of its own. Of a large release a small share goes first
(the canary); the rest follows when that share has been watched.

Requests and decisions are append-only. Nothing here sends, and nothing here looks at single customers but the sample.
"""

from __future__ import annotations

import math
from datetime import datetime
from statistics import median
from typing import Any

from sqlalchemy import Connection, Row, text

from postlude import db
from postlude.campaign import Campaign
from postlude.errors import InputError
from postlude.settings import settings

Counts = dict[str, Any]

CAUSES = {
    "first_run": "the campaign has never sent anything",
    "above": "more messages than a run may release by itself",
    "planned": "more messages planned than on other {weekday}s",
    "sent": "more messages would go out on {day} than on other {weekday}s",
    "share": "more of all customers than a campaign that rests on absence may write to at once",
    "canary_failed": "the share that went first did badly: bounces, refusals or complaints",
    "still_waiting": "an earlier plan of this campaign still waits for an approval",
}


# ---------------------------------------------------------------- the band


def assess(conn: Connection, campaign: Campaign, now: datetime, run_id: str) -> Counts:
    """Compare the campaign's unreleased plan with what is usual; ask for an approval where it is not.

    Returns {"messages", "people", "approval", "causes"}; `approval` is the number of the open request that holds the plan, or
    0: the plan may be released. Asked again with nothing new, the open request stays as it is; with something new, a request
    about the whole takes its place.
    """
    _alone(conn, campaign.id)
    db.tell_now(conn, now)
    plan = db.run(conn, "36_volume", campaign=campaign.id).one()
    counts: Counts = {"messages": plan.messages, "people": plan.people, "approval": 0, "causes": []}
    if not plan.messages or settings().approval == "off":
        return counts
    if plan.waiting == plan.messages and (waiting := db.run(conn, "37_open_approval", campaign=campaign.id).first()):
        return counts | {"approval": waiting.approval_id}  # whoever has left it since is not released with it
    causes = _causes(conn, campaign, plan, now)
    if not causes:
        return counts
    facts = db.run(conn, "37_audience_facts", campaign=campaign.id, now=now).mappings().one()
    asked = db.run(
        conn, "37_ask", campaign=campaign.id, now=now, run_id=run_id, expires_at=plan.expires_at,
        audience_hash=plan.audience_hash, messages=plan.messages, people=plan.people, causes=db.dumps(causes),
        facts=db.dumps(dict(facts)),
    ).one()  # fmt: skip
    return counts | {"approval": asked.approval_id, "causes": [cause["cause"] for cause in causes]}


def _alone(conn: Connection, campaign_id: str) -> None:
    """One at a time per campaign: a decision must not meet a plan that is just being judged."""
    conn.execute(text("select pg_advisory_xact_lock(72060006, hashtext(:id))"), {"id": campaign_id})


def _causes(conn: Connection, campaign: Campaign, plan: Row[Any], now: datetime) -> list[Counts]:
    """What speaks against releasing the plan: [{cause, found, limit, day, usual}]; empty: nothing."""
    config, rules = settings(), campaign.approval
    found: list[Counts] = []
    if plan.failed_canary:
        found.append({"cause": "canary_failed", "found": plan.failed_canary, "limit": 0})
    if plan.waiting:
        found.append({"cause": "still_waiting", "found": plan.waiting, "limit": 0})
    above = rules.above or (config.approval_above if campaign.kind == "marketing" else None)
    if above is not None and plan.messages > above:
        found.append({"cause": "above", "found": plan.messages, "limit": above})
    if campaign.kind == "transactional":  # who bought is told, however many buy
        return found
    for row in db.run(conn, "36_usual_volume", campaign=campaign.id, now=now):
        if not row.every:  # no day to compare with
            if row.measure == "planned" and (cause := _first_run(campaign, row)):
                found.append(cause)
            continue
        # a young campaign has too few days of the weekday
        days = row.same if len(row.same) > 1 else row.every
        usual = float(median(days))
        limit = max(config.approval_factor * usual, usual + config.approval_slack)
        if row.messages > limit:
            found.append(
                {
                    "cause": row.measure,
                    "found": row.messages,
                    "limit": limit,
                    "usual": usual,
                    "day": f"{row.day:%Y-%m-%d}",
                }
            )
    if campaign.trigger.enters and campaign.rests_on_absence and plan.people > config.approval_slack:
        limit = config.approval_share * plan.base
        if plan.people > limit:
            found.append({"cause": "share", "found": plan.people, "limit": limit})
    return found


def _first_run(campaign: Campaign, row: Row[Any]) -> Counts | None:
    wanted = campaign.approval.first_run
    if wanted is False:
        return None
    always = wanted or settings().approval == "strict"
    limit = 0 if always and not row.has_run else settings().approval_first_run
    return {"cause": "first_run", "found": row.messages, "limit": limit} if row.messages > limit else None


# ---------------------------------------------------------------- the answer


def approvals(
    conn: Connection, now: datetime, approval_id: int | None = None, *, only_open: bool = False
) -> list[Row[Any]]:
    """Requests with their decision (`open` while there is none), newest first. Raises InputError when one is not found."""
    found = list(db.run(conn, "38_approvals", approval_id=approval_id, only_open=only_open, now=now))
    if approval_id is not None and not found:
        raise InputError(f"there is no approval {approval_id}; `postlude approvals list --all` shows what there is")
    return found


def decide(
    conn: Connection, approval_id: int, approve: bool, by: str, via: str, now: datetime, run_id: str,
    *, comment: str | None = None, at_most: int | None = None,
) -> Counts:  # fmt: skip
    """Approve or reject one request, once and for good.

    Approving releases the messages of that request that are still held, at most `at_most` of them (the earliest due; the
    others keep waiting). When its audience is no longer the one that was asked about, nothing is released and `changed` is 1:
    the caller assesses the plan anew. Rejecting cancels them with reason `not_approved`. The same answer of the same person
    again changes nothing.
    Returns {"released", "cancelled", "changed", "canary", "campaign"}. Raises InputError when there is no such request, it was
    decided already, its messages have expired, or `by` is empty.
    """
    if not by.strip():
        raise InputError("an approval needs the name of whoever decides")
    if at_most is not None and (at_most < 1 or not approve):
        raise InputError("at most: write a number of messages from 1 on, with an approval; to release none, reject")
    _alone(conn, approvals(conn, now, approval_id)[0].campaign_id)
    db.tell_now(conn, now)
    asked = approvals(conn, now, approval_id)[0]  # read again: now nobody else decides
    if asked.decision == "expired":
        raise InputError(f"approval {approval_id}: its messages expired at {asked.expires_at:%Y-%m-%d %H:%M} UTC")
    if asked.decision == ("approved" if approve else "rejected") and asked.decided_by == by.strip():
        return {  # a task that is run again: it has had its effect
            "released": asked.released, "cancelled": asked.cancelled, "changed": 0, "canary": 0, "campaign": asked.campaign_id,
        }  # fmt: skip
    if asked.decision != "open":
        raise InputError(
            f"approval {approval_id} was {asked.decision} by {asked.decided_by} at {asked.decided_at:%Y-%m-%d %H:%M} UTC"
        )
    bound = db.run(conn, "38_bound_audience", approval_id=approval_id).scalar_one()
    decision, released, cancelled, canary = "rejected", 0, 0, None
    if not approve:
        cancelled = db.run(conn, "38_cancel_rejected", approval_id=approval_id, now=now).scalar_one()
    elif bound != asked.audience_hash:
        decision = "changed"
    else:
        decision = "approved"
        size = min(asked.waiting, at_most or asked.waiting)
        if settings().canary_hold and size * settings().canary_share >= 1:
            canary = db.run(
                conn, "39_start_canary", campaign=asked.campaign_id, approval_id=approval_id, run_id=run_id, now=now,
                messages=size,
            ).scalar_one()  # fmt: skip
        released = db.run(
            conn, "38_release_approved", approval_id=approval_id, at_most=at_most, canary_id=canary, now=now
        ).rowcount  # fmt: skip
    db.run(
        conn, "38_decide", approval_id=approval_id, decision=decision, decided_by=by.strip(), via=via, comment=comment or None,
        at_most=at_most, audience_hash=bound, released=released, cancelled=cancelled, now=now,
    ).one()  # fmt: skip
    drawn = _draw(conn, canary, released, now) if canary else 0
    return {
        "released": released, "cancelled": cancelled, "changed": int(decision == "changed"), "canary": drawn,
        "campaign": asked.campaign_id,
    }  # fmt: skip


def expire_held(conn: Connection, now: datetime) -> Counts:
    """What was held until it was no longer true expires, with the reason; open requests about it are closed."""
    return dict(db.run(conn, "39_expire_held", now=now).mappings().one())


# ---------------------------------------------------------------- canaries


def put_off(conn: Connection, campaign: Campaign, now: datetime, run_id: str) -> Counts:
    """Of a plan that may go, and is large, let a share go first. Returns {"canary": messages that go first, 0 without one}."""
    config = settings()
    if not config.canary_hold or campaign.kind == "transactional":
        return {"canary": 0}
    _alone(conn, campaign.id)
    plan = db.run(conn, "39_due_soon", campaign=campaign.id, now=now, hold=config.canary_hold).one()
    if plan.soon <= config.canary_above:
        return {"canary": 0}
    canary = db.run(
        conn, "39_start_canary", campaign=campaign.id, approval_id=None, run_id=run_id, now=now, messages=plan.messages
    ).scalar_one()  # fmt: skip
    db.run(conn, "39_put_off_plan", campaign=campaign.id, canary_id=canary)
    return {"canary": _draw(conn, canary, plan.messages, now)}


def _draw(conn: Connection, canary: int, messages: int, now: datetime) -> int:
    share = min(settings().canary_size, math.ceil(messages * settings().canary_share))
    return db.run(conn, "39_draw_canary", canary_id=canary, share=share, now=now).rowcount


def watch_canaries(conn: Connection, now: datetime) -> Counts:
    """Judge the shares that have been watched long enough: let the rest go, or hold it for a new approval.

    A share is watched for `canary_hold` after its last hand-over. One bounce and one complaint are chance; more, above
    the limits, are not. Where every message of the share was refused by a rule, nothing was learnt and further ones are drawn.
    Returns {"canaries_passed", "canaries_failed": [what to tell on-call]}.
    """
    config, passed, failed = settings(), 0, []
    for seen in db.run(conn, "39_watch_canaries", now=now).all():
        if not seen.waiting and not seen.underway:
            _end(conn, seen, "over", now)
        elif seen.underway or (seen.last_handed_over and seen.last_handed_over > now - config.canary_hold):
            continue
        elif not seen.handed_over:
            if not seen.pending:
                _draw(conn, seen.canary_id, seen.messages, now)
        else:
            bad = seen.refused + seen.bounced
            if bad > max(1, config.canary_bounces * seen.handed_over) or seen.complained > max(
                1, config.canary_complaints * seen.handed_over
            ):
                held = _end(conn, seen, "failed", now)
                failed.append(
                    f"{seen.campaign_id}: of {seen.handed_over} messages that went first {bad} bounced or were refused and "
                    f"{seen.complained} complained; the other {held} are held, and the next plan asks for an approval"
                )
            else:
                _end(conn, seen, "passed", now)
                passed += 1
    return {"canaries_passed": passed, "canaries_failed": failed}


def _end(conn: Connection, seen: Row[Any], outcome: str, now: datetime) -> int:
    figures = {name: getattr(seen, name) for name in ("drawn", "handed_over", "refused", "bounced", "complained")}
    return int(
        db.run(
            conn, "39_end_canary", canary_id=seen.canary_id, outcome=outcome, figures=db.dumps(figures), now=now
        ).scalar_one()
    )


# ---------------------------------------------------------------- for people


def cause_in_words(cause: Counts) -> str:
    """What is unusual, as a person would say it."""
    day = datetime.fromisoformat(cause["day"]) if cause.get("day") else None
    return CAUSES[cause["cause"]].format(day=f"{day:%Y-%m-%d}" if day else "", weekday=f"{day:%A}" if day else "")


def in_words(asked: Row[Any]) -> tuple[str, str]:
    """Subject and Markdown of a request: counts, band, difference, sample. Numbers and customer ids, no names, no addresses."""
    facts = asked.facts
    subject = f"Send {asked.messages:,} messages of {asked.campaign_id} to {asked.people:,} customers?"
    lines = [
        f"Request {asked.approval_id}, as of {asked.asked_at:%Y-%m-%d %H:%M} UTC. Nothing of it goes out before somebody says yes; "
        f"the last of it expires at {asked.expires_at:%Y-%m-%d %H:%M} UTC.",
        "", "**Why you are asked**", "", "| | found | limit | usual |", "|---|---:|---:|---:|",
    ]  # fmt: skip
    for cause in asked.causes:
        told = cause_in_words(cause)
        usual = f"{cause['usual']:,.0f}" if "usual" in cause else ""
        lines.append(f"| {told} | {cause['found']:,} | {cause['limit']:,.0f} | {usual} |")
    lines += ["", "**Who**", ""]
    for name, part in (("step", "steps"), ("shop, customers", "shops"), ("day", "days")):
        counts = sorted((facts[part] or {}).items())
        more = f", and {len(counts) - 10} more days" if len(counts) > 10 else ""
        lines.append(f"- per {name}: " + ", ".join(f"{key} {count:,}" for key, count in counts[:10]) + more)
    if facts["last_release"]:
        lines.append(
            f"- against the last release ({facts['last_release'][:16]}, {facts['last_people']:,} customers): {facts['entered']:,} are "
            f"new in it, {facts['departed']:,} are no longer in it; {facts['known']:,} had mail of this campaign planned before"
        )
    else:
        lines.append("- there is no release before this one to compare with")
    lines += [
        "",
        f"**{len(facts['sample'])} of them**",
        "",
        "| customer | step | in since | last order | orders |",
        "|---:|---|---|---|---:|",
    ]
    for one in facts["sample"]:
        since = f"order {one['order']}, {one['since'][:10]}" if one["order"] else one["since"][:10]
        lines.append(
            f"| {one['customer']} | {one['step']} | {since} | {(one['last_order'] or 'unknown')[:10]} | {one['orders'] or 0} |"
        )
    lines += [
        "",
        f"More about one of them: `postlude why CUSTOMER {asked.campaign_id}`. About the request: `postlude approvals show "
        f"{asked.approval_id}`. Audience `{asked.audience_hash[:16]}`.",
    ]  # fmt: skip
    return subject, "\n".join(lines)
