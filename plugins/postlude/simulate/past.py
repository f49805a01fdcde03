"""A past window once more: the runs that were, at their instants, over the facts as they then arrived.

What the world did is taken from the record (orders, reports, withdrawals, approvals, switches, and what the relay answered to each
hand-over); what Postlude did is done again by the stages. So the ledger of the window comes out row for row, or something was not as
it is thought to be.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from sqlalchemy import Connection, Engine, Row, text
from sqlalchemy.engine import URL

from postlude import audience, coupons, db, enrolment, feedback, outbox, pipeline, volume
from postlude.calendar import Calendar, effective, one_offs, steered
from postlude.campaign import Campaign, load_campaign
from postlude.errors import GateClosed, InputError
from postlude.message import Outcome
from postlude.quotas import load_quotas
from postlude.settings import settings
from postlude.simulate import copying, rewinding
from postlude.simulate.log import Log
from postlude.simulate.rehearsal import ACCEPTED, Fate, NoChannel, Rehearsal

EXTRAS = ("rests_on_absence", "every_channel", "feeds", "at_most_every_seconds")
ASSUMPTIONS = (
    "orders, consents, suppressions, reports and switches arrive when they then did; parcels, returns and reviews of known orders at "
    "their own time, for when they were told is not kept",
    "the relay answers as it then did; a message it was never asked about is accepted",
    "a delivery has the instant at which its run began",
)


@dataclass(frozen=True)
class Rewound:
    """What the copy was brought back from. columns: per table those that can be written."""

    columns: dict[str, str]


def rewind(engine: Engine, first: datetime) -> Rewound | None:
    """Prepare the copy, and bring it to `first` where something happened since; None: nothing did."""
    with db.transaction(engine) as conn:
        rewinding.prepare(conn)
        if not rewinding.happened_since(conn, first):
            return None
        raw: psycopg.Connection[Any] = conn.connection.driver_connection  # type: ignore[assignment]
        columns = {
            table: ", ".join(f'"{name}"' for name in copying.columns(raw, table))
            for table in (*rewinding.KNOWN, *rewinding.CHILDREN)
        }
        rewinding.take_back(conn, first)
    return Rewound(columns)


class Past:
    """The runs of a window, in the order in which they began."""

    def __init__(
        self, engine: Engine, first: datetime, until: datetime, rewound: Rewound | None, calendar: Calendar | None
    ) -> None:
        self.engine, self.first, self.until, self._given = engine, first, until, calendar
        if rewound is None:
            raise InputError(f"nothing has happened since {first:%Y-%m-%d %H:%M} UTC; there is nothing to replay")
        self._columns = rewound.columns
        self.log = Log(assumptions=list(ASSUMPTIONS))
        self._segments = audience.load_segments(settings().include / "segments")
        self._pools, self._quotas = coupons.load_pools(), load_quotas()
        self._boxes: dict[str, Rehearsal] = {}
        self._now = first
        with db.transaction(engine) as conn:
            self._versions = [
                (row.campaign_id, row.version, row.first_seen, row.definition)
                for row in conn.execute(text("select * from arrivals.versions order by first_seen"))
            ]
            self._runs = list(
                conn.execute(
                    text(
                        "select * from arrivals.runs where as_of < :until and outcome is not null order by started_at, run_id"
                    ),
                    {"until": until},
                )
            )

    def run(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Every run of the window. Raises InputError when the window has none: then nobody knows when anything was done."""
        if not self._runs:
            raise InputError(
                f"no run is recorded from {self.first:%Y-%m-%d} to {self.until:%Y-%m-%d}; there is nothing to replay"
            )
        for number, run in enumerate(self._runs):
            began = time.perf_counter()
            self._again(run)
            self.log.spent(run.stage, time.perf_counter() - began)
            if progress:
                progress(number + 1, len(self._runs))
        for box in self._boxes.values():
            box.close()
        with db.transaction(self.engine) as conn:
            for pool in coupons.stock(conn, self.until):
                day = str(self.until.date())
                self.log.stock.append(
                    {"day": day, "pool": pool["pool"], "left": pool["left"], "short": pool["waiting"]}
                )

    def _again(self, run: Row[Any]) -> None:
        now = run.as_of
        # by hand a run may live in the past; all others saw what was there when they began
        seen = now if run.origin in ("cli", "test") else max(now, run.started_at)
        with db.transaction(self.engine) as conn:
            rewinding.arrive(conn, self._columns, seen)
            if run.outcome == "done":
                # what a later run asks of earlier ones
                db.run(conn, "85_note_run", run_id=run.run_id, stage=run.stage, subject=run.subject, now=now)
        work = getattr(self, f"_{run.stage}", None)
        if work is None:  # reading files, checks and reports change no ledger
            return
        try:
            work(run, now)
        except (GateClosed, InputError):
            if run.outcome == "done":
                raise

    # ------------------------------------------------------------ the stages, by their names in `runs`

    def _derive_features(self, run: Row[Any], now: datetime) -> None:
        with db.transaction(self.engine) as conn:
            audience.derive_features(conn, now, run.run_id)

    def _update_segments(self, run: Row[Any], now: datetime) -> None:
        with db.transaction(self.engine) as conn:
            audience.update_segments(conn, self._segments, now, run.run_id)

    def _enrol(self, run: Row[Any], now: datetime) -> None:
        with db.transaction(self.engine) as conn:
            coupons.declare(conn, self._pools, now)
            campaign, calendar = self._campaign(conn, run.subject, now), self.calendar_at(conn, now)
            enrolment.enrol(conn, campaign, now, self._id(run), history_before=_history(run), calendar=calendar)

    def _schedule(self, run: Row[Any], now: datetime) -> None:
        with db.transaction(self.engine) as conn:
            campaign, at = self._campaign(conn, run.subject, now), _history(run) or now
            enrolment.schedule(conn, campaign, self.calendar_at(conn, now), at, self._id(run))
            coupons.reserve(conn, campaign, at)

    def _assess(self, run: Row[Any], now: datetime) -> None:
        with db.transaction(self.engine) as conn:
            self._held(
                now, run.subject, volume.assess(conn, self._campaign(conn, run.subject, now), now, self._id(run))
            )

    def _release(self, run: Row[Any], now: datetime) -> None:
        with db.transaction(self.engine) as conn:
            campaign = self._campaign(conn, run.subject, now)
            counts = volume.assess(conn, campaign, now, self._id(run))
            self._held(now, run.subject, counts)
            if not counts["approval"]:
                volume.put_off(conn, campaign, now, self._id(run))
            enrolment.release(conn, campaign)

    def _held(self, now: datetime, campaign: str, counts: dict[str, Any]) -> None:
        if counts["causes"]:
            self.log.gates.append({
                "day": str(now.date()), "campaign": campaign, "gate": "volume", "messages": counts["messages"],
                "people": counts["people"], "causes": counts["causes"],
            })  # fmt: skip

    def _decide(self, run: Row[Any], now: datetime) -> None:
        with db.transaction(self.engine) as conn:
            query = text("select * from arrivals.decisions where approval_id = :id and via <> 'system'")
            said = conn.execute(query, {"id": int(run.subject)}).one_or_none()
            if said is None:
                return
            counts = volume.decide(
                conn, said.approval_id, said.decision != "rejected", said.decided_by, said.via, now, self._id(run),
                comment=said.comment, at_most=said.at_most,
            )  # fmt: skip
            if counts["changed"]:
                volume.assess(conn, self._campaign(conn, counts["campaign"], now), now, self._id(run))

    def _watch(self, run: Row[Any], now: datetime) -> None:
        with db.transaction(self.engine) as conn:
            volume.expire_held(conn, now)
            volume.watch_canaries(conn, now)

    def _apply_events(self, run: Row[Any], now: datetime) -> None:
        with db.transaction(self.engine) as conn:
            feedback.apply(conn, now)
            enrolment.end_enrolments(conn, self._campaigns(conn, now), now)

    def _maintain(self, run: Row[Any], now: datetime) -> None:
        with db.transaction(self.engine) as conn:
            enrolment.end_enrolments(conn, self._campaigns(conn, now), now)

    def _deliver(self, run: Row[Any], now: datetime) -> None:
        outbox.recover(self.engine, now)
        outbox.send_again(self.engine, now)
        with db.transaction(self.engine) as conn:
            coupons.declare(conn, self._pools, now)
            coupons.wake(conn, now)
            calendar, campaigns = self.calendar_at(conn, now), self._campaigns(conn, now)
            for campaign in campaigns:
                if enrolment.must_move(conn, campaign, calendar):
                    enrolment.schedule(conn, campaign, calendar, now, self._id(run))
            due = [row.channel for row in db.run(conn, "40_channels_due", now=now)]
        self.log.passes += 1
        self._now = now
        for channel in due:
            box = self._box(channel)
            box.rehearse(campaigns, calendar)
            self.log.put_off += [(now.date(), *put_off) for put_off in box.put_off]

    def _box(self, channel: str) -> Rehearsal:
        if channel not in self._boxes:
            self._boxes[channel] = Rehearsal(
                engine=self.engine, channel=NoChannel(), url="", campaigns=[], calendar=Calendar.model_construct(),
                clock=lambda: self._now, worker="simulation", batch=settings().batch, channel_name=channel, lanes=2,
                quotas=self._quotas, answers=_answers, stop_file=Path("no stop file"),
            )  # fmt: skip
        return self._boxes[channel]

    # ------------------------------------------------------------ what held then

    def calendar_at(self, conn: Connection, now: datetime) -> Calendar:
        return self._given or effective(conn, now)

    def _campaign(self, conn: Connection, name: str, now: datetime) -> Campaign:
        """The campaign as it was defined then; with a calendar of the present, the file as that steers it."""
        path = settings().include / "campaigns" / f"{name}.yml"
        if self._given is not None and path.is_file():
            return steered(load_campaign(path), self._given)
        known = [v for v in self._versions if v[0] == name]
        # the first one also before it was first seen: that was this very run
        for _, version, first_seen, definition in reversed(known):
            if first_seen <= now or first_seen == known[0][2]:
                campaign = Campaign.model_validate({k: v for k, v in definition.items() if k not in EXTRAS})
                if campaign.version == version:  # a step moved since has no version before its next plan
                    return steered(campaign, self.calendar_at(conn, now))
                break
        if path.is_file():
            return steered(load_campaign(path), self.calendar_at(conn, now))
        for campaign in one_offs(self.calendar_at(conn, now)):
            if campaign.id == name:
                return campaign
        raise InputError(f'the campaign "{name}" ran then, and neither its file nor its definition can be read now')

    def _campaigns(self, conn: Connection, now: datetime) -> list[Campaign]:
        names = dict.fromkeys(
            [*(Path(path).stem for path in pipeline.campaign_files()), *(v[0] for v in self._versions)]
        )
        return [self._campaign(conn, name, now) for name in names]

    @staticmethod
    def _id(run: Row[Any]) -> str:
        """The run's id as its stage knew it: without the stage and what it worked on."""
        tail = f"/{run.stage}" + (f"/{run.subject}" if run.subject else "")
        return str(run.run_id).removesuffix(tail)


