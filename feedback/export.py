"""What is in the store as Parquet files, for whoever analyses it with tools of their own.

    FOLDER/latest/requests/part-00000.parquet     one row for each request
    FOLDER/latest/calls/…                         one for each call in it, with token ids and log-probabilities
    FOLDER/latest/ratings/…                       one for each rating; `current` marks those that stand
    FOLDER/latest/policy_changes/…

`latest` is a symbolic link: the next export replaces everything in one step, and removes what was there before, so that
nothing which has been erased since stays in it.
"""

import fcntl
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
from pyarrow import parquet

from feedback.columns import SCHEMAS, of_calls, of_policy_change, of_rating, of_request
from feedback.store import Store
from feedback.store.snapshot import Extent, Snapshot, snapshot

LATEST = "latest"
_AT_ONCE = 200  # events that become columns together
_GROUP_BYTES = 32 * 2**20  # in memory; then it is written as a row group
_PART_BYTES = 512 * 2**20  # on the disk; then another file begins
_OURS = re.compile(r"\d{8}T\d{12}Z")

Told = Callable[[str, int, int], None]


class ExportError(Exception):
    """Nothing was exported. What was exported before is as it was."""


def export(store: Store, folder: Path, extent: Extent, told: Told = lambda *_: None) -> Mapping[str, int]:
    """Write what the store holds at this moment; return the rows, by table.

    `told` hears meanwhile how many of how many events of which kind are done. Memory does not grow with their number.
    Blocks. Raises `ExportError`, `StoreError`, `OSError`.
    """
    with _replacing(folder) as draft, snapshot(store, extent) as events, ExitStack() as stack:
        tables = {name: stack.enter_context(_Table(draft / name, name)) for name in SCHEMAS}
        totals = events.counts()
        for kind, rows in _rows(events).items():
            done = 0
            while some := list(islice(rows, _AT_ONCE)):
                for name in some[0]:
                    tables[name].add([row for each in some for row in each[name]])
                done += len(some)
                told(kind, done, totals[kind])
    return {name: table.rows for name, table in tables.items()}


def _rows(events: Snapshot) -> dict[str, Iterator[dict[str, Iterable[dict[str, Any]]]]]:
    """By kind of event, for each of them its rows by table."""
    return {
        "requests": (
            {"requests": [of_request(event)], "calls": of_calls(event)} for event in events.requests()
        ),
        "ratings": ({"ratings": [of_rating(said)]} for said in events.ratings()),
        "policy_changes": (
            {"policy_changes": [of_policy_change(event)]} for event in events.policy_changes()
        ),
    }


class _Table:
    """The files of one table. There is at least one, so that its columns are known."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._schema = SCHEMAS[name]
        self._waiting: list[pa.RecordBatch] = []
        self._parts = 0
        self.rows = 0

    def __enter__(self) -> Self:
        self._folder.mkdir()
        self._begin()
        return self

    def __exit__(self, *_: object) -> None:
        self._write()
        self._writer.close()

    def add(self, rows: list[dict[str, Any]]) -> None:
        try:
            self._waiting.append(pa.RecordBatch.from_pylist(rows, schema=self._schema))
        except (pa.ArrowInvalid, OverflowError) as error:  # a number beyond 64 bits
            raise ExportError(f"{self._folder.name} have a value that fits no column: {error}") from error
        self.rows += len(rows)
        if sum(batch.nbytes for batch in self._waiting) >= _GROUP_BYTES:
            self._write()
            if self._path.stat().st_size >= _PART_BYTES:
                self._writer.close()
                self._begin()

    def _begin(self) -> None:
        self._path = self._folder / f"part-{self._parts:05}.parquet"
        self._writer = parquet.ParquetWriter(self._path, self._schema, compression="zstd")
        self._parts += 1

    def _write(self) -> None:
        table = pa.Table.from_batches(self._waiting, self._schema)
        if table.num_rows:
            self._writer.write_table(table, row_group_size=table.num_rows)
        self._waiting = []


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A folder to write into. When all has gone well, `latest` leads there, and there is nothing else of ours."""
    folder.mkdir(parents=True, exist_ok=True)
    latest = folder / LATEST
    if latest.exists() and not latest.is_symlink():
        raise ExportError(f"{latest} is no export of ours: remove it, or export elsewhere")
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ExportError(f"another export to {folder} is under way") from error
        draft = folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}"
        draft.mkdir()
        try:
            yield draft
            link = folder / f"{LATEST}.new"
            link.unlink(missing_ok=True)
            link.symlink_to(draft.name)
            link.replace(latest)
        finally:
            kept = latest.resolve()
            for found in folder.iterdir():
                if _OURS.fullmatch(found.name) and found.resolve() != kept:
                    shutil.rmtree(found)
