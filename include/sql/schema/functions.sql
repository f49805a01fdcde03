-- Rules that planning, hand-over and `why` share. Replaced by every `postlude init`, so code and database cannot drift apart.
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

create or replace function in_holdout(campaign text, customer bigint, share numeric, salt text) returns boolean
language sql immutable parallel safe as $$
    -- 32 bits of a salted hash of the person: the same person is always on the same side
    select ('x' || substr(encode(sha256(convert_to(salt || chr(31) || campaign || chr(31) || customer, 'UTF8')), 'hex'), 1, 8))::bit(32)::bigint
           < share * 4294967296
$$;
comment on function in_holdout is 'Is the customer left alone on purpose? Sticky: depends on salt, campaign and customer only.';

-- what the hand-over obeys: switches, pressure, windows

create or replace function stopped_by(campaign text, channel_ text, shop text, kind_ text) returns bigint
language sql stable parallel safe as $$
    select k.switch_id from kill_switches as k
    where k.lifted_at is null
      and case k.scope
          when 'campaign' then k.name = campaign
          when 'channel' then k.name = channel_ and (kind_ = 'marketing' or k.transactional_too)
          when 'shop' then k.name = shop and (kind_ = 'marketing' or k.transactional_too)
          else kind_ = 'marketing' or k.transactional_too
      end
    order by k.switch_id limit 1
$$;
comment on function stopped_by is 'The kill switch that stops this message, obeyed from the moment it is committed; null: none. The Python twin is postlude.switch.Stop.covers.';

create or replace function spread_opening(
    at_ timestamptz, zone text, opens time, closes time, weekdays int[], blackouts date[], spread interval, deadline timestamptz, id uuid
) returns timestamptz
language plpgsql stable parallel safe as $$
-- the next opening, and then a share of `spread` that depends on the message: what waited is never released in one burst
declare
    opening timestamptz := next_opening(at_, zone, opens, closes, weekdays, blackouts);
    room interval;
begin
    if opening is null or opening >= deadline then
        return opening;
    end if;
    room := least(spread, local_instant(cast(opening at time zone zone as date) + closes, zone) - opening, deadline - opening);
    return opening + room * (('x' || substr(md5(id::text || extract(epoch from opening)), 1, 6))::bit(24)::int / 16777216.0);
end
$$;
comment on function spread_opening is 'When to look again at a message that was put off: in the next window, before its deadline, spread by its id. Null: no window.';

drop function if exists recent_messages(bigint, timestamptz, timestamptz);
create or replace function recent_messages(customer bigint, since timestamptz, now_ timestamptz, control_ text default null)
returns table (recent jsonb)
language sql stable parallel safe as $$
    -- accepted, open and unknown: all of them may be in the mailbox
    select jsonb_agg(
        jsonb_build_object(
            'at', case when m.state = 'sending' then now_ else m.handed_over_at end,
            'name', m.campaign_id || '/' || m.step_id,
            'campaign', m.campaign_id, 'channel', m.channel, 'kind', m.kind, 'topic', v.definition ->> 'topic'
        )
        order by m.state = 'sending', m.handed_over_at, m.message_id
    )
    from (
        select r.message_id, r.enrolment_id, r.campaign_id, r.step_id, r.channel, r.kind, r.state, r.handed_over_at
        from messages as r
        where r.customer_id = customer
          and (r.state = 'sending' or (r.state in ('sent', 'unknown') and r.handed_over_at > since and r.handed_over_at <= now_))
        union all
        select g.message_id, g.enrolment_id, g.campaign_id, g.step_id, g.channel, g.kind, 'sent', g.went_at
        from ghost_messages as g
        where control_ is not null and g.customer_id = customer and control_ in ('', g.campaign_id)
          and g.state = 'went' and g.went_at > since and g.went_at <= now_
    ) as m
    join enrolments as e on m.enrolment_id = e.enrolment_id
    join campaign_versions as v on e.campaign_id = v.campaign_id and e.version = v.version
$$;
comment on function recent_messages is 'What the customer got or may have got since an instant, oldest first, as share_out reads it; null: nothing. control_: for a ghost, with the ghosts of its control group (a campaign; empty: all).';

create or replace function share_out(wanting jsonb, recent jsonb, rules jsonb, zone text, now_ timestamptz)
returns table (message_id uuid, reason text, free_at timestamptz, winner text)
language plpgsql stable parallel safe as $$
-- in the order given, each message takes a place or is told who has it; one that loses takes no place from those after it
declare
    mine jsonb;
    rule jsonb;
    taken jsonb := coalesce(recent, '[]');
    began timestamptz;
    free timestamptz;
    places timestamptz[];
    latest text;
begin
    for mine in select e.value from jsonb_array_elements(wanting) with ordinality as e (value, place) order by e.place loop
        message_id := cast(mine ->> 'id' as uuid);
        reason := null;
        free_at := null;
        winner := null;
        if mine ->> 'every' is not null then
            select t.value ->> 'name' into winner
            from jsonb_array_elements(taken) with ordinality as t (value, place)
            where t.value ->> 'campaign' = mine ->> 'campaign'
              and cast(t.value ->> 'at' as timestamptz) > now_ - make_interval(secs => cast(mine ->> 'every' as double precision))
            order by t.place desc limit 1;
            if found then
                reason := 'asked_recently';
            end if;
        end if;
        if reason is null and mine ->> 'kind' = 'marketing' and taken <> '[]' then
            for rule in select e.value from jsonb_array_elements(rules) with ordinality as e (value, place) order by e.place loop
                continue when rule ->> 'channel' <> mine ->> 'channel' or rule ->> 'topic' <> mine ->> 'topic';
                continue when jsonb_typeof(rule -> 'campaigns') = 'array' and not rule -> 'campaigns' ? (mine ->> 'campaign');
                began := case
                    when rule ->> 'per' is null then now_ - make_interval(secs => cast(rule ->> 'seconds' as double precision))
                    else local_instant(date_trunc(rule ->> 'per', now_ at time zone zone), zone)
                end;
                select array_agg(t.at order by t.place desc), (array_agg(t.name order by t.place desc))[1] into places, latest
                from (
                    select cast(x.value ->> 'at' as timestamptz) as at, x.value ->> 'name' as name, x.place
                    from jsonb_array_elements(taken) with ordinality as x (value, place)
                    where x.value ->> 'kind' = 'marketing'
                      and coalesce(rule ->> 'channel' = x.value ->> 'channel', true)
                      and coalesce(rule ->> 'topic' = x.value ->> 'topic', true)
                      and (jsonb_typeof(rule -> 'campaigns') is distinct from 'array' or rule -> 'campaigns' ? (x.value ->> 'campaign'))
                ) as t
                where t.at > began or (rule ->> 'per' is not null and t.at = began);
                if cardinality(places) >= cast(rule ->> 'most' as int) then
                    free := case
                        when rule ->> 'per' is null
                            then places[cast(rule ->> 'most' as int)] + make_interval(secs => cast(rule ->> 'seconds' as double precision))
                        else local_instant(
                            date_trunc(rule ->> 'per', now_ at time zone zone) + cast('1 ' || (rule ->> 'per') as interval), zone
                        )
                    end;
                    if free_at is null or free > free_at then
                        reason := 'capped';
                        free_at := free;
                        winner := latest || ' (' || (rule ->> 'words') || ')';
                    end if;
                end if;
            end loop;
        end if;
        if reason is null then
            taken := taken || jsonb_build_array(mine || jsonb_build_object('at', now_));
        end if;
        return next;
    end loop;
