"""Where a checked statement runs: within limits, on a connection that could not do harm if the guard had erred."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from tools.content import as_content
from tools.errors import ToolError

Cell = str | int | float | bool | None
Cut = Literal["rows", "bytes"]


@dataclass(frozen=True)
class Limits:
    """Of one statement: seconds it may run, rows that come back, and bytes of them."""

    seconds: float
    rows: int
    bytes: int


@dataclass(frozen=True)
class Answer:
    """What a statement returned; `cut` says which limit left rows out."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]
    cut: Cut | None = None


class Engine(Protocol):
    """Runs statements; several at once. A statement whose call is cancelled is stopped."""

    async def query(self, sql: str, limits: Limits) -> Answer:
        """Run it. Raises `ToolError` for what the model can mend (a time-out too), `ToolUnavailableError` for outages."""
        ...

    async def close(self) -> None:
        """End every process and connection."""
        ...


def cell(value: Any) -> Cell:
    """A value as a model may read it."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return f"x'{bytes(value).hex()[:400]}'" if isinstance(value, bytes | bytearray | memoryview) else str(value)


def refused(message: str) -> ToolError:
    """What a model is told of a statement that the database does not take: its words may hold what stands in a row."""
    words = message.strip().split("\n")[0][:300]
    return ToolError(f"the database refused the statement:\n{as_content(words, 'database')}")


def took_too_long(seconds: float) -> ToolError:
    """What a model is told of a time-out."""
    return ToolError(
        f"the statement ran longer than {seconds:g} s and was stopped: read fewer rows (WHERE), join on keys, "
        "aggregate before you join"
    )
