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