end
$$;
comment on function share_out is 'Contact pressure for one customer: who of `wanting` (best first) may go under caps, gap and at_most_every; the others name the winner.';

-- what mapping files may call to read text safely: a value that cannot be read becomes null

create or replace function postlude.to_number(given text) returns numeric
language sql immutable parallel safe as $$
    -- plain decimals only: 1,5 and 1.234,50 and 12 EUR and NaN are for a person to look at, not to guess at
    select case
        when given ~ '^\s*[-+]?([0-9]{1,15}(\.[0-9]{0,10})?|\.[0-9]{1,10})\s*$' then cast(given as numeric)
    end
$$;
comment on function postlude.to_number is 'A plain decimal number, or null when the text is none.';

create or replace function postlude.to_instant(given text, zone text) returns timestamptz
language sql stable parallel safe as $$
    -- ISO 8601 only: 03/04/2010 is two different days in two countries
    select case
        when given is null or not given ~ '^\s*[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?\s*(Z|[-+][0-9]{2}(:?[0-9]{2})?)?)?\s*$' then null
        when not pg_input_is_valid(given, 'timestamptz') then null
        when given ~ '[T ][0-9:.]+\s*(Z|[-+][0-9:]+)\s*$' then cast(given as timestamptz)
        when zone = 'UTC' then cast(given as timestamp) at time zone 'UTC'
        else postlude.local_instant(cast(given as timestamp), zone)
    end
$$;
comment on function postlude.to_instant(text, text) is 'An ISO 8601 instant; without offset it is taken as wall time in `zone`. Null when the text is none.';

create or replace function postlude.to_instant(given text) returns timestamptz
language sql stable parallel safe as $$
    select postlude.to_instant(given, current_setting('postlude.zone'))
$$;
comment on function postlude.to_instant(text) is 'An ISO 8601 instant; without offset it is taken as wall time of the shop. Null when the text is none.';

create or replace function postlude.to_day(given text) returns date
language sql immutable parallel safe as $$
    select case
        when given ~ '^\s*[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9:.]+)?\s*$' and pg_input_is_valid(left(btrim(given), 10), 'date')
            then cast(left(btrim(given), 10) as date)
    end
$$;
comment on function postlude.to_day is 'An ISO 8601 date (a wall time after it is cut off), or null when the text is none.';

create or replace function postlude.to_phone(given text) returns text
language sql immutable parallel safe as $$
    -- a number without its country is not guessed at: the customer is kept, and has none
    select case when n.number ~ '^[+][1-9][0-9]{6,14}$' then n.number end
    from (select regexp_replace(regexp_replace(btrim(given), '^00', '+'), '[ ()./-]', '', 'g') as number) as n
$$;
comment on function postlude.to_phone is 'A telephone number as E.164 writes it (+4930123456), or null when the text is none.';

create or replace function postlude.to_flag(given text) returns boolean
language sql immutable parallel safe as $$
    select case lower(btrim(given))
        when 'true' then true when 't' then true when 'yes' then true when 'y' then true when '1' then true
        when 'false' then false when 'f' then false when 'no' then false when 'n' then false when '0' then false
    end
$$;
comment on function postlude.to_flag is 'true, yes, 1 or false, no, 0; null for anything else.';

-- ------------------------------------------------------------------ passages: what happened in them, conditions, variants

create or replace function postlude.variant_of(campaign text, step text, customer bigint, salt text, variants jsonb) returns text
language sql immutable parallel safe as $$
    -- like in_holdout, with the step in the hash: who is in which variant says nothing about the holdout or other steps;
    -- by name, so that the order of the lines in the file does not matter
    with point as (
        select ('x' || substr(encode(sha256(convert_to(
            concat_ws(chr(31), salt, campaign, 'variant', step, customer::text), 'UTF8')), 'hex'), 1, 8))::bit(32)::bigint / 4294967296.0 as at
    ), laid as (
        select v ->> 'name' as name,
               sum((v ->> 'weight')::numeric) over (order by (v ->> 'name') collate "C") as up_to,
               sum((v ->> 'weight')::numeric) over () as whole
        from jsonb_array_elements(variants) as v
    )
    select l.name from laid as l, point as p where l.up_to > p.at * l.whole order by l.up_to limit 1
$$;
comment on function postlude.variant_of is 'The variant of a step this customer always gets: depends on salt, campaign, step, customer, names and weights.';

create or replace function postlude.first_event(
    happening text, passage uuid, customer bigint, order_ bigint, since timestamptz, now_ timestamptz
) returns timestamptz
language sql stable parallel safe as $$
    select case happening
        when 'ordered' then (
            select min(o.counted_at) from postlude.orders as o
            where o.customer_id = customer and o.counted_at > since and o.counted_at < now_
              and (o.cancelled_at is null or o.cancelled_at > now_))
        when 'reviewed' then (
            select min(coalesce(r.answered_at, r.created_at)) from postlude.reviews as r
            where r.order_id = order_ and coalesce(r.answered_at, r.created_at) >= since and coalesce(r.answered_at, r.created_at) < now_)
        when 'returned' then (
            select min(r.requested_at) from postlude.returns as r
            where r.order_id = order_ and r.requested_at >= since and r.requested_at <= now_)
        else (
            select min(e.at) from postlude.messages as m join postlude.events as e on e.message_id = m.message_id
            where m.enrolment_id = passage and e.kind = happening and e.at >= since and e.at < now_)
    end
$$;
comment on function postlude.first_event is 'When something first happened since an instant: ordered by the customer, reviewed or returned this order, or a report (clicked, rated, ...) about a mail of this passage.';

create or replace function postlude.refunded_of(order_ bigint, whole numeric, now_ timestamptz) returns numeric
language sql stable parallel safe as $$
    -- a return that names no article is the whole order
    select case
        when bool_or(q.sku is null) then whole
        else (
            select sum(l.quantity * l.unit_price) from postlude.order_lines as l
            where l.order_id = order_ and l.counted and l.sku = any(array_agg(q.sku)))
    end
    from postlude.returns as q where q.order_id = order_ and q.refunded_at <= now_
$$;
comment on function postlude.refunded_of is 'What of an order that counts for `whole` was refunded by now; null: nothing.';

create or replace function postlude.newest_score(passage uuid, order_ bigint, now_ timestamptz) returns numeric
language sql stable parallel safe as $$
    select s.score from (
        select r.score::numeric as score, coalesce(r.answered_at, r.created_at) as at
        from postlude.reviews as r where r.order_id = order_ and r.score is not null
        union all
        select (e.detail ->> 'score')::numeric, e.at
        from postlude.messages as m join postlude.events as e on e.message_id = m.message_id
        where m.enrolment_id = passage and e.kind = 'rated' and e.detail ->> 'score' ~ '^(10|[0-9])$'
          and coalesce(e.detail ->> 'about', 'item') = 'item'
    ) as s
    where s.at < now_ order by s.at desc, s.score limit 1
