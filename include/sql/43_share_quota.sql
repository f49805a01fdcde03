-- share_quota: who of the messages just claimed has a place of today's quotas; the others are put off to the next day, as if they
-- had not been claimed. Order: transactional (they always go, and count), priority, deadline, due time, id. A message that took a
-- place today keeps it. Its provider's quota is asked first, then the one over all.
--
-- reads   customers
-- writes  messages: sending -> scheduled (quota), quota_day; attempts: deleted; quota_use
-- params  ids uuid[], channel text, day date, next_day timestamptz, now timestamptz, rules jsonb, domains jsonb
-- re-run  safe: in the claim's transaction only; a message has one place a day
with room as (
    select r.provider, greatest(r.most - u.used, 0) as places
    from jsonb_to_recordset(:rules) as r (provider text, most bigint)
    inner join quota_use as u on r.provider = u.provider and u.channel = :channel and u.day = :day
),

claimed as (
    select
        m.message_id,
        m.kind,
        m.priority,
        m.expires_at,
        m.send_at,
        d.provider,
        m.quota_day is not distinct from cast(:day as date) as placed
    from messages as m
    inner join customers as c on m.customer_id = c.customer_id
    left join jsonb_to_recordset(:domains) as d (domain text, provider text) on split_part(c.address, '@', 2) = d.domain
    where m.message_id = any(cast(:ids as uuid [])) and m.state = 'sending'
),

own as (
    select
        c.*,
        c.placed or c.kind = 'transactional' or o.places is null
        or sum(case when c.placed then 0 else 1 end) over (
            partition by c.provider
            order by c.kind = 'marketing', c.priority, c.expires_at, c.send_at, c.message_id
        ) <= o.places as fits
    from claimed as c
    left join room as o on c.provider = o.provider
),

shared as (
    select
        o.message_id,
        o.provider,
        o.placed,
        o.fits as fits_own,
        o.fits and (
            o.placed or o.kind = 'transactional' or a.places is null
            or sum(case when o.fits and not o.placed then 1 else 0 end) over (
                order by o.kind = 'marketing', o.priority, o.expires_at, o.send_at, o.message_id
            ) <= a.places
        ) as fits
    from own as o
    left join room as a on a.provider = 'all'
),

placed as (
    update messages as m
    set quota_day = :day
    from shared as s
    where m.message_id = s.message_id and s.fits and not s.placed
    returning s.provider
),

counted as (
    update quota_use as u
    set used = u.used + n.places
    from (
        select p.provider, count(*) as places from placed as p where p.provider is not null group by p.provider
        union all
        select 'all', count(*) from placed
    ) as n
    where u.channel = :channel and u.day = :day and u.provider = n.provider
),

put_off as (
    update messages as m
    set
        state = 'scheduled',
        reason = 'quota',
        detail = coalesce(case when not s.fits_own then s.provider end, 'all'),
        attempt = m.attempt - 1,
        -- never past its life: at that moment it is looked at once more and expires with this reason
        send_at = least(cast(:next_day as timestamptz), m.expires_at)
    from shared as s
    where m.message_id = s.message_id and not s.fits
    returning m.message_id, m.attempt + 1 as attempt
),

undone as (
    delete from attempts as a
    using put_off as p
    where a.message_id = p.message_id and a.attempt = p.attempt and a.claimed_at = :now
)

select p.message_id from put_off as p
