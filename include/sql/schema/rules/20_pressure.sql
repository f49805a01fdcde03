-- Control groups, kill switches, and who of many gets the room there is. Replaced by every `postlude init`.
-- All are "as of now_": a fact counts when it happened before that instant.

set search_path = postlude;

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
