"""Runs statements on one SQLite or DuckDB file in a process of its own, which may be killed at any time.

Started as a script, isolated from the environment (`python -I worker.py`), so that it loads nothing else. It reads
frames from its standard input (four bytes of length, then JSON) and answers each on its standard output. The first
says what it may do (`Config`), and is answered when it is ready; each further one is a statement (`Request`). It
trusts neither the statement nor the guard before it.
"""

import json
import os
import re
import resource
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any, BinaryIO

_BATCH = 64  # rows between two looks at the clock and the bytes
_PROGRESS_INSTRUCTIONS = 2_000  # how often SQLite asks whether the time is up
_SQLITE_LIMITS = {
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 200_000,
    sqlite3.SQLITE_LIMIT_COLUMN: 2_000,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 200,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 50,
    sqlite3.SQLITE_LIMIT_FUNCTION_ARG: 50,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1_000,  # matching takes quadratic time
    sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER: 0,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 0,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}

Config = dict[str, Any]
Request = dict[str, Any]
Answer = dict[str, Any]


class RefusedError(Exception):
    """The engine may not do this."""


def main() -> None:
    """Answer requests until the other side closes."""
    requests = frames(sys.stdin.buffer)
    config = next(requests, None)
    if config is None:
        return
    confine(config["address_bytes"], config["data_bytes"])
    answer({})  # ready
    run = _sqlite if config["kind"] == "sqlite" else _duckdb
    for request in requests:
        processor = int(time.process_time() + float(request["seconds"]) * config["threads"]) + 2
        resource.setrlimit(resource.RLIMIT_CPU, (processor, resource.RLIM_INFINITY))
        answer(run(config, request))


def answer(value: Mapping[str, Any]) -> None:
    """Write one frame to standard output."""
    body = json.dumps(value).encode()
    sys.stdout.buffer.write(len(body).to_bytes(4) + body)
    sys.stdout.buffer.flush()


def frames(source: BinaryIO) -> Iterator[dict[str, Any]]:
    """What the other side says, until it closes."""
    while len(head := source.read(4)) == 4:
        yield json.loads(source.read(int.from_bytes(head)))


def confine(address_bytes: int, data_bytes: int) -> None:
    """Give up for good what no statement needs; `address_bytes` of virtual memory are left, and `data_bytes` to write
    to: DuckDB reserves far more than it uses, and does not count what functions make.
    """
    resource.setrlimit(resource.RLIMIT_AS, (address_bytes, address_bytes))
    resource.setrlimit(resource.RLIMIT_DATA, (data_bytes, data_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # it writes no file, not even a temporary one
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    os.nice(5)  # whoever answers the clients goes first


def _sqlite(config: Config, request: Request) -> Answer:
    deadline = time.monotonic() + request["seconds"]
    uri = f"file:{_quoted(config['path'])}?mode=ro"
    try:
        with closing(
            sqlite3.connect(uri, uri=True, isolation_level=None, timeout=request["seconds"])
        ) as connection:
            connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            for limit, value in _SQLITE_LIMITS.items():
                connection.setlimit(limit, value)
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, config["cell_bytes"])
            connection.execute(
                "PRAGMA trusted_schema = OFF"
            )  # functions in views and defaults are nobody's to trust
            connection.execute("PRAGMA cell_size_check = ON")
            connection.execute("PRAGMA temp_store = MEMORY")
            views = {
                row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'view'")
            }
            connection.execute("PRAGMA query_only = ON")
            connection.set_authorizer(_authorizer(config, views - _shadowed(views, request["sql"])))
            connection.set_progress_handler(lambda: time.monotonic() > deadline, _PROGRESS_INSTRUCTIONS)
            cursor = connection.execute(request["sql"])
            if cursor.description is None:
                return {"error": "the statement returns no rows", "kind": "wrong"}
            names = [column[0] for column in cursor.description]
            rows, cut = _limited(cursor, request)
    except sqlite3.OperationalError as error:
        if str(error) == "interrupted":
            return {"error": "", "kind": "time"}
        away = getattr(error, "sqlite_errorcode", 0) & 0xFF in _AWAY
        return {"error": str(error), "kind": "away" if away else "wrong"}
    except (sqlite3.Error, UnicodeEncodeError) as error:
        return {"error": str(error), "kind": "wrong"}
    except MemoryError:
        return {"error": "", "kind": "memory"}
    types = [_type_of(row[place] for row in rows) for place in range(len(names))]
    return {"columns": names, "types": types, "rows": rows, "cut": cut}


_AWAY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR)


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _shadowed(views: Iterable[str], sql: str) -> set[str]:
    """Views after which a query in WITH is called: what that reads, SQLite would tell as read by the view."""
    gap = r"(?:\s|/\*.*?\*/|--[^\n]*\n)*"
    named = rf"[\"\]`']?{gap}(?:\([^()]*\){gap})?AS{gap}(?:NOT\b{gap})?(?:MATERIALIZED\b{gap})?\("
    return {view for view in views if re.search(re.escape(view) + named, sql, re.IGNORECASE | re.DOTALL)}


