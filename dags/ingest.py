"""# ingest: orders in

Reads every source in `include/sources/` (one mapped group per file), checks what came, and merges it into the tables:
`extract → check_orders → load`. When all sources are through it emits the asset `orders` for the business date, which
starts `segment`.

**When** daily at 05:00 UTC, partitioned by business date. By hand at any time.

**Parameters**
- `as_of`: run as of this instant; what is delivered is loaded whole, and every stage after it sees only what was true then.
  Empty: now.
- `source`: one source only, by the name of its file, scheduled or not; empty: all scheduled ones that have something to deliver.

**When it is red**
- `extract`: the log names file and line. Mend or redeliver the file, then clear the task. A shop that does not answer is
  asked again by itself; one that refuses its connection is named: renew the secret (docs/sources.md), then clear the task.
- `check_orders`: the data failed the gate; the log names the expectation and the counts, Data Docs shows the rest.
  Nothing was loaded from this source. Get a corrected delivery, then clear the group.
- `load`: too many rows were refused (see the table `quarantine`). As above.
- `announce` is `upstream_failed` as long as any source is red: no campaign sees half a day. The other sources are
  loaded.

**Running it again is safe.** A file or row delivered twice counts once. A backfill loads history; what it starts
downstream knows that it is a backfill and sends nothing. Runs that overlap (a backfill starts several) do not take each
other's rows: whichever read a source last checks and loads all of it, and the `load` of the others waits for that
(`taken_over`). A run without a partition key (UI, API) takes the UTC date of its instant.
"""

from airflow.sdk import CronPartitionTimetable, Param, dag, task_group

from postlude.orchestration import AS_OF, EVERY_DAG, ORDERS, stage, total

SOURCE = Param(None, type=["null", "string"], title="One source only", description="Name of a file in include/sources.")


@dag(
    schedule=CronPartitionTimetable("0 5 * * *", timezone="UTC", key_format="%Y-%m-%d"),
    doc_md=__doc__,
    tags=["postlude", "data"],
    params={"as_of": AS_OF, "source": SOURCE},
    **EVERY_DAG,
)
def ingest():
    @stage
    def list_sources(run):
        from postlude import pipeline

        return pipeline.list_sources(run.params["source"])

    @task_group
    def shop(source):
        @stage(map_index_template="{{ task.op_kwargs.source.rpartition('/')[2] }}")
        def extract(run, source):
            from postlude import pipeline

            return pipeline.extract(source, **run.stamp)

        @stage(map_index_template="{{ task.op_kwargs.source.rpartition('/')[2] }}")
        def check_orders(run, source):
            from postlude import pipeline

            return pipeline.check("orders", source, run.now, run.run_id)

        @stage(map_index_template="{{ task.op_kwargs.source.rpartition('/')[2] }}")
        def load(run, source):
            from postlude import pipeline

            return pipeline.load(source, **run.stamp)

        loaded = load(source=source)
        extract(source=source) >> check_orders(source=source) >> loaded
        return loaded

    @stage(outlets=[ORDERS])
    def announce(run, loaded):
        return total(loaded)

    announce(shop.expand(source=list_sources()))


ingest()
