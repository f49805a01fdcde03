-- What happened in a passage and around it. Replaced by every `postlude init`.
-- All are "as of now_": a fact counts when it happened before that instant.

set search_path = postlude;

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