def _authorizer(config: Config, views: set[str]) -> Callable[..., int]:
    """SQLite asks before it compiles each access (https://sqlite.org/c3ref/set_authorizer.html)."""
    readable = {table: set(columns) for table, columns in config["tables"].items()}
    functions = set(config["functions"])
    others = set(config["names"]) - {table.lower() for table in readable}

    def authorize(action: int, first: str | None, second: str | None, *where: str | None) -> int:
        if action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE):
            return sqlite3.SQLITE_OK
        # What a view reads, also of another view, is its owner's to decide; whether it may be read is asked before.
        if where[1] in views and action in (sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION):
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_FUNCTION:
            return sqlite3.SQLITE_OK if (second or "").upper() in functions else sqlite3.SQLITE_DENY
        if action != sqlite3.SQLITE_READ:
            return sqlite3.SQLITE_DENY
        table, column = first or "", second or ""  # as they were declared
        if column:
            return sqlite3.SQLITE_OK if column in readable.get(table, ()) else sqlite3.SQLITE_DENY
        # Rows are counted: of a table, or of a query in WITH or FROM by the name that it has there.
        known = table.lower() not in others and not table.lower().startswith(("sqlite_", "pragma_"))
        return sqlite3.SQLITE_OK if known else sqlite3.SQLITE_DENY

    return authorize


def _limited(cursor: Any, request: Request) -> tuple[list[list[Any]], str | None]:
    """The rows within the limits, and which limit cut them."""
    rows: list[list[Any]] = []
    size = 0
    while batch := cursor.fetchmany(_BATCH):
        for row in batch:
            cells = [_cell(value) for value in row]
            size += sum(len(value) if isinstance(value, str) else 8 for value in cells)
            if len(rows) == request["rows"]:
                return rows, "rows"
            if size > request["bytes"]:
                return rows, "bytes"
            rows.append(cells)
    return rows, None


def _cell(value: object) -> Any:
    if isinstance(value, bytes):
        return f"x'{value[:200].hex()}'" + (f" ({len(value)} bytes)" if len(value) > 200 else "")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def _type_of(values: Iterable[object]) -> str:
    kinds = {type(value) for value in values if value is not None}
    names = {int: "integer", float: "real", str: "text", bool: "boolean"}
    return (
        names[kinds.pop()]
        if len(kinds) == 1
        else "real"
        if kinds == {int, float}
        else ""
        if not kinds
        else "mixed"
    )


def _duckdb(config: Config, request: Request) -> Answer:
    import duckdb  # noqa: PLC0415  # only the worker that needs it loads it

    try:
        with _opened_duckdb(duckdb, config) as connection:
            if not request.get("trusted"):
                _read_again(duckdb, connection, config, request["sql"])
            timer = threading.Timer(request["seconds"], connection.interrupt)
            timer.start()
            try:
                relation = connection.sql(request["sql"])
                names, types = relation.columns, [str(kind).lower() for kind in relation.types]
                cursor = connection.execute(_with_times_as_texts(request["sql"], types))
                rows, cut = _limited(cursor, request)
            finally:
                timer.cancel()
    except RefusedError as error:
        return {"error": str(error), "kind": "wrong"}
    except duckdb.InterruptException:
        return {"error": "", "kind": "time"}
    except (duckdb.OutOfMemoryException, MemoryError):
        return {"error": "", "kind": "memory"}
    except duckdb.IOException as error:
        return {"error": str(error), "kind": "away"}
    except duckdb.Error as error:
        return {"error": str(error), "kind": "wrong"}
    return {"columns": names, "types": types, "rows": rows, "cut": cut}