def _history(run: Row[Any]) -> datetime | None:
    """The wall clock of a run over the past, as pipeline.history_before found it."""
    late = run.origin not in ("cli", "test") and run.started_at - run.as_of > settings().max_past
    return run.started_at if run.origin == "backfill" or late else None


def _answers(conn: Connection, claims: list[Row[Any]]) -> Mapping[UUID, Fate]:
    """What became of each of these hand-overs, by the record."""
    rows = conn.execute(
        text("""select w.message_id, a.outcome, a.scope, a.reply, f.state, f.reason, f.detail
                from unnest(cast(:ids as uuid []), cast(:attempts as int [])) as w (message_id, attempt)
                left join arrivals.attempts as a on a.message_id = w.message_id and a.attempt = w.attempt
                left join arrivals.fates as f on f.message_id = w.message_id and f.attempt = w.attempt"""),
        {"ids": [c.message_id for c in claims], "attempts": [c.attempt for c in claims]},
    )
    found: dict[UUID, Fate] = {}
    for row in rows:
        if row.state is not None:
            found[row.message_id] = (row.state, row.reason, row.detail)
        elif row.outcome is None:
            found[row.message_id] = ACCEPTED
        else:
            found[row.message_id] = Outcome(row.outcome, row.scope, row.reply or "")
    return found


