"""Reads a database's schema by SQLAlchemy's inspector and keeps of it what may be shown. Blocks.

DuckDB's catalog is read by its worker process instead (`duckdb_catalog`): no dialect of SQLAlchemy for it is needed.
"""

import sqlite3
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, Inspector, create_engine, exc, inspect, text
from sqlalchemy.engine.interfaces import ReflectedColumn, ReflectedForeignKeyConstraint
from sqlalchemy.engine.reflection import ObjectKind
from sqlalchemy.pool import NullPool

from tools.errors import ToolUnavailableError
from tools.sql.engines import Answer
from tools.sql.options import DatabaseOptions
from tools.sql.schema import Column, ForeignKey, Schema, Table

_DIALECTS = {"postgresql": "postgres", "mssql": "tsql", "mariadb": "mysql"}  # where sqlglot has another name
_ESTIMATES = (
    "SELECT n.nspname, c.relname, c.reltuples::bigint FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE c.reltuples >= 0 AND c.relkind IN ('r', 'm', 'p')"
)
_READABLE = "SELECT table_schema, table_name, column_name FROM information_schema.columns"  # by this role
DUCKDB_COLUMNS = (
    "SELECT c.schema_name, c.table_name, c.column_name, c.data_type, c.is_nullable, c.comment, t.comment, "
    "t.estimated_size, t.table_name IS NULL FROM duckdb_columns() c LEFT JOIN duckdb_tables() t "
    "ON t.database_name = c.database_name AND t.schema_name = c.schema_name AND t.table_name = c.table_name "
    "WHERE c.database_name = current_database() AND NOT c.internal ORDER BY c.schema_name, c.table_name, c.column_index"
)
DUCKDB_KEYS = (
    "SELECT schema_name, table_name, constraint_type, array_to_string(constraint_column_names, chr(31)), "
    "referenced_table, array_to_string(referenced_column_names, chr(31)) FROM duckdb_constraints() "
    "WHERE constraint_type IN ('PRIMARY KEY', 'FOREIGN KEY') AND database_name = current_database()"
)


def dialect_of(url: URL) -> str:
    """The dialect as sqlglot names it."""
    name = url.get_backend_name()
    return _DIALECTS.get(name, name)


def engine_for(url: URL) -> Engine:
    """An engine that opens a connection for each use; a SQLite file read-only."""
    if url.get_backend_name() == "sqlite":
        where = f"{Path(url.database or '').absolute().as_uri()}?mode=ro"
        return create_engine(
            "sqlite://",
            creator=lambda: sqlite3.connect(where, uri=True, check_same_thread=False),
            poolclass=NullPool,
        )
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    return create_engine(url, poolclass=NullPool)


def read(url: URL, options: DatabaseOptions) -> Schema:
    """The schema as options let it be seen. Raises `ToolUnavailableError` when the database does not answer."""
    engine = engine_for(url)
    try:
        with warnings.catch_warnings(), engine.connect() as connection:
            warnings.simplefilter("ignore", exc.SAWarning)  # of types that SQLAlchemy does not know
            inspector = inspect(connection)
            default = inspector.default_schema_name or "main"
            names: set[str] = set()
            found: list[Table] = []
            for place in inspector.get_schema_names():
                names.update(inspector.get_table_names(place), inspector.get_view_names(place))
                if place in (options.schemas or (default,)):
                    found.extend(_tables(inspector, place, default))
            if url.get_backend_name() == "postgresql":
                found = list(_as_postgres_lets(found, connection))
    except (exc.DBAPIError, sqlite3.Error) as error:
        raise ToolUnavailableError(f"the database cannot be read: {str(error).splitlines()[0]}") from error
    finally:
        engine.dispose()
    return shown(found, options, dialect=dialect_of(url), default=default, names=names)


def _tables(inspector: Inspector, place: str, default: str) -> Iterable[Table]:
    keys = inspector.get_multi_pk_constraint(place, kind=ObjectKind.ANY)
    foreign = inspector.get_multi_foreign_keys(place, kind=ObjectKind.ANY)
    views = {*inspector.get_view_names(place), *_materialized(inspector, place)}
    comments = _comments(inspector, place)
    for key, columns in inspector.get_multi_columns(place, kind=ObjectKind.ANY).items():
        primary = keys.get(key)
        yield Table(
            schema=place,
            name=key[1],
            columns=tuple(_column(column) for column in columns),
            view=key[1] in views,
            primary_key=tuple(primary["constrained_columns"]) if primary else (),
            foreign_keys=tuple(_foreign_key(k, default) for k in foreign.get(key, ())),
            comment=comments.get(key) or "",
        )


def _as_postgres_lets(tables: Iterable[Table], connection: Connection) -> Iterable[Table]:
    """What the role may not read is hidden; and PostgreSQL knows about how many rows there are."""
    readable = {(row[0], row[1], row[2]) for row in connection.execute(text(_READABLE))}
    estimates = {(row[0], row[1]): row[2] for row in connection.execute(text(_ESTIMATES))}
    for table in tables:
        columns = tuple(c for c in table.columns if (table.schema, table.name, c.name) in readable)
        hidden = frozenset(c.name.lower() for c in table.columns if c not in columns)
        rows = estimates.get((table.schema, table.name))
        yield replace(table, columns=columns, hidden=hidden, rows=rows)


