"""# report: what it all did

Checks the deliveries and writes the report, one self-contained HTML page: `check_deliveries → write_report`. The
newest one is under *Postlude report* in the menu of the Airflow UI.

**When** daily at 06:30 UTC. By hand at any time.

**Parameters**
- `as_of`: the report as of this instant; empty: now.

**When it is red**
- `check_deliveries`: messages and deliveries do not add up, or far fewer were sent than planned; the log names the
  expectation and Data Docs shows the rest. No report is written from figures that contradict each other.
- `write_report`: the log names the reason; clear it.

**Running it again is safe**: it only reads, and writes its page anew.
"""

from airflow.sdk import dag

from postlude.orchestration import AS_OF, EVERY_DAG, stage


@dag(
    schedule="30 6 * * *",
    doc_md=__doc__,
    tags=["postlude", "report"],
    params={"as_of": AS_OF},
    **EVERY_DAG,
)
def report():
    @stage
    def check_deliveries(run):
        from postlude import pipeline

        return pipeline.check("deliveries", "", run.now, run.run_id)

    @stage
    def write_report(run):
        from postlude import pipeline

        return pipeline.write_report(**run.stamp)

    check_deliveries() >> write_report()


report()
