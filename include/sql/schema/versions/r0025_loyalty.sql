-- Revision 0025: loyalty. The ledger is the truth and is only ever added to; balances are kept by a trigger in the same transaction.
-- Beside it: cases of service recovery, which stop promotions, and the draw of surprise gifts.

set local search_path = postlude;

-- ------------------------------------------------------------------ who is a member

create table loyalty_memberships (
    customer_id bigint not null references customers,
    kind        text not null check (kind in ('free', 'paid')),
    joined_at   timestamptz not null,
    known_at    timestamptz not null,
    how         text not null,
    renews_on   date,
    left_at     timestamptz,
    left_why    text,
    primary key (customer_id, joined_at),
    check ((left_at is null) = (left_why is null)),
    check ((renews_on is not null) = (kind = 'paid'))
);
create unique index loyalty_members on loyalty_memberships (customer_id) where left_at is null;
create index loyalty_renewals on loyalty_memberships (renews_on) where left_at is null and renews_on is not null;
comment on table loyalty_memberships is 'Who is in the club from when to when; paid: the paid club, renewed year by year.';
comment on column loyalty_memberships.how is 'told (an event loyalty_joined), or who entered it by hand';

-- ------------------------------------------------------------------ points

create table loyalty_ledger (
    entry_id    bigint generated always as identity primary key,
    customer_id bigint not null references customers,
    kind        text not null check (kind in ('earned', 'taken_back', 'redeemed', 'expired', 'adjusted')),
    points      int not null check (points <> 0),
    at          timestamptz not null,
    known_at    timestamptz not null,
    order_id    bigint references orders,
    rate        numeric,
    expires_at  timestamptz,
    reason      text not null check (reason <> ''),
    by          text not null,
    ref         text not null unique,
    check ((kind = 'earned' and points > 0) or (kind in ('taken_back', 'redeemed', 'expired') and points < 0) or kind = 'adjusted'),
    check (expires_at is null or points > 0)
);
create index loyalty_ledger_customer on loyalty_ledger (customer_id, entry_id);
create index loyalty_ledger_order on loyalty_ledger (order_id) where order_id is not null;
comment on table loyalty_ledger is 'Append-only: every point that came or went, why, and by whom. Updating or deleting is refused.';
comment on column loyalty_ledger.rate is 'points per unit of currency when the order earned: a later correction of the order uses the same';
comment on column loyalty_ledger.expires_at is 'when what is left of these points goes; null: never. Points are used up in the order in which they would go';
comment on column loyalty_ledger.ref is 'names the fact behind the entry: booked twice, stored once';

create table loyalty_accounts (
    customer_id bigint primary key references customers,
    points      int not null default 0,
    tier        text,
    tier_since  timestamptz,
    spent       numeric not null default 0
);
comment on column loyalty_accounts.spent is 'spent within the window of the tiers, as of the last run';
comment on table loyalty_accounts is 'Balance, kept by a trigger on the ledger in the same transaction, and the tier as last worked out (null: no member).';

create table loyalty_tier_changes (
    customer_id bigint not null references customers,
    at          timestamptz not null,
    was         text,
    tier        text,
    up          boolean not null,
    run_id      text not null,
    primary key (customer_id, at)
);
comment on table loyalty_tier_changes is 'Every change of a tier. was empty: joined; tier empty: left.';

create function loyalty_balance() returns trigger language plpgsql as $$
begin
    if tg_op = 'UPDATE' then
        update postlude.loyalty_accounts set points = points - old.points where customer_id = old.customer_id;
    end if;
    -- the lock on this row makes entries of one customer take turns
    insert into postlude.loyalty_accounts as a (customer_id, points) values (new.customer_id, new.points)
    on conflict (customer_id) do update set points = a.points + excluded.points;
    return null;
end
$$;
comment on function loyalty_balance is 'Trigger: the balance moves with the ledger.';
create trigger loyalty_ledger_balance after insert or update on loyalty_ledger for each row execute function loyalty_balance();

create function loyalty_forbid() returns trigger language plpgsql as $$
begin
    -- there is nothing to lose in an empty one
    if tg_op = 'TRUNCATE' and not exists (select from postlude.loyalty_ledger) then
        return null;
    end if;
    -- two records that turn out to be one person (identities.py) take their entries along, unchanged
    if tg_op = 'UPDATE' and to_jsonb(new) - 'customer_id' = to_jsonb(old) - 'customer_id' then
        return new;
    end if;
    raise exception 'the loyalty ledger is append-only; book a correction with "postlude loyalty adjust"';
end
$$;
comment on function loyalty_forbid is 'Trigger: nothing in the ledger is ever changed or removed.';
create trigger loyalty_ledger_append_only before update or delete on loyalty_ledger for each row execute function loyalty_forbid();
create trigger loyalty_ledger_keep before truncate on loyalty_ledger for each statement execute function loyalty_forbid();

create function loyalty_moved() returns trigger language plpgsql as $$
begin
    insert into postlude.moved_customers values (new.customer_id);
    return null;
end
$$;
comment on function loyalty_moved is 'Trigger: points, tier and membership are features, so the customer is judged again by the segments.';
create trigger loyalty_accounts_moved after insert or update on loyalty_accounts for each row execute function loyalty_moved();
create trigger loyalty_memberships_moved after insert or update on loyalty_memberships for each row execute function loyalty_moved();

