-- register_source: the source file in force.
--
-- reads   sources
-- writes  sources
-- params  source text, shop text, kind text, currency text, zone text, locale text, settings jsonb
-- re-run  safe: an unchanged file changes nothing
insert into sources as s (source_id, shop, kind, currency, time_zone, locale, settings)
values (:source, :shop, :kind, :currency, :zone, :locale, cast(:settings as jsonb))
on conflict (source_id) do update set
    shop = excluded.shop,
    kind = excluded.kind,
    currency = excluded.currency,
    time_zone = excluded.time_zone,
    locale = excluded.locale,
    settings = excluded.settings
where
    (s.shop, s.kind, s.currency, s.time_zone, s.locale, s.settings)
    is distinct from (excluded.shop, excluded.kind, excluded.currency, excluded.time_zone, excluded.locale, excluded.settings)
