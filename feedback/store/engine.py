"""How the database is opened and brought up to date: a SQLite file, or PostgreSQL."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, make_url, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.pool import ConnectionPoolEntry

from feedback.sqlite import prepare

_INSERT: dict[str, Callable[[Table], sqlite_dialect.Insert | postgresql.Insert]] = {
    "sqlite": sqlite_dialect.insert,
    "postgresql": postgresql.insert,
}
_MIGRATIONS = Path(__file__).parent / "migrations"
_CONNECTIONS = 5  # that a process keeps open, and as many again for a while; a server has about a hundred
_WAIT_SECONDS = 10.0  # for one of them

# What libpq is told unless the URL says otherwise. A server that is away, or a network that swallows packets, is an
# error within seconds (one that has stopped is `watched`); what holds a lock, or a transaction that its process has
# forgotten, is ended by the server.
_LIBPQ = {
    "connect_timeout": "5",  # seconds, for each address
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",  # milliseconds until what was sent must have arrived
    "application_name": "flywheel",
    "options": "-c timezone=UTC -c statement_timeout=60s -c lock_timeout=10s"
    " -c idle_in_transaction_session_timeout=5min",
}
_MIGRATION_LOCK = 0x666C7977686C  # any number, as long as no other version of Flywheel takes another


def connect(url: str) -> Engine:
    """An engine for `sqlite:///path/to/file` or `postgresql://user@host/database`.

    What the URL leaves out libpq looks for in the usual places: PGPASSWORD, `~/.pgpass`, PGSERVICE. Raises `ValueError`
    for any other kind of database, `OSError`, and `sqlalchemy.exc.ArgumentError` for what is no URL.
    """
    parsed = make_url(url)
    kind = parsed.get_backend_name()
    if kind == "postgresql" and parsed.drivername in {"postgresql", "postgresql+psycopg"}:
        return _postgresql(parsed.set(drivername="postgresql+psycopg"))
    if kind == "sqlite" and parsed.database not in (None, "", ":memory:"):
        return _sqlite(parsed)
    raise ValueError(
        f"{parsed.render_as_string()}: the store is a SQLite file, sqlite:///path/to/file, or PostgreSQL, "
        "postgresql://user@host/database"
    )


def migrate(engine: Engine) -> None:
    """Apply the migrations that are missing, in one transaction; processes that start at once wait for each other.

    Raises `ValueError` for a database that does not hold every text.
    """
    config = configuration()
    with engine.connect().execution_options(write=True) as connection, connection.begin():
        if connection.dialect.name == "postgresql":
            _check_encoding(connection)
            _wait_for_others(connection)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def upsert(connection: Connection, table: Table) -> sqlite_dialect.Insert | postgresql.Insert:
    """An INSERT that can be told, in this database's dialect, what to do on a conflict."""
    return _INSERT[connection.dialect.name](table)


def configuration() -> Config:
    """Alembic's; before a command, its attribute `connection` is set to one whose transaction is the caller's."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config


def _postgresql(url: URL) -> Engine:
    try:
        from feedback.store.watched import Opener  # noqa: PLC0415  # psycopg is an extra

        engine = create_engine(
            url,
            connect_args={name: value for name, value in _LIBPQ.items() if name not in url.query},
            pool_size=_CONNECTIONS,
            max_overflow=_CONNECTIONS,
            pool_timeout=_WAIT_SECONDS,
            pool_pre_ping=True,  # a server that was restarted has cut what the pool holds
            hide_parameters=True,
        )
    except ModuleNotFoundError as error:
        raise ValueError("PostgreSQL needs psycopg: install flywheel[postgres]") from error
    opener = Opener()
    event.listen(engine, "do_connect", lambda _dialect, _record, _arguments, told: opener.connect(**told))
    return engine


def _check_encoding(connection: Connection) -> None:
    encoding = connection.execute(text("SHOW server_encoding")).scalar_one()
    if encoding != "UTF8":
        raise ValueError(f"the database is encoded in {encoding}: make one in UTF8")


def _wait_for_others(connection: Connection) -> None:
    # Another start may migrate for minutes, and so may this one; but tables in use are asked for only as long as usual,
    # for whoever waits for a table keeps all others from it.
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    patience = connection.execute(text("SHOW lock_timeout")).scalar_one()
    connection.execute(text("SET LOCAL lock_timeout = '15min'"))
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
    connection.execute(text("SELECT set_config('lock_timeout', :patience, true)"), {"patience": patience})


def _sqlite(url: URL) -> Engine:
    Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, hide_parameters=True)
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def _prepare(connection: sqlite3.Connection, _record: ConnectionPoolEntry) -> None:
    prepare(connection)


def _begin(connection: Connection) -> None:
    # Python's own BEGIN comes late and never before DDL. IMMEDIATE takes the write lock before anything is read: a
    # transaction that reads first and writes later fails at once, without waiting, when another has written between.
    immediate = connection.get_execution_options().get("write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
