-- move_watermark: the source is complete up to its newest accepted order; never back, never into the future.
--
-- reads   staging_orders
-- writes  sources
-- params  source text, now timestamptz
-- re-run  safe: the watermark only rises
update sources as s
set
    loaded_at = :now,
    complete_until = greatest(s.complete_until, (
        select max(o.placed_at)
        from staging_orders as o
        where cardinality(o.problems) = 0 and o.placed_at <= cast(:now as timestamptz) + interval '10 minutes'
    ))
where s.source_id = :source
