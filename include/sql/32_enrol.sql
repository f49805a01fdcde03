-- enrol: everybody nothing speaks against starts the campaign, once per anchor; the holdout is enrolled and left alone.
-- A run over the past (history_before is set) enrols only passages that are entirely history.
--
-- reads   judged, holdouts
-- writes  enrolments
-- params  campaign text, version text, groups text[], now timestamptz, run_id text, timeline interval,
--         history_before timestamptz
-- re-run  safe: the id is made from campaign, customer and anchor
insert into enrolments (
    enrolment_id, campaign_id, version, customer_id, order_id, anchor_key, anchor_at, watch_from, arm, enrolled_at, run_id
)
select distinct on (j.customer_id, j.anchor_key)
    uuid_of('enrolment', :campaign, j.customer_id::text, j.anchor_key),
    :campaign,
    :version,
    j.customer_id,
    j.order_id,
    j.anchor_key,
    j.anchor_at,
    j.watch_from,
    case
        when exists (
            select 1 from holdouts as h
            where h.customer_id = j.customer_id and h.campaign_id = any(cast(:groups as text [])) and h.held
        ) then 'holdout'
        else 'treated'
    end,
    :now,
    :run_id
from judged as j
where
    j.reason is null
    and (
        cast(:history_before as timestamptz) is null
        or j.anchor_at + cast(:timeline as interval) < cast(:history_before as timestamptz)
    )
order by j.customer_id, j.anchor_key, j.anchor_at
on conflict do nothing
returning arm
