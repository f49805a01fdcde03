-- due_steps: every step of every passage under way that has no message yet, and when it falls due.
-- A step that waits for something is there once that came or its time is up; a step that a newer version of the file added is
-- not for older passages. A step that the calendar moved is there once more for what was planned before and not begun (`moved`).
--
-- reads   under_way, campaign_versions, order_lines, products, messages, ghost_messages, turns, events
-- writes  due_steps (temporary)
-- params  campaign text, steps jsonb, opens time, now timestamptz, salt text
-- re-run  safe: lives for one transaction
create temporary table due_steps on commit drop as
with steps as (
    select
        v.version,
        t.id as step_id,
        t.channels,
        t.template,
        t.variants,
        t.days,
        nullif(t.by_category, '{}') as by_category,
        t.seconds,
        coalesce(t.at, :opens) as at,
        t.expires_seconds,
        coalesce(t.office, false) as office,
        t.previous,
        t.event,
        t.otherwise,
        t.moved_since,
        make_interval(secs => t.wait_seconds::double precision) as patience
    from campaign_versions as v
    cross join jsonb_to_recordset(:steps) as t (
        id text, channels text [], template text, variants jsonb, days int, by_category jsonb, seconds numeric, at time, expires_seconds numeric,
        office boolean, previous text [], event text, wait_seconds numeric, otherwise text, moved_since timestamptz
    )
    where v.campaign_id = :campaign and v.definition -> 'steps' @> jsonb_build_array(jsonb_build_object('id', t.id))
),

missing as materialized (
    select u.*, t.step_id, false as moved
    from under_way as u
    inner join steps as t on u.version = t.version
    where
        not exists (
            select 1 from messages as m where m.enrolment_id = u.enrolment_id and m.step_id = t.step_id
        )
        and not exists (
            select 1 from ghost_messages as g where g.enrolment_id = u.enrolment_id and g.step_id = t.step_id
        )
    union all
    select u.*, t.step_id, true
    from steps as t
    inner join under_way as u on t.version = u.version
    inner join messages as m on u.enrolment_id = m.enrolment_id and t.step_id = m.step_id
    where
        t.moved_since is not null
        -- by its key, and not by the index of states: what all campaigns planned tonight is in there, and the planner does not know of it yet
        and coalesce(m.state, '') in ('scheduled', 'held')
        and m.lost_answers = 0
        and m.planned_at < t.moved_since
    union all
    select u.*, t.step_id, true
    from steps as t
    inner join under_way as u on t.version = u.version
    inner join ghost_messages as g on u.enrolment_id = g.enrolment_id and t.step_id = g.step_id
    where t.moved_since is not null and coalesce(g.state, '') = 'scheduled' and g.planned_at < t.moved_since
),

wanted as (
    select
        n.*,
        main.category,
        t.channels,
        t.template,
        t.variants,
        t.days,
        t.by_category,
        t.seconds,
        t.at,
        t.expires_seconds,
        t.office,
        t.previous,
        t.event,
        t.otherwise,
        t.patience
    from missing as n
    inner join steps as t on n.version = t.version and n.step_id = t.step_id
    left join lateral (
        -- the main item of an order is its dearest line; looked up only where a step asks for it. As a set of its own it would be
        -- joined row by row with all others: nobody knows beforehand how many there are
        select p.category
        from order_lines as l
        inner join products as p on l.sku = p.sku and p.source_id = n.source_id
        where t.by_category is not null and l.order_id = n.order_id and l.counted
        order by l.quantity * l.unit_price desc, l.line_key
        limit 1
    ) as main on true
),

-- from when a step counts: the anchor, or what it waits for; no row yet for what must still be waited for
started as (
    select
        n.*,
        case
            when n.event is null then n.anchor_at
            when p.told_at is null then p.over_at
            else least(e.came_at, p.told_at + n.patience)
        end as start_at,
        case
            when n.event is null then null
            when p.told_at is null then 'previous_not_sent'
            when (e.came_at is null or e.came_at > p.told_at + n.patience) and n.otherwise = 'skip' then 'event_did_not_come'
        end as given_up
    from wanted as n
    cross join lateral (
        select
            max(m.handed_over_at) filter (where m.state in ('sent', 'unknown')) as told_at,
            max(m.finalized_at) as over_at,
            count(*) filter (where m.finalized_at is not null) as over
        from turns as m
        where n.event is not null and m.enrolment_id = n.enrolment_id and m.step_id = any(n.previous)
    ) as p
    cross join lateral (
        -- a condition of the join would be looked at after the call
        select
            case
                when p.told_at is not null then first_event(n.event, n.enrolment_id, n.customer_id, n.order_id, p.told_at, :now)
            end as came_at
    ) as e
    where
        n.event is null
        or (p.told_at is null and p.over = cardinality(n.previous))
        or e.came_at <= p.told_at + n.patience
        or p.told_at + n.patience <= cast(:now as timestamptz)
)

select
    s.enrolment_id,
    s.arm,
    s.customer_id,
    s.step_id,
    s.zone,
    s.country,
    s.start_at,
    s.given_up,
    s.channels,
    s.template,
    s.variants,
    s.expires_seconds,
    s.office,
    s.moved,
    -- either an instant, or a wall time in the recipient's zone
    case when s.days is null then s.start_at + make_interval(secs => s.seconds::double precision) end as exact_at,
    cast(s.start_at at time zone s.zone as date)
    + coalesce(cast(s.by_category ->> s.category as int), s.days)
    + s.at as wall,
    case when s.variants <> '[]' then variant_of(:campaign, s.step_id, s.customer_id, :salt, s.variants) end as variant
from started as s