create view loyalty_expiries as
select e.customer_id, e.expires_at, cast(least(e.points, e.up_to + s.spent) as int) as points
from (
    select l.customer_id, l.expires_at, sum(l.points) as points,
           sum(sum(l.points)) over (partition by l.customer_id order by l.expires_at) as up_to
    from loyalty_ledger as l
    where l.points > 0 and l.expires_at is not null
    group by l.customer_id, l.expires_at
) as e
cross join lateral (
    select coalesce(sum(l.points), 0) as spent from loyalty_ledger as l where l.customer_id = e.customer_id and l.points < 0
) as s
where e.up_to + s.spent > 0;
comment on view loyalty_expiries is 'Points that will go, and when: what was spent came from those that go first.';

create or replace view customer_features as
select
    f.customer_id, f.source_id, f.first_order_at, f.last_order_at, f.last_order_id, r.recency_days, f.frequency, f.monetary,
    f.median_gap_days, f.stage, f.stage_since, f.next_stage_at, f.loyal_since,
    cast(case
        when b.source_id is null then null
        when (-r.recency_days, f.customer_id) > (-b.recency_days[4], b.recency_ids[4]) then 5
        when (-r.recency_days, f.customer_id) > (-b.recency_days[3], b.recency_ids[3]) then 4
        when (-r.recency_days, f.customer_id) > (-b.recency_days[2], b.recency_ids[2]) then 3
        when (-r.recency_days, f.customer_id) > (-b.recency_days[1], b.recency_ids[1]) then 2
        else 1
    end as smallint) as r_score,
    cast(case
        when b.source_id is null then null
        when (f.frequency, f.customer_id) > (b.frequency[4], b.frequency_ids[4]) then 5
        when (f.frequency, f.customer_id) > (b.frequency[3], b.frequency_ids[3]) then 4
        when (f.frequency, f.customer_id) > (b.frequency[2], b.frequency_ids[2]) then 3
        when (f.frequency, f.customer_id) > (b.frequency[1], b.frequency_ids[1]) then 2
        else 1
    end as smallint) as f_score,
    cast(case
        when b.source_id is null then null
        when (f.monetary, f.customer_id) > (b.monetary[4], b.monetary_ids[4]) then 5
        when (f.monetary, f.customer_id) > (b.monetary[3], b.monetary_ids[3]) then 4
        when (f.monetary, f.customer_id) > (b.monetary[2], b.monetary_ids[2]) then 3
        when (f.monetary, f.customer_id) > (b.monetary[1], b.monetary_ids[1]) then 2
        else 1
    end as smallint) as m_score,
    a.points,
    a.tier,
    coalesce(m.kind, 'no') as member
from customer_facts as f
left join feature_state as s on s.only_row
left join quintile_borders as b on b.source_id = f.source_id
left join loyalty_accounts as a on a.customer_id = f.customer_id
left join loyalty_memberships as m on m.customer_id = f.customer_id and m.left_at is null
cross join lateral (
    select cast(floor(extract(epoch from s.as_of - f.last_order_at) / 86400) as int) as recency_days
) as r;
comment on column customer_features.points is 'loyalty points as of now; null: never had any';
comment on column customer_features.tier is 'loyalty tier; null: no member';
comment on column customer_features.member is 'no, free or paid';

-- ------------------------------------------------------------------ service recovery

create table recoveries (
    recovery_id  bigint generated always as identity primary key,
    customer_id  bigint not null references customers,
    order_id     bigint references orders,
    cause        text not null check (cause in ('low_score', 'late', 'damaged', 'refund_late')),
    fact         text not null unique,
    at           timestamptz not null,
    opened_at    timestamptz not null,
    score        smallint,
    owner        text not null,
    owner_email  text not null,
    make_good    boolean not null,
    resolved_at  timestamptz,
    resolved_by  text,
    resolution   text,
    check (num_nonnulls(resolved_at, resolved_by, resolution) in (0, 3))
);
create index recoveries_open on recoveries (customer_id) where resolved_at is null;
create index recoveries_customer on recoveries (customer_id, opened_at);
comment on table recoveries is 'Things that went wrong for a customer. While one is open no promotion goes to this person.';
comment on column recoveries.fact is 'the fact it rests on, e.g. late:<source>:<order>: opened once, however often it is seen';
comment on column recoveries.make_good is 'may a coupon be given? Not more often than the file says in a year';

-- ------------------------------------------------------------------ surprise gifts

create table gift_months (
    month       date primary key,
    seed        text not null,
    drawn_at    timestamptz not null,
    customers   bigint not null,
    eligible    bigint not null,
    left_out    jsonb not null,
    budget      numeric not null,
    spent       numeric not null
);
comment on table gift_months is 'The monthly draw: who could win, who was left out and why (counts), what it may cost and does.';

create table gift_draws (
    month       date not null references gift_months,
    customer_id bigint not null references customers,
    place       int not null,
    gift        text not null,
    kind        text not null check (kind in ('gift', 'coupon', 'thanks')),
    worth       numeric not null,
    at          timestamptz not null,
    state       text not null default 'drawn' check (state in ('drawn', 'given', 'withdrawn')),
    reason      text,
    settled_at  timestamptz,
    primary key (month, customer_id),
    check ((state = 'withdrawn') = (reason is not null))
);
create index gift_draws_customer on gift_draws (customer_id);
create index gift_draws_due on gift_draws (at) where state = 'drawn';
comment on table gift_draws is 'Who was drawn, for what, and on which day; looked at again on that day.';
comment on column gift_draws.place is 'place in the order that seed, month and customer give: drawn again, the same';
