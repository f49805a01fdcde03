-- Revision 0022: each hand-over writes its message and its attempt three times; the second and third time in place.

set local search_path = postlude;

-- a person has few messages; with the instant in it, every intent wrote all indexes of the table
drop index messages_customer;
create index messages_customer on messages (customer_id);

-- few messages have a code
alter table messages drop constraint messages_coupon_code_key;
create unique index messages_coupon_code on messages (coupon_code) where coupon_code is not null;

alter table attempts set (fillfactor = 40);
-- an attempt is only ever written by the statement that has just updated its message; asking for that row once more, and locking it,
-- cost as much as the attempt
alter table attempts alter constraint attempts_message_id_fkey not enforced;
