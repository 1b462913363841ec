"""Ratings of episodes and of single calls, ratings that were withdrawn, and what must be forgotten."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_EPISODE = {
    "sqlite": "json_extract(payload, '$.episode_id')",
    # PostgreSQL reads no JSON that has a NUL anywhere; an id has none
    "postgresql": r"replace(payload, '\u0000', '\ufffd')::json ->> 'episode_id'",
}


def upgrade() -> None:
    """Every rating of before is about a whole request, and stands."""
    with op.batch_alter_table("ratings") as ratings:
        ratings.alter_column("request_id", existing_type=sa.String, nullable=True)
        ratings.add_column(sa.Column("call", sa.Integer, nullable=True))
        ratings.add_column(sa.Column("episode_id", sa.String, nullable=True))
        ratings.add_column(sa.Column("withdrawn", sa.Boolean, nullable=False, server_default=sa.false()))
    episode = _EPISODE[op.get_bind().dialect.name]
    op.execute(f"UPDATE ratings SET episode_id = {episode}")  # noqa: S608  # two constants
    op.create_index("ratings_by_episode_id", "ratings", ["tenant", "episode_id"])
    op.create_table(
        "erasures",
        sa.Column("event_id", sa.String, primary_key=True),
        sa.Column("tenant", sa.String, nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("person", sa.String, nullable=True),
        sa.Column("request_id", sa.String, nullable=True),
        sa.Column("by", sa.String, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
    )
    op.create_index("erasures_by_person", "erasures", ["tenant", "person"])
    op.create_index("erasures_by_request_id", "erasures", ["tenant", "request_id"])


def downgrade() -> None:
    """What the older tables cannot hold goes: ratings of episodes and calls, and whatever was withdrawn."""
    op.drop_table("erasures")
    op.drop_index("ratings_by_episode_id", "ratings")
    op.execute("DELETE FROM ratings WHERE request_id IS NULL OR call IS NOT NULL")
    op.execute(
        "DELETE FROM ratings WHERE EXISTS (SELECT 1 FROM ratings AS later WHERE later.withdrawn "
        "AND later.tenant = ratings.tenant AND later.request_id = ratings.request_id "
        "AND later.rater = ratings.rater AND later.name = ratings.name AND later.time >= ratings.time)"
    )
    with op.batch_alter_table("ratings") as ratings:
        ratings.drop_column("withdrawn")
        ratings.drop_column("episode_id")
        ratings.drop_column("call")
        ratings.alter_column("request_id", existing_type=sa.String, nullable=False)