# ---------------------------------------------------------------- the same?


LEDGER = """select m.message_id::text as message_id, m.campaign_id as campaign, m.step_id as step,
       case when m.finalized_at >= :until or m.handed_over_at >= :until then 'open' else m.state end as state,
       case when m.finalized_at >= :until or m.handed_over_at >= :until then null else m.reason end as reason,
       m.due_at, m.handed_over_at, m.finalized_at
from postlude.messages as m
where m.planned_at < :until and (m.planned_at >= :first or m.finalized_at >= :first or m.handed_over_at >= :first
                                 or m.state in ('scheduled', 'held', 'sending'))"""


def compared(original: URL, rows: Any, first: datetime, until: datetime) -> dict[str, Any]:
    """How the replayed ledger differs from the one that was written then, row for row: ids, states, reasons, instants."""
    import pandas as pd

    engine = db.engine(original)
    try:
        with engine.connect() as conn:
            then = {row.message_id: row for row in conn.execute(text(LEDGER), {"first": first, "until": until})}
    finally:
        engine.dispose()
    found: dict[str, Any] = {
        "rows": len(then),
        "same": 0,
        "missing": 0,
        "added": 0,
        "different": [],
        "late_by_at_most_seconds": 0.0,
    }
    again = {row["message_id"]: row for row in rows.to_dict("records")}
    for key, was in then.items():
        now = again.get(key)
        if now is None:
            found["missing"] += 1
            continue
        still_open = ("scheduled", "held", "sending")
        state = "open" if now["state"] in still_open else now["state"]
        before = "open" if was.state in still_open else was.state
        reason = None if state == "open" or pd.isna(now["reason"]) else now["reason"]
        apart = _apart(was, now) if before == state else timedelta(0)
        if (before, None if before == "open" else was.reason) != (state, reason) or was.due_at != now["due_at"]:
            found["different"].append(
                {
                    "message_id": key,
                    "campaign": was.campaign,
                    "step": was.step,
                    "then": [before, was.reason],
                    "now": [state, reason],
                }
            )
        else:
            found["same"] += 1
            found["late_by_at_most_seconds"] = max(found["late_by_at_most_seconds"], apart.total_seconds())
    found["added"] = len(again.keys() - then.keys())
    return found


def _apart(was: Any, now: Any) -> timedelta:
    import pandas as pd

    pairs = ((was.handed_over_at, now["handed_over_at"]), (was.finalized_at, now["finalized_at"]))
    return max(
        (abs(there - then) for then, there in pairs if then is not None and not pd.isna(there)), default=timedelta(0)
    )
