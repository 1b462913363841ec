"""How every SQLite file here is opened: in WAL mode, and so that what is committed survives a power cut.

What is deleted is overwritten. Copies of it stay in the write-ahead log until `truncate_log`, and pages that SQLite has
rearranged may hold some until the file is rebuilt (VACUUM).
"""

import sqlite3
import time

BUSY_SECONDS = 10.0


def prepare(connection: sqlite3.Connection) -> None:
    """Set WAL, `synchronous=FULL`, `secure_delete` and explicit transactions. Raises `sqlite3.Error`.

    FULL, not the NORMAL that is usual with WAL: the relay deletes from the outbox what the store says it has, so that a
    commit which a power cut can undo would be a loss.
    """
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA secure_delete = ON").fetchone()
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            return
        except sqlite3.OperationalError as error:
            # Two processes that turn a new file into WAL at once are told "busy" without the busy timeout being waited.
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def truncate_log(connection: sqlite3.Connection) -> bool:
    """Empty the write-ahead log into the file. False where another connection is just reading or writing.

    Raises `sqlite3.Error`.
    """
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy
