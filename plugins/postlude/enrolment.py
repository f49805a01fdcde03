"""Enrolment: who starts a campaign, which messages that plans, and when a passage ends.

Set-based SQL throughout (include/sql/3*.sql); nothing here looks at single customers. Cost grows with the candidates of the
campaign's reach (`max_age`), not with history.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from postlude import db, freshness
from postlude.calendar import WEEKDAYS, Calendar, remember
from postlude.campaign import Campaign
from postlude.conditions import Reentry
from postlude.errors import GateClosed, InputError
from postlude.settings import settings

LONGEST_REST = timedelta(days=366)  # what a campaign missed before that is not looked for


def remember_version(conn: Connection, campaign: Campaign, now: datetime) -> datetime:
    """Store the content of the campaign file; returns the instant the campaign first ran (its activation)."""
    params = {"id": campaign.id, "version": campaign.version}
    known = text("""select min(first_seen) as first, coalesce(bool_or(version = :version), false) as has_it
                    from campaign_versions where campaign_id = :id""")
    found = conn.execute(known, params).one()
    if not found.has_it:
        conn.execute(
            text("""insert into campaign_versions (campaign_id, version, definition, first_seen)
                    values (:id, :version, :definition, :now) on conflict do nothing"""),
            {**params, "definition": db.dumps(campaign.definition()), "now": now},
        )
        found = conn.execute(known, params).one()
    first: datetime = found.first
    return first


def enrol(
    conn: Connection,
    campaign: Campaign,
    now: datetime,
    run_id: str,
    history_before: datetime | None = None,
    calendar: Calendar | None = None,
) -> dict[str, Any]:
    """Enrol the campaign's candidates as of `now`; everybody refused keeps the reason.

    calendar: where a trigger by occasion finds its dates.

    history_before: set by runs over the past (the wall clock): enrols only passages that are entirely over, so that nothing
    can be sent because of them.
    Raises GateClosed when the trigger would read segments or features of another instant than `now`.
    """
    db.walk(conn)
    db.drop_temporary(conn, "table candidates", "table judged")
    activated = remember_version(conn, campaign, now)
    ended = end_enrolments(conn, [campaign], now)
    if campaign.trigger.reads_features:
        if history_before is not None:
            return ended | {"enrolled": 0, "holdout": 0, "refused": 0, "past_segment_run": 1}
        _features_are_of(conn, now, campaign)
    found, missed = _candidates(conn, campaign, calendar, now, run_id, look_back=history_before is None)
    if not found:  # most campaigns on most days
        return ended | {"candidates": 0, "enrolled": 0, "holdout": 0, "refused": 0, "missed": missed, "reasons": {}}
    after = campaign.reentry.after if isinstance(campaign.reentry, Reentry) else None
    db.run(
        conn, "31_judge_candidates", campaign=campaign.id, channels=campaign.every_channel, kind=campaign.kind, topic=campaign.topic,
        exit_on=db.dumps(campaign.exit_on), within=list(campaign.audience.within), exclude=list(campaign.audience.exclude),
        activated_at=activated if campaign.trigger.entry == "from_now_on" else datetime.min.replace(tzinfo=now.tzinfo),
        stale_sources=freshness.stale_sources(conn, campaign.feeds, now), now=now,
        reentry="after" if after else campaign.reentry, period=after, per_order=campaign.per_fact,
        only_if=db.dumps(campaign.audience.only_if.model_dump(mode="json", by_alias=True)) if campaign.audience.only_if else None,
        definition=db.dumps(campaign.definition()),
        stop_while=db.dumps(campaign.stop_while if campaign.kind == "marketing" else ()),
    )  # fmt: skip
    judged = conn.execute(text("select reason, count(*) from judged group by 1 order by 2 desc, 1"))
    reasons: dict[str | None, int] = {reason: count for reason, count in judged}
    candidates, accepted = sum(reasons.values()), reasons.pop(None, 0)
    refused = 0
    if reasons and history_before is None:
        refused = db.run(conn, "32_store_refusals", campaign=campaign.id, now=now, run_id=run_id).rowcount
    arms = []
    if accepted:
        draws = campaign.control_groups
        db.run(conn, "32_draw_holdouts", draws=db.dumps(draws), now=now, run_id=run_id)
        arms = list(
            db.run(
                conn, "32_enrol", campaign=campaign.id, version=campaign.version, groups=[draw["campaign_id"] for draw in draws],
                now=now, run_id=run_id, timeline=campaign.timeline, history_before=history_before,
            ).scalars()
        )  # fmt: skip
    return ended | {
        "candidates": candidates,
        "enrolled": arms.count("treated"),
        "holdout": arms.count("holdout"),
        "refused": refused,
        "missed": missed,
        "reasons": reasons,
    }


def _candidates(
    conn: Connection, campaign: Campaign, calendar: Calendar | None, now: datetime, run_id: str, look_back: bool
) -> tuple[int, int]:
    """Fill the temporary table of everybody the trigger speaks of within its reach; how many there are.

    look_back: whoever came into it and out of it again while the campaign did not run keeps the reason `missed`; how many.
    """
    occasion = campaign.trigger.occasion
    dates = calendar.dates_of(occasion) if occasion and calendar else []
    if occasion and not dates:
        raise InputError(
            f'{campaign.id}: trigger.occasion: the calendar has no occasion "{occasion}"; '
            f"add {{id: {occasion}, date: ..., why: ...}} to occasions in include/calendar.yml"
        )
    before = text("""select max(as_of) from runs where stage = 'enrol' and subject = :campaign and outcome = 'done'
                     and as_of < :now and origin <> 'backfill'""")
    ran = conn.execute(before, {"campaign": campaign.id, "now": now}).scalar() if look_back else None
    rest = min(now - ran, LONGEST_REST) if ran else timedelta(0)
    name, params = campaign.trigger.candidates(now, dates, list(campaign.audience.within), rest)
    found = db.run(conn, name, **params).rowcount
    if campaign.kind == "transactional" and campaign.trigger.event == "delivered":
        # where a shop tells no deliveries the order date stands for them: near enough to ask how it was, not to say that it came
        conn.execute(text("delete from candidates where delivered_at(order_id, :now) is null"), {"now": now})
    if not rest or not found:
        return found, 0
    return found, db.run(
        conn, "32_set_aside_missed", campaign=campaign.id, now=now, max_age=campaign.trigger.max_age, run_id=run_id
    ).rowcount


def _features_are_of(conn: Connection, now: datetime, campaign: Campaign) -> None:
    as_of = conn.execute(text("select as_of from feature_state")).scalar()
    if as_of is None:
        raise GateClosed(f"{campaign.id}: no segments have been computed yet; run the segment stage first")
    if abs(as_of - now) > settings().max_feature_age:
        raise GateClosed(
            f"{campaign.id}: segments are as of {as_of:%Y-%m-%d %H:%M} UTC, this plan is as of {now:%Y-%m-%d %H:%M} UTC; "
            "run the segment stage for that instant first"
        )


def schedule(conn: Connection, campaign: Campaign, calendar: Calendar, now: datetime, run_id: str) -> dict[str, int]:
    """Write the messages of all enrolments that have none yet; they stay `held` until `release`. Nothing is written twice.

    A step that waits for an event is written once the event came or its time is up. Where the calendar moved a step and says
    so, what was planned for it before moves along (`moved`; it is held for the gate again), or is cancelled (`stopped`).
    """
    db.tell_now(conn, now)
    db.walk(conn)
    db.drop_temporary(conn, "table under_way", "table due_steps")
    window = calendar.window_of(campaign.id)
    marketing = campaign.kind == "marketing"
    delays = [delay for delay in calendar.delays if delay.campaign == campaign.id and delay.since is not None]
    stopped = sum(
        db.run(conn, "33_stop_moved", campaign=campaign.id, step=delay.step, since=delay.since, now=now).scalar_one()
        for delay in delays
        if delay.in_flight == "stop"
    )
    steps = _steps(campaign, {delay.step: delay.since for delay in delays if delay.in_flight == "migrate"})
    revision = remember(conn, calendar, now)
    due = db.run(conn, "33_under_way", campaign=campaign.id).rowcount and db.run(
        conn, "33_due_steps", campaign=campaign.id, steps=db.dumps(steps), opens=window.opens, now=now, salt=settings().holdout_salt
    ).rowcount  # fmt: skip
    if not due:
        return {"planned": 0, "ghosts": 0} | ({"stopped": stopped} if stopped else {})
    planned = db.run(
        conn, "33_plan_messages", campaign=campaign.id, topic=campaign.topic, kind=campaign.kind, priority=campaign.priority,
        opens=window.opens, closes=window.closes, weekdays=calendar.weekday_numbers(campaign.id),
        blackouts=calendar.blackouts if marketing else [],
        holidays=db.dumps(calendar.holidays_around(now, campaign.timeline)), calendar_revision=revision,
        now=now, run_id=run_id, spread=calendar.spread, office_opens=calendar.office.opens, office_closes=calendar.office.closes,
        office_days=[WEEKDAYS.index(day) + 1 for day in calendar.office.days], office_closed=list(calendar.office.closed),
    ).one()  # fmt: skip
    counts = {"planned": planned.planned, "ghosts": planned.ghosts}
    return counts | {key: n for key, n in (("moved", planned.moved), ("stopped", stopped)) if n}


def must_move(conn: Connection, campaign: Campaign, calendar: Calendar) -> bool:
    """Is anything planned that the calendar has moved or stopped since? Then `schedule` has to look before it goes out."""
    return any(
        db.run(conn, "33_to_move", campaign=campaign.id, step=delay.step, since=delay.since).scalar_one()
        for delay in calendar.delays
        if delay.campaign == campaign.id and delay.since is not None and delay.in_flight != "finish"
    )


def _steps(campaign: Campaign, moved: dict[str, datetime | None]) -> list[dict[str, Any]]:
    """The steps as planning reads them; `previous` are the step, or the alternatives of the branch, that stand before.

    moved: by step, since when; what was planned for it before is planned anew.
    """
    rows: list[dict[str, Any]] = []
    before: list[str] = []
    same: list[str] = []
    branch = None
    for step in campaign.steps:
        if step.branch is None or step.branch != branch:
            before, same = same, []
        same.append(step.id)
        branch = step.branch
        wait = step.wait_for
        rows.append(
            {
                "id": step.id,
                "channels": campaign.offers(step),
                "template": step.template,
                "variants": [variant.model_dump() for variant in step.variants],
                "days": step.on_day,
                "by_category": step.days_by_category,
                "seconds": step.after.total_seconds() if step.after is not None else 0,
                "at": step.at.isoformat() if step.at else None,
                "expires_seconds": step.expires_after.total_seconds(),
                "office": step.office_hours,
                "previous": before,
                "event": wait.event if wait else None,
                "wait_seconds": wait.timeout.total_seconds() if wait else None,
                "otherwise": wait.otherwise if wait else None,
                "moved_since": moved.get(step.id),
            }
        )
    return rows


def release(conn: Connection, campaign: Campaign) -> dict[str, int]:
    """The plan has passed its gate: what was held for it may go."""
    return {"released": db.run(conn, "34_release_plan", campaign=campaign.id).rowcount}


def end_enrolments(conn: Connection, campaigns: list[Campaign], now: datetime) -> dict[str, int]:
    """Note what ended a passage (goal, return, withdrawal, all steps done) and cancel what it still had planned."""
    timelines = [{"campaign_id": c.id, "seconds": c.timeline.total_seconds()} for c in campaigns]
    row = db.run(
        conn, "35_end_enrolments", campaigns=[c.id for c in campaigns], now=now, timelines=db.dumps(timelines)
    ).mappings().one()  # fmt: skip
    return dict(row)


def withdraw_unanswered(conn: Connection, campaign: Campaign, now: datetime) -> int:
    """Withdraw the consent of whoever gave no sign after the campaign asked whether to stay (`withdraw_after`); how many did not."""
    if campaign.withdraw_after is None or campaign.kind != "marketing":
        return 0
    return int(
        db.run(
            conn, "53_withdraw_unanswered", campaign=campaign.id, step=campaign.steps[-1].id, topic=campaign.topic,
            after=campaign.withdraw_after, now=now,
        ).rowcount
    )  # fmt: skip
