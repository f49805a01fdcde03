-- Messages whose answer was lost. Replaced by every `postlude init`.
-- All are "as of now_": a fact counts when it happened before that instant.

set search_path = postlude;

create or replace function postlude.evidence_of(message uuid) returns text
language sql stable parallel safe set search_path = postlude as $$
    select e.kind from events as e
    where e.message_id = message
      and e.kind in ('delivered', 'bounced', 'complained', 'opened', 'clicked', 'scanned', 'replied', 'rated', 'unsubscribed')
    order by e.at limit 1
$$;
comment on function postlude.evidence_of is 'The first report that proves that a message was accepted (only what was accepted can bounce); null: none.';

create or replace function postlude.mind_lost_answer() returns trigger
language plpgsql set search_path = postlude as $$
begin
    if new.state = 'sent' then
        new.resend_at := null;
    elsif old.state = 'sending' and new.state = 'unknown' then
        new.lost_answers := old.lost_answers + 1;
        -- at most twice more, and not before ten minutes have passed without evidence
        new.resend_at := case
            when new.kind = 'transactional' and new.lost_answers <= 2 then new.handed_over_at + interval '10 minutes'
        end;
    elsif old.state in ('sending', 'scheduled') and new.state in ('scheduled', 'held', 'failed', 'cancelled', 'skipped', 'expired') then
        -- this hand-over failed or was refused, but an earlier one may have arrived: it stays unknown
        new.detail := left(concat_ws(': ', 'not handed over again', new.reason, new.detail), 500);
        new.resend_at := case when new.state = 'scheduled' then new.send_at end;
        new.state := 'unknown';
        new.reason := 'answer_lost';
        new.finalized_at := null;
        new.handed_over_at := (
            select max(a.handed_over_at) from attempts as a where a.message_id = new.message_id and a.outcome = 'ambiguous'
        );
    end if;
    return new;
end
$$;
comment on function postlude.mind_lost_answer is 'What may have arrived is never recorded as if it had not, whoever writes: see messages.lost_answers.';

create or replace trigger messages_mind_lost_answer before update of state on postlude.messages
for each row when (old.state is distinct from new.state and (new.state = 'unknown' or old.lost_answers > 0))
execute function postlude.mind_lost_answer();
