-- consent_terms: how long consents last, as include/legal.yml says now.
--
-- writes  consent_terms
-- params  terms jsonb
-- re-run  safe: the table equals the file
merge into consent_terms as old
using told_terms(:terms) as new
    on old.country = new.country
when matched and (old.law, old.purchase_for, old.inquiry_for, old.notice_every)
is distinct from (new.law, new.purchase_for, new.inquiry_for, new.notice_every)
    then
    update set law = new.law, purchase_for = new.purchase_for, inquiry_for = new.inquiry_for, notice_every = new.notice_every
when not matched then
    insert (country, law, purchase_for, inquiry_for, notice_every)
    values (new.country, new.law, new.purchase_for, new.inquiry_for, new.notice_every)
when not matched by source then delete
