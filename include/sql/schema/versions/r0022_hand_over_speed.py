"""Intents and settlements rewrite rows in place."""


from pathlib import Path

from alembic import op

revision = "0022"
down_revision = "0020"


def upgrade() -> None:
    script = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().connection.driver_connection.execute(script)


def downgrade() -> None:
    op.execute("drop index postlude.messages_customer")
    op.execute("create index messages_customer on postlude.messages (customer_id, handed_over_at)")
    op.execute("drop index postlude.messages_coupon_code")
    op.execute("alter table postlude.messages add constraint messages_coupon_code_key unique (coupon_code)")
    op.execute("alter table postlude.attempts alter constraint attempts_message_id_fkey enforced")
    op.execute("alter table postlude.attempts reset (fillfactor)")
