"""The walking skeleton: orders to report."""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    # past SQLAlchemy: a script with several statements and no parameters
    script = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().connection.driver_connection.execute(script)


def downgrade() -> None:
    raise NotImplementedError("the first revision has nothing below it; drop the database instead")
