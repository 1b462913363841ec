"""One database that agents may ask: its schema, the guard, and the engine that runs what the guard lets through."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL, make_url

from tools.sql import inspection
from tools.sql.engines import Answer, Engine, Limits
from tools.sql.engines.alchemy import AlchemyEngine
from tools.sql.engines.files import FileEngine
from tools.sql.engines.postgres import PostgresEngine
from tools.sql.guard_process import GuardProcess
from tools.sql.options import DatabaseOptions
from tools.sql.schema import Schema

_CATALOG = Limits(seconds=30, rows=200_000, bytes=50_000_000)


@dataclass(frozen=True)
class _Opened:
    schema: Schema
    guard: GuardProcess
    engine: Engine


class Source:
    """A database by its name in the settings. Nothing is opened before it is first asked; close it in the same loop.

    The schema is read once: a source sees what is added to the database after that when it is opened anew.
    """

    def __init__(self, name: str, options: DatabaseOptions) -> None:
        self.name = name
        self.options = options
        self._opened: _Opened | None = None
        self._opening = asyncio.Lock()

    async def schema(self) -> Schema:
        """What may be read. Raises `ToolUnavailableError`, and `ValueError` where the options name what is not there."""
        return (await self._open()).schema

    async def query(self, sql: str, *, seconds: float | None = None) -> tuple[Answer, tuple[str, ...]]:
        """The rows of what the guard lets through, and its notes. Raises `ToolError`, `ToolUnavailableError`."""
        opened, options = await self._open(), self.options
        statement = await opened.guard.check(sql)
        limits = Limits(seconds or options.seconds, options.max_rows, options.max_bytes)
        return await opened.engine.query(statement.sql, limits), statement.notes

    async def close(self) -> None:
        """End its processes and connections."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.guard.close()
            await opened.engine.close()

    async def _open(self) -> _Opened:
        async with self._opening:
            if self._opened is None:
                schema = await _schema(make_url(self.options.url), self.options)
                self._opened = _Opened(schema, GuardProcess(schema), _engine(schema, self.options))
            return self._opened


async def _schema(url: URL, options: DatabaseOptions) -> Schema:
    if url.get_backend_name() != "duckdb":
        return await asyncio.to_thread(inspection.read, url, options)
    catalog = FileEngine("duckdb", _path(url), None, cell_bytes=options.max_bytes)
    try:
        columns = await catalog.query(inspection.DUCKDB_COLUMNS, _CATALOG)
        keys = await catalog.query(inspection.DUCKDB_KEYS, _CATALOG)
    finally:
        await catalog.close()
    return inspection.duckdb_schema(columns, keys, options)


def _engine(schema: Schema, options: DatabaseOptions) -> Engine:
    url = make_url(options.url)
    match url.get_backend_name():
        case "sqlite":
            return FileEngine("sqlite", _path(url), schema, cell_bytes=options.max_bytes)
        case "duckdb":
            return FileEngine("duckdb", _path(url), schema, cell_bytes=options.max_bytes)
        case "postgresql":
            libpq = url.set(drivername="postgresql").render_as_string(hide_password=False)
            return PostgresEngine(libpq, schema, cell_characters=options.max_cell)
        case _:
            return AlchemyEngine(inspection.engine_for(url))


def _path(url: URL) -> Path:
    if not url.database or url.database == ":memory:":
        raise ValueError(f"{url}: a database in memory is nobody else's to read; name a file")
    return Path(url.database)
