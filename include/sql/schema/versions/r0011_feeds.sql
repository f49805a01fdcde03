-- Revision 0011: the history of each feed, which the freshness gate compares it with.

set local search_path = postlude;

create table feed_days (
    source_id  text not null references sources,
    entity     text not null check (entity in ('orders', 'reviews', 'returns')),
    day        date not null,
    rows       bigint not null check (rows >= 0),
    newest     timestamptz not null,
    counted_at timestamptz not null,
    primary key (source_id, entity, day)
);
comment on table feed_days is 'Rows of accepted loads by the shop''s calendar day on which they happened. A day without a row had none.';
comment on column feed_days.newest is 'time of the newest of them';
comment on column feed_days.counted_at is 'the load that last touched this day';

create table feed_marks (
    source_id      text not null references sources,
    loaded_at      timestamptz not null,
    complete_until timestamptz not null,
    primary key (source_id, loaded_at)
);
comment on table feed_marks is 'The watermark of orders after each accepted load: how far behind this feed was at any time of any past week.';

create index reviews_created on reviews (created_at);
