"""What is bought together, what is recommended for it, and what customers answered."""

from pathlib import Path

from alembic import op

revision = "0026"
down_revision = "0025"


def upgrade() -> None:
    script = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().connection.driver_connection.execute(script)


def downgrade() -> None:
    script = "drop table touched_products, product_orders, co_purchases, recommendations, bestsellers, product_gaps, recommend_state"
    op.execute(script)