$$;
comment on function postlude.newest_score is 'The newest rating of the item, of the order or given to a mail of this passage; null: none, which is neither high nor low.';

create or replace function postlude.newer_turn_due(passage uuid, now_ timestamptz) returns boolean
language sql stable parallel safe as $$
    -- the newer one must be due, not only begun: else whoever orders again and again would never be asked about anything
    select exists (
        select from postlude.enrolments as e
        join postlude.enrolments as n
            on n.campaign_id = e.campaign_id and n.customer_id = e.customer_id and n.anchor_at > e.anchor_at and n.enrolled_at <= now_
        join postlude.turns as t on t.enrolment_id = n.enrolment_id
        where e.enrolment_id = passage and t.state in ('scheduled', 'sending', 'sent', 'unknown') and t.due_at <= now_
          and exists (
              select from postlude.turns as o where o.enrolment_id = e.enrolment_id and o.state in ('scheduled', 'held'))
    )
$$;
comment on function postlude.newer_turn_due is 'Has a newer passage of this campaign and customer a message that is due or has gone, while one of this passage still waits?';

create or replace function postlude.bought_since(customer bigint, article text, since timestamptz, now_ timestamptz) returns boolean
language sql stable parallel safe as $$
    select exists (
        select from postlude.orders as o join postlude.order_lines as l using (order_id)
        where o.customer_id = customer and o.counted_at > since and o.counted_at < now_ and (o.cancelled_at is null or o.cancelled_at > now_)
          and l.counted and upper(l.sku) = upper(article))
$$;
comment on function postlude.bought_since is 'Has this customer bought this article in an order that counts, later than `since`?';

create or replace function postlude.told_since(customer bigint, kinds text[], since timestamptz, now_ timestamptz) returns boolean
language sql stable parallel safe as $$
    select exists (
        select from postlude.external_events as x
        where x.customer_id = customer and x.kind = any(kinds) and x.at > since and x.at <= now_)
$$;
comment on function postlude.told_since is 'Has an outside event of one of these kinds come later than `since`?';

create or replace function postlude.last_sign_of(customer bigint, now_ timestamptz) returns timestamptz
language sql stable parallel safe as $$
    select greatest(
        (select max(e.at) from postlude.events as e
         where e.customer_id = customer and e.kind in ('clicked', 'replied', 'rated') and e.at <= now_),
        (select max(o.counted_at) from postlude.orders as o where o.customer_id = customer and o.counted_at < now_),
        (select max(k.at) from postlude.consents as k where k.customer_id = customer and k.granted and k.at <= now_),
        (select max(x.at) from postlude.external_events as x where x.customer_id = customer and x.kind = 'visited' and x.at <= now_))
$$;
comment on function postlude.last_sign_of is 'The last sign of a human: a click, reply, rating, order, consent or visit. Opens are made by machines.';

create or replace function postlude.recommended(customer bigint, order_ bigint, most int, now_ timestamptz)
returns table (place bigint, sku text, name text, url text, image_url text, category text, price numeric, currency text, reason text, because text)
language sql stable parallel safe as $$
    -- what the customer bought lately speaks, the newest and the order at hand loudest; then the bestsellers of the categories bought
    -- from, then of the shop. Never what was bought or returned, nor what cannot be bought now
    with mine as materialized (
        select o.source_id, upper(l.sku) as sku, max(o.counted_at) as at, bool_or(o.order_id = order_) as here,
               max(l.quantity * l.unit_price) as amount
        from postlude.orders as o join postlude.order_lines as l using (order_id)
        where o.customer_id = customer and o.placed_at < now_ and l.sku is not null
        group by 1, 2
    ), seeds as (
        select m.*, row_number() over (order by m.here desc nulls last, m.at desc nulls last, m.amount desc, m.sku) as turn
        from mine as m
    ), shops as (
        select distinct source_id from mine
        union
        select c.source_id from postlude.customers as c where c.customer_id = customer and not exists (select from mine)
    ), found as (
        select r.source_id, r.other as sku, 1 as tier, r.score * 20 / (19 + s.turn) as score, r.kind as reason, s.sku as seed
        from seeds as s join postlude.recommendations as r on r.source_id = s.source_id and r.sku = s.sku
        where s.turn <= 20
        union all
        select b.source_id, upper(b.sku), case when b.category = '' then 3 else 2 end, b.orders,
               case when b.category = '' then 'bestseller' else 'category_bestseller' end, null
        from postlude.bestsellers as b join shops as h using (source_id)
        where b.category = '' or b.category in (
            select p.category from postlude.products as p join mine as m on p.source_id = m.source_id and upper(p.sku) = m.sku)
    ), best as (
        select distinct on (f.source_id, f.sku) f.*
        from found as f
        where not exists (select from mine as m where m.source_id = f.source_id and m.sku = f.sku)
        order by f.source_id, f.sku, f.tier, f.score desc, f.reason
    )
    select row_number() over (order by b.tier, b.score desc, b.sku), p.sku, p.name, p.url, p.image_url, p.category, p.price, s.currency,
           case when b.reason = 'similar' and p.category is null then 'bought_together' else b.reason end, case when b.seed is not null then i.name when b.reason = 'category_bestseller' then p.category end
    from best as b
    join postlude.sources as s on s.source_id = b.source_id
    cross join lateral (
        select q.* from postlude.products as q where q.source_id = b.source_id and upper(q.sku) = b.sku
        order by q.updated_at desc nulls last, q.sku limit 1
    ) as p
    left join lateral (
        select q.name from postlude.products as q where q.source_id = b.source_id and upper(q.sku) = b.seed
        order by q.updated_at desc nulls last, q.sku limit 1
    ) as i on true
    where p.in_stock is not false
    order by 1 limit most
$$;
comment on function postlude.recommended is
    'Products for one customer at this instant, with the reason (similar, complementary, bought_together, category_bestseller, bestseller) and what it rests on.';

create or replace function postlude.rating_group(score int, scale int) returns text
language sql immutable parallel safe as $$
    select case
        when scale = 10 then case when score >= 9 then 'promoter' when score <= 6 then 'detractor' else 'passive' end
        when score >= 5 then 'promoter'
        when score <= 2 then 'detractor'
        else 'passive'
    end
$$;
comment on function postlude.rating_group is 'promoter, passive or detractor: 9 and 10, or five stars; 6 and less, or one or two stars.';

create or replace function postlude.happening_over(event postlude.external_events, now_ timestamptz) returns boolean
language plpgsql stable parallel safe as $$
-- docs/happenings.md has this as a table; read again at every look, so it holds at hand-over
declare
    told jsonb := event.detail;
