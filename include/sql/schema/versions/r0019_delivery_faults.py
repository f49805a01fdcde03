"""What the hand-over remembers of lost answers, of people's decisions about single messages, and of daily quotas."""

from pathlib import Path

from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    script = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().connection.driver_connection.execute(script)


def downgrade() -> None:
    raise NotImplementedError("who decided what about a message is a record; restore a backup instead")
