-- Conditions of campaign files, judged. Replaced by every `postlude init`.
-- All are "as of now_": a fact counts when it happened before that instant.

set search_path = postlude;

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