begin
    if pg_input_is_valid(told ->> 'valid_until', 'timestamptz') and (told ->> 'valid_until')::timestamptz <= now_ then
        return true;
    end if;
    case event.kind
        when 'abandoned_checkout' then
            return postlude.ordered_since(event.customer_id, event.at, now_) or (
                jsonb_array_length(coalesce(told -> 'items', '[]')) > 0 and not exists (
                    select from jsonb_array_elements(told -> 'items') as i
                    join postlude.products as p on p.source_id = event.source_id and upper(p.sku) = upper(i ->> 'sku')
                    where p.in_stock is not false));
        when 'frustration', 'lead_created' then
            return postlude.ordered_since(event.customer_id, event.at, now_);
        when 'trial_started' then
            return postlude.told_since(event.customer_id, '{upgraded}', event.at, now_)
                or postlude.ordered_since(event.customer_id, event.at, now_);
        when 'next_order_expected' then
            return postlude.ordered_since(event.customer_id, (select o.placed_at from postlude.orders as o where o.order_id = event.order_id), now_);
        when 'back_in_stock' then
            return postlude.bought_since(event.customer_id, told ->> 'sku', event.at, now_) or not exists (
                select from postlude.products as p where p.source_id = event.source_id and p.sku = told ->> 'sku' and p.in_stock);
        when 'price_drop' then
            return postlude.bought_since(event.customer_id, told ->> 'sku', event.at, now_) or not exists (
                select from postlude.products as p
                where p.source_id = event.source_id and p.sku = told ->> 'sku' and p.in_stock is not false
                  and p.price < (told ->> 'was')::numeric);
        when 'replenishment_due' then
            return postlude.bought_since(
                event.customer_id, told ->> 'sku', (select o.counted_at from postlude.orders as o where o.order_id = event.order_id), now_);
        when 'delivery_delayed', 'carrier_exception' then
            return exists (
                select from postlude.orders as o where o.order_id = event.order_id
                  and (o.cancelled_at <= now_ or postlude.delivered_at(o.order_id, now_) is not null));
        when 'packed_today' then
            return exists (select from postlude.orders as o where o.order_id = event.order_id and o.cancelled_at <= now_)
                or exists (select from postlude.shipments as p where p.order_id = event.order_id and p.shipped_at <= now_);
        when 'refund_late' then
            return exists (
                select from postlude.returns as r
                where r.order_id = event.order_id and r.return_key = told ->> 'return' and least(r.refunded_at, r.closed_at) <= now_);
        when 'high_value_bought' then
            return postlude.told_since(event.customer_id, '{call_booked}', event.at, now_)
                or exists (select from postlude.orders as o where o.order_id = event.order_id and o.cancelled_at <= now_);
        when 'payment_failed' then
            return exists (
                select from postlude.external_events as x
                where x.customer_id = event.customer_id and x.kind = 'payment_succeeded' and x.at >= event.at and x.at <= now_
                  and x.detail ->> 'invoice' is not distinct from told ->> 'invoice');
        when 'renewal_due' then
            -- a renewal moves the date, an end takes it away
            if told ->> 'what' = 'club' then
                return not exists (
                    select from postlude.loyalty_memberships as m
                    where m.customer_id = event.customer_id and m.left_at is null and m.renews_on = (told ->> 'renews_on')::date);
            end if;
            return not exists (
                select from postlude.customers as c
                where c.customer_id = event.customer_id and c.renews_on = (told ->> 'renews_on')::date);
        when 'threshold_crossed' then
            return exists (
                select from postlude.loyalty_memberships as m
                where m.customer_id = event.customer_id and m.joined_at <= now_ and (m.left_at is null or m.left_at > now_));
        when 'tier_up', 'tier_down' then
            return exists (
                select from postlude.loyalty_tier_changes as c
                where c.customer_id = event.customer_id and c.at > event.at and c.at <= now_);
        when 'points_expiring' then
            return not exists (
                select from postlude.loyalty_expiries as x
                where x.customer_id = event.customer_id and x.expires_at = (told ->> 'expires_at')::timestamptz and x.expires_at > now_);
        when 'recovery_opened' then
            return not exists (
                select from postlude.recoveries as r
                where r.recovery_id = (told ->> 'recovery')::bigint and (r.resolved_at is null or r.resolved_at > now_));
        when 'promoter' then
            return postlude.told_since(event.customer_id, '{detractor,referral_made}', event.at, now_);
        when 'community_ready' then
            return postlude.told_since(event.customer_id, '{community_joined}', '-infinity', now_);
        when 'disengaged' then
            return postlude.last_sign_of(event.customer_id, now_) > event.at;
        when 'unseen', 'guest_order' then
            return postlude.told_since(event.customer_id, '{visited}', event.at, now_);
        when 'poll_opened' then
            return exists (
                select from postlude.external_events as x
                where x.customer_id = event.customer_id and x.kind = 'poll_answered' and x.at <= now_
                  and x.detail ->> 'poll' is not distinct from told ->> 'poll');
        else
            return false;
    end case;
end
$$;
comment on function postlude.happening_over is 'Is what an outside event told no longer so (paid, gone again, joined, ...)? Asked at planning and at hand-over.';

drop function if exists postlude.event_of(bigint, jsonb, timestamptz);
create or replace function postlude.event_of(customer bigint, definition jsonb, anchor_key text, anchor timestamptz)
returns setof postlude.external_events
language sql stable parallel safe as $$
    select x.* from postlude.external_events as x
    where x.customer_id = customer and x.kind = definition -> 'trigger' ->> 'external' and x.at = anchor
    -- two events of one instant (two articles back in stock) are told apart by the anchor
    order by anchor_key = 'external:' || x.source_id || ':' || x.event_key desc, x.known_at, x.source_id, x.event_key limit 1
$$;
comment on function postlude.event_of is 'The outside event a passage began with; no row for other triggers.';

create or replace function postlude.passage_fact(definition jsonb, passage uuid, now_ timestamptz) returns text
language plpgsql stable parallel safe as $$
-- asked for every passage under way: one question after the other, each with a plan of its own that is kept
declare
    rules jsonb := definition -> 'exit_on';
    mine postlude.enrolments;
    score numeric;
