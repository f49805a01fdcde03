-- trial_version: the campaign as its file is now, for a trial that is rolled back.
--
-- reads   nothing
-- writes  campaign_versions
-- params  campaign text, version text, definition jsonb, now timestamptz
-- re-run  safe: rolled back by the caller
insert into campaign_versions (campaign_id, version, definition, first_seen)
values (:campaign, :version, cast(:definition as jsonb), :now)
