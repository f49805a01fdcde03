"""# transactional: what people wait for

Order confirmations, parcels, delays, returns, refunds, bills: every campaign of kind `transactional` that is on. One task,
`tell`: asks the shops marked `live` for what is new (through the same gates as `ingest`), plans those campaigns, and hands
over what they planned, before any newsletter.

**When** every 5 minutes, one run at a time, on its own clock. So a shop that is asked live has its mail out 5 minutes after
the order at the latest, plus the run itself (some ten seconds); orders that come with the daily delivery of files have it
within 5 minutes of that delivery, however old they are by then. What is older than a campaign's `max_age` starts nothing.

**When it is red**
- The log names each shop or campaign that could not go on; all others have. What a person must mend (a campaign file, a
  template, a connection) waits for that; `deliver` sends what was planned meanwhile. Nothing is lost before `max_age`.
- It is skipped: the run is a backfill or too old (`POSTLUDE_MAX_LAG`). Nothing to do.

**Running it again is safe**, also beside `deliver` and `ingest`: planning twice plans once, and a message is claimed by one
worker.
"""

from airflow.sdk import dag

from postlude.orchestration import EVERY_DAG, guard_lag, stage, wall_clock
from postlude.settings import settings


@dag(schedule="*/5 * * * *", doc_md=__doc__, tags=["postlude", "sending"], **EVERY_DAG)
def transactional():
    @stage
    def tell(run):
        from postlude import transactional

        guard_lag(run, wall_clock(), settings().max_lag)
        return transactional.tell(wall_clock, run.worker, **run.stamp)

    tell()


transactional()
