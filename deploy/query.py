"""SQL over an export (`feedback.export`), by DuckDB: it reads those files and nothing else, and changes nothing."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from deploy.errors import FlywheelError
from feedback.columns import SCHEMAS
from feedback.export import LATEST

_AT_ONCE = 1_000  # rows


class Answer(NamedTuple):
    """The names of the columns, and the rows, read as they are asked for: whoever reads them meets `FlywheelError`."""

    names: Sequence[str]
    rows: Iterator[tuple[Any, ...]]


def opened(folder: Path) -> duckdb.DuckDBPyConnection:
    """The export in `folder`, with a view for each of its tables. Raises `FlywheelError`.

    The next export removes what is open here: whoever wants the new one opens it again.
    """
    place = (folder / LATEST).resolve()
    if not place.is_dir():
        raise FlywheelError(f"there is no export in {folder}: make one with `flywheel export`")
    connection = duckdb.connect(
        config={
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,  # else the names of our own variables were tables
        }
    )
    connection.execute("SET TimeZone = 'UTC'")
    for name in SCHEMAS:
        files = ", ".join(map(_quoted, sorted((place / name).glob("*.parquet"))))
        connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet([{files}])")  # noqa: S608  # our own names
    connection.execute(f"SET allowed_directories = [{_quoted(place)}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def ask(connection: duckdb.DuckDBPyConnection, sql: str) -> Answer:
    """The answer to one query. Raises `FlywheelError`.

    Only SELECT, and what DuckDB takes for one (DESCRIBE, SUMMARIZE, FROM …): COPY, ATTACH and EXPLAIN ANALYZE of these
    could write into the export itself.
    """
    try:
        statements = connection.extract_statements(sql)
        if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
            raise FlywheelError("an export is only read: write one SELECT")
        reader = connection.sql(statements[0].query).to_arrow_reader(_AT_ONCE)
    except duckdb.Error as error:
        raise FlywheelError(str(error)) from error
    return Answer(reader.schema.names, _rows(reader))


def _rows(reader: pa.RecordBatchReader) -> Iterator[tuple[Any, ...]]:
    try:
        for batch in reader:
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
    except (duckdb.Error, pa.ArrowException) as error:
        raise FlywheelError(str(error)) from error


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
