"""The four tools with which a model explores a database: what there is, what it is like, what is in it, and SQL."""

from pydantic import BaseModel, ConfigDict, Field
from sqlglot import exp

from tools.content import as_content
from tools.errors import ToolError
from tools.sql import results
from tools.sql.schema import Schema, Table
from tools.sql.source import Source
from tools.tool import FunctionTool, Tool

_MOST_TABLES = 300
_MOST_COLUMNS = 300
_MOST_NAMES = 12
_LONGEST_COMMENT = 200
_COUNT_SECONDS = 1.0


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RunSql(_Arguments):
    """What `run_sql` takes."""

    sql: str = Field(description="One SELECT statement in the database's dialect.")


class ListTables(_Arguments):
    """What `list_tables` takes: nothing."""


class DescribeTable(_Arguments):
    """What `describe_table` takes."""

    table: str = Field(description="Name of a table or view.")


class SampleValues(_Arguments):
    """What `sample_values` takes."""

    table: str = Field(description="Name of a table or view.")
    column: str = Field(description="Name of one of its columns.")
    limit: int = Field(10, ge=1, le=50, description="How many values.")


def tools(source: Source) -> list[Tool]:
    """The tools of one database."""
    asked = _Tools(source)
    return [
        FunctionTool(
            "run_sql",
            "Run one read-only SELECT on the database and see its rows. On an error, mend the statement and run it again.",
            RunSql,
            asked.run_sql,
        ),
        FunctionTool(
            "list_tables", "List the tables and views of the database with their columns.", ListTables, asked.list_tables
        ),
        FunctionTool(
            "describe_table",
            "Describe a table: columns with types and comments, keys, about how many rows.",
            DescribeTable,
            asked.describe_table,
        ),
        FunctionTool(
            "sample_values",
            "Show the most frequent values of a column: how names, codes and dates are really written.",
            SampleValues,
            asked.sample_values,
        ),
    ]


class _Tools:
    def __init__(self, source: Source) -> None:
        self._source = source

    async def run_sql(self, arguments: RunSql) -> str:
        return await self._rows(arguments.sql, shown=self._source.options.shown_rows)

    async def list_tables(self, _: ListTables) -> str:
        schema = await self._source.schema()
        lines = []
        for table in schema.tables[:_MOST_TABLES]:
            names = ", ".join(column.name for column in table.columns[:_MOST_NAMES])
            more = f", … ({len(table.columns)} columns)" if len(table.columns) > _MOST_NAMES else ""
            lines.append(f"{schema.shown(table)}({names}{more}){' view' if table.view else ''}{_comment(table.comment)}")
        more = f", first {_MOST_TABLES}" if len(schema.tables) > _MOST_TABLES else ""
        count = f"{len(schema.tables)} tables ({schema.dialect}){more}"
        return f"{count}\n{as_content(chr(10).join(lines), self._source.name)}"

    async def describe_table(self, arguments: DescribeTable) -> str:
        schema = await self._source.schema()
        table = _table(schema, arguments.table)
        rows = table.rows if table.rows is not None else await self._count(schema, table)
        count = "" if rows is None else f", about {rows} rows"
        lines = [f"{schema.shown(table)}: {'view' if table.view else 'table'}{count}{_comment(table.comment)}"]
        keys = {key.columns[0]: key for key in table.foreign_keys if len(key.columns) == 1}
        for column in table.columns[:_MOST_COLUMNS]:
            key = keys.get(column.name)
            parts = (
                column.name,
                column.type,
                "" if column.nullable else "not null",
                "primary key" if table.primary_key == (column.name,) else "",
                f"-> {key.table}({', '.join(key.referred)})" if key else "",
            )
            lines.append(f"  {' '.join(part for part in parts if part)}{_comment(column.comment)}")
        if len(table.columns) > _MOST_COLUMNS:
            lines.append(f"  … and {len(table.columns) - _MOST_COLUMNS} more columns")
        if len(table.primary_key) > 1:
            lines.append(f"  primary key ({', '.join(table.primary_key)})")
        lines.extend(
            f"  ({', '.join(key.columns)}) -> {key.table}({', '.join(key.referred)})"
            for key in table.foreign_keys
            if len(key.columns) > 1
        )
        return as_content("\n".join(lines), self._source.name)

    async def sample_values(self, arguments: SampleValues) -> str:
        schema = await self._source.schema()
        table = _table(schema, arguments.table)
        found = [c.name for c in table.columns if c.name.lower() == arguments.column.lower()]
        if not found:
            near = schema.near_columns(arguments.column, [table])
            raise ToolError(f"there is no column {arguments.column} in {schema.shown(table)}: {near}")
        column = exp.column(exp.to_identifier(found[0], quoted=True))
        frequent = (
            exp.select(column, exp.alias_(exp.Count(this=exp.Star()), "times"))
            .from_(_reference(table))
            .group_by(column)
            .order_by(exp.Ordered(this=exp.Count(this=exp.Star()), desc=True))
            .limit(arguments.limit)
        )
        return await self._rows(frequent.sql(dialect=schema.dialect), shown=arguments.limit)

    async def _rows(self, sql: str, *, shown: int) -> str:
        options = self._source.options
        answer, notes = await self._source.query(sql)
        table = results.table(
            answer,
            source=self._source.name,
            shown=shown,
            max_rows=options.max_rows,
            max_cell=options.max_cell,
        )
        return "\n".join((table, *(as_content(note, "note") for note in notes)))

    async def _count(self, schema: Schema, table: Table) -> object:
        counted = exp.select(exp.Count(this=exp.Star())).from_(_reference(table))
        try:
            answer, _ = await self._source.query(counted.sql(dialect=schema.dialect), seconds=_COUNT_SECONDS)
        except ToolError:
            return None  # too many to count in a moment
        return answer.rows[0][0]


def _table(schema: Schema, name: str) -> Table:
    table = schema.find(name)
    if table is None:
        raise ToolError(f"there is no table {name}: {schema.near_tables(name)}")
    return table


def _reference(table: Table) -> exp.Table:
    return exp.Table(
        this=exp.to_identifier(table.name, quoted=True), db=exp.to_identifier(table.schema, quoted=True)
    )


def _comment(text: str) -> str:
    return f" -- {' '.join(text.split())[:_LONGEST_COMMENT]}" if text else ""
