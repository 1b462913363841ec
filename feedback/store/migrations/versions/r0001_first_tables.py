"""The first tables: three kinds of event, dead letters, API keys."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_TIME = sa.DateTime(timezone=True)
_EVENTS = {
    "requests": ("request_id", "episode_id", "agent", "policy", "caller", "status"),
    "ratings": ("request_id", "rater", "name", "source"),
    "policy_changes": ("agent", "policy", "state", "by"),
}
_INDEXES = [
    ("requests_by_request_id", "requests", ["tenant", "request_id"]),
    ("requests_by_episode_id", "requests", ["tenant", "episode_id"]),
    ("requests_by_time", "requests", ["tenant", "agent", "time"]),
    ("ratings_by_request_id", "ratings", ["tenant", "request_id"]),
    ("ratings_by_time", "ratings", ["tenant", "time"]),
    ("policy_changes_by_time", "policy_changes", ["agent", "time"]),
]


def upgrade() -> None:
    """Create every table and index."""
    for table, columns in _EVENTS.items():
        op.create_table(
            table,
            sa.Column("event_id", sa.String, primary_key=True),
            sa.Column("tenant", sa.String, nullable=False),
            sa.Column("time", _TIME, nullable=False),
            *(sa.Column(column, sa.String, nullable=False) for column in columns),
            sa.Column("payload", sa.Text, nullable=False),
        )
    for index, table, on in _INDEXES:
        op.create_index(index, table, on)
    op.create_table(
        "dead_letters",
        sa.Column(
            "digest",
            sa.String,
            primary_key=True,
            comment="SHA-256 of data: one delivered twice is one letter.",
        ),
        sa.Column("time", _TIME, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "api_keys",
        sa.Column("key_hash", sa.String, primary_key=True),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("tenant", sa.String, nullable=False),
        sa.Column("scopes", sa.String, nullable=False, comment="Separated by spaces."),
        sa.Column("created", _TIME, nullable=False),
        sa.Column("revoked", _TIME, nullable=True),
    )


def downgrade() -> None:
    """Refused: it would delete what people wrote."""
    raise NotImplementedError("the first migration has nothing before it; restore a backup instead")
