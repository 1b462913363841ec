"""A PostgreSQL of this machine's own: a cluster in a folder, reached through a Unix socket that is its user's alone.

PostgreSQL refuses to run as root: then it runs as the user `postgres`, or `nobody` where there is none such.
"""

import functools
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import aiohttp
from sqlalchemy import URL

from deploy.errors import FlywheelError
from deploy.process import Program

HOW_TO_GET_ONE = (
    "no PostgreSQL: install its server (Debian: postgresql; the service itself need not run), "
    "or put its initdb and postgres on PATH"
)
_USER = "flywheel"
_SOCKET = ".s.PGSQL.5432"
_LONGEST_SOCKET = 107  # bytes; unix(7), sun_path
_READY_SECONDS = 120.0


def url(folder: Path) -> str:
    """SQLAlchemy's URL of the cluster's database. There is no password: who may enter the folder is let in."""
    made = URL.create("postgresql+psycopg", _USER, database=_USER, query={"host": str(folder.absolute())})
    return made.render_as_string()


def program(folder: Path, *, logs: Path, durable: bool = True) -> Program:
    """A server on the cluster in `folder`, which is made where it is missing. Raises `FlywheelError`.

    Not `durable`: commits are not synced to the disk, for tests. Blocks, the first time for some seconds.
    """
    folder = folder.absolute()
    if len(os.fsencode(folder / _SOCKET)) > _LONGEST_SOCKET:
        raise FlywheelError(f"{folder} is too long a path for a Unix socket: set `var` to a shorter one")
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "data"
    binaries = _binaries(data)
    lower = _lowered(folder)
    folder.chmod(0o700)
    if not data.is_dir():
        _init(binaries, folder, data, lower)
    return Program(
        name="PostgreSQL",
        command=(
            *lower,
            *(str(binaries / "postgres"), "-D", str(data), "-k", str(folder)),
            *("-c", "listen_addresses=", "-c", "unix_socket_permissions=0700"),
            *("-c", f"fsync={'on' if durable else 'off'}", "-c", "max_connections=200"),
        ),
        environment={"LC_ALL": "C.UTF-8"},
        ready=functools.partial(_ready, folder),
        log=logs / "postgres.log",
        folder=folder,
        ready_seconds=_READY_SECONDS,
        mend="To use another server, set [feedback] store_url to its URL.",
        stop_signal=signal.SIGINT,  # its fast shutdown; at SIGTERM it waits for every client to go
    )


async def _ready(folder: Path, _: aiohttp.ClientSession) -> bool:
    import psycopg  # noqa: PLC0415  # an extra

    try:
        connection = await psycopg.AsyncConnection.connect(
            host=str(folder), user=_USER, dbname=_USER, connect_timeout=2
        )
    except psycopg.OperationalError:
        return False
    await connection.close()
    return True


def _binaries(data: Path) -> Path:
    """The folder of a server that fits the cluster; of the newest where there is no cluster yet."""
    found = {path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")}
    if (on_path := shutil.which("initdb")) is not None:
        found.add(Path(on_path).resolve().parent)
    versions = {folder: _version(folder) for folder in found}
    if not found:
        raise FlywheelError(HOW_TO_GET_ONE)
    if (data / "PG_VERSION").is_file():
        wanted = int((data / "PG_VERSION").read_text())
        versions = {folder: version for folder, version in versions.items() if version == wanted}
        if not versions:
            raise FlywheelError(f"{data} was made by PostgreSQL {wanted}, which is not installed: install it")
    return max(versions, key=lambda folder: versions[folder])


def _version(binaries: Path) -> int:
    said = subprocess.run((binaries / "postgres", "--version"), capture_output=True, text=True, check=True)
    _name, _product, version, *_ = said.stdout.split()  # postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)
    return int(version.partition(".")[0])


def _lowered(folder: Path) -> Sequence[str]:
    """The words before a command that give up root's rights, and the folder to whom they go; none for another user."""
    if os.geteuid() != 0:
        return ()
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    os.chown(folder, user.pw_uid, user.pw_gid)
    ids = (f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")
    return ("setpriv", *ids, "--pdeathsig=KILL")  # what the guard had asked for is lost with root's rights


def _init(binaries: Path, folder: Path, data: Path, lower: Sequence[str]) -> None:
    draft = folder / "data.part"  # half a cluster would be taken for a whole one
    shutil.rmtree(draft, ignore_errors=True)
    command = (
        *lower,
        *(str(binaries / "initdb"), "-D", str(draft), "-U", _USER, "--auth=trust", "--no-instructions"),
        *("--encoding=UTF8", "--locale=C.UTF-8"),
    )
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    if done.returncode == 0:
        alone = (*lower, str(binaries / "postgres"), "--single", "-D", str(draft), "postgres")
        create = f"CREATE DATABASE {_USER}\n"
        done = subprocess.run(alone, cwd="/", input=create, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reach = " Every folder above it must let that user through (chmod o+x)." if lower else ""
        raise FlywheelError(f"PostgreSQL could not make a cluster in {folder}: {done.stderr[-2_000:]}{reach}")
    draft.rename(data)
