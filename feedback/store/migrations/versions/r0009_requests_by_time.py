"""Requests of all agents of a tenant in the order of time, as exports read them."""

from collections.abc import Sequence

from alembic import op

revision = "0009"
down_revision: str | None = "0008"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """An index beside the one by agent."""
    op.create_index("requests_by_tenant_time", "requests", ["tenant", "time"])


def downgrade() -> None:
    """Such a read sorts again."""
    op.drop_index("requests_by_tenant_time", "requests")
