"""Which responses may no longer be looked up."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "deleted_responses",
        sa.Column("tenant", sa.String, primary_key=True),
        sa.Column(
            "response_id",
            sa.String,
            primary_key=True,
            comment="The request_id; its request need not have landed yet.",
        ),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("by", sa.String, nullable=False),
    )


def downgrade() -> None:
    """Refused: what people have deleted could be looked up again."""
    raise NotImplementedError("deleted responses would come back; restore a backup instead")
