"""Schema cards: what the tables of a database hold, a card each, from a live database or from its DDL.

A card reads `claims(claim_id integer, policy_id integer, filed date); policy_id -> policies.policy_id`, with names as
SQL writes them. No row is read.
"""

import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlglot
from sqlalchemy import Enum, Inspector
from sqlalchemy.engine.reflection import ObjectKind
from sqlalchemy.exc import SAWarning
from sqlalchemy.types import NullType, TypeEngine
from sqlglot import expressions as exp

from tools.knowledge.items import Item, KnowledgeError

_BETWEEN_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[\W_]+")


@dataclass
class _Table:
    """A table or view as its card shows it."""

    name: str
    columns: dict[str, str] = field(default_factory=dict)  # name → type in the database's words
    joins: list[str] = field(default_factory=list)
    comment: str = ""

    def refer(self, columns: Sequence[str], table: str, others: Sequence[str]) -> None:
        """Note a foreign key. DDL may leave out the `others` where they are the primary key."""
        ends = (f"{table}.{other}" for other in others) if others else (table for _ in columns)
        self.joins += [f"{column} -> {end}" for column, end in zip(columns, ends, strict=True)]

    def card(self) -> Item:
        """The item; it is found under the words within its names, too."""
        columns = ", ".join(f"{name} {type_}".rstrip() for name, type_ in self.columns.items())
        words = _BETWEEN_WORDS.split(" ".join((self.name, *self.columns)))
        return Item(
            "schemas",
            text="; ".join(filter(None, (f"{self.name}({columns})", *self.joins, self.comment))),
            keywords=" ".join(filter(None, words)).lower(),
        )


def schema_cards(
    inspector: Inspector,
    *,
    schemas: Iterable[str] = (),
    tables: Collection[str] = (),
    hidden_columns: Collection[str] = (),
) -> list[Item]:
    """A card for each table and view of a live database (`sqlalchemy.inspect(engine)`), by name.

    `schemas`: none is the connection's own. `tables`, as TABLE or SCHEMA.TABLE: none is all. On no card are
    `hidden_columns`: COLUMN, TABLE.COLUMN or SCHEMA.TABLE.COLUMN. Case does not matter. Blocking; raises
    `sqlalchemy.exc.SQLAlchemyError`.
    """
    shown = _Shown({name.lower() for name in tables}, {name.lower() for name in hidden_columns})
    places = tuple(schemas) or (None,)
    with warnings.catch_warnings():
        # Of declarations that SQLite takes and SQLAlchemy does not: INTEGER(11), keys to tables without one.
        warnings.simplefilter("ignore", SAWarning)
        return [table.card() for place in places for table in _reflected(inspector, place, shown)]


@dataclass(frozen=True)
class _Shown:
    """What may be on a card."""

    tables: set[str]
    hidden: set[str]

    def table(self, schema: str | None, name: str) -> bool:
        return not self.tables or bool(self.tables & {name.lower(), f"{schema}.{name}".lower()})

    def column(self, schema: str | None, table: str, name: str) -> bool:
        names = (name, f"{table}.{name}", f"{schema}.{table}.{name}")
        return not self.hidden & {written.lower() for written in names}


def _reflected(inspector: Inspector, schema: str | None, shown: _Shown) -> Iterator[_Table]:
    quoted = inspector.dialect.identifier_preparer.quote
    own = schema or inspector.default_schema_name  # by which an allow-list may name it
    # A view may show what is hidden, by another name: then it is on a card only where it was named.
    kind = ObjectKind.TABLE if shown.hidden and not shown.tables else ObjectKind.ANY
    keys = inspector.get_multi_foreign_keys(schema, kind=kind)
    comments: Mapping[Any, Any] = {}
    if inspector.dialect.supports_comments:
        comments = inspector.get_multi_table_comment(schema, kind=kind)
    found = inspector.get_multi_columns(schema, kind=kind)
    for place in sorted(found, key=lambda place: place[1]):
        name = place[1]
        if not shown.table(own, name):
            continue
        table = _Table(_full(quoted, schema, name), comment=(comments.get(place) or {}).get("text") or "")
        for column in found[place]:
            if shown.column(own, name, column["name"]):
                table.columns[quoted(column["name"])] = _type(column["type"])
        for key in keys.get(place, ()):
            other, at = key["referred_table"], key["referred_schema"]
            columns, others = key["constrained_columns"], key["referred_columns"]
            if (
                shown.table(at or own, other)
                and all(shown.column(own, name, column) for column in columns)
                and all(shown.column(at or own, other, column) for column in others)
            ):
                table.refer(
                    [quoted(c) for c in columns], _full(quoted, at, other), [quoted(c) for c in others]
                )
        if table.columns:
            yield table


def _full(quoted: Callable[[str], str], schema: str | None, name: str) -> str:
    return quoted(name) if schema is None else f"{quoted(schema)}.{quoted(name)}"


def _type(type_: TypeEngine[Any]) -> str:
    if isinstance(type_, NullType):  # the database itself does not say
        return ""
    if isinstance(type_, Enum):
        return f"enum({', '.join(type_.enums)})"
    return str(type_).lower()


def ddl_cards(ddl: str, *, dialect: str | None = None) -> list[Item]:
    """A card for each CREATE TABLE in `ddl`; `dialect` is sqlglot's name of the database's.

    Statements that make no table (views, indexes, grants) are passed over. Raises `KnowledgeError` with the line.
    """
    try:
        statements = sqlglot.parse(ddl, dialect=dialect)
    except sqlglot.errors.ParseError as error:
        first = error.errors[0]
        raise KnowledgeError(f"line {first['line']}: {first['description']}") from error
    except (sqlglot.errors.SqlglotError, ValueError, RecursionError) as error:
        raise KnowledgeError(str(error) or "it nests too deeply") from error
    tables: dict[str, _Table] = {}
    for statement in statements:
        if isinstance(statement, exp.Create) and isinstance(statement.this, exp.Schema):
            table = _declared(statement)
            tables[table.name] = table
        elif isinstance(statement, exp.Alter) and (altered := tables.get(_name(statement.this))):
            _note_keys(altered, statement)
        elif isinstance(statement, exp.Command) and re.match(r"(?i)create\s+table", statement.sql()):
            raise KnowledgeError(f"not understood: {statement.sql()[:80]}")
    if not tables:
        raise KnowledgeError("it creates no table")
    return [table.card() for table in tables.values()]


def _declared(statement: exp.Create) -> _Table:
    table = _Table(_name(statement.this.this))
    for column in statement.this.find_all(exp.ColumnDef):
        type_ = column.args.get("kind")
        table.columns[_name(column)] = "" if type_ is None else type_.sql().lower()
        for reference in column.find_all(exp.Reference):
            _note_key(table, [_name(column)], reference)
    _note_keys(table, statement)
    return table


def _note_keys(table: _Table, statement: exp.Expr) -> None:
    for key in statement.find_all(exp.ForeignKey):
        reference = key.args.get("reference")
        if reference is not None:
            _note_key(table, [column.sql() for column in key.expressions], reference)


def _note_key(table: _Table, columns: list[str], reference: exp.Expr) -> None:
    target = reference.this
    others = [column.sql() for column in target.expressions] if isinstance(target, exp.Schema) else []
    table.refer(columns, _name(target.this if isinstance(target, exp.Schema) else target), others)


def _name(named: exp.Expr) -> str:
    return named.this.sql() if isinstance(named, exp.ColumnDef) else named.sql()
