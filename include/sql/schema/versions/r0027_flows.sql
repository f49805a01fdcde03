-- Revision 0027: what order mails say, and what their conditions ask. All of it may be empty: a shop tells what it has.

set local search_path = postlude;

alter table orders
    add column shipping_amount numeric,
    add column discount_amount numeric,
    add column tax_amount numeric,
    add column payment text,
    add column address text,
    add column url text;
comment on column orders.payment is 'how it was paid, masked by the shop: "Visa ending in 4242". Never a whole number';
comment on column orders.address is 'where it goes, one line below the other';
comment on column orders.discount_amount is 'taken off the items, a positive number';
comment on column orders.tax_amount is 'included in what was paid';
comment on column orders.url is 'the order''s own page in the shop';

alter table shipments
    add column tracking_number text;
create index shipments_shipped on shipments (shipped_at) where shipped_at is not null;

alter table returns
    add column exchanged_at timestamptz,
    add column refund_amount numeric,
    add column refund_due_on date,
    add column label_url text;
comment on column returns.exchanged_at is 'when another item was sent instead of the money';
comment on column returns.refund_due_on is 'the day by which the shop promised the money; empty: POSTLUDE_REFUND_DAYS after it was received';

alter table products
    add column cost numeric;
comment on column products.cost is 'what one costs the shop; empty: not told, and then no rule about margins holds';

alter table tickets
    add column topic text;
comment on column tickets.topic is 'what it is about, in the words of the shop''s system; `where_is_my_order` is read by conditions';

drop function if exists passage_values(uuid, timestamptz);
