"""What the pages read: counts per day, erased people, who suppressed an address and why."""

from pathlib import Path

from alembic import op

revision = "0032"
down_revision = "0030"


def upgrade() -> None:
    script = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().connection.driver_connection.execute(script)


def downgrade() -> None:
    raise NotImplementedError("who was erased is a record that must not be lost; restore a backup instead")
