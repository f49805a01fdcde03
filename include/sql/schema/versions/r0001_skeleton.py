"""The walking skeleton: orders to report."""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.get_bind().exec_driver_sql(Path(__file__).with_name("r0001_skeleton.sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    raise NotImplementedError("the first revision has nothing below it; drop the database instead")
