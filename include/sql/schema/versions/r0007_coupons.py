"""Coupons: pools, codes with their life, and what gives a code back when its message does not go."""

from pathlib import Path

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    script = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().connection.driver_connection.execute(script)


def downgrade() -> None:
    script = """
        set local search_path = postlude;
        drop trigger messages_give_back_coupon on messages;
        drop trigger messages_forget_coupon on messages;
        drop index messages_awaiting_coupon;
        drop function give_back_coupon();
        drop table referral_codes, coupons, coupon_pools cascade;
    """
    op.get_bind().connection.driver_connection.execute(script)
