"""API keys expire, know who made them, and have limits of their own."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Keys that were there go on as they were: for ever, and without limits of their own."""
    for column in (
        sa.Column("expires", sa.DateTime(timezone=True), nullable=True),
        sa.Column("made_by", sa.String, nullable=True, comment="Id of the key that made it."),
        sa.Column(
            "quota", sa.Text, nullable=False, server_default="{}", comment="feedback.quota.Quota as JSON."
        ),
    ):
        op.add_column("api_keys", column)
    op.create_index("api_keys_by_tenant", "api_keys", ["tenant", "created"])


def downgrade() -> None:
    """A key that has expired would live again without the column: it is revoked instead."""
    keys = sa.table("api_keys", sa.column("expires", sa.DateTime), sa.column("revoked", sa.DateTime))
    op.execute(
        keys.update()
        .where(keys.c.expires <= sa.func.current_timestamp(), keys.c.revoked.is_(None))
        .values(revoked=keys.c.expires)
    )
    op.drop_index("api_keys_by_tenant", "api_keys")
    for column in ("expires", "made_by", "quota"):
        op.drop_column("api_keys", column)
