set local search_path = postlude;

-- within ten minutes of due time in the order of customers, whose rows lie side by side: a batch then reads few pages of every table.
-- send_at in the key: what is not due yet is passed over without being read
drop index messages_due;
create index messages_due on messages (
    channel, priority, (date_bin('10 minutes', send_at, timestamptz 'epoch')), customer_id, send_at
) where state = 'scheduled';
