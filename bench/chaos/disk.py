"""A disk that can be filled without filling the machine's own.

Where this may be mounted (root on Linux), it is a file system of its own, ext4 in a file, in a mount namespace that is
gone with the last of our processes. Elsewhere only the outbox is bounded, by its own limit.

Kafka's data are on another: a single node of Apache Kafka 4.3.1 that is started again while its disk is full cuts the
log of its metadata off, and then knows of no topic (seen here). Replicas on other disks are what helps against that.
"""

import ctypes
import errno
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Protocol

MIB = 2**20
_CLONE_NEWNS = 0x20000
_ROOM = 4_096 * MIB
_LEAST_PIECE = 4_096  # bytes
_LIMIT = 64 * MIB


class Disk(Protocol):
    """Where outbox and database lie. `outbox_max_bytes` is for the gateway's configuration."""

    description: str
    outbox_max_bytes: int | None

    def fill(self) -> None:
        """Leave no room."""
        ...

    def free(self) -> None:
        """Give the room back."""
        ...


class _FileSystem(Disk):
    description = f"an ext4 file system of {_ROOM // MIB} MiB with the outbox and PostgreSQL"
    outbox_max_bytes = None

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ballast: list[Path] = []

    def fill(self) -> None:
        """See `Disk`."""
        status = os.statvfs(self._folder)
        piece = status.f_bavail * status.f_frsize
        while piece >= _LEAST_PIECE:
            path = self._folder / f"ballast-{len(self._ballast)}"
            self._ballast.append(path)
            with path.open("wb") as file:
                try:
                    os.posix_fallocate(file.fileno(), 0, piece)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    file.truncate(0)
                    piece //= 2

    def free(self) -> None:
        """See `Disk`."""
        while self._ballast:
            self._ballast.pop().unlink(missing_ok=True)


class _Limit(Disk):
    outbox_max_bytes = _LIMIT
    description = f"the outbox at its limit of {_LIMIT // MIB} MiB; nothing may be mounted here"

    def __init__(self, outbox: Path) -> None:
        self._outbox = outbox

    def fill(self) -> None:
        """See `Disk`. The limit is the gateway's own: for this connection there is none."""
        self._execute("CREATE TABLE ballast (body BLOB)")
        self._execute("INSERT INTO ballast VALUES (zeroblob(?))", _LIMIT)

    def free(self) -> None:
        """See `Disk`."""
        self._execute("DROP TABLE ballast")

    def _execute(self, statement: str, *parameters: int) -> None:
        with closing(sqlite3.connect(self._outbox, timeout=30.0)) as connection, connection:
            connection.execute(statement, parameters)


@contextmanager
def bounded(folder: Path, outbox: Path) -> Iterator[Disk]:
    """Make `folder` a bounded disk, or, where that is not allowed, an ordinary one; `outbox` is to lie in it."""
    folder.mkdir()
    image = folder.with_name(f"{folder.name}.img")
    try:
        _mount(image, folder)
    except (OSError, subprocess.CalledProcessError):
        yield _Limit(outbox)
        return
    try:
        yield _FileSystem(folder)
    finally:
        _run("umount", "--lazy", folder)


def _mount(image: Path, folder: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    with image.open("wb") as file:
        file.truncate(_ROOM)
    _run("mount", "--make-rprivate", "/")
    _run("mkfs.ext4", "-q", "-m", "0", image)
    _run("mount", "-o", "loop", image, folder)


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)
