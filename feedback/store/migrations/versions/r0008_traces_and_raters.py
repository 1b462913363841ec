"""Requests are found by their trace and span, ratings by their rater and by the id that a client chose."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from feedback.events import span_id

revision = "0008"
down_revision: str | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_AT_ONCE = 1_000  # rows
_TRACE = {
    "sqlite": "json_extract(payload, '$.trace_id')",
    # PostgreSQL reads no JSON that has a NUL anywhere; an id has none
    "postgresql": r"replace(payload, '\u0000', '\ufffd')::json ->> 'trace_id'",
}


def upgrade() -> None:
    """No API in which clients choose the ids of ratings was there before."""
    op.add_column("requests", sa.Column("trace_id", sa.String, nullable=True))
    op.add_column("requests", sa.Column("span_id", sa.String, nullable=True))
    op.add_column("ratings", sa.Column("client_id", sa.String, nullable=True))
    op.execute(f"UPDATE requests SET trace_id = {_TRACE[op.get_bind().dialect.name]}")  # noqa: S608  # two constants
    _fill_span_ids()
    op.create_index("requests_by_trace_id", "requests", ["tenant", "trace_id"])
    op.create_index("requests_by_span_id", "requests", ["tenant", "span_id"])
    op.create_index("ratings_by_client_id", "ratings", ["tenant", "client_id"])
    op.create_index("ratings_by_rater", "ratings", ["tenant", "rater", "time"])


def _fill_span_ids() -> None:
    requests = sa.table("requests", sa.column("event_id"), sa.column("request_id"), sa.column("span_id"))
    c, connection = requests.c, op.get_bind()
    page = sa.select(c.event_id, c.request_id).order_by(c.event_id).limit(_AT_ONCE)
    last = ""
    while rows := connection.execute(page.where(c.event_id > last)).all():
        filled = (
            sa.update(requests).where(c.event_id == sa.bindparam("id")).values(span_id=sa.bindparam("span"))
        )
        connection.execute(filled, [{"id": row.event_id, "span": span_id(row.request_id)} for row in rows])
        last = rows[-1].event_id


def downgrade() -> None:
    """The columns hold nothing that the payloads do not."""
    for index, table in (
        ("requests_by_trace_id", "requests"),
        ("requests_by_span_id", "requests"),
        ("ratings_by_client_id", "ratings"),
        ("ratings_by_rater", "ratings"),
    ):
        op.drop_index(index, table)
    op.drop_column("requests", "trace_id")
    op.drop_column("requests", "span_id")
    op.drop_column("ratings", "client_id")
