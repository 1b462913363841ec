"""The guard in a process of its own: a text that a parser takes long over costs a process, not the gateway."""

import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tools.errors import ToolError
from tools.sql.engines.process import WorkerLostError, Workers, WorkerTimeoutError
from tools.sql.engines.worker import answer, confine, frames
from tools.sql.guard import Guard, Statement
from tools.sql.schema import Column, Schema, Table

_ROOT = Path(__file__).parents[2]
_START = f"import sys; sys.path.insert(0, {str(_ROOT)!r}); from tools.sql.guard_process import main; main()"
_SECONDS = 3.0
_ADDRESS_SPACE = 1024**3
_PROCESSES = 2
_TOO_MUCH = "the statement takes too long to read: write it more simply"


class GuardProcess:
    """`Guard.check` without holding this process's processor; see there. Close it."""

    def __init__(self, schema: Schema) -> None:
        config = {
            "dialect": schema.dialect,
            "default": schema.default,
            "names": sorted(schema.names),
            "tables": [asdict(table) | {"hidden": sorted(table.hidden)} for table in schema.tables],
        }
        self._workers = Workers(("-I", "-c", _START), config, most=_PROCESSES)

    async def check(self, sql: str) -> Statement:
        """The statement to run. Raises `ToolError` with the reason, `ToolUnavailableError` when none can be checked."""
        try:
            answered = await self._workers.ask({"sql": sql}, seconds=_SECONDS)
        except (WorkerTimeoutError, WorkerLostError) as error:
            raise ToolError(_TOO_MUCH) from error
        if "defect" in answered:
            raise RuntimeError(f"the guard failed: {answered['defect']}")
        if "error" in answered:
            raise ToolError(answered["error"])
        return Statement(answered["sql"], tuple(answered["notes"]))

    async def close(self) -> None:
        """End the processes."""
        await self._workers.close()


def main() -> None:
    """The process: a schema, then texts."""
    requests = frames(sys.stdin.buffer)
    config = next(requests, None)
    if config is None:
        return
    confine(_ADDRESS_SPACE, _ADDRESS_SPACE)
    guard = Guard(
        Schema(config["dialect"], _tables(config["tables"]), default=config["default"], names=config["names"])
    )
    answer({})  # ready
    for request in requests:
        try:
            statement = guard.check(request["sql"])
        except ToolError as error:
            answer({"error": str(error)})
        except MemoryError:
            answer({"error": _TOO_MUCH})
        except Exception as error:  # noqa: BLE001  # the edge of a process: told to the other side, which raises it
            answer({"defect": f"{type(error).__name__}: {error}"})
        else:
            answer({"sql": statement.sql, "notes": statement.notes})


def _tables(written: Iterable[dict[str, Any]]) -> Iterable[Table]:
    for table in written:
        columns = tuple(Column(**column) for column in table["columns"])
        yield Table(
            table["schema"], table["name"], columns, view=table["view"], hidden=frozenset(table["hidden"])
        )
