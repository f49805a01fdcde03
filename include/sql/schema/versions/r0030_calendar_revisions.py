"""Calendar revisions say what they changed, what they were based on, and what they take back."""

from pathlib import Path

from alembic import op

revision = "0030"
down_revision = "0027"


def upgrade() -> None:
    script = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().connection.driver_connection.execute(script)


def downgrade() -> None:
    raise NotImplementedError("who changed what of the calendar is a record; restore a backup instead")
