"""What has been spent of budgets."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Nothing has been spent yet."""
    op.create_table(
        "usage",
        sa.Column("subject", sa.String, primary_key=True),
        sa.Column("period", sa.String, primary_key=True),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.Column("money", sa.BigInteger, nullable=False, comment="Millionths of the currency."),
    )


def downgrade() -> None:
    """Budgets begin anew."""
    op.drop_table("usage")
