-- terms_known: does the database know how long consents last, as include/legal.yml says now?
--
-- reads   consent_terms
-- params  terms jsonb
-- re-run  safe: only reads
select not exists (
    (
        select t.* from told_terms(:terms) as t
        except
        select c.* from consent_terms as c
    )
    union all
    (
        select c.* from consent_terms as c
        except
        select t.* from told_terms(:terms) as t
    )
) as known
