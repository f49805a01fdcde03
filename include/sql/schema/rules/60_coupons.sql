-- Coupons: room, stock, codes. Replaced by every `postlude init`.
-- All are "as of now_": a fact counts when it happened before that instant.

set search_path = postlude;

create or replace function postlude.holds_coupon(message uuid, code_ text) returns boolean
language sql stable parallel safe as $$
    -- a generated code is not known before hand-over: then the reservation alone counts
    select exists (
        select from postlude.coupons as k
        where k.message_id = message and k.state in ('reserved', 'bound') and coalesce(k.code, code_) = code_
    )
$$;
comment on function postlude.holds_coupon is 'May this message carry this code? (44_intend asks before anything leaves.)';

create or replace function postlude.coupon_lacking(message uuid, definition jsonb, step text) returns boolean
language sql stable parallel safe as $$
    select
        exists (
            select from jsonb_array_elements(definition -> 'steps') as s where s ->> 'id' = step and jsonb_typeof(s -> 'coupon') = 'object'
        )
        and not exists (select from postlude.coupons as k where k.message_id = message and k.state in ('reserved', 'bound'))
$$;
comment on function postlude.coupon_lacking is 'Does the step promise a coupon that this message does not hold?';

create or replace function postlude.may_promote(definition jsonb, own jsonb, passage uuid, customer bigint, now_ timestamptz) returns boolean
language sql stable parallel safe as $$
    select postlude.unreachable(customer, coalesce(own ->> 'channel', definition ->> 'channel'), 'marketing', definition ->> 'topic', now_) is null
        and postlude.stop_fact('["return_open", "ticket_open", "recovery_open"]', customer, now_) is null
        and postlude.break_until(customer, now_) is null
        and not exists (select from postlude.holdouts as h where h.customer_id = customer and h.campaign_id = '' and h.held)
        -- a promised coupon that is not there must not keep the plain letter back
        and not postlude.coupon_lacking(postlude.uuid_of('message', passage::text, own ->> 'id'), definition, own ->> 'id')
$$;
comment on function postlude.may_promote is 'May a letter that promotes go to this customer, although its campaign is transactional? As for marketing: consent, nothing open, not left alone on purpose.';

create or replace function postlude.coupon_room(pool_ text, now_ timestamptz) returns bigint
language sql stable as $$
    -- what the budget leaves; counted under the lock on the pool, so two planners cannot both see the last one
    select least(
        p.most_codes::bigint - given.codes,
        floor(p.most_value / p.worth)::bigint - given.codes
    )
    from postlude.coupon_pools as p
    cross join lateral (
        select count(*) as codes from postlude.coupons as k
        where k.pool = p.pool and k.state in ('reserved', 'bound') and (p.most_codes is not null or p.most_value is not null)
          and (p.per = 'ever' or k.reserved_at >= date_trunc(p.per, now_, 'UTC'))
    ) as given
    where p.pool = pool_
$$;
comment on function postlude.coupon_room is 'How many more codes the pool''s budget allows in the present period; null: no budget.';

create or replace function postlude.coupons_wanted(campaign text, ids uuid[], now_ timestamptz)
returns table (message_id uuid, pool text, send_at timestamptz, expires_at timestamptz)
language sql stable as $$
    with offers as materialized (
        select v.campaign_id, v.version, s ->> 'id' as step_id, s -> 'coupon' ->> 'pool' as pool
        from postlude.campaign_versions as v, jsonb_array_elements(v.definition -> 'steps') as s
        where jsonb_typeof(s -> 'coupon') = 'object'
          -- not every version there ever was
          and (ids is null or (v.campaign_id, v.version) in (
              select x.campaign_id, x.version from postlude.messages as w join postlude.enrolments as x on x.enrolment_id = w.enrolment_id
              where w.message_id = any(ids)))
    )
    select m.message_id, o.pool, m.send_at, m.expires_at
    from (
        -- apart, so that either is found by its index
        select a.* from postlude.messages as a
        where ids is not null and a.message_id = any(ids) and coalesce(a.state, '') in ('scheduled', 'held')
        union all
        select b.* from postlude.messages as b
        where ids is null and b.state in ('scheduled', 'held') and (campaign is null or b.campaign_id = campaign)
    ) as m
    join postlude.enrolments as e on e.enrolment_id = m.enrolment_id
    join offers as o on o.campaign_id = e.campaign_id and o.version = e.version and o.step_id = m.step_id
    where (campaign is null or m.campaign_id = campaign)
      and not exists (
          select from postlude.coupons as k
          where k.message_id = m.message_id and k.state in ('reserved', 'bound')
            and (k.state = 'bound' or k.valid_until is null or k.valid_until >= now_)
      )
