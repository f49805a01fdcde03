-- Delivered text, read: null for what cannot be read. Replaced by every `postlude init`.
-- All are "as of now_": a fact counts when it happened before that instant.

set search_path = postlude;

create or replace function postlude.to_number(given text) returns numeric
language sql immutable parallel safe as $$
    -- plain decimals only: 1,5 and 1.234,50 and 12 EUR and NaN are for a person to look at, not to guess at
    select case
        when given ~ '^\s*[-+]?([0-9]{1,15}(\.[0-9]{0,10})?|\.[0-9]{1,10})\s*$' then cast(given as numeric)
    end
$$;
comment on function postlude.to_number is 'A plain decimal number, or null when the text is none.';

create or replace function postlude.to_instant(given text, zone text) returns timestamptz
language sql stable parallel safe as $$
    -- ISO 8601 only: 03/04/2010 is two different days in two countries
    select case
        when given is null or not given ~ '^\s*[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?\s*(Z|[-+][0-9]{2}(:?[0-9]{2})?)?)?\s*$' then null
        when not pg_input_is_valid(given, 'timestamptz') then null
        when given ~ '[T ][0-9:.]+\s*(Z|[-+][0-9:]+)\s*$' then cast(given as timestamptz)
        when zone = 'UTC' then cast(given as timestamp) at time zone 'UTC'
        else postlude.local_instant(cast(given as timestamp), zone)
    end
$$;
comment on function postlude.to_instant(text, text) is 'An ISO 8601 instant; without offset it is taken as wall time in `zone`. Null when the text is none.';

create or replace function postlude.to_instant(given text) returns timestamptz
language sql stable parallel safe as $$
    select postlude.to_instant(given, current_setting('postlude.zone'))
$$;
comment on function postlude.to_instant(text) is 'An ISO 8601 instant; without offset it is taken as wall time of the shop. Null when the text is none.';

create or replace function postlude.to_day(given text) returns date
language sql immutable parallel safe as $$
    select case
        when given ~ '^\s*[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9:.]+)?\s*$' and pg_input_is_valid(left(btrim(given), 10), 'date')
            then cast(left(btrim(given), 10) as date)
    end
$$;
comment on function postlude.to_day is 'An ISO 8601 date (a wall time after it is cut off), or null when the text is none.';

create or replace function postlude.to_phone(given text) returns text
language sql immutable parallel safe as $$
    -- a number without its country is not guessed at: the customer is kept, and has none
    select case when n.number ~ '^[+][1-9][0-9]{6,14}$' then n.number end
    from (select regexp_replace(regexp_replace(btrim(given), '^00', '+'), '[ ()./-]', '', 'g') as number) as n
$$;
comment on function postlude.to_phone is 'A telephone number as E.164 writes it (+4930123456), or null when the text is none.';

create or replace function postlude.to_flag(given text) returns boolean
language sql immutable parallel safe as $$
    select case lower(btrim(given))
        when 'true' then true when 't' then true when 'yes' then true when 'y' then true when '1' then true
        when 'false' then false when 'f' then false when 'no' then false when 'n' then false when '0' then false
    end
$$;
comment on function postlude.to_flag is 'true, yes, 1 or false, no, 0; null for anything else.';
