-- Revision 0018: what all workers of a channel share about its relay and about mailbox providers.

set local search_path = postlude;

create table relay_breakers (
    channel     text primary key,
    failures    int not null check (failures > 0),
    reply       text not null,
    opened_at   timestamptz,
    wait        interval,
    next_try_at timestamptz,
    check ((opened_at is null) = (wait is null) and (opened_at is null) = (next_try_at is null))
);
comment on table relay_breakers is 'Channels whose relay failed last time. No row: it works. Open: nothing is claimed before next_try_at, then one message tries.';
comment on column relay_breakers.failures is 'in a row, of all workers and runs';
comment on column relay_breakers.wait is 'doubles with every try that fails';

create table provider_pace (
    channel    text not null,
    family     text not null,
    most       int not null check (most > 0),
    lowered_at timestamptz,
    primary key (channel, family)
);
comment on table provider_pace is 'How many messages a minute a mailbox provider gets. Its row is the lock under which places are taken.';
comment on column provider_pace.most is 'as of lowered_at: halved when the provider says "slow down", one more for each minute since, up to the setting';

create table provider_places (
    channel text not null,
    family  text not null,
    second  timestamptz not null,
    taken   int not null check (taken > 0),
    primary key (channel, family, second)
);
comment on table provider_places is 'Places taken in the last minute, by the second: what a provider''s rate is counted by.';
