"""How many rows are written at once. What is there already, or twice among them, is left as it is.

Rows go in the order of their keys: of two processes that write some of the same rows, one waits for the other and never
each for each.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Table

from feedback.store.engine import upsert

if TYPE_CHECKING:
    import psycopg  # installed where a store is on PostgreSQL


def insert_new(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert the rows, all with the same columns, whose primary key is not there yet.

    Raises what the database's driver raises, or SQLAlchemy instead.
    """
    if not rows:
        return
    [key] = table.primary_key.columns
    ordered = sorted(rows, key=lambda row: row[key.name])
    if connection.dialect.name == "postgresql":
        _copy(connection, table, ordered)
    else:
        connection.execute(upsert(connection, table).on_conflict_do_nothing(), ordered)


def _copy(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """COPY knows no conflicts, therefore into a table of this connection's own, and from there in one statement."""
    quote = connection.dialect.identifier_preparer.quote
    columns = ", ".join(quote(name) for name in rows[0])
    own = f"incoming_{table.name}"
    raw: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]  # by the dialect
    with raw.cursor() as cursor:
        cursor.execute(f"CREATE TEMP TABLE IF NOT EXISTS {own} (LIKE {table.name}) ON COMMIT DELETE ROWS")
        with cursor.copy(f"COPY {own} ({columns}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(tuple(row.values()))
        cursor.execute(
            f"INSERT INTO {table.name} ({columns}) SELECT {columns} FROM {own} ON CONFLICT DO NOTHING"  # noqa: S608  # our own names
        )
