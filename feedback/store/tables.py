"""The tables. An event's row has the columns that we ask by; `payload` is the whole event as JSON.

Plain types only, so that the same tables serve SQLite and PostgreSQL. A payload is text and not `jsonb`, which refuses
NUL, written as an escape, and forgets how numbers were written. A change here needs a migration beside it.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    false,
)
from sqlalchemy.types import TypeDecorator


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time: aware in Python, always in UTC. SQLite would forget the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """To UTC. Raises `ValueError` for a time without a zone, which would mean another instant on every machine."""
        if value is None or value.tzinfo is UTC:
            return value
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """From UTC: SQLite answers without a zone, PostgreSQL in the zone of the session."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData()


def _event_table(
    name: str,
    columns: tuple[str | Column[Any], ...],
    indexes: tuple[tuple[str, ...], ...],
) -> Table:
    return Table(
        name,
        metadata,
        Column("event_id", String, primary_key=True),
        Column("tenant", String, nullable=False),
        Column("time", UtcDateTime, nullable=False),
        *(
            Column(column, String, nullable=False) if isinstance(column, str) else column
            for column in columns
        ),
        Column("payload", Text, nullable=False),
        *(Index(f"{name}_by_{index[-1]}", *index) for index in indexes),
    )


# An index ends with what it serves: a look-up by that column, or a walk in the order of time.
requests = _event_table(
    "requests",
    columns=(
        "request_id",
        "episode_id",
        "agent",
        "policy",
        "caller",
        "status",
        Column("trace_id", String, nullable=True),
        Column("span_id", String, nullable=True),
    ),
    indexes=(
        ("tenant", "request_id"),
        ("tenant", "episode_id"),
        ("tenant", "agent", "time"),
        ("tenant", "trace_id"),
        ("tenant", "span_id"),
    ),
)
ratings = _event_table(
    "ratings",
    columns=(
        Column("request_id", String, nullable=True),
        Column("call", Integer, nullable=True),
        Column("episode_id", String, nullable=True),
        "rater",
        "name",
        "source",
        Column("withdrawn", Boolean, nullable=False, server_default=false()),
        Column("client_id", String, nullable=True),
    ),
    indexes=(
        ("tenant", "request_id"),
        ("tenant", "episode_id"),
        ("tenant", "time"),
        ("tenant", "client_id"),
    ),
)
Index("requests_by_caller", requests.c.tenant, requests.c.caller, requests.c.time)
Index("requests_by_tenant_time", requests.c.tenant, requests.c.time)  # of all agents, as exports read them
Index("ratings_by_rater", ratings.c.tenant, ratings.c.rater, ratings.c.time)
policy_changes = _event_table(
    "policy_changes",
    columns=("agent", "policy", "state", "by"),
    indexes=(("agent", "time"),),
)
erasures = _event_table(
    "erasures",
    columns=(
        Column("person", String, nullable=True),
        Column("request_id", String, nullable=True),
        "by",
    ),
    indexes=(("tenant", "person"), ("tenant", "request_id")),
)

forgotten = Table(
    "forgotten",
    metadata,
    Column(
        "digest", String, primary_key=True, comment="Of a request or an episode that was erased: see erasing."
    ),
    Column("time", UtcDateTime, nullable=False, comment="The erasure's."),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("digest", String, primary_key=True, comment="SHA-256 of data: one delivered twice is one letter."),
    Column("time", UtcDateTime, nullable=False),
    Column("reason", Text, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Index("dead_letters_by_time", "time"),
)

deleted_responses = Table(
    "deleted_responses",
    metadata,
    Column("tenant", String, primary_key=True),
    Column(
        "response_id",
        String,
        primary_key=True,
        comment="The request_id; its request need not have landed yet.",
    ),
    Column("time", UtcDateTime, nullable=False),
    Column("by", String, nullable=False),
)

background_responses = Table(
    "background_responses",
    metadata,
    Column("response_id", String, primary_key=True, comment="The request_id."),
    Column("tenant", String, nullable=False),
    Column("response", Text, nullable=False, comment="As its client was first told, as JSON."),
    Column("held_until", UtcDateTime, nullable=False, comment="After that its worker is dead."),
    Column("cancel", Boolean, nullable=False, comment="Its worker is to stop making it."),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("key_hash", String, primary_key=True),
    Column("owner", String, nullable=False),
    Column("tenant", String, nullable=False),
    Column("scopes", String, nullable=False, comment="Separated by spaces."),
    Column("created", UtcDateTime, nullable=False),
    Column("revoked", UtcDateTime, nullable=True),
    Column("expires", UtcDateTime, nullable=True),
    Column("made_by", String, nullable=True, comment="Id of the key that made it."),
    Column("quota", Text, nullable=False, server_default="{}", comment="feedback.quota.Quota as JSON."),
    Index("api_keys_by_tenant", "tenant", "created"),
)

usage = Table(
    "usage",
    metadata,
    Column("subject", String, primary_key=True),
    Column("period", String, primary_key=True),
    Column("tokens", BigInteger, nullable=False),
    Column("money", BigInteger, nullable=False, comment="Millionths of the currency."),
)

replies = Table(
    "replies",
    metadata,
    Column("tenant", String, primary_key=True),
    Column("key_id", String, primary_key=True, comment="The API key of the caller."),
    Column("name", String, primary_key=True, comment="The caller's Idempotency-Key."),
    Column("digest", String, nullable=False, comment="SHA-256 of the request."),
    Column("holder", String, nullable=False, comment="Who answers, or has answered."),
    Column("held_until", UtcDateTime, nullable=False, comment="After that another may answer."),
    Column("expires", UtcDateTime, nullable=False),
    Column("status", Integer, nullable=True, comment="None: not answered yet."),
    Column("headers", Text, nullable=True, comment="As a JSON object."),
    Column("body", LargeBinary, nullable=True, comment="None: too large to be kept."),
    Index("replies_by_expires", "expires"),
)
