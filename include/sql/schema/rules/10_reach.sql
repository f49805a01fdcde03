-- Who can be reached, and what ends a passage. Replaced by every `postlude init`.
-- All are "as of now_": a fact counts when it happened before that instant.

set search_path = postlude;

create or replace function uuid_of(variadic parts text[]) returns uuid
language plpgsql immutable strict parallel safe as $$
-- RFC 9562 version 8 over SHA-256 of the parts joined by U+001F: the same facts always give the same id
declare
    h bytea := substring(sha256(convert_to('postlude' || chr(31) || array_to_string(parts, chr(31)), 'UTF8')) for 16);
begin
    return encode(set_byte(set_byte(h, 6, (get_byte(h, 6) & 15) | 128), 8, (get_byte(h, 8) & 63) | 128), 'hex')::uuid;
end
$$;
comment on function uuid_of is 'Deterministic id of a business fact. The Python twin is postlude.message.uuid_of.';

create or replace function local_instant(wall timestamp, zone text) returns timestamptz
language plpgsql stable strict parallel safe as $$
-- a wall time in a gap moves forward by the gap; one that exists twice is taken once, the first
declare
    found timestamptz := wall at time zone zone;
    twin timestamptz;
begin
    -- no change of clocks in the two hours before (nearly always): there is no earlier twin
    if (found - interval '2 hours') at time zone zone = wall - interval '2 hours' then
        return found;
    end if;
    foreach twin in array array[found - interval '2 hours', found - interval '1 hour', found - interval '30 minutes'] loop
        if twin at time zone zone = wall then
            return twin;
        end if;
    end loop;
    return found;
end
$$;
comment on function local_instant is 'The instant at which the clocks of `zone` first show `wall`. The Python twin is postlude.timing.local_instant.';

create or replace function next_opening(
    at_ timestamptz, zone text, opens time, closes time, weekdays int[], blackouts date[]
) returns timestamptz
language plpgsql stable strict parallel safe as $$
-- the earliest instant from at_ on that lies in the send window on a permitted local day; null when 90 days have none
declare
    local_day date := (at_ at time zone zone)::date;
    opening timestamptz;
begin
    for ahead in 0..90 loop
        if extract(isodow from local_day + ahead)::int = any(weekdays) and not (local_day + ahead = any(blackouts)) then
            opening := greatest(at_, local_instant(local_day + ahead + opens, zone));
            if opening < local_instant(local_day + ahead + closes, zone) then
                return opening;
            end if;
        end if;
    end loop;
    return null;
end
$$;
comment on function next_opening is 'Earliest permitted instant for a message in the recipient''s zone (ISO weekdays 1 to 7).';

create or replace function ordered_since(customer bigint, since timestamptz, now_ timestamptz) returns boolean
language sql stable parallel safe as $$
    select exists (
        select from orders as o
        where o.customer_id = customer and o.counted_at > since and o.counted_at < now_
          and (o.cancelled_at is null or o.cancelled_at > now_)
    )
$$;
comment on function ordered_since is 'Has the customer a counted order after `since`, known as of now_?';

create or replace function deliveries_of(order_ bigint, now_ timestamptz) returns table (delivered_at timestamptz)
language sql stable parallel safe as $$
    -- the last parcel decides; one parcel on its way means: not delivered yet. One row; in a lateral join it is written into the
    -- statement that calls it
    select case when count(*) = count(s.delivered_at) filter (where s.delivered_at < now_) then max(s.delivered_at) end
    from postlude.shipments as s where s.order_id = order_
$$;
comment on function deliveries_of is 'delivered_at for many orders, as a row.';

create or replace function told_terms(terms jsonb)
returns table (country text, law text, purchase_for interval, inquiry_for interval, notice_every interval)
language sql stable parallel safe as $$
    select
        t.country, t.law, make_interval(months => t.purchase), make_interval(months => t.inquiry), make_interval(months => t.notice)
    from jsonb_to_recordset(terms) as t (country text, law text, purchase int, inquiry int, notice int)