def _with_times_as_texts(sql: str, types: Sequence[str]) -> str:
    """Times with a zone are Python's only where a package for zones is there."""
    if not any(kind.endswith("with time zone") for kind in types):
        return sql
    names = [f'"c{place}"' for place in range(len(types))]
    read = (
        f"CAST({name} AS VARCHAR)" if kind.endswith("with time zone") else name
        for name, kind in zip(names, types, strict=True)
    )
    return f"SELECT {', '.join(read)} FROM ({sql}) AS answer({', '.join(names)})"  # noqa: S608  # what was read again


@contextmanager
def _opened_duckdb(duckdb: Any, config: Config) -> Iterator[Any]:
    settings = {
        "enable_external_access": "false",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "allow_community_extensions": "false",
        "python_enable_replacements": "false",
        "memory_limit": f"{config['memory_bytes']}B",
        "threads": str(config["threads"]),
        "temp_directory": "",
        "lock_configuration": "true",
    }
    with duckdb.connect(config["path"], read_only=True, config=settings) as connection:
        yield connection


def _read_again(duckdb: Any, connection: Any, config: Config, sql: str) -> None:
    """DuckDB has no privileges: its own parser's tree is held against what may be read. Raises `RefusedError`."""
    statements = duckdb.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise RefusedError("not authorized: exactly one SELECT can run")
    text = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [statements[0].query]).fetchone()[0]
    tree = json.loads(text)
    if tree.get("error"):
        raise RefusedError(f"not authorized: {tree.get('error_message')}")
    nodes = list(_nodes(tree["statements"]))
    tables = [node for node in nodes if node.get("type") == "BASE_TABLE"]
    aliases = {name.lower() for table in tables for name in (table["alias"], table["table_name"]) if name}
    queries = {entry["key"].lower() for node in nodes for entry in (node.get("cte_map") or {}).get("map", ())}
    readable = {table.lower() for table in config["tables"]}
    places = {(place.lower(), name.lower()) for place, name in config["places"]}
    for node in nodes:
        if isinstance(kind := node.get("type"), str) and not kind.startswith(_DUCKDB_KINDS):
            raise RefusedError(f"not authorized: {kind.lower()}")
    for table in tables:
        place, name = table["schema_name"].lower(), table["table_name"].lower()
        known = (place, name) in places if place else name in readable | queries
        if not known or table["catalog_name"] or table.get("column_name_alias"):
            raise RefusedError(f"not authorized: table {table['table_name']}")
    for node in nodes:
        _check_duckdb_names(node, set(config["hidden"]), aliases, set(config["functions"]))


def _check_duckdb_names(
    node: Mapping[str, Any], hidden: set[str], aliases: set[str], functions: set[str]
) -> None:
    kind = node.get("type")
    if kind == "COLUMN_REF":
        names = {name.lower() for name in node["column_names"]}
        parts = len(node["column_names"])
        if names & hidden or parts > 2 or (parts == 1 and names & aliases):
            raise RefusedError(f"not authorized: column {node['column_names'][-1]}")
    elif kind == "JOIN" and (
        node.get("ref_type") == "NATURAL"
        or {name.lower() for name in node.get("using_columns") or ()} & hidden
    ):
        raise RefusedError("not authorized: join over columns that are not named")
    elif kind == "FUNCTION" and not node.get("is_operator"):
        name = node["function_name"]
        if name.upper() not in functions and name not in _DUCKDB_OWN:
            raise RefusedError(f"not authorized: function {name}")


_DUCKDB_KINDS = tuple(  # beginnings of the kinds of node that a plain query is made of; no kind: no node of a query
    "SELECT_NODE SET_OPERATION_NODE CTE_NODE RECURSIVE_CTE_NODE COLUMN_REF VALUE_ FUNCTION OPERATOR_ COMPARE_ "
    "CONJUNCTION_ CASE_EXPR SUBQUERY BASE_TABLE JOIN EMPTY TYPE WINDOW_ LIMIT_MODIFIER ORDER_ ASCENDING "
    "DESCENDING DISTINCT_MODIFIER".split()
)
_DUCKDB_OWN = {"count_star", "like_escape", "not_like_escape", "ilike_escape", "not_ilike_escape", "list"}


def _nodes(tree: object) -> Iterator[Mapping[str, Any]]:
    stack = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, Mapping):
            yield node
            stack.extend(node.values())
        elif isinstance(node, Sequence) and not isinstance(node, str):
            stack.extend(node)


if __name__ == "__main__":
    main()
