set local search_path = postlude;

-- a campaign that begins with a payment looks at the last days, not at the orders of a year
create index orders_paid on orders (paid_at) where paid_at is not null;