$$;
comment on function told_terms is 'What include/legal.yml says of how long consents last, as rows of consent_terms.';

create or replace function tells_deliveries(source text, now_ timestamptz) returns boolean
language sql stable parallel safe as $$
    -- the oldest of its orders of a year first: mostly that one has arrived, and the looking ends
    select coalesce((
        select true
        from postlude.orders as o join postlude.shipments as s on s.order_id = o.order_id
        where o.source_id = source and o.placed_at > now_ - interval '1 year' and s.delivered_at < now_
        order by o.placed_at
        limit 1
    ), false)
$$;
comment on function tells_deliveries is 'Has the source told that any order of the last year arrived? Of one that tells none, none is late.';

create or replace function delivered_at(order_ bigint, now_ timestamptz) returns timestamptz
language sql stable parallel safe as $$
    select x.delivered_at from postlude.deliveries_of(order_, now_) as x
$$;
comment on function delivered_at is 'When the last parcel of the order was delivered; null while one is on its way.';

create or replace function consented(customer bigint, channel_ text, topic_ text, now_ timestamptz) returns boolean
language sql stable parallel safe as $$
    -- no row is no consent: unknown is never true
    select coalesce((
        select c.granted from consents as c
        where c.customer_id = customer and c.channel = channel_ and c.topic = topic_ and c.at <= now_
        order by c.at desc, c.granted limit 1
    ), false)
$$;
comment on function consented is 'What the newest consent up to now_ says; a grant and a withdrawal at the same instant count as withdrawn.';

create or replace function suppression_of(address_ text, kind_ text, now_ timestamptz) returns text
language sql stable parallel safe as $$
    select s.reason from suppressions as s
    where s.address = address_ and (s.lifted_at is null or s.lifted_at > now_) and (s.scope = 'all' or kind_ = 'marketing')
    order by s.since limit 1
$$;
comment on function suppression_of is 'Why not to write to this address; null: nothing against it. Obeyed from the moment it is known, whatever now_ says.';

create or replace function address_on(channel_ text, address_ text, phone_ text) returns text
language sql immutable parallel safe as $$
    select case channel_ when 'email' then address_ when 'sms' then phone_ end
$$;
comment on function address_on is 'What a channel writes to, as suppressions name it; null: a channel without addresses (banner, webhook), or none known.';

create or replace function suppresses(suppressed text, reason text, channel_ text, address_ text, phone_ text) returns boolean
language sql immutable parallel safe as $$
    -- what was said about one address speaks of its channel; who complained, was erased or taken out by hand is left alone everywhere
    select coalesce(suppressed = case channel_ when 'email' then address_ when 'sms' then phone_ end, false)
        or reason in ('complained', 'erased', 'manual')
$$;
comment on function suppresses is 'Does a suppression of one of a person''s addresses hold on this channel?';

create or replace function suppressions_of_person(customer bigint, channel_ text, kind_ text, now_ timestamptz) returns table (reason text, since timestamptz)
language sql stable parallel safe as $$
    -- a no is the person's, whatever address it was said under; a dead address says nothing about another one.
    -- Written into the statement that calls it
    select s.reason, s.since from postlude.customers as c join postlude.suppressions as s on s.address = any(array[c.address, c.phone])
    where c.customer_id = customer
      and postlude.suppresses(s.address, s.reason, channel_, c.address, c.phone)
      and (s.lifted_at is null or s.lifted_at > now_) and (s.scope = 'all' or kind_ = 'marketing')
    union all
    select s.reason, s.since from postlude.customers as c join postlude.suppressions as s on s.address = any(array[c.address, c.phone])
    where c.merged_into = customer and s.reason <> 'hard_bounce'
      and postlude.suppresses(s.address, s.reason, channel_, c.address, c.phone)
      and (s.lifted_at is null or s.lifted_at > now_) and (s.scope = 'all' or kind_ = 'marketing')
$$;
comment on function suppressions_of_person is 'Every reason not to write to this person on this channel, under all addresses that belong to them.';

