-- Revision 0024: events that start campaigns belong to an order where they are about one; stock and price have a history.

set local search_path = postlude;

alter table external_events
    add column order_id bigint references orders on delete set null,
    add column worked_out boolean not null default false;
create index external_events_order on external_events (order_id) where order_id is not null;
comment on column external_events.order_id is 'the order it is about, if it is about one: the passage it starts has its items';
comment on column external_events.worked_out is 'true: made by happenings.py from what is known (docs/happenings.md); false: told by a system of the shop';
comment on column external_events.detail is 'what a template may use as `event`; docs/happenings.md has the keys of each kind';

alter table products
    add column stock numeric;
comment on column products.stock is 'pieces that can be sold; null: the shop tells no number';
comment on column products.in_stock is 'can it be bought now? As told, else stock > 0; null: the shop does not tell';

create table product_changes (
    change_id bigint generated always as identity primary key,
    source_id text not null references sources,
    sku       text not null,
    at        timestamptz not null,
    known_at  timestamptz not null,
    what      text not null check (what in ('gone', 'back', 'price')),
    was       numeric,
    now       numeric
);
create index product_changes_at on product_changes (known_at);
create index product_changes_sku on product_changes (source_id, sku, at);
comment on table product_changes is 'Append-only: a product went out of stock, came back, or changed its price. A product first seen has no change.';
comment on column product_changes.at is 'when the shop says it changed, never later than it became known';
comment on column product_changes.was is 'price: before; null for gone and back';
comment on column product_changes.now is 'price: after; back: pieces there, null where the shop tells no number';
