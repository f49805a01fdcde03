-- relay_works: the relay took a message or answered about one: whatever failed before is over.
--
-- writes  relay_breakers
-- params  channel text
-- re-run  safe: a closed breaker stays closed
delete from relay_breakers
where channel = :channel