drop function if exists suppression_of_person(bigint, text, timestamptz);
create or replace function suppression_of_person(customer bigint, channel_ text, kind_ text, now_ timestamptz) returns text
language sql stable parallel safe as $$
    select s.reason from postlude.suppressions_of_person(customer, channel_, kind_, now_) as s order by s.since limit 1
$$;
comment on function suppression_of_person is 'Why not to write to this person on this channel, under all addresses that belong to them; null: nothing against it.';

create or replace function consent_ended(customer bigint, country_ text, channel_ text, topic_ text, now_ timestamptz) returns text
language sql stable parallel safe as $$
    -- a purchase renews what it implies, also the consent that an inquiry implied; who agreed in so many words is only to be told of it
    select case
        when said.basis in ('soft_opt_in', 'inquiry') and now_ >= greatest(
            said.at + case said.basis when 'soft_opt_in' then t.purchase_for else t.inquiry_for end,
            (
                select max(o.counted_at) from postlude.orders as o
                where o.customer_id = customer and o.counted_at <= now_ and (o.cancelled_at is null or o.cancelled_at > now_)
            ) + t.purchase_for
        ) then 'consent_aged'
        when now_ >= greatest(
            said.at,
            (
                select max(n.told_at) from postlude.consent_notices as n
                where n.customer_id = customer and n.channel = channel_ and n.told_at <= now_
            )
        ) + t.notice_every then 'consent_notice_due'
    end
    from postlude.country_names as c
    join postlude.consent_terms as t on c.country = t.country
    cross join lateral (
        select k.at, k.basis from postlude.consents as k
        where k.customer_id = customer and k.channel = channel_ and k.topic = topic_ and k.at <= now_
        order by k.at desc, k.granted limit 1
    ) as said
    where c.name = lower(btrim(country_))
$$;
comment on function consent_ended is 'Why a consent that was given is no longer enough in the person''s country (consent_aged, consent_notice_due); null: it is.';

create or replace function reachability(channel_ text, kind_ text, topic_ text, now_ timestamptz) returns table (customer_id bigint, reason text)
language sql stable parallel safe as $$
    -- written into the statement that calls it: no call per customer
    select c.customer_id, case
        when c.marketplace then 'marketplace'
        when channel_ = 'email' and (c.address is null or c.address !~ '^[^@\s]+@[^@\s]+$') then 'no_address'
        when channel_ = 'sms' and c.phone is null then 'no_address'
        else coalesce(
            (
                select s.reason from postlude.suppressions as s
                where s.address = any(array[c.address, c.phone])
                  and postlude.suppresses(s.address, s.reason, channel_, c.address, c.phone)
                  and (s.lifted_at is null or s.lifted_at > now_) and (s.scope = 'all' or kind_ = 'marketing')
                order by s.since limit 1
            ),
            (
                select s.reason from postlude.customers as x join postlude.suppressions as s on s.address = any(array[x.address, x.phone])
                where x.merged_into = c.customer_id and s.reason <> 'hard_bounce'
                  and postlude.suppresses(s.address, s.reason, channel_, x.address, x.phone)
                  and (s.lifted_at is null or s.lifted_at > now_) and (s.scope = 'all' or kind_ = 'marketing')
                order by s.since limit 1
            ),
            case
                when kind_ = 'marketing' and not coalesce((
                    select k.granted from postlude.consents as k
                    where k.customer_id = c.customer_id and k.channel = channel_ and k.topic = topic_ and k.at <= now_
                    order by k.at desc, k.granted limit 1
                ), false) then 'no_consent'
                when kind_ = 'marketing' and lower(btrim(c.country)) = any(array(
                    select n.name from postlude.country_names as n join postlude.consent_terms as t on n.country = t.country
                )) then postlude.consent_ended(c.customer_id, c.country, channel_, topic_, now_)
            end)
    end
    from postlude.customers as c
$$;
comment on function reachability is 'For every customer why they must not be written to at all; null: may be. For planning; the rules of suppression_of and consented.';

