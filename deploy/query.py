"""SQL over an export (`feedback.export`), by DuckDB: it reads those files and nothing else, and changes nothing."""

from pathlib import Path

import duckdb

from deploy.errors import FlywheelError
from feedback.columns import SCHEMAS
from feedback.export import LATEST


def opened(folder: Path) -> duckdb.DuckDBPyConnection:
    """The export in `folder`, with a view for each of its tables. Raises `FlywheelError`.

    The next export removes what is open here: whoever wants the new one opens it again.
    """
    place = (folder / LATEST).resolve()
    if not place.is_dir():
        raise FlywheelError(f"there is no export in {folder}: make one with `flywheel export`")
    connection = duckdb.connect(
        config={"autoinstall_known_extensions": False, "autoload_known_extensions": False}
    )
    for name in SCHEMAS:
        files = ", ".join(map(_quoted, sorted((place / name).glob("*.parquet"))))
        connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet([{files}])")  # noqa: S608  # our own names
    connection.execute(f"SET allowed_directories = [{_quoted(place)}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def ask(connection: duckdb.DuckDBPyConnection, sql: str) -> duckdb.DuckDBPyConnection:
    """Run one query; what is returned has its `description`, and gives its rows by `fetchmany`.

    Only SELECT, and what DuckDB takes for one (DESCRIBE, SUMMARIZE, FROM …): COPY, ATTACH and EXPLAIN ANALYZE of these
    could write into the export itself. Raises `FlywheelError`.
    """
    try:
        statements = connection.extract_statements(sql)
        if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
            raise FlywheelError("an export is only read: write one SELECT")
        return connection.execute(statements[0])
    except duckdb.Error as error:
        raise FlywheelError(str(error)) from error


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
