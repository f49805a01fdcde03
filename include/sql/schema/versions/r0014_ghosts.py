"""Ghost messages: when the control group would have had its turn."""

from pathlib import Path

from alembic import op

revision = "0014"
down_revision = "0012"


def upgrade() -> None:
    script = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().connection.driver_connection.execute(script)


def downgrade() -> None:
    raise NotImplementedError("the turns of the control group would be lost; restore the backup instead")
