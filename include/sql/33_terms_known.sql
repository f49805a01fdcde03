-- terms_known: does the database know how long consents last, as include/legal.yml says now?
--
-- reads   consent_terms
-- params  terms jsonb
-- re-run  safe: only reads
with told as (
    select
        t.country,
        t.law,
        make_interval(months => t.purchase) as purchase_for,
        make_interval(months => t.inquiry) as inquiry_for,
        make_interval(months => t.notice) as notice_every
    from jsonb_to_recordset(:terms) as t (country text, law text, purchase int, inquiry int, notice int)
),

known as (
    select
        c.country,
        c.law,
        c.purchase_for,
        c.inquiry_for,
        c.notice_every
    from consent_terms as c
)

select not exists ((table told except table known) union all (table known except table told)) as known
