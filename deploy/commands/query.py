"""export, query: what is in the store, for those who analyse it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from deploy.commands import settings_of
from deploy.errors import FlywheelError

if TYPE_CHECKING:
    import duckdb

_MOST_ROWS = 200  # in a table on the screen


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(export)
    app.command()(query)


def export(
    context: typer.Context,
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Default: var/export.", show_default=False)
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Of this tenant only.")] = None,
    since: Annotated[str | None, typer.Option(help="From this day or time on, in UTC: 2030-01-31.")] = None,
    until: Annotated[str | None, typer.Option(help="To before this day or time.")] = None,
) -> None:
    """Write requests, calls, ratings and policy changes as Parquet files: DIR/latest/TABLE/part-….parquet.

    All are as of one moment. The next export to the same folder replaces them in one step. They hold what people wrote,
    and of all tenants unless --tenant names one: keep the folder as you keep the store.
    """
    from deploy.exporting import export_to

    settings = settings_of(context)
    export_to(settings, folder or settings.export, tenant, since, until, Console(soft_wrap=True))


def query(
    context: typer.Context,
    sql: Annotated[str | None, typer.Argument(metavar="[SQL]", help="Left out: a prompt.")] = None,
    folder: Annotated[
        Path | None, typer.Option("--export", metavar="DIR", help="Default: var/export.", show_default=False)
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="All rows, as CSV.")] = False,
) -> None:
    r"""Ask an export in SQL (DuckDB's): requests, calls, ratings, policy_changes. `DESCRIBE calls` names the columns.

    \b
    flywheel query "SELECT policy, AVG(number) FROM ratings JOIN requests USING (tenant, request_id)
                    WHERE current AND name = 'correct' GROUP BY policy"
    """
    from deploy.query import opened

    with opened(folder or settings_of(context).export) as connection:
        if sql is not None:
            _answer(connection, sql, csv)
        else:
            _prompt(connection, csv)


def _answer(connection: "duckdb.DuckDBPyConnection", sql: str, csv: bool) -> None:
    import sys
    from csv import writer
    from itertools import islice

    from rich.markup import escape
    from rich.table import Column, Table

    from deploy.query import ask

    names, rows = ask(connection, sql)
    if csv:
        lines = writer(sys.stdout, lineterminator="\n")
        lines.writerow(names)
        lines.writerows(rows)
        return
    table = Table(*(Column(name, overflow="fold") for name in names))
    for row in islice(rows, _MOST_ROWS):
        table.add_row(*("" if value is None else escape(str(value)) for value in row))
    console = Console(highlight=False)
    console.print(table)
    if next(rows, None) is not None:
        console.print(f"the first {_MOST_ROWS} rows; --csv prints all")


def _prompt(connection: "duckdb.DuckDBPyConnection", csv: bool) -> None:
    """Until the end of the input. A query ends with a semicolon and may have many lines."""
    import readline  # noqa: F401  # input() then edits and remembers lines

    console = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
    console.print("requests, calls, ratings, policy_changes; a query ends with ; and Ctrl-D ends all")
    words = ""
    while True:
        try:
            words += input("      …> " if words else "flywheel> ") + "\n"
        except EOFError:
            return
        except KeyboardInterrupt:
            words = ""
            console.print()
            continue
        if not words.rstrip().endswith(";"):
            words = words.lstrip()
            continue
        try:
            _answer(connection, words, csv)
        except FlywheelError as error:
            console.print(str(error), style="red")
        words = ""
