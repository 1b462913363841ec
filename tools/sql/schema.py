"""What there is to ask: the tables and columns that a source may show, with their keys; and what it hides.

Read once by SQLAlchemy's inspector. Hidden are the columns that are named so, tables outside the allow-list, and
schemas outside theirs; of those only the names are kept, so that nothing else can be called like them.
"""

import difflib
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from sqlglot.dialects.dialect import Dialect, NormalizationStrategy

PSEUDO_COLUMNS: Mapping[str, frozenset[str]] = {
    "sqlite": frozenset({"rowid", "_rowid_", "oid"}),  # an INTEGER PRIMARY KEY by another name
    "postgres": frozenset({"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid", "oid"}),
    "duckdb": frozenset({"rowid", "filename", "file_row_number"}),
}
_SMALL = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
SYSTEM_PREFIXES = ("sqlite_", "pragma_", "pg_", "duckdb_", "information_schema")


@dataclass(frozen=True)
class Column:
    """A column that may be read."""

    name: str
    type: str
    nullable: bool = True
    comment: str = ""


@dataclass(frozen=True)
class ForeignKey:
    """Columns that refer to others; both sides may be read."""

    columns: tuple[str, ...]
    table: str
    referred: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table or view that may be read; `hidden` are the names of its columns that may not."""

    schema: str
    name: str
    columns: tuple[Column, ...]
    view: bool = False
    hidden: frozenset[str] = frozenset()
    primary_key: tuple[str, ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    comment: str = ""
    rows: int | None = None  # as the database estimates it; None: it does not


class Schema:
    """The tables of one source. `names` are those of all other tables that exist."""

    def __init__(
        self, dialect: str, tables: Iterable[Table], *, default: str, names: Iterable[str] = ()
    ) -> None:
        self.dialect = dialect
        self.default = default
        self.tables = tuple(
            sorted(tables, key=lambda table: (table.schema != default, table.schema, table.name))
        )
        self.names = frozenset(name.lower() for name in (*names, *(table.name for table in self.tables)))
        self._strategy = Dialect.get_or_raise(dialect).normalization_strategy
        self.pseudo = PSEUDO_COLUMNS.get(dialect, frozenset())

    def fold(self, name: str) -> str:
        """A name that exists, as sqlglot normalises one that refers to it."""
        if self._strategy is NormalizationStrategy.UPPERCASE:
            return (
                name.upper() if name == name.lower() else name
            )  # SQLAlchemy writes what is not quoted in small letters
        # Not `lower`: SQLite and DuckDB take no other letters for the same but those of ASCII.
        return name.translate(_SMALL) if self.ignores_case else name

    @property
    def ignores_case(self) -> bool:
        """Whether names are the same in small letters and capitals, in quotes too."""
        return self._strategy is NormalizationStrategy.CASE_INSENSITIVE

    @cached_property
    def folded(self) -> dict[str, dict[str, dict[str, str]]]:
        """Schema → table → column → type, in the form in which sqlglot looks names up."""
        found: dict[str, dict[str, dict[str, str]]] = {}
        for table in self.tables:
            columns = {self.fold(column.name): "unknown" for column in table.columns}
            found.setdefault(self.fold(table.schema), {})[self.fold(table.name)] = columns
        return found

    @cached_property
    def _tables(self) -> dict[tuple[str, str], Table]:
        return {(self.fold(table.schema), self.fold(table.name)): table for table in self.tables}

    def at(self, schema: str, name: str) -> Table | None:
        """The table of these folded names."""
        return self._tables.get((schema, name))

    def find(self, name: str) -> Table | None:
        """The table that somebody means by this name, with or without its schema, in any case of letters."""
        wanted = name.lower().replace('"', "")
        for table in self.tables:
            if wanted in (table.name.lower(), f"{table.schema}.{table.name}".lower()):
                return table
        return None

    def hides(self, table: Table, column: str) -> bool:
        """Whether the table has, or may have, a column of this name that must not be read."""
        name = column.lower()
        real = any(name == readable.name.lower() for readable in table.columns)
        return name in table.hidden or (name in self.pseudo and not real)

    @cached_property
    def hidden_anywhere(self) -> frozenset[str]:
        """The names of all hidden columns, in small letters."""
        real = {column.name.lower() for table in self.tables for column in table.columns}
        return (self.pseudo - real).union(*(table.hidden for table in self.tables))

    def near_tables(self, name: str) -> str:
        """Words that say which tables have a name like this."""
        names = {self.shown(table): table.name for table in self.tables}
        near = [shown for shown, plain in names.items() if plain.lower() in _close(name, names.values())]
        if near:
            return f"did you mean {', '.join(near)}?"
        return f"there is {', '.join(list(names)[:20])}" if names else "there are no tables"

    def near_columns(self, name: str, tables: Iterable[Table]) -> str:
        """Words that say where a column of a name like this is: first in these tables, then anywhere."""
        here = tuple(tables)
        for within in (here, self.tables):
            names = {
                f"{self.shown(table)}.{column.name}": column.name
                for table in within
                for column in table.columns
            }
            close = _close(name, names.values())
            if near := sorted(
                (full for full, plain in names.items() if plain.lower() in close),
                key=lambda full: close.index(names[full].lower()),
            ):
                return f"did you mean {', '.join(near[:5])}?"
        return "; ".join(
            f"{self.shown(table)} has {', '.join(column.name for column in table.columns[:30])}"
            for table in here[:4]
        )

    def shown(self, table: Table) -> str:
        """How a statement names the table."""
        return table.name if table.schema == self.default else f"{table.schema}.{table.name}"


def _close(name: str, names: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(name.lower(), sorted({n.lower() for n in names}), n=3, cutoff=0.6)