begin
    if not rules ?| array['left_segment', 'clicked', 'rated_low', 'over', 'rated', 'delivered', 'superseded'] then
        return null;
    end if;
    select * into mine from postlude.enrolments as e where e.enrolment_id = passage;
    if not found then
        return null;
    end if;
    if rules ? 'left_segment' and not exists (
        select from postlude.segment_memberships as m
        where m.customer_id = mine.customer_id and m.segment_id = definition -> 'trigger' ->> 'enters' and m.left_at is null)
    then
        return 'left_segment';
    end if;
    if rules ? 'clicked'
        and postlude.first_event('clicked', mine.enrolment_id, mine.customer_id, mine.order_id, '-infinity', now_) is not null
    then
        return 'clicked';
    end if;
    if rules ?| array['rated_low', 'rated'] then
        score := postlude.newest_score(mine.enrolment_id, mine.order_id, now_);
        if rules ? 'rated_low' and score <= 2 then
            return 'rated_low';
        elsif rules ? 'rated' and (score is not null
            or postlude.first_event('rated', mine.enrolment_id, mine.customer_id, mine.order_id, '-infinity', now_) is not null)
        then
            return 'rated';
        end if;
    end if;
    if rules ? 'delivered' and exists (
        select from postlude.shipments as p join postlude.orders as o using (order_id)
        where p.order_id = mine.order_id and p.delivered_at <= now_
          and mine.anchor_key = 'parcel:' || o.source_id || ':' || o.source_order_id || ':' || p.shipment_key)
    then
        return 'delivered';
    end if;
    -- marketing: a newer message that is due; a return by its states; a fact about an order by that order. Hardly anybody has a newer one
    if rules ? 'superseded' and exists (
        select from postlude.enrolments as n
        where n.campaign_id = mine.campaign_id and n.customer_id = mine.customer_id and n.anchor_at >= mine.anchor_at and n.enrolled_at <= now_
          and n.enrolment_id <> mine.enrolment_id)
    then
        if mine.anchor_key not like 'return:%' and definition ->> 'kind' <> 'transactional' and postlude.newer_turn_due(passage, now_) then
            return 'superseded';
        end if;
        if exists (
            select from postlude.enrolments as n
            where n.campaign_id = mine.campaign_id and n.customer_id = mine.customer_id and n.enrolled_at <= now_
              and (n.anchor_at, n.enrolled_at) > (mine.anchor_at, mine.enrolled_at)
              and case
                  when mine.anchor_key like 'return:%'
                      then regexp_replace(n.anchor_key, ':[a-z]+$', '') = regexp_replace(mine.anchor_key, ':[a-z]+$', '')
                  else definition ->> 'kind' = 'transactional' and n.order_id is not distinct from mine.order_id
              end)
        then
            return 'superseded';
        end if;
    end if;
    if rules ? 'over' and (
        select postlude.happening_over(x, now_) from postlude.event_of(mine.customer_id, definition, mine.anchor_key, mine.anchor_at) as x)
    then
        return 'over';
    end if;
    return null;
end
$$;
comment on function postlude.passage_fact is 'What ends a passage beside exit_fact: left_segment, clicked, rated_low (2 or less), rated, the parcel delivered, superseded, over (what started it); null: it goes on.';

create or replace function postlude.known_values(
    definition jsonb, passage uuid, customer bigint, order_ bigint, anchor_key_ text, anchor timestamptz, now_ timestamptz
) returns jsonb
language plpgsql stable parallel safe as $$
-- asked for each candidate and each message: only what the file names is looked up, each with a plan of its own that is kept
declare
    asked jsonb := jsonb_path_query_array(definition, '$.**.feature ? (@.type() == "string")');
    known jsonb;
    zone text;
    bought postlude.orders;
begin
    select jsonb_build_object('source', c.source_id, 'country', c.country, 'locale', c.locale), s.time_zone into known, zone
    from postlude.customers as c join postlude.sources as s on s.source_id = c.source_id
    where c.customer_id = customer;
    if not found or asked = '[]' then
        return known;
    end if;
    if asked - array['source', 'country', 'locale', 'order_amount', 'gift', 'promise_days', 'score', 'return_state', 'category', 'order_nth',
                     'margin', 'coupons_60d', 'recommended', 'asked_where'] <> '[]' then
        known := coalesce((select to_jsonb(f) from postlude.customer_features as f where f.customer_id = customer), '{}') || known;
    end if;
    if asked ? 'score' then
        known := known || jsonb_build_object('score', postlude.newest_score(passage, order_, now_));
    end if;
    if anchor_key_ like 'return:%' then
        known := known || jsonb_build_object('return_state', substring(anchor_key_ from '[a-z]+$'));
    end if;
    if order_ is not null and asked ?| array['order_amount', 'gift', 'promise_days', 'category', 'order_nth', 'margin'] then
        select o.* into bought from postlude.orders as o where o.order_id = order_;
        known := known || jsonb_build_object(
            'order_amount', bought.counted_amount, 'gift', bought.gift,
            'promise_days', bought.promised_on - (bought.placed_at at time zone zone)::date);
        if asked ? 'category' then
            known := known || jsonb_build_object('category', (
                select p.category from postlude.order_lines as l join postlude.products as p on p.sku = l.sku and p.source_id = bought.source_id
                where l.order_id = order_ and l.counted order by l.quantity * l.unit_price desc, l.line_key limit 1));
        end if;
        if asked ? 'order_nth' and bought.counted_at is not null then
            known := known || jsonb_build_object('order_nth', (
                select count(*) from postlude.orders as n
                where n.customer_id = customer and (n.counted_at, n.order_id) <= (bought.counted_at, bought.order_id)
                  and (n.cancelled_at is null or n.cancelled_at > now_)));
        end if;
        -- of an order with one line of unknown cost the margin is unknown
        if asked ? 'margin' then
            known := known || jsonb_build_object('margin', (
                select case when count(*) = count(p.cost) then round(1 - sum(l.quantity * p.cost) / nullif(sum(l.quantity * l.unit_price), 0), 4) end
                from postlude.order_lines as l left join postlude.products as p on p.sku = l.sku and p.source_id = bought.source_id
                where l.order_id = order_ and l.counted));
        end if;
    end if;
    if asked ? 'coupons_60d' then
        known := known || jsonb_build_object('coupons_60d', (
            select count(*) from postlude.messages as m join postlude.coupons as k using (message_id)
            where m.customer_id = customer and k.bound_at > now_ - interval '60 days' and k.bound_at <= now_));
    end if;
    -- what goes with the customer's purchases, without the bestsellers that fill up
    if asked ? 'recommended' then
        known := known || jsonb_build_object('recommended', (
            select count(*) from postlude.recommended(customer, order_, 12, now_) as r where r.reason not like '%bestseller'));
    end if;
    if asked ? 'asked_where' then
        known := known || jsonb_build_object('asked_where', (
            select count(*) from postlude.tickets as t
            where t.customer_id = customer and t.topic = 'where_is_my_order' and t.opened_at <= now_));
    end if;
    if definition -> 'trigger' ->> 'external' is not null and asked::text like '%"event.%' then
        known := known || coalesce((
            select (select jsonb_object_agg('event.' || d.key, d.value) from jsonb_each(x.detail) as d)
            from postlude.external_events as x
            where x.customer_id = customer and x.kind = definition -> 'trigger' ->> 'external' and x.at = anchor
            order by anchor_key_ = 'external:' || x.source_id || ':' || x.event_key desc, x.known_at, x.source_id, x.event_key limit 1), '{}');
    end if;
    return known;
end
$$;
comment on function postlude.known_values is 'What the conditions of a file name: features of the last segment run, facts of the order, of the passage and of its event, by name. Absent or null is unknown.';

create or replace function postlude.condition_holds(
    rule jsonb, known jsonb, passage uuid, customer bigint, order_ bigint, since timestamptz, now_ timestamptz
) returns boolean
language plpgsql stable parallel safe as $$
-- three-valued: null is unknown, and `not` of it is unknown too
declare
    verdict boolean;
    part jsonb;
    value jsonb;
