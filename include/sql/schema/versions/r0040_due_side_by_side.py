"""What is due is claimed customer by customer within ten minutes of due time."""

from pathlib import Path

from alembic import op

revision = "0040"
down_revision = "0039"


def upgrade() -> None:
    script = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().connection.driver_connection.execute(script)


def downgrade() -> None:
    op.execute("drop index postlude.messages_due")
    op.execute(
        "create index messages_due on postlude.messages (channel, priority, send_at, message_id) where state = 'scheduled'"
    )
