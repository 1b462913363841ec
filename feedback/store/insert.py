"""How many rows are written at once. What is there already, or twice among them, is left as it is.

Rows go in the order of their keys: of two processes that write some of the same rows, one waits for the other and never
each for each. They go to the driver as they are, for SQLAlchemy takes longer for a row than a database does.
"""

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Table

if TYPE_CHECKING:
    import psycopg  # installed where a store is on PostgreSQL


def insert_new(connection: Connection, table: Table, rows: Sequence[Sequence[Any]]) -> None:
    """Insert those rows, each in the order of the table's columns, whose primary key, the first, is not there yet.

    Raises what the database's driver raises, or SQLAlchemy instead.
    """
    if not rows:
        return
    ordered = sorted(rows, key=itemgetter(0))
    if connection.dialect.name == "postgresql":
        _copy(connection, table, ordered)
    else:
        _execute_many(connection, table, ordered)


def _execute_many(connection: Connection, table: Table, rows: Sequence[Sequence[Any]]) -> None:
    dialect = connection.dialect
    marks = ", ".join("?" * len(table.columns))
    columns = [column.type.dialect_impl(dialect).bind_processor(dialect) for column in table.columns]
    connection.exec_driver_sql(
        f"INSERT INTO {table.name} ({_names(connection, table)}) VALUES ({marks}) ON CONFLICT DO NOTHING",  # noqa: S608  # our own names
        [_bound(row, columns) for row in rows],
    )


def _bound(row: Sequence[Any], columns: Sequence[Callable[[Any], Any] | None]) -> tuple[Any, ...]:
    return tuple([value if bind is None else bind(value) for value, bind in zip(row, columns, strict=True)])


def _copy(connection: Connection, table: Table, rows: Sequence[Sequence[Any]]) -> None:
    """COPY knows no conflicts, and there seldom is one: only then it goes by a table of this connection's own."""
    from psycopg.errors import UniqueViolation  # noqa: PLC0415  # see above

    names = _names(connection, table)
    raw: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]  # by the dialect
    try:
        with connection.begin_nested(), raw.cursor() as cursor:
            _stream(cursor, f"{table.name} ({names})", rows)
    except UniqueViolation:
        own = f"incoming_{table.name}"
        with raw.cursor() as cursor:
            cursor.execute(f"CREATE TEMP TABLE IF NOT EXISTS {own} (LIKE {table.name}) ON COMMIT DELETE ROWS")
            _stream(cursor, f"{own} ({names})", rows)
            cursor.execute(
                f"INSERT INTO {table.name} ({names}) SELECT {names} FROM {own} ON CONFLICT DO NOTHING"  # noqa: S608  # our own names
            )


def _stream(cursor: "psycopg.Cursor[Any]", where: str, rows: Sequence[Sequence[Any]]) -> None:
    with cursor.copy(f"COPY {where} FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


def _names(connection: Connection, table: Table) -> str:
    return ", ".join(map(connection.dialect.identifier_preparer.quote, table.columns.keys()))