$$;
comment on function postlude.coupons_wanted is 'Waiting messages of coupon steps that hold no code, or one that has run out.';

create or replace function postlude.reserve_coupons(campaign text, ids uuid[], now_ timestamptz)
returns table (pool text, wanted bigint, reserved bigint)
language plpgsql as $$
#variable_conflict use_column
-- Either for some messages (locked by the caller), or for all of a campaign that still may go. Each statement in here has a
-- snapshot of its own, so what is counted after the lock on the pool is true. Messages another worker has locked are left to it:
-- that worker reserves for them itself, and nobody waits in a circle.
declare
    p record;
    room bigint;
begin
    for p in
        select w.pool, count(*) as wanted from postlude.coupons_wanted(campaign, ids, now_) as w group by w.pool order by w.pool
    loop
        insert into postlude.coupon_pools as n (pool, kind) values (p.pool, 'generated') on conflict do nothing;
        perform from postlude.coupon_pools as c where c.pool = p.pool for update;
        update postlude.coupons as k set state = 'void', message_id = null, ended_at = now_
        where k.pool = p.pool and k.state in ('free', 'reserved') and k.valid_until < now_;
        room := greatest(coalesce(postlude.coupon_room(p.pool, now_), p.wanted), 0);
        pool := p.pool;
        wanted := p.wanted;
        if (select c.kind from postlude.coupon_pools as c where c.pool = p.pool) = 'generated' then
            with takers as (
                select m.message_id
                from postlude.coupons_wanted(campaign, ids, now_) as w join postlude.messages as m on m.message_id = w.message_id
                where w.pool = p.pool
                order by w.send_at, w.message_id
                limit room
                for key share of m skip locked
            )
            insert into postlude.coupons (pool, message_id, state, created_at, reserved_at)
            select p.pool, t.message_id, 'reserved', now_, now_ from takers as t;
        else
            with takers as (
                select m.message_id, w.send_at, w.expires_at
                from postlude.coupons_wanted(campaign, ids, now_) as w join postlude.messages as m on m.message_id = w.message_id
                where w.pool = p.pool
                order by w.send_at, w.message_id
                limit room
                for key share of m skip locked
            ),

            -- whenever the mail goes, its code lives least_days more
            horizon as (
                select max(t.expires_at) + make_interval(days => c.least_days) as live_until
                from takers as t, postlude.coupon_pools as c where c.pool = p.pool group by c.least_days
            ),

            stock as (
                select k.coupon_id, k.valid_until
                from postlude.coupons as k
                where k.pool = p.pool and k.state = 'free'
                  and (k.valid_until is null or k.valid_until >= (select h.live_until from horizon as h))
                order by k.valid_until, k.coupon_id
                limit (select count(*) from takers)
                for update skip locked
            ),

            pairs as (
                select t.message_id, s.coupon_id
                from (select message_id, row_number() over (order by send_at, message_id) as n from takers) as t
                join (select coupon_id, row_number() over (order by valid_until, coupon_id) as n from stock) as s using (n)
            )

            update postlude.coupons as k set state = 'reserved', message_id = x.message_id, reserved_at = now_
            from pairs as x where k.coupon_id = x.coupon_id;
        end if;
        get diagnostics reserved = row_count;
        return next;
    end loop;
end
$$;
comment on function postlude.reserve_coupons is
    'Gives every waiting message of a coupon step a code, as far as stock and budget go: per pool how many wanted one and how many got one.';
