"""PostgreSQL: a role that may read what is shown and nothing else, in read-only transactions with the server's time-
out.

`reader_sql` writes the statements that make such a role. Limits are the server's where it has them:
`statement_timeout`, a cursor for the rows, and `left` for long cells.
"""

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tools.errors import ToolUnavailableError
from tools.sql.engines import Answer, Cell, Cut, Limits, cell, refused, took_too_long
from tools.sql.schema import Schema

if TYPE_CHECKING:
    import psycopg
    from psycopg.types import TypesRegistry

_MOST_CONNECTIONS = 4
_CONNECT_SECONDS = 5
_BATCH = 64
# Whose cells are short. Of any other type (a bit string, an array, even a number) they can be of any length, and are
# cut by the server.
_SHORT = set(
    "bool int2 int4 int8 oid float4 float8 date time timetz timestamp timestamptz interval uuid money".split()
)
_SETTINGS = {
    "default_transaction_read_only": "on",
    "standard_conforming_strings": "on",
    "row_security": "on",
    "idle_in_transaction_session_timeout": "60s",
    "client_encoding": "UTF8",
}


class PostgresEngine:
    """Runs statements in one PostgreSQL database; keeps its connections."""

    def __init__(self, url: str, schema: Schema, *, cell_characters: int) -> None:
        """`url` as libpq reads it."""
        self._url = url
        self._cell = cell_characters
        path = ", ".join(_identifier(name) for name in dict.fromkeys(table.schema for table in schema.tables))
        settings = {"search_path": path or '""', **_SETTINGS}
        self._options = " ".join(f"-c {key}={_escaped(value)}" for key, value in settings.items())
        self._turns = asyncio.Semaphore(_MOST_CONNECTIONS)
        self._idle: list[psycopg.AsyncConnection[Any]] = []

    async def query(self, sql: str, limits: Limits) -> Answer:
        """See `Engine`."""
        import psycopg  # noqa: PLC0415  # an extra

        async with self._turns:
            try:
                connection = await self._connection()
            except psycopg.OperationalError as error:
                raise ToolUnavailableError(f"the database does not answer: {_first_line(error)}") from error
            try:
                async with asyncio.timeout(limits.seconds + 2):  # the server's own limit comes first
                    answer = await self._run(connection, sql, limits)
            except (psycopg.errors.QueryCanceled, TimeoutError) as error:
                await _end(connection)
                raise took_too_long(limits.seconds) from error
            except psycopg.OperationalError as error:
                await _end(connection)
                raise ToolUnavailableError(f"the database went away: {_first_line(error)}") from error
            except (psycopg.Error, UnicodeEncodeError) as error:  # half a surrogate pair comes out of JSON
                await _end(connection)
                raise refused(str(error)) from error
            except BaseException:
                await asyncio.shield(
                    _end(connection)
                )  # also a cancellation: the server stops what nobody waits for
                raise
            self._idle.append(connection)
            return answer

    async def _connection(self) -> "psycopg.AsyncConnection[Any]":
        import psycopg  # noqa: PLC0415  # an extra

        while self._idle:
            connection = self._idle.pop()
            if not connection.closed and not connection.broken:
                return connection
        return await psycopg.AsyncConnection.connect(
            self._url,
            autocommit=True,
            connect_timeout=_CONNECT_SECONDS,
            options=self._options,
            prepare_threshold=None,
        )

    async def _run(self, connection: "psycopg.AsyncConnection[Any]", sql: str, limits: Limits) -> Answer:
        await connection.execute(
            f"BEGIN READ ONLY; SET LOCAL statement_timeout = {max(int(limits.seconds * 1000), 1)}".encode()
        )
        columns, types = await self._described(connection, sql)
        outputs = ", ".join(
            f'"c{i}"' if kind in _SHORT else f'left("c{i}"::text, {self._cell + 1}) AS "c{i}"'
            for i, kind in enumerate(types)
        )
        names = ", ".join(f'"c{i}"' for i in range(len(types)))
        await connection.execute(
            f"DECLARE answer NO SCROLL CURSOR FOR SELECT {outputs} "  # noqa: S608  # what the guard has written
            f"FROM ({sql}) AS answer({names})".encode(),
            binary=True,  # the extended protocol, which takes one statement only
        )
        longest = len(types) * (self._cell + 1)
        batch = max(1, min(_BATCH, limits.bytes // longest))  # rows that are held before they are counted
        rows, cut = await _fetched(connection, limits, batch)
        await connection.execute(b"ROLLBACK")
        return Answer(columns, types, rows, cut)

    async def _described(
        self, connection: "psycopg.AsyncConnection[Any]", sql: str
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names and types of the columns, before a row has been computed."""
        await connection.execute(f"DECLARE described NO SCROLL CURSOR FOR {sql}".encode(), binary=True)
        description = (await connection.execute(b"FETCH 0 FROM described")).description or []
        await connection.execute(b"CLOSE described")
        registry = connection.adapters.types
        return tuple(c.name for c in description), tuple(_type(registry, c.type_code) for c in description)

    async def close(self) -> None:
        """See `Engine`."""
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.close()


def _type(registry: "TypesRegistry", code: int) -> str:
    kind = registry.get(code)
    if kind is None:
        return "unknown"
    return kind.name if code == kind.oid else f"{kind.name}[]"


async def _fetched(
    connection: "psycopg.AsyncConnection[Any]", limits: Limits, batch: int
) -> tuple[list[Sequence[Cell]], Cut | None]:
    rows: list[Sequence[Cell]] = []
    size = 0
    fetch = f"FETCH {batch} FROM answer".encode()
    while some := await (await connection.execute(fetch)).fetchall():
        for row in some:
            cells = tuple(cell(value) for value in row)
            size += sum(len(value) if isinstance(value, str) else 8 for value in cells)
            if len(rows) == limits.rows:
                return rows, "rows"
            if size > limits.bytes:
                return rows, "bytes"
            rows.append(cells)
    return rows, None


async def _end(connection: "psycopg.AsyncConnection[Any]") -> None:
    with suppress(Exception):  # it is thrown away, whatever state it is in
        await connection.cancel_safe(timeout=2)
    await connection.close()


def reader_sql(schema: Schema, role: str) -> str:
    """What an owner of the tables runs once: a role that can read the columns that are shown, and nothing else.

    What PUBLIC may do in that database the role may do as well: that is the owner's to take away.
    """
    name = _identifier(role)
    lines = [
        f"CREATE ROLE {name} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS CONNECTION LIMIT 20;",
        f"ALTER ROLE {name} SET default_transaction_read_only = on;",
        f"ALTER ROLE {name} SET statement_timeout = '30s';",
    ]
    places = dict.fromkeys(table.schema for table in schema.tables)
    lines.extend(f"GRANT USAGE ON SCHEMA {_identifier(place)} TO {name};" for place in places)
    for table in schema.tables:
        columns = ", ".join(_identifier(column.name) for column in table.columns)
        where = f"{_identifier(table.schema)}.{_identifier(table.name)}"
        lines.append(f"GRANT SELECT ({columns}) ON {where} TO {name};")
    return "\n".join(lines) + "\n"


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _escaped(value: str) -> str:
    return re.sub(r"([\\ ])", r"\\\1", value)  # libpq's `options` splits at blanks


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:300]
