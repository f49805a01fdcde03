-- Revision 0005: what the hand-over obeys beside the rules of a campaign.

set local search_path = postlude;

-- ------------------------------------------------------------------ kill switches

create table kill_switches (
    switch_id   bigint generated always as identity primary key,
    scope       text not null check (scope in ('all', 'campaign', 'channel', 'shop')),
    name        text not null default '',
    transactional_too boolean not null default false,
    why         text not null check (why <> ''),
    stopped_by  text not null,
    since       timestamptz not null,
    lifted_at   timestamptz,
    lifted_by   text,
    lift_reason text,
    check ((scope = 'all') = (name = '')),
    check ((lifted_at is null) = (lift_reason is null) and (lifted_at is null) = (lifted_by is null))
);
create unique index kill_switches_in_force on kill_switches (scope, name, transactional_too) where lifted_at is null;
comment on table kill_switches is 'What must not be handed over, who stopped it and why. Never deleted; lifting keeps who and why. One in force per scope and name.';
comment on column kill_switches.name is 'campaign id, channel name or source id; empty for all';
comment on column kill_switches.transactional_too is 'stops transactional mail as well; a campaign named itself always stops';

-- ------------------------------------------------------------------ whose clock

create table countries (
    country text primary key check (country ~ '^[A-Z]{2}$'),
    zone    text
);
comment on table countries is 'ISO 3166 countries, from tzdata''s zone.tab.';
comment on column countries.zone is 'the zone of a country with one clock; null where clocks differ: nothing can be concluded there';

create table country_names (
    name    text primary key,
    country text not null references countries
);
comment on table country_names is 'What shops call a country, in lower case: its code and its name in ten languages.';

create view recipients as
select
    c.customer_id,
    c.source_id,
    coalesce(z.zone, w.zone, s.time_zone) as zone,
    case when z.zone is not null then 'profile' when w.zone is not null then 'country' else 'shop' end as zone_from,
    k.country
from customers as c
join sources as s on c.source_id = s.source_id
left join time_zones as z on c.time_zone = z.zone
left join country_names as n on n.name = lower(btrim(c.country))
left join countries as k on n.country = k.country
left join time_zones as w on k.zone = w.zone;
comment on view recipients is 'Whose clock a message follows: the profile''s zone, else the country''s if it has one clock, else the shop''s.';

-- ------------------------------------------------------------------ control groups

create table holdouts (
    customer_id bigint not null references customers,
    campaign_id text not null default '',
    held        boolean not null,
    share       numeric not null check (share > 0 and share <= 0.5),
    salt        text not null,
    since       timestamptz not null,
    run_id      text not null,
    primary key (customer_id, campaign_id)
);
comment on table holdouts is 'Who is left alone on purpose and who is not: drawn once, at the first enrolment, and kept whatever share and salt become later.';
comment on column holdouts.campaign_id is 'empty: the global control group, left alone by every marketing campaign';
comment on column holdouts.share is 'the share in force when it was drawn; with it, each cohort''s expected size is known';
