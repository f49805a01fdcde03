-- switch_names: what can be stopped by name, so that a typing error does not look like a stop.
--
-- reads   campaign_versions, sources
-- re-run  safe: only reads
select 'campaign' as scope, v.campaign_id as name
from campaign_versions as v
union
select 'shop', s.source_id
from sources as s
