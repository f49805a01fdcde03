-- Revision 0017: breaks people ask for, and the role of the public pages.

set local search_path = postlude;

create table breaks (
    break_id    bigint generated always as identity primary key,
    customer_id bigint not null references customers,
    since       timestamptz not null,
    until       timestamptz not null,
    asked_by    text not null check (asked_by in ('preferences', 'reply', 'staff')),
    message_id  uuid references messages,
    ended_at    timestamptz,
    check (until > since)
);
create index breaks_customer on breaks (customer_id, until);
create unique index breaks_of_replies on breaks (message_id) where asked_by = 'reply';
comment on table breaks is 'Nothing of marketing goes to this person for a while: they asked for it, or wrote to us and wait for a person.';
comment on column breaks.ended_at is 'ended before `until`, by the person or by staff';
comment on column breaks.message_id is 'the message by whose link, or in answer to which, it was asked for';

-- Rights of the public pages are rights of a role; functions.sql grants them. A server on which we may not make roles goes on
-- without it: then whoever runs it makes the role (docs/public-pages.md) and migrates again.
do $$
begin
    if not exists (select from pg_roles where rolname = 'postlude_web') then
        create role postlude_web login;
    end if;
exception
    when insufficient_privilege then raise notice 'the role postlude_web could not be made';
    when duplicate_object or unique_violation then null;
end
$$;