def _materialized(inspector: Inspector, place: str) -> Sequence[str]:
    try:
        return inspector.get_materialized_view_names(place)
    except NotImplementedError:
        return ()


def _comments(inspector: Inspector, place: str) -> Mapping[tuple[str | None, str], str | None]:
    try:
        found = inspector.get_multi_table_comment(place, kind=ObjectKind.ANY)
    except NotImplementedError:
        return {}
    return {key: comment["text"] for key, comment in found.items()}


def _column(column: ReflectedColumn) -> Column:
    try:
        kind = str(column["type"]).lower()
    except exc.CompileError:
        kind = ""
    return Column(
        column["name"], "" if kind == "null" else kind, bool(column["nullable"]), column.get("comment") or ""
    )


def _foreign_key(key: ReflectedForeignKeyConstraint, default: str) -> ForeignKey:
    place = key.get("referred_schema")
    table = key["referred_table"] if place in (None, default) else f"{place}.{key['referred_table']}"
    return ForeignKey(tuple(key["constrained_columns"]), table, tuple(key["referred_columns"]))


def duckdb_schema(columns: Answer, keys: Answer, options: DatabaseOptions) -> Schema:
    """The schema out of DuckDB's answers to `DUCKDB_COLUMNS` and `DUCKDB_KEYS`."""
    tables: dict[tuple[str, str], Table] = {}
    for place, name, column, kind, nullable, comment, about, rows, view in columns.rows:
        at = (str(place), str(name))
        count = None if rows is None else int(rows)
        known = tables.get(at) or Table(*at, (), view=bool(view), comment=str(about or ""), rows=count)
        read_as = Column(str(column), str(kind).lower(), bool(nullable), str(comment or ""))
        tables[at] = replace(known, columns=(*known.columns, read_as))
    for place, name, kind, own, other, referred in keys.rows:
        at, parts = (str(place), str(name)), tuple(str(own).split("\x1f"))
        if kind == "PRIMARY KEY":
            tables[at] = replace(tables[at], primary_key=parts)
        else:
            key = ForeignKey(parts, str(other), tuple(str(referred).split("\x1f")))
            tables[at] = replace(tables[at], foreign_keys=(*tables[at].foreign_keys, key))
    found = list(tables.values())
    inside = options.schemas or ("main",)
    names = {table.name for table in found}
    kept = [table for table in found if table.schema in inside]
    return shown(kept, options, dialect="duckdb", default="main", names=names)


def shown(
    tables: Iterable[Table], options: DatabaseOptions, *, dialect: str, default: str, names: Iterable[str]
) -> Schema:
    """Of these tables what options allow. Raises `ValueError` for one that they name and is not there."""
    tables = tuple(tables)
    wanted = {name.lower() for name in options.tables}
    exactly = {
        name for table in tables for name in (table.name, f"{table.schema}.{table.name}")
    }.intersection(options.tables)
    hidden = {name.lower() for name in options.hidden_columns}
    used: set[str] = set()
    kept: list[Table] = []
    for table in tables:
        called = {table.name.lower(), f"{table.schema}.{table.name}".lower()}
        # Where a table has exactly this name, another that has it in other letters is not meant.
        meant = {name.lower() for name in exactly & {table.name, f"{table.schema}.{table.name}"}}
        unnamed = not (wanted - {name.lower() for name in exactly} | meant) & called
        if unnamed and (wanted or (table.view and hidden)):  # a view may show what its tables hide
            used.update(h for h in hidden for c in table.columns if h in _called(called, c.name))
            continue
        used.update(wanted & called)
        away = {c.name.lower(): _called(called, c.name) & hidden for c in table.columns}
        used = used.union(*away.values(), *(_called(called, name) & hidden for name in table.hidden))
        columns = tuple(c for c in table.columns if not away[c.name.lower()])
        if not columns:
            continue
        secret = table.hidden | {name for name, why in away.items() if why}
        shows_key = not secret & {part.lower() for part in table.primary_key}
        key = table.primary_key if shows_key else ()
        kept.append(replace(table, columns=columns, hidden=frozenset(secret), primary_key=key))
    if missing := (wanted | hidden) - used:
        raise ValueError(f"there is no table or column {', '.join(sorted(missing))} in the database")
    return Schema(dialect, _only_shown_keys(kept, default), default=default, names=names)


def _called(tables: set[str], column: str) -> set[str]:
    return {column.lower(), *(f"{table}.{column.lower()}" for table in tables)}


def _only_shown_keys(tables: Sequence[Table], default: str) -> Iterable[Table]:
    """A key is shown where both of its ends are."""
    readable = {
        table.name if table.schema == default else f"{table.schema}.{table.name}": {
            c.name for c in table.columns
        }
        for table in tables
    }
    for table in tables:
        own = {column.name for column in table.columns}
        keys = (k for k in table.foreign_keys if own.issuperset(k.columns))
        yield replace(
            table, foreign_keys=tuple(k for k in keys if readable.get(k.table, set()).issuperset(k.referred))
        )
