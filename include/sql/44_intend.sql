-- intend: committed before the final dots of these messages, so that a crash after them leaves `unknown` and not a second copy.
-- Gives no row for a message whose claim is no longer ours or older than its lease (what it judged may no longer be so), that has
-- expired, for which a switch was thrown, whose person has said no meanwhile, or whose mail holds a coupon that is not its own.
--
-- reads   customers, suppressions, consents, breaks, enrolments, campaign_versions, kill_switches
-- writes  messages, attempts: handed_over_at; coupons: reserved -> bound
-- params  ids uuid[], attempts int[], hashes text[], codes text[], worker text, now timestamptz, lease interval
-- re-run  safe: the same claim intends once
with wanted as (
    select
        w.message_id,
        w.attempt,
        w.content_hash,
        w.coupon_code
    from unnest(
        cast(:ids as uuid []), cast(:attempts as int []), cast(:hashes as text []), cast(:codes as text [])
    ) as w (message_id, attempt, content_hash, coupon_code)
),

fit as materialized (
    select
        w.message_id,
        w.attempt,
        w.content_hash,
        w.coupon_code
    from wanted as w
    cross join lateral (
        -- by its key: the planner would rather ask everything below of whatever is being sent
        select
            x.message_id,
            x.customer_id,
            x.campaign_id,
            x.channel,
            x.kind,
            x.claimed_at
        from messages as x
        where x.message_id = w.message_id and x.expires_at > :now
        limit 1
    ) as m
    inner join customers as c on m.customer_id = c.customer_id
    where
        (
            -- asked once; hardly ever is there a switch
            not exists (select 1 from kill_switches as k where k.lifted_at is null)
            or stopped_by(m.campaign_id, m.channel, c.source_id, m.kind) is null
        )
        and not exists (
            select 1
            from suppressions_of_person(c.customer_id, m.channel, m.kind, :now)
            offset 0 -- for each by its keys
        )
        and (
            m.kind <> 'marketing'
            or not exists (select 1 from noes_since(m.customer_id, m.claimed_at - interval '1 minute'))
            or still_wanted(m.message_id, :now)
        )
        and (w.coupon_code is null or holds_coupon(m.message_id, w.coupon_code))
),

mine as (
    update messages as m
    set handed_over_at = :now, content_hash = w.content_hash, coupon_code = w.coupon_code
    from fit as w
    where
        m.message_id = w.message_id
        and coalesce(m.state, '') = 'sending' -- not by the index of what is open: it is long where much is unknown
        and m.claimed_by = :worker
        and m.attempt = w.attempt
        and m.handed_over_at is null
        and m.claimed_at >= cast(:now as timestamptz) - cast(:lease as interval)
    returning m.message_id, w.attempt, w.coupon_code
),

bound as (
    update coupons as k
    set state = 'bound', code = mine.coupon_code, bound_at = coalesce(k.bound_at, :now)
    from mine
    where k.message_id = mine.message_id and k.state in ('reserved', 'bound')
)

update attempts as a
set handed_over_at = :now
from mine
where a.message_id = mine.message_id and a.attempt = mine.attempt
returning cast(a.message_id as text) as message_id
