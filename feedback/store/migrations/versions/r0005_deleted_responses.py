"""Which responses may no longer be looked up."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """None has been deleted yet, unless the table has outlived a downgrade."""
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
        if_not_exists=True,
    )


def downgrade() -> None:
    """The table stays: what people have deleted must not come back with the next upgrade."""