create or replace function unreachable(customer bigint, channel_ text, kind_ text, topic_ text, now_ timestamptz) returns text
language sql stable parallel safe as $$
    select r.reason from postlude.reachability(channel_, kind_, topic_, now_) as r where r.customer_id = customer
$$;
comment on function unreachable is 'Why this person must not be written to at all (marketplace, no_address, a suppression, no_consent); null: may be.';

create or replace function channels_of(definition jsonb) returns text[]
language sql immutable parallel safe as $$
    -- versions written before there were several channels have only the one
    select case
        when jsonb_typeof(definition -> 'every_channel') = 'array'
            then array(select jsonb_array_elements_text(definition -> 'every_channel'))
        else array[coalesce(definition ->> 'channel', 'email')]
    end
$$;
comment on function channels_of is 'All channels the steps of a campaign may use.';

create or replace function reachability_on(channels text[], kind_ text, topic_ text, now_ timestamptz) returns table (customer_id bigint, reason text)
language sql stable parallel safe as $$
    -- nearly every campaign has one channel, and pays for one
    select r.customer_id, case
        when cardinality(channels) = 1 then r.reason
        else (
            select x.reason
            from unnest(channels) with ordinality as o (channel, place)
            cross join lateral postlude.reachability(o.channel, kind_, topic_, now_) as x
            where x.customer_id = r.customer_id
            order by x.reason is not null, o.place limit 1
        )
    end
    from postlude.reachability(channels[1], kind_, topic_, now_) as r
$$;
comment on function reachability_on is 'For every customer why none of the channels may be used: the reason of the first; null: one of them may. For planning.';

create or replace function unreachable_on(customer bigint, channels text[], kind_ text, topic_ text, now_ timestamptz) returns text
language sql stable parallel safe as $$
    select r.reason from postlude.reachability_on(channels, kind_, topic_, now_) as r where r.customer_id = customer
$$;
comment on function unreachable_on is 'Why this person can be written to on none of the channels: the reason of the first; null: on one it is possible.';

create or replace function channel_choices(channels text[], kind_ text, topic_ text, now_ timestamptz) returns table (customer_id bigint, channel text)
language sql stable parallel safe as $$
    select c.customer_id, case
        when cardinality(channels) = 1 then channels[1]
        else coalesce(
            (
                select o.channel
                from unnest(channels) with ordinality as o (channel, place)
                cross join lateral postlude.reachability(o.channel, kind_, topic_, now_) as x
                where x.customer_id = c.customer_id and x.reason is null
                order by o.channel is distinct from c.preferred_channel, o.place limit 1
            ),
            channels[1]
        )
    end
    from postlude.customers as c
$$;
comment on function channel_choices is 'For every customer the channel of a message: the preferred one if it is offered and reaches them, else the first that reaches them; none: the first, whose refusal is stored.';

create or replace function exit_facts(rules jsonb, customer bigint, order_ bigint, since timestamptz, now_ timestamptz) returns table (fact text)
language sql stable parallel safe as $$
    -- one row; in a lateral join it is written into the statement that calls it
    select case
        when rules ? 'cancelled' and exists (
            select from postlude.orders as o where o.order_id = order_ and o.cancelled_at <= now_) then 'order_cancelled'
        when rules ? 'returned' and exists (
            select from postlude.returns as r where r.order_id = order_ and r.requested_at <= now_) then 'returned'
        when rules ? 'reviewed' and exists (
            select from postlude.reviews as r where r.order_id = order_ and coalesce(r.answered_at, r.created_at) < now_) then 'reviewed'
        when rules ? 'ordered' and exists (
            select from postlude.orders as o
            where o.customer_id = customer and o.counted_at > since and o.counted_at < now_
              and (o.cancelled_at is null or o.cancelled_at > now_)) then 'ordered'
        when rules ? 'shipped' and exists (
            select from postlude.shipments as p where p.order_id = order_ and p.shipped_at <= now_) then 'shipped'
        when rules ? 'delivered' and postlude.delivered_at(order_, now_) is not null then 'delivered'
        when rules ? 'ticket_opened' and exists (
            select from postlude.tickets as t
            where t.customer_id = customer and t.opened_at > since and t.opened_at <= now_) then 'ticket_opened'
    end
