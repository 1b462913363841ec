"""Where an event is safe first: a durable local queue between whoever makes events and the bus.

`append` returns when the event is on the disk, so that a request may be answered while the bus, the collector or the
store is down. Many appends share one transaction (group commit): what is dear is the sync to the disk, not the row.
"""

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel

from feedback.sqlite import BUSY_SECONDS, prepare, truncate_log

# Where several write at once, a group waits for more to come up: a sync to the disk costs much the same for one as for
# many, and costs the event loop its core. Who writes alone does not wait. Longer, and clients that each wait for their
# answer end up in one group, for which the event loop then has to wait with nothing to do.
_LINGER_SECONDS = 0.0005
_GROUP_LIMIT = 1_000  # appends in one transaction
_FRESH_SECONDS = 1.0  # for so long a write that succeeded says that the next one will
_ROWS = 100  # of them in one statement
# The write-ahead log goes into the file after so many bytes, in the relay's time: SQLite would do it in an append's,
# which takes tens of milliseconds. It still does so when the relay has nothing to delete and the log grows.
_CHECKPOINT_BYTES = 2**22
_LONGEST_LOG = 4_000  # pages of 4 KiB
_READ_BYTES = 2**23  # read at once: a thousand events of usual size; one may have 12 MB
_TABLE = """CREATE TABLE IF NOT EXISTS outbox (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, body BLOB NOT NULL)"""


class OutboxError(Exception):
    """The event was not taken: the disk is full or failing, or the outbox is closed. Earlier events are untouched."""


class Depth(NamedTuple):
    """How much waits for the relay; `oldest_age_seconds` is 0 when nothing does."""

    events: int
    oldest_age_seconds: float


class _Append(NamedTuple):
    body: bytes
    done: asyncio.Future[None]


class Reader:
    """What waits in an outbox, whoever writes it. Methods block, and may be called from any thread."""

    def __init__(self, path: Path | str) -> None:
        """Open the file of an `Outbox`. Raises `OutboxError`."""
        self._read_lock = threading.Lock()
        try:
            self._reader = sqlite3.connect(path, check_same_thread=False)
            prepare(self._reader)
        except sqlite3.Error as error:
            raise OutboxError(f"cannot open the outbox {path}: {error}") from error

    def read(self, limit: int) -> list[tuple[int, bytes]]:
        """The oldest `limit` events with their sequence numbers, oldest first. Raises `OutboxError`.

        Fewer where they are large: some megabytes together, or one that is larger by itself.
        """
        query = "SELECT sequence, body FROM outbox ORDER BY sequence LIMIT ?"
        found: list[tuple[int, bytes]] = []
        size = 0
        with self._read_lock, _as_outbox_error(), closing(self._reader.execute(query, (limit,))) as rows:
            for sequence, body in rows:
                size += len(body)
                if found and size > _READ_BYTES:
                    break
                found.append((sequence, body))
        return found

    def containing(self, text: bytes) -> list[bytes]:
        """The waiting events with these bytes in them, oldest first. Raises `OutboxError`.

        Reads all that wait: usually a handful, in an outage as many as there are.
        """
        query = "SELECT body FROM outbox WHERE instr(body, ?) ORDER BY sequence"
        with self._read_lock, _as_outbox_error():
            return [body for (body,) in self._reader.execute(query, (text,))]

    def depth(self) -> Depth:
        """How many events wait, and for how long the oldest has; quick however many. Raises `OutboxError`."""
        # Sequences have no gaps (a failed group takes none, and deletion is from the oldest on): no need to count rows.
        query = "SELECT sequence, time FROM outbox ORDER BY sequence {} LIMIT 1"
        with self._read_lock, _as_outbox_error():
            oldest = self._reader.execute(query.format("ASC")).fetchone()
            newest = self._reader.execute(query.format("DESC")).fetchone()
        if oldest is None or newest is None:
            return Depth(0, 0.0)
        return Depth(newest[0] - oldest[0] + 1, max(0.0, time.time() - oldest[1]))

    def close(self) -> None:
        """Close the file. May be called twice."""
        with self._read_lock:
            self._reader.close()


