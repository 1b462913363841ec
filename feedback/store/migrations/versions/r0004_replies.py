"""Answers that are kept for whoever sends the same request again."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """None has been kept yet."""
    op.create_table(
        "replies",
        sa.Column("tenant", sa.String, primary_key=True),
        sa.Column("key_id", sa.String, primary_key=True, comment="The API key of the caller."),
        sa.Column("name", sa.String, primary_key=True, comment="The caller's Idempotency-Key."),
        sa.Column("digest", sa.String, nullable=False, comment="SHA-256 of the request."),
        sa.Column("holder", sa.String, nullable=False, comment="Who answers, or has answered."),
        sa.Column("held_until", _TIME, nullable=False, comment="After that another may answer."),
        sa.Column("expires", _TIME, nullable=False),
        sa.Column("status", sa.Integer, nullable=True, comment="None: not answered yet."),
        sa.Column("headers", sa.Text, nullable=True, comment="As a JSON object."),
        sa.Column("body", sa.LargeBinary, nullable=True, comment="None: too large to be kept."),
    )
    op.create_index("replies_by_expires", "replies", ["expires"])


def downgrade() -> None:
    """What is sent again is answered again."""
    op.drop_index("replies_by_expires", "replies")
    op.drop_table("replies")
