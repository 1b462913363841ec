"""What was erased is remembered by its hash; what erasures and retention look for is found by an index."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision: str | None = "0009"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Nothing has been erased before: there was no way to ask for it."""
    op.create_table(
        "forgotten",
        sa.Column(
            "digest",
            sa.String,
            primary_key=True,
            comment="Of a request or an episode that was erased: see erasing.",
        ),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False, comment="The erasure's."),
    )
    op.create_index("requests_by_caller", "requests", ["tenant", "caller", "time"])
    op.create_index("dead_letters_by_time", "dead_letters", ["time"])


def downgrade() -> None:
    """The erasures themselves stay, and cover what comes with the person's own name or the request's own id."""
    op.drop_index("dead_letters_by_time", "dead_letters")
    op.drop_index("requests_by_caller", "requests")
    op.drop_table("forgotten")
