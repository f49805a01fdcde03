"""# one_offs: offers and cards that stand in the calendar only

Plans the one-off sends of the calendar whose day is near: special offers and occasion cards for a segment (*Campaign calendar*, or
`postlude calendar import`). Each is a campaign of one step without a file: `list_sends → plan`, one mapped task for each send. It
enrols, plans, checks and releases as a campaign's own DAG does, and sends nothing: `deliver` does.

**When** after `segment`, for the same business date and as of the same instant. By hand at any time.

**Parameters**
- `as_of`: plan as of this instant; empty: the instant of the segments that started the run, by hand now.

**When it is red**
- `plan`: the log names the send and the reason. When its plan needs an approval the task is green and the messages stay held until
  somebody answers with `postlude approvals`.
- `list_sends`: the calendar cannot be read; the log names file and line, or the revision that does not go together with the file.

**Running it again is safe**: an enrolment and a message have an id made of what they are, so planning twice plans once.
"""

from airflow.sdk import PartitionedAssetTimetable, dag

from postlude.orchestration import AS_OF, EVERY_DAG, SEGMENTS, stage


@dag(
    schedule=PartitionedAssetTimetable(assets=SEGMENTS),
    doc_md=__doc__,
    tags=["postlude", "campaign"],
    params={"as_of": AS_OF},
    **EVERY_DAG,
)
def one_offs():
    @stage
    def list_sends(run):
        from postlude import pipeline

        return pipeline.one_off_campaigns(run.now)

    @stage
    def plan(run, send):
        from postlude import pipeline

        return pipeline.run_campaign(send, **run.stamp)

    plan.expand(send=list_sends())


one_offs()
