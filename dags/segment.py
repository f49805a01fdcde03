"""# segment: customers described and grouped

Derives each customer's features (recency, frequency, monetary, stage, scores), checks them, and brings the segments
of `include/segments/` up to date: `derive_features → check_features → keep_loyalty → note_happenings → update_segments`. In between it
books loyalty points and notes what has happened that starts campaigns (docs/happenings.md). Emits the asset `segments`,
which starts every campaign.

**When** after `ingest`, for the same business date and as of the same instant. By hand at any time.

**Parameters**
- `as_of`: describe the customers as of this instant; empty: the instant of the orders that started the run, by hand
  now.

**When it is red**
- `derive_features`: the log names the reason; clear it when that is mended.
- `check_features`: the features look wrong (empty, out of range, or far from the last good run); the log names the
  expectation, Data Docs shows the rest. The segments stay as they were and no campaign starts. Find out what changed
  in the orders; when it is mended, run `ingest` again.
- `keep_loyalty`, `note_happenings`: usually include/loyalty.yml or include/recovery.yml; the log names file and line. No campaign
  starts until it is mended: without these facts promotions could go to people whose complaint is open.
- `update_segments`: usually a segment file; the log names file and line.

**Running it again is safe**: the same instant gives the same features, books nothing twice and changes no membership.
"""

from airflow.sdk import PartitionedAssetTimetable, dag

from postlude.orchestration import AS_OF, EVERY_DAG, ORDERS, SEGMENTS, stage


@dag(
    schedule=PartitionedAssetTimetable(assets=ORDERS),
    doc_md=__doc__,
    tags=["postlude", "data"],
    params={"as_of": AS_OF},
    **EVERY_DAG,
)
def segment():
    @stage
    def derive_features(run):
        from postlude import pipeline

        return pipeline.derive_features(**run.stamp)

    @stage
    def check_features(run):
        from postlude import pipeline

        return pipeline.check("features", "", run.now, run.run_id, run.origin)

    @stage
    def keep_loyalty(run):
        from postlude import pipeline

        return pipeline.keep_loyalty(**run.stamp)

    @stage
    def note_happenings(run):
        from postlude import pipeline

        return pipeline.note_happenings(**run.stamp)

    @stage(outlets=[SEGMENTS])
    def update_segments(run):
        from postlude import pipeline

        return pipeline.update_segments(**run.stamp)

    derive_features() >> check_features() >> keep_loyalty() >> note_happenings() >> update_segments()


segment()
