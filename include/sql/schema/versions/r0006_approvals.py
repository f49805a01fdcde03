"""The volume gate: named approvals bound to an audience, and canaries."""

from pathlib import Path

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    # past SQLAlchemy: a script with several statements and no parameters
    script = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().connection.driver_connection.execute(script)


def downgrade() -> None:
    raise NotImplementedError("a decision once written down stays; restore a backup of before this revision instead")
