"""Answers say what was asked about: the item, its delivery, or the shop as a whole."""

from pathlib import Path

from alembic import op

revision = "0039"
down_revision = "0033"


def upgrade() -> None:
    script = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().connection.driver_connection.execute(script)


def downgrade() -> None:
    raise NotImplementedError("answers about a delivery would be told as answers about the item; restore a backup instead")
