"""# deliver: due messages out

Hands over every message that is due, after reading consent, suppressions, exits, expiry, caps and calendar once more:
`guard → recover → deliver_shard` (mapped). It obeys the real time, never the time of its run.

**When** every 5 minutes, one run at a time, on its own clock: what is due is found by its state, so a missed run
loses nobody.

**Parameters**
- `shards`: how many workers send side by side; they never take the same message.

**When it is red**
- `guard` is skipped: the run is a backfill or too old (`POSTLUDE_MAX_LAG`); the next run sends what is still true.
  Nothing to do.
- `recover`: the database did not answer; clear it, or wait for the next run.
- `deliver_shard`: the mail server or the database stayed away through all tries, or the server refused us (log in,
  sender address): the log says which. Nothing is lost; messages wait, and expire when they are no longer true.
- Messages in state `unknown` were handed over without an answer: marketing is never sent again by itself. `postlude
  status` counts them, the report lists them.

**Running it again is safe**, also twice at once: a message is claimed by one worker, and a sent one is never due
again.
"""

from datetime import timedelta

from airflow.sdk import Param, dag

from postlude.orchestration import EVERY_DAG, guard_lag, stage, wall_clock
from postlude.settings import settings

SHARDS = Param(2, type="integer", minimum=1, maximum=16, title="Workers side by side")


@dag(
    schedule="*/5 * * * *",
    doc_md=__doc__,
    tags=["postlude", "sending"],
    params={"shards": SHARDS},
    **EVERY_DAG,
)
def deliver():
    @stage
    def guard(run):
        guard_lag(run, wall_clock(), settings().max_lag)
        return list(range(run.params["shards"]))

    @stage
    def recover(run):
        from postlude import pipeline

        return pipeline.recover(wall_clock(), run.run_id)

    @stage(execution_timeout=timedelta(hours=12))
    def deliver_shard(run, shard):
        from postlude import pipeline

        return pipeline.deliver(
            wall_clock, run.worker, run.run_id, run.origin, shard=shard, shards=run.params["shards"]
        )

    shards = guard()
    shards >> recover() >> deliver_shard.expand(shard=shards)


deliver()
