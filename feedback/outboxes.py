"""The outboxes of several processes, side by side: each is written by its own process, and read by all.

No lock is shared on the way of an event. Whoever looks for one that has not reached the store yet looks everywhere.
"""

import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from feedback.outbox import OutboxError


def path_of(path: Path, number: int) -> Path:
    """The file of process `number`. That of process 0 is `path` itself, as if there were no other."""
    return path if number == 0 else path.with_name(f"{path.stem}-{number}{path.suffix}")


def left_over(path: Path, count: int) -> Sequence[Path]:
    """The files beyond those of `count` processes, from a time when there were more."""
    name = re.compile(rf"{re.escape(path.stem)}-(\d+){re.escape(path.suffix)}")
    found = ((name.fullmatch(file.name), file) for file in path.parent.glob(f"*{path.suffix}"))
    return sorted(file for match, file in found if match is not None and int(match[1]) >= count)


def containing(path: Path, text: bytes) -> list[bytes]:
    """The waiting events of another process with these bytes in them, oldest first. Blocks; raises `OutboxError`.

    A process that has not begun yet has none; one that was killed has what it left.
    """
    if not path.exists():
        return []
    try:
        # Opened for writing, because what a killed process left in its write-ahead log can only be read so.
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as connection:
            connection.execute("PRAGMA query_only = ON")
            query = "SELECT body FROM outbox WHERE instr(body, ?) ORDER BY sequence"
            return [body for (body,) in connection.execute(query, (text,))]
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):  # it is just being made
            return []
        raise OutboxError(f"{path} cannot be read: {error}") from error
    except sqlite3.Error as error:
        raise OutboxError(f"{path} cannot be read: {error}") from error