$$;
comment on function exit_facts is 'exit_fact for planning: what ends an enrolment, as a row.';

create or replace function exit_fact(rules jsonb, customer bigint, order_ bigint, since timestamptz, now_ timestamptz) returns text
language sql stable parallel safe as $$
    select x.fact from postlude.exit_facts(rules, customer, order_, since, now_) as x
$$;
comment on function exit_fact is 'The fact that ends an enrolment (order_cancelled, returned, reviewed, ordered, shipped, delivered, ticket_opened); null: it goes on.';

create or replace function stop_facts(rules jsonb, customer bigint, now_ timestamptz) returns table (fact text)
language sql stable parallel safe as $$
    -- one row; in a lateral join it is written into the statement that calls it
    select case
        when rules ? 'return_open' and exists (
            select from postlude.returns as r join postlude.orders as o using (order_id)
            where o.customer_id = customer and r.requested_at <= now_ and (r.closed_at is null or r.closed_at > now_)) then 'return_open'
        when rules ? 'ticket_open' and exists (
            select from postlude.tickets as t
            where t.customer_id = customer and t.opened_at <= now_ and (t.closed_at is null or t.closed_at > now_)) then 'ticket_open'
        when rules ? 'recovery_open' and exists (
            select from postlude.recoveries as r
            where r.customer_id = customer and r.at <= now_ and (r.resolved_at is null or r.resolved_at > now_)) then 'recovery_open'
    end
$$;
comment on function stop_facts is 'stop_fact for the claim: what stops promotions, as a row.';

create or replace function stop_fact(rules jsonb, customer bigint, now_ timestamptz) returns text
language sql stable parallel safe as $$
    select x.fact from postlude.stop_facts(rules, customer, now_) as x
$$;
comment on function stop_fact is 'Why promotions to this customer stop for the time being (return_open, ticket_open, recovery_open); null: nothing open.';

create or replace function running_breaks(customer bigint, now_ timestamptz) returns table (until timestamptz)
language sql stable parallel safe as $$
    -- in a lateral join it is written into the statement that calls it
    select max(p.until) from postlude.breaks as p
    where p.customer_id = customer and p.since <= now_ and p.until > now_ and (p.ended_at is null or p.ended_at > now_)
$$;
comment on function running_breaks is 'break_until for the claim, as a row.';

create or replace function break_until(customer bigint, now_ timestamptz) returns timestamptz
language sql stable parallel safe as $$
    select x.until from postlude.running_breaks(customer, now_) as x
$$;
comment on function break_until is 'Until when this person wants no marketing, or waits for a person''s answer; null: no break.';

drop function if exists said_no_since(bigint, timestamptz);
create or replace function noes_since(customer bigint, since_ timestamptz) returns table (at timestamptz)
language sql stable parallel safe as $$
    -- written into the statement that calls it
    select c.known_at from postlude.consents as c where c.customer_id = customer and not c.granted and c.known_at >= since_
    union all
    select p.since from postlude.breaks as p where p.customer_id = customer and p.since >= since_
$$;
comment on function noes_since is 'When this person has withdrawn anything, or asked for a break, since then. Cheap: asked for every message.';

create or replace function still_wanted(message uuid, now_ timestamptz) returns boolean
language sql stable parallel safe as $$
    select break_until(m.customer_id, now_) is null
        and consented(m.customer_id, m.channel, coalesce(v.definition ->> 'topic', 'marketing'), now_)
    from messages as m
    join enrolments as e on m.enrolment_id = e.enrolment_id
    join campaign_versions as v on e.campaign_id = v.campaign_id and e.version = v.version
    where m.message_id = message
$$;
comment on function still_wanted is 'Does the person still agree to the topic of this marketing message, with no break running?';
