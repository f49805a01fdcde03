"""# campaign__<id>: one DAG per file in include/campaigns

Enrols customers, plans their messages, checks the plan and releases it: `enrol → schedule → check_plan → assess →
approve → release`. It sends nothing: `deliver` does, on its own clock, after looking at everything again.

`assess` compares the plan with the campaign's own usual volume. When it is as usual, `approve` is skipped. When it is
not, all of it is held and `approve` waits for a named person (*Browse → Required Actions*, or `postlude approvals`); an
answer holds for exactly the audience that was asked about. Of a large release a small share goes first; `feedback`
watches it and lets the rest follow. docs/approvals.md has the rules.

`check_feeds`, in campaigns that rest on what has *not* happened, stands beside them: it judges the feeds such a campaign
depends on and is red when one is stale. Nothing waits for it: `enrol` and the last look before hand-over leave out the
customers of that shop by themselves, everybody else goes on. docs/gates.md has the rule.

**When** after `segment`, for the same business date and as of the same instant. By hand at any time. Two kinds have no
schedule here: transactional campaigns, which the DAG `transactional` plans every few minutes, and those that need data no
source delivers (`needs`): their text says what is missing, and nothing runs until it is there (`postlude flows`).

**Parameters**
- `as_of`: enrol and plan as of this instant; empty: the instant of the segments that started the run, by hand now.
  What is planned for the past expires, it is not sent.

**When it is red**
- its only task is `broken_file`: the campaign file has mistakes; the log and the docs of the DAG list each with file,
  line and cure. The other campaigns go on. Mend the file; within a minute the DAG has its real tasks again.
- `check_feeds`: the log names the feed and what is wrong with it (`postlude feeds`). Customers of that shop get nothing
  from this campaign meanwhile, and what was planned for them expires; the other shops went on. Mend the feed and run
  `ingest`; nothing has to be cleared.
- `enrol`, `schedule`: the log names the reason; clear the task when that is mended.
- `check_plan`: the planned messages look wrong; nothing of this run is released. Data Docs shows why.
- `approve`: nobody answered within `POSTLUDE_APPROVAL_WAIT`. The messages stay held until they expire: answer with
  `postlude approvals`, or let the next run ask again, then about both days together. Clearing `approve` asks once more.
  Also when something answered within a second or two of the question, before Airflow's executor had let the task go (`Server
  indicated the task shouldn't be running anymore` in its log): nothing was decided; clear it and answer.
- `release`: the log names the reason (an answer that is impossible, or came when the messages had expired).
- `assess`: clear the task.

**Running it again is safe**: an enrolment and a message have an id made of what they are, so planning twice plans
once. Downstream of a backfill the run knows it and writes history only.
"""

import hashlib
import re

from airflow.sdk import PartitionedAssetTimetable, dag, get_parsing_context

from postlude import flows
from postlude.campaign import load_campaign
from postlude.errors import InputError
from postlude.orchestration import AS_OF, DEFAULTS, EVERY_DAG, SEGMENTS, answer_to, approve, stage, wall_clock
from postlude.settings import settings


def campaign_dag(path, campaign):
    off = flows.lacking(campaign, THERE)
    quick = campaign.kind == "transactional"
    told = (
        [f"**Off**: it {off}.\n"]
        if off
        else ["Planned by the DAG `transactional`, every few minutes.\n"]
        if quick
        else []
    )

    @dag(
        dag_id=f"campaign__{campaign.id}",
        dag_display_name=f"campaign: {campaign.name}",
        schedule=None if off or quick else PartitionedAssetTimetable(assets=SEGMENTS),
        doc_md="\n".join(
            [*told, f"{campaign.description}\n", *(f"- {line}" for line in campaign.in_words()), "", __doc__]
        ),
        tags=["postlude", "campaign", campaign.kind, *(["off"] if off else [])],
        params={"as_of": AS_OF},
        **EVERY_DAG | {"default_args": DEFAULTS | {"owner": campaign.owner}},
    )
    def sequence():
        @stage
        def enrol(run):
            from postlude import pipeline

            return pipeline.enrol(path, **run.stamp)

        @stage
        def schedule(run):
            from postlude import pipeline

            return pipeline.schedule(path, **run.stamp)

        @stage
        def check_plan(run):
            from postlude import pipeline

            return pipeline.check("plan", campaign.id, run.now, run.run_id)

        @stage
        def assess(run):
            from postlude import pipeline

            return pipeline.assess(path, **run.stamp)

        @stage(trigger_rule="none_failed")
        def release(run, assessed):
            from postlude import pipeline

            answer = answer_to("approve") if assessed["approval"] else None
            if answer is None:
                return pipeline.release(path, **run.stamp)
            stamp = run.stamp | {"now": wall_clock()}  # a person answers now, whatever the run speaks of
            return pipeline.decide(assessed["approval"], via="airflow", **answer, **stamp)

        @stage
        def check_feeds(run):
            from postlude import pipeline

            return pipeline.check_feeds(path, **run.stamp)

        if campaign.feeds:
            check_feeds()  # holds up nobody: the planning itself leaves out the shops whose feed is stale
        assessed = assess()
        asked = approve("approve", assessed="assess", users=campaign.approval.by, wait=settings().approval_wait)
        enrol() >> schedule() >> check_plan() >> assessed >> asked >> release(assessed)

    sequence()


def red_dag(stem, message):
    name = re.sub(r"[^\w.-]", "_", stem, flags=re.ASCII)  # another character in an id would stop the whole file
    if name != stem:
        name += "_" + hashlib.sha256(stem.encode()).hexdigest()[:6]

    @dag(
        dag_id=f"campaign__{name}",
        schedule=PartitionedAssetTimetable(assets=SEGMENTS),
        doc_md=f"**This campaign does not run: its file has mistakes.**\n\n```\n{message}\n```\n{__doc__}",
        tags=["postlude", "campaign", "broken"],
        **EVERY_DAG,
    )
    def broken():
        @stage
        def broken_file(run):
            raise InputError(message)

        broken_file()

    broken()


THERE = flows.delivered()
ONLY = get_parsing_context().dag_id  # set where a task runs: it needs its own campaign, and not forty others

for file in sorted(settings().include.joinpath("campaigns").glob("[!.]*.yml")):
    if ONLY and re.fullmatch(r"[a-z0-9_]+", file.stem) and f"campaign__{file.stem}" != ONLY:
        continue
    try:
        loaded = load_campaign(file)
    except Exception as error:  # whatever is wrong with one file, the other campaigns go on
        told = (
            str(error)
            if isinstance(error, InputError)
            else f"{file.name}: cannot be read: {type(error).__name__}: {error}"
        )
        red_dag(file.stem, told)
    else:
        campaign_dag(str(file), loaded)
