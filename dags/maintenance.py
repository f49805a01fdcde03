"""# maintenance: the house kept in order

Frees the claims of workers that died, closes enrolments that are over, and removes Data Docs, reports and rows that have done
their work (`docs/upkeep.md` says which, and for how long they are kept): `recover → maintain → watch_coupons`. Beside it `recommend`
counts what is bought together, only where new orders touched it (docs/recommendations.md). Nothing that explains a message, a refusal,
a consent or a suppression is removed here.

**When** daily at 03:30 UTC, one run at a time.

**When it is red**
- `watch_coupons`: a coupon pool runs low (stock or budget), or messages wait for a code; the log names the pool, what is left and what to
  do. Import codes or raise the budget, then clear the task.
- The others: the log names the reason. Nothing waits for this DAG: mend it during the day and clear the task.

**Running it again is safe**: what is in order stays as it is.
"""

from airflow.sdk import dag

from postlude.orchestration import EVERY_DAG, stage, wall_clock


@dag(schedule="30 3 * * *", doc_md=__doc__, tags=["postlude", "upkeep"], **EVERY_DAG)
def maintenance():
    @stage
    def recover(run):
        from postlude import pipeline

        return pipeline.recover(wall_clock(), run.run_id)

    @stage
    def maintain(run):
        from postlude import pipeline

        return pipeline.maintain(**run.stamp)

    @stage
    def watch_coupons(run):
        from postlude import pipeline

        return pipeline.watch_coupons(**run.stamp)

    @stage
    def recommend(run):
        from postlude import pipeline

        return pipeline.recommend(**run.stamp)

    recover() >> maintain() >> watch_coupons()
    recommend()


maintenance()
