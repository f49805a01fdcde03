-- Revision 0030: what marketers change in the calendar, and what a message looked like before it was put off.

set local search_path = postlude;

-- ------------------------------------------------------------------ the calendar

alter table calendar_revisions
    add column kind text not null default 'file' check (kind in ('file', 'edit', 'revert')),
    add column changes jsonb not null default '[]',
    add column base bigint,
    add column reverts bigint unique references calendar_revisions,
    add check ((kind = 'revert') = (reverts is not null));
create index calendar_revisions_at on calendar_revisions (at, revision);
comment on table calendar_revisions is
    'Append-only: every calendar that was in force, and who changed what. The file with the changes of all revisions over it holds.';
comment on column calendar_revisions.kind is 'file: include/calendar.yml changed; edit: somebody changed keys over it; revert: a revision was taken back';
comment on column calendar_revisions.changes is '[{key, before, after}]; null: it is not there';
comment on column calendar_revisions.base is 'the revision its author looked at; another one meanwhile is a conflict';

create trigger append_only before update or delete on calendar_revisions for each statement execute function refuse_change();

-- ------------------------------------------------------------------ messages that were moved

create table message_moves (
    move_id     bigint generated always as identity primary key,
    message_id  uuid not null,
    at          timestamptz not null,
    state       text not null,
    reason      text,
    detail      text,
    due_at      timestamptz not null,
    send_at     timestamptz not null,
    expires_at  timestamptz not null,
    max_attempts smallint not null,
    planned_at  timestamptz not null
);
create index message_moves_message on message_moves (message_id, at);
comment on table message_moves is
    'What a message looked like before it was put off, held for something else than its first check, or moved by the calendar. Append-only.';
comment on column message_moves.at is 'by the clock of the statement that moved it, where the message tells it; else of the server';

create function note_move() returns trigger language plpgsql as $$
begin
    insert into postlude.message_moves (message_id, at, state, reason, detail, due_at, send_at, expires_at, max_attempts, planned_at)
    values (
        old.message_id,
        coalesce(nullif(current_setting('postlude.now', true), '')::timestamptz, now()),
        old.state, old.reason, old.detail, old.due_at, old.send_at, old.expires_at, old.max_attempts, old.planned_at
    );
    return null;
end
$$;
comment on function note_move is 'Keeps what a message looked like before it was put off, held or moved: message_moves.';
create trigger messages_note_move after update on messages for each row
when (
    old.state in ('scheduled', 'held', 'sending')
    and (
        old.send_at <> new.send_at or old.due_at <> new.due_at
        or (old.state = 'held') <> (new.state = 'held') and coalesce(old.reason, new.reason) <> 'awaiting_check'
    )
)
execute function note_move();
