-- bound_audience: the hash of the audience that carries a request's number now, whoever has left it since; one that anybody
-- was added to or taken out of has another hash than the one asked about.
--
-- reads   messages
-- params  approval_id bigint
-- re-run  safe: only reads
select
    encode(
        sha256(convert_to(
            coalesce(string_agg(m.customer_id || ' ' || m.step_id, chr(10) order by m.customer_id, m.step_id, m.message_id), ''),
            'UTF8'
        )),
        'hex'
    ) as audience_hash
from messages as m
where m.approval_id = :approval_id