class Outbox(Reader):
    """A durable queue of JSON events in one SQLite file. What is not `async` may be called from any thread.

    `max_bytes` bounds the file (not its write-ahead log); None: as large as the disk. `appended` is set after each
    append: it wakes a relay that runs in the same event loop.
    """

    def __init__(self, path: Path | str, max_bytes: int | None = None) -> None:
        """Open or create the file and start the writer thread. Raises `OutboxError`."""
        self.appended = asyncio.Event()
        self._queue: queue.SimpleQueue[_Append | None] = queue.SimpleQueue()
        self._closed = False
        self._wrote = -_FRESH_SECONDS
        self._in_log = 0  # bytes, about
        self._gate = (
            threading.Lock()
        )  # between the check of _closed and the put: nothing is queued behind the end
        self._write_lock = threading.Lock()
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._writer = sqlite3.connect(path, check_same_thread=False)
            prepare(self._writer)
            self._writer.execute(f"PRAGMA wal_autocheckpoint = {_LONGEST_LOG}")
            self._writer.execute(_TABLE)
            if max_bytes is not None:
                page_size = self._writer.execute("PRAGMA page_size").fetchone()[0]
                self._writer.execute(f"PRAGMA max_page_count = {max_bytes // page_size}")
        except (OSError, sqlite3.Error) as error:
            raise OutboxError(f"cannot open the outbox {path}: {error}") from error
        super().__init__(path)  # a connection of its own: a reader never waits for the disk behind a commit
        with _as_outbox_error():
            # What it writes are deletions. The next append's sync, or a checkpoint's, has them on the disk too.
            self._reader.execute("PRAGMA synchronous = NORMAL")
            self._reader.execute(f"PRAGMA wal_autocheckpoint = {_LONGEST_LOG}")
        self._thread = threading.Thread(target=self._write_until_closed, name="outbox-writer", daemon=True)
        self._thread.start()

    async def append(self, event: BaseModel) -> None:
        """Return when the event is on the disk. Raises `OutboxError`.

        When cancelled, the event may or may not have been written.
        """
        await self.append_encoded(encoded(event))

    async def append_encoded(self, body: bytes) -> None:
        """As `append`, for an event that is JSON already."""
        item = _Append(body, asyncio.get_running_loop().create_future())
        with self._gate:
            if self._closed:
                raise OutboxError("the outbox is closed")
            self._queue.put(item)
        await item.done
        self.appended.set()

    def write(self, bodies: Sequence[bytes]) -> None:
        """Return when all of them are on the disk; else none is. Blocks; raises `OutboxError`."""
        self._commit(bodies)
        self.appended.set()

    def delete(self, up_to: int) -> None:
        """Forget every event up to this sequence number, inclusive: the bus has them. Raises `OutboxError`.

        Appends wait for the statement, and not for the disk: after a power cut the events may be there again.
        """
        with self._read_lock, self._write_lock, _as_outbox_error():
            self._reader.execute("DELETE FROM outbox WHERE sequence <= ?", (up_to,))
        if self._in_log > _CHECKPOINT_BYTES:
            self._checkpoint()

    def _checkpoint(self) -> None:
        self._in_log = 0
        with self._read_lock, _as_outbox_error():
            self._reader.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()  # appends go on
        with self._write_lock, _as_outbox_error():
            self._writer.execute(
                "PRAGMA wal_checkpoint(PASSIVE)"
            ).fetchone()  # the little that has come meanwhile

    def tidy(self) -> bool:
        """Leave nothing of what was deleted in the write-ahead log. False where that is just being used.

        Raises `OutboxError`.
        """
        with self._write_lock, _as_outbox_error():
            self._writer.execute("PRAGMA busy_timeout = 0")  # appends wait for this lock meanwhile
            try:
                return truncate_log(self._writer)
            finally:
                self._writer.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")

    async def check(self) -> None:
        """Return if events are being taken. Raises `OutboxError`.

        Writes to the disk, unless that has succeeded within the last second, and leaves nothing behind.
        """
        await asyncio.to_thread(self._check)

    def _check(self) -> None:
        if self._closed:
            raise OutboxError("the outbox is closed")
        if time.monotonic() - self._wrote < _FRESH_SECONDS:
            return
        with self._transaction():
            # An event that is taken back asks for room; what is committed instead asks for the disk.
            self._writer.execute("SAVEPOINT probe")
            self._writer.execute("INSERT INTO outbox (time, body) VALUES (0, zeroblob(4096))")
            self._writer.execute("ROLLBACK TO probe")
            self._writer.execute("PRAGMA user_version = 0")
        self._wrote = time.monotonic()

    def close(self) -> None:
        """Write what has been queued, then close the file. May be called twice."""
        with self._gate:
            self._closed = True
            self._queue.put(None)
        self._thread.join()
        with self._write_lock:
            self._writer.close()
        super().close()

    def _write_until_closed(self) -> None:
        group: list[_Append] = []
        try:
            while group := self._next_group(linger=_LINGER_SECONDS if len(group) > 1 else 0.0):
                error = None
                try:
                    self._commit([item.body for item in group])
                except OutboxError as problem:
                    error = problem
                _answer(group, error)
        finally:  # closed, or this thread has died: nobody may be left waiting
            with self._gate:
                self._closed = True
            rest = [item for item in _drain(self._queue, limit=None) if item is not None]
            _answer(group + rest, OutboxError("the outbox is closed"))

    def _next_group(self, *, linger: float) -> list[_Append]:
        """Wait for an append and take what has come up behind it; empty when the outbox is being closed."""
        first = self._queue.get()
        if first is None:
            return []
        if linger:
            time.sleep(linger)
        group = [first]
        for item in _drain(self._queue, _GROUP_LIMIT - 1):
            if item is None:
                self._queue.put(None)  # close() put it last: it ends the next group
            else:
                group.append(item)
        return group

    def _commit(self, bodies: Sequence[bytes]) -> None:
        # Between two statements this thread waits for its turn beside the event loop: a small group is one statement,
        # which is a transaction by itself.
        try:
            if len(bodies) <= _ROWS:
                with self._write_lock, _as_outbox_error():
                    self._insert(bodies)
            else:
                with self._transaction():
                    for start in range(0, len(bodies), _ROWS):
                        self._insert(bodies[start : start + _ROWS])
        except OutboxError:
            self._wrote = -_FRESH_SECONDS
            raise
        self._wrote = time.monotonic()

    def _insert(self, bodies: Sequence[bytes]) -> None:
        now = time.time()
        values = ", ".join(["(?, ?)"] * len(bodies))
        parameters = [value for body in bodies for value in (now, body)]
        self._in_log += sum(map(len, bodies))
        self._writer.execute(f"INSERT INTO outbox (time, body) VALUES {values}", parameters)  # noqa: S608  # only question marks

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._write_lock, _as_outbox_error():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._writer.execute("COMMIT")
            finally:
                if (
                    self._writer.in_transaction
                ):  # after some errors, "full" among them, SQLite has rolled back itself
                    self._writer.execute("ROLLBACK")


def encoded(event: BaseModel) -> bytes:
    """The event as JSON. Raises `OutboxError`."""
    try:
        return event.model_dump_json().encode()
    except ValueError as error:  # a lone surrogate, the one kind of str that is not Unicode text
        raise OutboxError(f"the event cannot be written as JSON: {error}") from error


@contextmanager
def _as_outbox_error() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise OutboxError(f"{error} ({getattr(error, 'sqlite_errorname', type(error).__name__)})") from error


def _drain(items: queue.SimpleQueue[_Append | None], limit: int | None) -> Iterator[_Append | None]:
    taken = 0
    while limit is None or taken < limit:
        try:
            yield items.get_nowait()
        except queue.Empty:
            return
        taken += 1


def _answer(group: list[_Append], error: OutboxError | None) -> None:
    """Wake the waiting tasks, with one call into each of their event loops."""
    by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for item in group:
        by_loop.setdefault(item.done.get_loop(), []).append(item.done)
    for loop, futures in by_loop.items():
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_settle, futures, error)


def _settle(futures: list[asyncio.Future[None]], error: OutboxError | None) -> None:
    for future in futures:
        if future.done():  # its task was cancelled meanwhile
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(
                OutboxError(str(error))
            )  # one each: a shared exception collects every traceback
