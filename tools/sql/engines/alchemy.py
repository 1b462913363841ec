"""Any other database that SQLAlchemy reaches, in a thread; not tested on a server.

What the engine itself refuses here is what its role may not do: give it one that can read and nothing else. Where the
dialect has read-only transactions, they are used. A statement that runs too long is left to the server's own limit: its
thread and connection are given up.
"""

import asyncio
from collections.abc import Mapping

from sqlalchemy import Engine, exc, text

from tools.errors import ToolUnavailableError
from tools.sql.engines import Answer, Cell, Cut, Limits, cell, refused, took_too_long

_MOST_AT_ONCE = 4
_BATCH = 64
_READ_ONLY: Mapping[str, str] = {
    "mysql": "SET TRANSACTION READ ONLY",
    "mariadb": "SET TRANSACTION READ ONLY",
    "oracle": "SET TRANSACTION READ ONLY",
    "sqlite": "PRAGMA query_only = ON",
}


class AlchemyEngine:
    """Runs statements through SQLAlchemy."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._turns = asyncio.Semaphore(_MOST_AT_ONCE)

    async def query(self, sql: str, limits: Limits) -> Answer:
        """See `Engine`."""
        async with self._turns:
            try:
                async with asyncio.timeout(limits.seconds):
                    return await asyncio.to_thread(self._run, sql, limits)
            except TimeoutError as error:
                raise took_too_long(limits.seconds) from error
            except exc.DBAPIError as error:
                if error.connection_invalidated:
                    raise ToolUnavailableError("the database went away") from error
                raise refused(str(error.orig)) from error

    def _run(self, sql: str, limits: Limits) -> Answer:
        with self._engine.connect() as connection:
            if (statement := _READ_ONLY.get(self._engine.dialect.name)) is not None:
                connection.execute(text(statement))
            # Not `text`: that would read :name as a parameter.
            result = connection.execution_options(stream_results=True).exec_driver_sql(sql)
            rows: list[tuple[Cell, ...]] = []
            cut: Cut | None = None
            size = 0
            while cut is None and (batch := result.fetchmany(_BATCH)):
                for row in batch:
                    cells = tuple(cell(value) for value in row)
                    size += sum(len(value) if isinstance(value, str) else 8 for value in cells)
                    cut = "rows" if len(rows) == limits.rows else "bytes" if size > limits.bytes else None
                    if cut is not None:
                        break
                    rows.append(cells)
            columns = tuple(result.keys())
            connection.rollback()
        return Answer(columns, ("",) * len(columns), rows, cut)

    async def close(self) -> None:
        """See `Engine`."""
        await asyncio.to_thread(self._engine.dispose)
