-- All that the public pages may do, as functions that run with their owner's rights. The role postlude_web may execute these and
-- nothing else: it can neither read an address nor write a table. Replaced by every `postlude init`, like the rules.

set search_path = postlude;

create or replace function public_land(source_ text, key_ text, payload_ jsonb, now_ timestamptz) returns void
language sql as $$
    insert into event_inbox (received_at, source, dedupe_key, payload)
    select now_, source_, key_, payload_
    where length(key_) <= 400 and pg_column_size(payload_) <= 65536
    on conflict (dedupe_key) do nothing
$$;
comment on function public_land is 'Keeps what a person or a provider said until the feedback stage takes it in; the same key is kept once.';

create or replace function public_unsubscribe(message uuid, now_ timestamptz) returns void
language sql as $$
    insert into suppressions (address, scope, reason, since)
    select distinct address_on(m.channel, c.address, c.phone), 'marketing', 'unsubscribed', now_
    from messages as m join customers as c using (customer_id)
    where m.message_id = message and address_on(m.channel, c.address, c.phone) is not null
    on conflict (address, scope, reason) where lifted_at is null do nothing
$$;
comment on function public_unsubscribe is 'No marketing any more to the address or number this message went to, from this commit on.';

create or replace function public_locale(message uuid) returns text
language sql stable as $$
    select c.locale from messages as m join customers as c using (customer_id) where m.message_id = message
$$;
comment on function public_locale is 'The language of the customer who got this message.';

create or replace function public_preferences(message uuid, topics text[], now_ timestamptz)
returns table (masked text, break_until timestamptz, suppressed text, agreed text[])
language sql stable as $$
    select
        regexp_replace(c.address, '^(.).*@(.).*(\.[^.]+)$', '\1…@\2…\3'),
        break_until(c.customer_id, now_),
        suppression_of_person(c.customer_id, 'email', 'marketing', now_),
        array(select t from unnest(topics) as t where consented(c.customer_id, 'email', t, now_))
    from messages as m join customers as c using (customer_id)
    where m.message_id = message
$$;
comment on function public_preferences is
    'What the customer who got this message has chosen: the topics agreed to, a break, what else stands against writing. The address is masked.';

create or replace function public_prefer(message uuid, wanted jsonb, length_ interval, now_ timestamptz) returns text
language plpgsql as $$
declare
    person record;
    no_more constant interval := interval '366 days';
begin
    select c.customer_id, c.address into person
    from messages as m join customers as c using (customer_id) where m.message_id = message
    for update of c;  -- two windows of one person take turns
    if not found then
        return null;
    end if;
    insert into consents (customer_id, channel, topic, granted, at, basis, known_at)
    select person.customer_id, 'email', w.key, w.value::boolean, now_, 'preference', now_
    from jsonb_each_text(wanted) as w
    where length(w.key) <= 64 and w.value::boolean <> consented(person.customer_id, 'email', w.key, now_)
    on conflict do nothing;
    -- who asks for something again has taken the earlier "nothing at all" back; a complaint or a bounce is not theirs to lift here
    update suppressions as s
    set lifted_at = now_, lifted_by = 'preferences page', lift_reason = 'the person asked for mail again'
    where s.address = person.address and s.reason = 'unsubscribed' and s.lifted_at is null
      and exists (select from jsonb_each_text(wanted) as w where w.value::boolean);
    if length_ is not null then
        update breaks as p set ended_at = now_
        where p.customer_id = person.customer_id and p.ended_at is null and p.until > now_ and p.since <= now_
          and p.until is distinct from now_ + length_;
        if length_ > interval '0' then
            insert into breaks (customer_id, since, until, asked_by, message_id)
            select person.customer_id, now_, now_ + least(length_, no_more), 'preferences', message
            where break_until(person.customer_id, now_) is null;
        end if;
    end if;
    return suppression_of_person(person.customer_id, 'email', 'marketing', now_);
end
$$;
comment on function public_prefer is
    'Keeps the topics a person wants or does not want, a break (0: it is over), in one go; returns what else stands against writing to them.';

create or replace function public_banners(person_ uuid, now_ timestamptz)
returns table (message_id uuid, title text, body text, link text, shown_until timestamptz)
language sql stable as $$
    select b.message_id, b.title, b.body, b.link, b.shown_until
    from banners as b
    where b.person = person_ and b.shown_from <= now_ and b.shown_until > now_
    order by b.shown_from desc, b.message_id
    limit 5
$$;
comment on function public_banners is 'What the shop''s page shows to one person now, the newest first.';

create or replace function public_take_token(provider_ text, token_ text, body_hash_ text, now_ timestamptz) returns boolean
language sql as $$
    insert into webhook_tokens as w (provider, token, body_hash, seen_at)
    select provider_, token_, body_hash_, now_
    where length(provider_) <= 20 and length(token_) <= 200 and length(body_hash_) <= 64
    on conflict (provider, token) do update set seen_at = w.seen_at
    returning w.body_hash = body_hash_
$$;
comment on function public_take_token is 'May a signed token be used for this body? The first body that comes with it has it for ever.';

create or replace function public_land_report(source_ text, key_ text, raw_ jsonb, now_ timestamptz) returns bigint
language sql as $$
    with kept as (
        insert into event_inbox (received_at, source, dedupe_key, payload, raw)
        select now_, source_, key_, '{}', raw_
        where length(source_) <= 20 and length(key_) <= 500
        on conflict (dedupe_key) do nothing
        returning 1
    )
    select count(*) from kept
$$;
comment on function public_land_report is 'Keeps what a provider reported, as it came, until the feedback stage reads it; the same key is kept once. How many are new.';

create or replace function public_calendar_changes(now_ timestamptz) returns table (revision bigint, at timestamptz, changes jsonb)
language sql stable as $$
    select r.revision, r.at, r.changes from calendar_revisions as r where r.at <= now_ order by r.revision
$$;
comment on function public_calendar_changes is 'What was changed over the calendar file, without who and why: for the feed that calendar apps read.';

create or replace function public_planned(now_ timestamptz) returns table (day date, campaign text, mails bigint)
language sql stable as $$
    select cast(m.send_at at time zone 'UTC' as date), m.campaign_id, count(*)
    from messages as m
    where m.state in ('scheduled', 'held') and m.send_at >= now_ and m.send_at < now_ + interval '60 days'
    group by 1, 2
    order by 1, 2
$$;
comment on function public_planned is 'How many mails are planned per day and campaign: counts, nobody''s data.';

do $$
declare
    one regprocedure;
begin
    for one in
        select p.oid::regprocedure from pg_proc as p
        where p.pronamespace = 'postlude'::regnamespace and p.proname like 'public\_%'
    loop
        -- pg_temp last: a table made by the caller must not stand in front of ours
        execute format('alter function %s security definer set search_path = postlude, pg_temp', one);
        execute format('revoke all on function %s from public', one);
        if exists (select from pg_roles where rolname = 'postlude_web') then
            execute format('grant execute on function %s to postlude_web', one);
        end if;
    end loop;
    if exists (select from pg_roles where rolname = 'postlude_web') then
        execute format('grant connect on database %I to postlude_web', current_database());
        grant usage on schema postlude to postlude_web;
    end if;
exception
    when insufficient_privilege then raise notice 'rights of the role postlude_web could not be given';
end
$$;
