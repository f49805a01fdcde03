-- Revision 0007: coupon pools, codes, referral codes. A code hangs on a message, never on a person.

set local search_path = postlude;

create table coupon_pools (
    pool        text primary key,
    kind        text not null check (kind in ('generated', 'imported')),
    worth       numeric check (worth > 0),
    most_codes  int check (most_codes >= 0),
    most_value  numeric check (most_value >= 0),
    per         text not null default 'ever' check (per in ('day', 'week', 'month', 'year', 'ever')),
    low_at      int not null default 0 check (low_at >= 0),
    least_days  int not null default 3 check (least_days >= 0),
    updated_at  timestamptz,
    check (most_value is null or worth is not null)
);
comment on table coupon_pools is 'Where codes come from, and how many may go out: include/coupons.yml as last read.';
comment on column coupon_pools.kind is 'generated: codes made here, the shop accepts them by their export; imported: codes the shop made';
comment on column coupon_pools.worth is 'what one redeemed code costs, in the shop''s currency; an estimate, for the budget';
comment on column coupon_pools.most_codes is 'so many codes reserved in one `per` (calendar period, UTC)';
comment on column coupon_pools.low_at is 'alarm when fewer codes than this can still be given';
comment on column coupon_pools.least_days is 'an imported code is given only if it lives so many days more';

create table coupons (
    coupon_id   bigint generated always as identity primary key,
    pool        text not null references coupon_pools,
    code        text unique,
    message_id  uuid unique references messages on delete set null,
    state       text not null check (state in ('free', 'reserved', 'bound', 'released', 'void')),
    valid_until timestamptz,
    created_at  timestamptz not null,
    reserved_at timestamptz,
    bound_at    timestamptz,
    ended_at    timestamptz,
    check (code is not null or state in ('reserved', 'released', 'void')),
    check (state <> 'free' or message_id is null),
    check (state <> 'bound' or bound_at is not null)
);
create unique index coupons_code on coupons (lower(code));
create index coupons_free on coupons (pool, valid_until, coupon_id) where state = 'free';
create index coupons_given on coupons (pool, reserved_at) where state in ('reserved', 'bound');
comment on table coupons is 'One row per code. At most one message holds it, and no message holds two.';
comment on column coupons.code is 'empty while a generated code is only reserved: it is made at hand-over. No two differ by case only';
comment on column coupons.state is
    'free -> reserved (planned for a message) -> bound (committed before the mail that carries it leaves). The message did not go: a reserved '
    'code that nobody saw is free again, any other is `released` and never given to anybody else. void: withdrawn or run out.';
comment on column coupons.valid_until is 'when the shop stops accepting it; empty: the shop does not say';
comment on column coupons.ended_at is 'when it was released or voided';

create table referral_codes (
    customer_id bigint primary key references customers on delete cascade,
    code        text not null unique,
    made_at     timestamptz not null
);
comment on table referral_codes is 'One code per customer, for ever the same, for friends to name.';

create index messages_awaiting_coupon on messages (send_at) where state = 'held' and reason = 'coupon_exhausted';

-- Whoever ends a message (planner, last look, settlement, recovery, a person in psql) gives its code back: a trigger, for no
-- caller can forget it. Only the few final changes call it: the condition is checked before any function runs.
create function give_back_coupon() returns trigger
language plpgsql as $$
begin
    update postlude.coupons as k
    set
        state = case when k.state = 'reserved' and k.code is not null then 'free' else 'released' end,
        message_id = case when tg_op = 'DELETE' or (k.state = 'reserved' and k.code is not null) then null else k.message_id end,
        reserved_at = case when k.state = 'reserved' and k.code is not null then null else k.reserved_at end,
        ended_at = case when k.state = 'reserved' and k.code is not null then null when tg_op = 'DELETE' then now() else coalesce(new.finalized_at, now()) end
    where k.message_id = old.message_id and k.state in ('reserved', 'bound');
    return case when tg_op = 'DELETE' then old else new end;
end
$$;
comment on function give_back_coupon is 'A message that will never go gives its coupon back.';

create trigger messages_give_back_coupon after update on messages for each row
when (new.state in ('cancelled', 'skipped', 'expired', 'failed') and old.state <> new.state)
execute function give_back_coupon();

-- erasure: the code stays withdrawn, what it was for is forgotten
create trigger messages_forget_coupon before delete on messages for each row
when (old.state not in ('sent', 'unknown'))
execute function give_back_coupon();
