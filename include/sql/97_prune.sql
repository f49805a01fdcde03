-- prune: what has done its work goes, so that daily rows do not pile up for ever. Nothing that explains a message, a refusal or a consent.
--
-- reads, writes  banners, webhook_tokens, event_inbox, quarantine, quota_use, runs, gate_results: old rows deleted
-- params         now timestamptz, banners_for interval, reports_for interval, records_for interval
-- re-run         safe: what is gone is gone
with banners_ended as (
    delete from banners where shown_until < cast(:now as timestamptz) - cast(:banners_for as interval) returning 1
),

-- a signature is believed for ten minutes; after a day its token can do nothing
tokens as (
    delete from webhook_tokens where seen_at < cast(:now as timestamptz) - interval '1 day' returning 1
),

-- reports that became events, and those that could not be read; they hold addresses. No provider tells anything again so late
reports as (
    delete from event_inbox
    where taken_at < cast(:now as timestamptz) - cast(:reports_for as interval)
    returning 1
),

corrected as (
    delete from quarantine
    where released_at < cast(:now as timestamptz) - cast(:reports_for as interval)
    returning 1
),

quota_days as (
    delete from quota_use where day < cast(cast(:now as timestamptz) - cast(:records_for as interval) as date) returning 1
),

-- the newest good run of each stage says where to go on, however long ago it was
old_runs as (
    delete from runs as r
    where
        r.finished_at < cast(:now as timestamptz) - cast(:records_for as interval)
        and r.run_id not in (
            select distinct on (k.stage, k.subject) k.run_id
            from runs as k
            where k.outcome = 'done'
            order by k.stage, k.subject, k.as_of desc, k.run_id
        )
        -- the last regular one: a backfill of an old day says nothing about it
        and r.run_id not in (
            select distinct on (k.stage, k.subject) k.run_id
            from runs as k
            where k.outcome = 'done' and k.origin <> 'backfill'
            order by k.stage, k.subject, k.as_of desc, k.run_id
        )
    returning 1
),

-- the newest verdict of each gate, and the newest good one that the next is compared with, stay
verdicts as (
    delete from gate_results as r
    where
        r.checked_at < cast(:now as timestamptz) - cast(:records_for as interval)
        and r.gate_result_id not in (
            select distinct on (k.gate, k.subject, k.success) k.gate_result_id
            from gate_results as k
            order by k.gate, k.subject, k.success, k.checked_at desc, k.gate_result_id desc
        )
    returning 1
)

select
    (select count(*) from banners_ended) as banners_pruned,
    (select count(*) from tokens) as tokens_pruned,
    (select count(*) from reports) as reports_pruned,
    (select count(*) from corrected) as corrected_rows_pruned,
    (select count(*) from quota_days) as quota_days_pruned,
    (select count(*) from old_runs) as runs_pruned,
    (select count(*) from verdicts) as verdicts_pruned
