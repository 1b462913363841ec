"""SQLite and DuckDB: a file, opened read-only by processes of its own; see `worker`."""

from pathlib import Path
from typing import Any, Literal

from tools.errors import ToolError, ToolUnavailableError
from tools.sql import allowed
from tools.sql.engines import Answer, Limits, refused, took_too_long
from tools.sql.engines.process import WorkerLostError, Workers, WorkerTimeoutError
from tools.sql.schema import Schema

_WORKER = Path(__file__).with_name("worker.py")
_GRACE_SECONDS = 1.0  # between the limit that the engine keeps and the process's end
_MEMORY = 256 * 1024**2
_ADDRESS_SPACE = {"sqlite": 512 * 1024**2, "duckdb": 6 * 1024**3}  # DuckDB reserves far more than it uses
_DATA = (
    2 * _MEMORY + 256 * 1024**2
)  # of that, what can be written to: what DuckDB counts, what it does not, Python
_PROCESSES = 4
_TOO_LARGE = "the statement needed more memory than it may use: read fewer rows or columns, aggregate earlier"

Kind = Literal["sqlite", "duckdb"]


class FileEngine:
    """Runs statements on one file."""

    def __init__(self, kind: Kind, path: Path, schema: Schema | None, *, cell_bytes: int) -> None:
        """With `schema` None, for trusted statements about DuckDB's own catalog only."""
        tables = schema.tables if schema else ()
        config: dict[str, Any] = {
            "kind": kind,
            "path": str(path.absolute()),
            "tables": {table.name: [column.name for column in table.columns] for table in tables},
            "places": [(table.schema, table.name) for table in tables],
            "names": sorted(schema.names) if schema else [],
            "hidden": sorted(schema.hidden_anywhere) if schema else [],
            "functions": sorted(allowed.functions(kind)),
            "cell_bytes": cell_bytes,
            "memory_bytes": _MEMORY,
            "address_bytes": _ADDRESS_SPACE[kind],
            "data_bytes": _DATA,
            "threads": 1 if kind == "sqlite" else 2,
        }
        self._trusted = schema is None
        self._workers = Workers(("-I", str(_WORKER)), config, most=_PROCESSES)

    async def query(self, sql: str, limits: Limits) -> Answer:
        """See `Engine`."""
        request = {"sql": sql, "seconds": limits.seconds, "rows": limits.rows, "bytes": limits.bytes}
        if self._trusted:
            request["trusted"] = True
        try:
            answer = await self._workers.ask(request, seconds=limits.seconds + _GRACE_SECONDS)
        except WorkerTimeoutError as error:
            raise took_too_long(limits.seconds) from error
        except WorkerLostError as error:
            raise ToolError(_TOO_LARGE) from error
        match answer.get("kind"):
            case None:
                rows = [tuple(row) for row in answer["rows"]]
                return Answer(tuple(answer["columns"]), tuple(answer["types"]), rows, answer["cut"])
            case "time":
                raise took_too_long(limits.seconds)
            case "memory":
                raise ToolError(_TOO_LARGE)
            case "away":
                raise ToolUnavailableError(f"the database cannot be read: {answer['error']}")
        raise refused(answer["error"])

    async def close(self) -> None:
        """See `Engine`."""
        await self._workers.close()
