-- Revision 0009: where the next pull from a shop begins.

set local search_path = postlude;

create table source_cursors (
    source_id text not null references sources,
    entity    text not null,
    cursor    text not null,
    run_id    text not null,
    moved_at  timestamptz not null,
    primary key (source_id, entity)
);
comment on table source_cursors is 'How far each raw entity of a source that is pulled (sql, shopify, ...) has been loaded. Moves in the transaction of the load.';
comment on column source_cursors.cursor is 'newest value of the cursor column among the loaded rows, with its type: "datetime:2026-12-01T09:30:00+00:00"';
