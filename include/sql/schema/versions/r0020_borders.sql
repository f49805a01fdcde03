-- Revision 0020: borders that move.

set local search_path = postlude;

create table facts_changed (
    source_id     text not null,
    customer_id   bigint not null,
    weight        smallint not null check (weight in (-1, 1)),
    last_order_at timestamptz not null,
    frequency     int not null,
    monetary      numeric not null
);
comment on table facts_changed is 'Rows of customer_facts that went (-1) and came (1) since the borders were set; setting them empties it.';

create function note_dropped_facts() returns trigger language plpgsql as $$
begin
    insert into postlude.facts_changed (source_id, customer_id, weight, last_order_at, frequency, monetary)
    select b.source_id, b.customer_id, -1, b.last_order_at, b.frequency, b.monetary from before_rows as b;
    return null;
end
$$;
comment on function note_dropped_facts is 'Trigger: whoever drops facts (a derivation, a merge of two people), the borders learn of it.';
create trigger facts_dropped after delete on customer_facts referencing old table as before_rows
    for each statement execute function note_dropped_facts();

alter table quintile_borders
    add column last_order_at timestamptz[],
    add column last_order_ids bigint[];
comment on column quintile_borders.last_order_at is
    'with last_order_ids: the border by the exact time of the last order, from which the one by days of recency is found';

-- facts that went before this revision were not noted: the next derivation starts from nothing
update feature_state set rules = null;
