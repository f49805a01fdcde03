"""# feedback: what happened to the messages

Collects events (deliveries, bounces, complaints, clicks, answers, unsubscribes) from the channels and the public
pages, applies them, and checks the result: `collect → apply → check_events`. Applying an event adds suppressions,
withdraws consent, ends enrolments and settles messages whose outcome was unknown.

Beside it `watch` looks at large releases of which a small share went first: it lets the rest follow, or holds it. A campaign of
whose mail too much bounces, or is called spam, is stopped (docs/gates.md). What was held until it was no longer true expires here.

**When** every 10 minutes, one run at a time. An unsubscribe on the public page is obeyed at once and does not wait
for this.

**When it is red**
- `collect`: a channel's reporting does not answer; what was not collected is collected next time.
- `apply`: the log names the reason; events stay in the inbox until they are applied.
- `watch`: a share that went first did badly; the log names the campaign and the counts. The rest is held until somebody
  approves it anew (docs/approvals.md). Or a campaign was stopped: `postlude switches` has the counts; mend the cause, then lift it
  with `postlude go campaign NAME --why ...`. Red once; nothing else waits for it.
- `check_events`: shares of bounces, complaints or unknown outcomes look wrong; Data Docs shows them. Look before the
  next send.

**Running it again is safe**: an event has an id made of what it says, and counts once.
"""

from airflow.sdk import dag

from postlude.orchestration import EVERY_DAG, stage, wall_clock


@dag(schedule="*/10 * * * *", doc_md=__doc__, tags=["postlude", "sending"], **EVERY_DAG)
def feedback():
    @stage
    def collect(run):
        from postlude import pipeline

        return pipeline.collect(**run.stamp)

    @stage
    def apply(run):
        from postlude import pipeline

        return pipeline.apply_events(**run.stamp)

    @stage
    def check_events(run):
        from postlude import pipeline

        return pipeline.check("events", "", run.now, run.run_id)

    @stage
    def watch(run):
        from postlude import pipeline

        return pipeline.watch(wall_clock(), run.run_id, run.origin)

    collect() >> apply() >> [check_events(), watch()]


feedback()
