"""Responses that are being made while nobody waits for them."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """None is being made yet."""
    op.create_table(
        "background_responses",
        sa.Column("response_id", sa.String, primary_key=True, comment="The request_id."),
        sa.Column("tenant", sa.String, nullable=False),
        sa.Column("response", sa.Text, nullable=False, comment="As its client was first told, as JSON."),
        sa.Column(
            "held_until",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="After that its worker is dead.",
        ),
        sa.Column("cancel", sa.Boolean, nullable=False, comment="Its worker is to stop making it."),
    )


def downgrade() -> None:
    """What is being made cannot be looked up until it has been recorded."""
    op.drop_table("background_responses")
