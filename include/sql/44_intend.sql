-- intend: committed before the final dot, so that a crash after it leaves `unknown` and not a second copy.
-- Gives no row when the claim is no longer ours or older than its lease (what it judged may no longer be so), the message has
-- expired, a switch was thrown, the person has said no meanwhile, or the coupon in the mail is not this message's.
--
-- reads   customers, suppressions, consents, breaks, enrolments, campaign_versions, kill_switches
-- writes  messages, attempts: handed_over_at; coupons: reserved -> bound
-- params  message_id uuid, worker text, attempt int, now timestamptz, lease interval, content_hash text, coupon_code text
-- re-run  safe: the same claim intends once
with mine as (
    update messages as m
    set handed_over_at = :now, content_hash = :content_hash, coupon_code = :coupon_code
    from customers as c
    where
        m.message_id = :message_id
        and m.state = 'sending'
        and m.claimed_by = :worker
        and m.attempt = :attempt
        and m.handed_over_at is null
        and m.claimed_at >= cast(:now as timestamptz) - cast(:lease as interval)
        and m.expires_at > :now
        and m.customer_id = c.customer_id
        and suppression_of_person(c.customer_id, m.channel, m.kind, :now) is null
        and (
            m.kind <> 'marketing'
            or not said_no_since(m.customer_id, m.claimed_at - interval '1 minute')
            or still_wanted(m.message_id, :now)
        )
        and stopped_by(m.campaign_id, m.channel, c.source_id, m.kind) is null
        and (cast(:coupon_code as text) is null or holds_coupon(m.message_id, :coupon_code))
    returning m.message_id
),

bound as (
    update coupons as k
    set state = 'bound', code = :coupon_code, bound_at = coalesce(k.bound_at, :now)
    from mine
    where k.message_id = mine.message_id and k.state in ('reserved', 'bound')
)

update attempts as a
set handed_over_at = :now
from mine
where a.message_id = mine.message_id and a.attempt = :attempt
returning a.message_id
