"""What all workers of a channel share: whether the relay takes mail, and how fast a mailbox provider may be written to."""

from pathlib import Path

from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    script = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().connection.driver_connection.execute(script)


def downgrade() -> None:
    raise NotImplementedError("older workers would not obey what these tables say; restore a backup instead")