begin
    if jsonb_typeof(rule -> 'all') = 'array' then
        verdict := true;
        for part in select p from jsonb_array_elements(rule -> 'all') as p loop
            verdict := verdict and postlude.condition_holds(part, known, passage, customer, order_, since, now_);
        end loop;
        return verdict;
    elsif jsonb_typeof(rule -> 'any') = 'array' then
        verdict := false;
        for part in select p from jsonb_array_elements(rule -> 'any') as p loop
            verdict := verdict or postlude.condition_holds(part, known, passage, customer, order_, since, now_);
        end loop;
        return verdict;
    elsif jsonb_typeof(rule -> 'not') = 'object' then
        return not postlude.condition_holds(rule -> 'not', known, passage, customer, order_, since, now_);
    elsif rule ->> 'in_segment' is not null then
        return exists (
            select from postlude.segment_memberships as m
            where m.customer_id = customer and m.segment_id = rule ->> 'in_segment' and m.left_at is null);
    elsif rule ->> 'got' is not null then
        return exists (
            select from postlude.turns as m
            where m.enrolment_id = passage and m.step_id = rule ->> 'got' and m.state in ('sent', 'unknown'));
    elsif rule ->> 'happened' is not null then
        return postlude.first_event(rule ->> 'happened', passage, customer, order_, since, now_) is not null;
    elsif rule ->> 'feature' is null then
        return null;
    end if;
    value := nullif(known -> (rule ->> 'feature'), 'null');
    if rule ->> 'known' is not null and (value is not null) <> (rule ->> 'known')::boolean then
        return false;
    end if;
    if value is null then
        -- beside `known: false` nothing else can be asked of what is not there
        return case when rule ->> 'known' = 'false' then true end;
    end if;
    if jsonb_typeof(value) <> 'number' and num_nonnulls(
        rule ->> 'at_least', rule ->> 'at_most', rule ->> 'more_than', rule ->> 'less_than') > 0
    then
        return null;
    end if;
    return (jsonb_typeof(rule -> 'is') is null or jsonb_typeof(rule -> 'is') = 'null' or value = rule -> 'is')
        and (jsonb_typeof(rule -> 'is_not') is null or jsonb_typeof(rule -> 'is_not') = 'null' or value <> rule -> 'is_not')
        and (jsonb_typeof(rule -> 'in') is distinct from 'array' or rule -> 'in' @> value)
        and (rule ->> 'at_least' is null or (value #>> '{}')::numeric >= (rule ->> 'at_least')::numeric)
        and (rule ->> 'at_most' is null or (value #>> '{}')::numeric <= (rule ->> 'at_most')::numeric)
        and (rule ->> 'more_than' is null or (value #>> '{}')::numeric > (rule ->> 'more_than')::numeric)
        and (rule ->> 'less_than' is null or (value #>> '{}')::numeric < (rule ->> 'less_than')::numeric);
end
$$;
comment on function postlude.condition_holds is 'Does a condition of a campaign file hold now? True, false, or null: unknown, which is never taken for true.';

create or replace function postlude.step_refused(definition jsonb, step text, passage uuid, now_ timestamptz) returns text
language plpgsql stable parallel safe as $$
declare
    own jsonb;
    other jsonb;
    mine postlude.enrolments;
    known jsonb;
begin
    own := (select s from jsonb_array_elements(definition -> 'steps') as s where s ->> 'id' = step);
    if own is null or (jsonb_typeof(own -> 'only_if') is distinct from 'object' and own ->> 'branch' is null) then
        return null;
    end if;
    select * into mine from postlude.enrolments as e where e.enrolment_id = passage;
    if own ->> 'promotes' = 'true' and not postlude.may_promote(definition, own, passage, mine.customer_id, now_) then
        return 'may_not_promote';
    end if;
    known := postlude.known_values(definition, passage, mine.customer_id, mine.order_id, mine.anchor_key, mine.anchor_at, now_);
    if jsonb_typeof(own -> 'only_if') = 'object' and postlude.condition_holds(
        own -> 'only_if', known, passage, mine.customer_id, mine.order_id, mine.watch_from, now_) is not true
    then
        return 'condition_not_met';
    end if;
    if own ->> 'branch' is null then
        return null;
    end if;
    -- one of a branch at most: not beside one that is on its way or gone
    if exists (
        select from postlude.turns as m
        where m.enrolment_id = passage and m.step_id <> step and m.state in ('sending', 'sent', 'unknown')
          and m.step_id in (
              select s ->> 'id' from jsonb_array_elements(definition -> 'steps') as s where s ->> 'branch' = own ->> 'branch'))
    then
        return 'other_branch';
    end if;
    -- the first that holds takes it, as the file has them
    for other in
        select t.s from jsonb_array_elements(definition -> 'steps') with ordinality as t (s, place)
        where t.s ->> 'branch' = own ->> 'branch' order by t.place
    loop
        exit when other ->> 'id' = step;
        continue when other ->> 'promotes' = 'true' and not postlude.may_promote(definition, other, passage, mine.customer_id, now_);
        if jsonb_typeof(other -> 'only_if') is distinct from 'object' or postlude.condition_holds(
            other -> 'only_if', known, passage, mine.customer_id, mine.order_id, mine.watch_from, now_)
        then
            return 'other_branch';
        end if;
    end loop;
    return null;
end
$$;
comment on function postlude.step_refused is 'Why a step must not go to this customer now (condition_not_met, other_branch); null: its conditions hold.';

create or replace function postlude.birthday_believed(born date, on_new_year bigint, told bigint, now_ timestamptz) returns boolean
language sql immutable parallel safe as $$
    -- forms that force a date get 1 January: it is believed while it is not more than three times as common as other days
    select born between '1900-01-01' and (now_ at time zone 'UTC')::date
        and (to_char(born, 'MMDD') <> '0101' or on_new_year <= greatest(3, 3 * told / 365.25))
$$;
comment on function postlude.birthday_believed is 'Is this a birthday to congratulate on, where `on_new_year` of `told` birthdays of the shop fall on 1 January?';
-- ------------------------------------------------------------------ coupons

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

create or replace function postlude.feed_verdicts(now_ timestamptz, share double precision, least_ bigint)
returns table (
    source_id text, entity text, scheduled boolean, newest timestamptz, loaded_at timestamptz, lag interval, lag_limit interval,
    usual_lag interval, day date, found bigint, usual double precision, reason text
)
language sql stable as $$
with shops as (
    select
        s.source_id,
        s.time_zone as zone,
        s.complete_until,
        s.loaded_at,
        (now_ at time zone s.time_zone)::date as today,
        make_interval(secs => coalesce((s.settings ->> 'fresh_within_seconds')::double precision, 129600)) as bound,
        coalesce((s.settings ->> 'scheduled')::boolean, true) as scheduled
    from postlude.sources as s
),
-- a shop that never told of a review or return has no such feed; that is no reason to wait
feeds as (
    select s.*, 'orders' as entity, s.complete_until as newest, s.loaded_at as at from shops as s
    union all
    select s.*, e.entity, d.newest, d.at
    from shops as s
    cross join (values ('reviews'), ('returns')) as e (entity)
    cross join lateral (
        select f.newest, f.counted_at as at
        from postlude.feed_days as f
        where f.source_id = s.source_id and f.entity = e.entity
        order by f.day desc
        limit 1
    ) as d
),
-- the newest day that ought to be whole: over when it was loaded, and not after the newest row. History is what lies
-- before it, never the silence after it: a feed that stays dead does not become usual
judged as (
    select
        f.*,
        (f.newest at time zone f.zone)::date as newest_day,
        least(
            (f.newest at time zone f.zone)::date, (coalesce(f.at, now_) at time zone f.zone)::date - 1, f.today - 1
        ) as last_day,
        (select min(d.day) from postlude.feed_days as d where d.source_id = f.source_id and d.entity = f.entity) as first_day
    from feeds as f
),
-- five weeks are all that is read, however long the history
recent as materialized (
    select d.source_id, d.entity, d.day, d.rows
    from judged as j
    inner join postlude.feed_days as d
        on d.source_id = j.source_id and d.entity = j.entity and d.day between j.last_day - 34 and j.last_day
),
-- a week of days, each with the same weekday of the four weeks before it
week as (
    select
        j.source_id,
        j.entity,
        k as back,
        j.last_day - k as day,
        count(*) filter (where p.day >= j.first_day) as samples,
        percentile_cont(0.5) within group (order by coalesce(d.rows, 0)) filter (where p.day >= j.first_day) as usual,
        max(coalesce(d.rows, 0)) filter (where p.day >= j.first_day) as most
    from judged as j
    cross join generate_series(0, 6) as k
    cross join generate_series(1, 4) as w
    cross join lateral (select j.last_day - k - 7 * w as day) as p
    left join recent as d on d.source_id = j.source_id and d.entity = j.entity and d.day = p.day
    group by j.source_id, j.entity, k, j.last_day
),
-- weekdays on which this shop never has any; more than three of them are no pattern but a small shop
closed as (
    select w.source_id, w.entity, array_agg(extract(isodow from w.day)::int) as weekdays
    from week as w
    where w.samples >= 3 and w.most = 0
    group by w.source_id, w.entity
    having count(*) <= 3
),
measured as (
    select
        j.*,
        greatest(now_ - j.newest, interval '0') as lag,
        j.bound + coalesce(e.excused, interval '0') as hard_limit,
        case when u.samples >= 3 then u.usual end as usual_lag,
        -- of the last three whole days the worst
        w.day as thin_day,
        w.found as thin_found,
        w.usual as thin_usual,
        t.found as last_found,
        t.usual as last_usual,
        -- too few a day to tell a thin day from chance
        (select avg(a.usual) from week as a where a.source_id = j.source_id and a.entity = j.entity and a.samples >= 3) as daily
    from judged as j
    left join closed as c on c.source_id = j.source_id and c.entity = j.entity
    left join lateral (
        select sum(
            case when g::date = j.today then now_ - (g::date::timestamp at time zone j.zone) else interval '24 hours' end
        ) as excused
        from generate_series(j.newest_day + 1, least(j.today, j.newest_day + 35), interval '1 day') as g
        where extract(isodow from g)::int = any(c.weekdays)
    ) as e on true
    left join lateral (
        select
            count(m.complete_until) as samples,
            percentile_disc(0.5) within group (order by greatest(t.at - m.complete_until, interval '0')) as usual
        from generate_series(1, 4) as n
        cross join lateral (select ((now_ at time zone j.zone) - make_interval(days => 7 * n)) at time zone j.zone as at) as t
        cross join lateral (
            select k.complete_until from postlude.feed_marks as k
            where k.source_id = j.source_id and k.loaded_at <= t.at
            order by k.loaded_at desc
            limit 1
        ) as m
        where j.entity = 'orders'
    ) as u on true
    left join lateral (
        select x.day, x.usual, coalesce(d.rows, 0) as found
        from week as x
        left join recent as d on d.source_id = x.source_id and d.entity = x.entity and d.day = x.day
        where
            x.source_id = j.source_id and x.entity = j.entity and x.back <= 2 and x.samples >= 3 and x.usual >= least_
            and coalesce(d.rows, 0) < share * x.usual
        order by coalesce(d.rows, 0) / x.usual, x.back
        limit 1
    ) as w on true
    left join lateral (
        select coalesce(d.rows, 0) as found, case when x.samples >= 3 then x.usual end as usual
        from week as x
        left join recent as d on d.source_id = x.source_id and d.entity = x.entity and d.day = x.day
        where x.source_id = j.source_id and x.entity = j.entity and x.back = 0
    ) as t on true
),
-- a feed that usually is on time may lag half of `fresh_within` beyond that; `fresh_within` itself is the end for all.
-- Days on which the shop is closed do not count
limited as (
    select
        m.*,
        case
            when m.usual_lag is null then m.hard_limit
            else least(m.usual_lag + m.bound / 2, m.hard_limit)
        end as lag_limit
    from measured as m
)
select
    l.source_id,
    l.entity,
    l.scheduled,
    l.newest,
    l.at,
    l.lag,
    l.lag_limit,
    l.usual_lag,
    coalesce(l.thin_day, l.last_day),
    case when l.first_day is not null then coalesce(l.thin_found, l.last_found)::bigint end,
    coalesce(l.thin_usual, l.last_usual),
    case
        when l.newest is null then 'never_loaded'
        when l.entity <> 'orders' and coalesce(l.daily, 0) < least_ then null
        when l.lag > l.lag_limit and l.at > l.newest + l.bound / 2 then 'no_new_' || l.entity
        when l.lag > l.lag_limit then 'late'
        -- a run as of the past: later rows are there, so these days were told in full
        when l.newest > now_ + interval '1 day' then null
        when l.thin_day is not null then 'too_few_' || l.entity
    end
from limited as l
$$;
comment on function postlude.feed_verdicts is 'The freshness gate: each feed against its own weekdays of four weeks; reason null: fresh. docs/gates.md tells the rule.';

create or replace function postlude.rests_on_stale(definition jsonb, source text, stale text[]) returns boolean
language sql immutable parallel safe as $$
    -- versions stored before feeds were named rest on orders
    select
        coalesce((definition ->> 'rests_on_absence')::boolean, true)
        and exists (
            select from jsonb_array_elements_text(
                case jsonb_typeof(definition -> 'feeds') when 'array' then definition -> 'feeds' else '["orders"]' end
            ) as d (feed)
            where source || '/' || d.feed = any(stale)
        )
$$;
comment on function postlude.rests_on_stale is 'Does a campaign rest on a feed of this source that is stale? `stale`: source/feed.';

-- ------------------------------------------------------------------ answers that were lost

create or replace function postlude.evidence_of(message uuid) returns text
language sql stable parallel safe set search_path = postlude as $$
    select e.kind from events as e
    where e.message_id = message
      and e.kind in ('delivered', 'bounced', 'complained', 'opened', 'clicked', 'scanned', 'replied', 'rated', 'unsubscribed')
    order by e.at limit 1
$$;
comment on function postlude.evidence_of is 'The first report that proves that a message was accepted (only what was accepted can bounce); null: none.';

create or replace function postlude.mind_lost_answer() returns trigger
language plpgsql set search_path = postlude as $$
begin
    if new.state = 'sent' then
        new.resend_at := null;
    elsif old.state = 'sending' and new.state = 'unknown' then
        new.lost_answers := old.lost_answers + 1;
        -- at most twice more, and not before ten minutes have passed without evidence
        new.resend_at := case
            when new.kind = 'transactional' and new.lost_answers <= 2 then new.handed_over_at + interval '10 minutes'
        end;
    elsif old.state in ('sending', 'scheduled') and new.state in ('scheduled', 'held', 'failed', 'cancelled', 'skipped', 'expired') then
        -- this hand-over failed or was refused, but an earlier one may have arrived: it stays unknown
        new.detail := left(concat_ws(': ', 'not handed over again', new.reason, new.detail), 500);
        new.resend_at := case when new.state = 'scheduled' then new.send_at end;
        new.state := 'unknown';
        new.reason := 'answer_lost';
        new.finalized_at := null;
        new.handed_over_at := (
            select max(a.handed_over_at) from attempts as a where a.message_id = new.message_id and a.outcome = 'ambiguous'
        );
    end if;
    return new;
end
$$;
comment on function postlude.mind_lost_answer is 'What may have arrived is never recorded as if it had not, whoever writes: see messages.lost_answers.';

create or replace trigger messages_mind_lost_answer before update of state on postlude.messages
for each row when (old.state is distinct from new.state and (new.state = 'unknown' or old.lost_answers > 0))
execute function postlude.mind_lost_answer();

drop function if exists fifths(text, timestamptz);
create or replace function fifths(source text, now_ timestamptz, afresh boolean) returns setof quintile_borders
language plpgsql stable
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off as $$
-- The last customer of each of the first four fifths, found by walking one index for each measure: no row is sorted, and no
-- customer's score is written. The walk begins at the border known from last time: how many customers lie up to it now is told
-- by facts_changed, so it is as long as the border's way since. Afresh, it begins at the border before, and goes over all.
declare
    known quintile_borders;
    found quintile_borders;
    was int[];
    share int[];
    place bigint; -- how many customers lie up to where the walk begins
    ahead bigint;
    latest timestamptz := '-infinity';
    orders int := 0;
    spent numeric := '-infinity';
    id bigint;
    day interval := interval '24 hours';
    bucket interval;
    tied bigint;
begin
    if not afresh then
        select * into known from quintile_borders as b where b.source_id = source and b.last_order_at is not null;
    end if;
    if known.customers is null then
        select count(*) into found.customers from customer_facts as f where f.source_id = source;
    else
        select known.customers + coalesce(sum(c.weight), 0) into found.customers from facts_changed as c where c.source_id = source;
    end if;
    if found.customers = 0 then
        return;
    end if;
    found.source_id := source;
    share := fifths_end(found.customers);
    was := fifths_end(known.customers);

    id := 0;
    for i in 1..4 loop
        place := coalesce(share[i - 1], 0);
        if known.customers is not null then
            orders := known.frequency[i];
            id := known.frequency_ids[i];
            select was[i] + coalesce(sum(c.weight), 0) into place from facts_changed as c
            where c.source_id = source and (c.frequency, c.customer_id) <= (orders, id);
        end if;
        ahead := share[i] - place;
        if ahead > 0 then
            select f.frequency, f.customer_id into orders, id from customer_facts as f
            where f.source_id = source and (f.frequency, f.customer_id) > (orders, id)
            order by f.frequency, f.customer_id offset ahead - 1 limit 1;
        else
            select f.frequency, f.customer_id into orders, id from customer_facts as f
            where f.source_id = source and (f.frequency, f.customer_id) <= (orders, id)
            order by f.frequency desc, f.customer_id desc offset - ahead limit 1;
        end if;
        found.frequency[i] := orders;
        found.frequency_ids[i] := id;
    end loop;

    id := 0;
    for i in 1..4 loop
        place := coalesce(share[i - 1], 0);
        if known.customers is not null then
            spent := known.monetary[i];
            id := known.monetary_ids[i];
            select was[i] + coalesce(sum(c.weight), 0) into place from facts_changed as c
            where c.source_id = source and (c.monetary, c.customer_id) <= (spent, id);
        end if;
        ahead := share[i] - place;
        if ahead > 0 then
            select f.monetary, f.customer_id into spent, id from customer_facts as f
            where f.source_id = source and (f.monetary, f.customer_id) > (spent, id)
            order by f.monetary, f.customer_id offset ahead - 1 limit 1;
        else
            select f.monetary, f.customer_id into spent, id from customer_facts as f
            where f.source_id = source and (f.monetary, f.customer_id) <= (spent, id)
            order by f.monetary desc, f.customer_id desc offset - ahead limit 1;
        end if;
        found.monetary[i] := spent;
        found.monetary_ids[i] := id;
    end loop;

    id := 0;
    for i in 1..4 loop
        place := coalesce(share[i - 1], 0);
        if known.customers is not null then
            latest := known.last_order_at[i];
            id := known.last_order_ids[i];
            select was[i] + coalesce(sum(c.weight), 0) into place from facts_changed as c
            where c.source_id = source and (c.last_order_at, c.customer_id) <= (latest, id);
        end if;
        ahead := share[i] - place;
        if ahead > 0 then
            select f.last_order_at, f.customer_id into latest, id from customer_facts as f
            where f.source_id = source and (f.last_order_at, f.customer_id) > (latest, id)
            order by f.last_order_at, f.customer_id offset ahead - 1 limit 1;
        else
            select f.last_order_at, f.customer_id into latest, id from customer_facts as f
            where f.source_id = source and (f.last_order_at, f.customer_id) <= (latest, id)
            order by f.last_order_at desc, f.customer_id desc offset - ahead limit 1;
        end if;
        found.last_order_at[i] := latest;
        found.last_order_ids[i] := id;
        -- days of recency rise with the age of the last order, but within one such day the customer id decides
        found.recency_days[i] := floor(extract(epoch from now_ - latest) / 86400);
        bucket := found.recency_days[i] * day;
        select count(*) into place from customer_facts as f
        where
            f.source_id = source and f.last_order_at > now_ - bucket - day
            and (f.last_order_at, f.customer_id) <= (latest, id);
        with same_day as materialized (
            select f.customer_id from customer_facts as f
            where f.source_id = source and f.last_order_at > now_ - bucket - day and f.last_order_at <= now_ - bucket
        )

        select d.customer_id into tied from same_day as d order by d.customer_id offset place - 1 limit 1;
        found.recency_ids[i] := tied;
    end loop;
    return next found;
end
$$;
comment on function fifths is 'Borders between the fifths of a source by recency as of now_, orders and spend: what ntile(5) with ties by customer id gives.';

create or replace function fifths_end(customers bigint) returns int[]
language sql immutable parallel safe as $$
    -- ntile: the first (n mod 5) fifths hold one more
    select array_agg(i * (customers / 5) + least(i, customers % 5) order by i) from generate_series(1, 4) as i
$$;
comment on function fifths_end is 'How many of so many customers lie up to the end of each of the first four fifths.';
