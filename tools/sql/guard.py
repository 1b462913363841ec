"""What a model wrote becomes a statement that may run, or a refusal with the reason.

A statement is parsed in the database's dialect, its names are resolved against the schema (stars become the columns
that may be read, each column gets its table, each table its schema), and SQL is written anew from the tree. That text
is parsed once more and every node, function, type, table and column in it is checked against what is allowed: what
has been checked is what runs, and a text that does not come out of its own tree unchanged is refused. So it matters
little how the server would have read what the model wrote.
"""

import re
from collections import defaultdict
from dataclasses import dataclass

import sqlglot
from sqlglot import expressions as exp
from sqlglot.errors import OptimizeError, ParseError, SqlglotError
from sqlglot.optimizer.normalize_identifiers import normalize_identifiers
from sqlglot.optimizer.qualify_columns import qualify_columns, quote_identifiers
from sqlglot.optimizer.qualify_tables import qualify_tables
from sqlglot.schema import MappingSchema
from sqlglot.tokenizer_core import Token, TokenType

from tools.errors import ToolError
from tools.sql import allowed
from tools.sql.schema import SYSTEM_PREFIXES, Schema, Table

MOST_CHARACTERS = 10_000
_MOST_TOKENS = 2_000
_DEEPEST = 40
_LONGEST_NAME = 63  # bytes: PostgreSQL cuts off the rest, and what were two names is one
_MOST_GENERATED = 100_000

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_NUMBER = re.compile(r"\d+(\.\d*)?([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?")
_QUOTED = (TokenType.STRING, TokenType.IDENTIFIER)
_WHOLE_ROW = "a whole row cannot be a value: name its columns"


@dataclass(frozen=True)
class Statement:
    """What may run, and what the model should know about how it was read."""

    sql: str
    notes: tuple[str, ...] = ()


class Guard:
    """Checks statements for one source. Safe to share between threads; holds the processor while it works."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._dialect = schema.dialect
        self._mapping = MappingSchema({**schema.folded}, dialect=schema.dialect, normalize=False)
        self._functions = allowed.functions(schema.dialect)
        self._no_regexp = schema.dialect == "sqlite"

    def check(self, sql: str) -> Statement:
        """The statement to run. Raises `ToolError` with the reason for anything but one query over what is allowed."""
        try:
            self._check_text(sql)
            tree = self._parse(sql)
            notes = self._texts_in_double_quotes(tree) if self._dialect == "sqlite" else ()
            self._check_nodes(tree)
            written = self._write(self._resolve(tree))
            again = self._parse(written)
            self._check_nodes(again)
            self._check_names(again)
        except OptimizeError as error:
            raise ToolError(_plain(error)) from error
        except ParseError as error:
            raise ToolError(_syntax(error)) from error
        except SqlglotError as error:
            raise ToolError(f"this is not valid SQL: {_plain(error)}") from error
        except RecursionError as error:
            raise ToolError("the statement nests too deeply: write it in fewer levels") from error
        except (ToolError, MemoryError):
            raise
        except Exception as error:  # a parser is fed whatever somebody wrote: where it fails, that is refused
            raise ToolError("the statement cannot be read: write it in plainer SQL") from error
        if self._write(again) != written:
            raise ToolError("the statement can be read in two ways: write it in plainer SQL")
        return Statement(written, notes)

    def _check_text(self, sql: str) -> None:
        if len(sql) > MOST_CHARACTERS:
            raise ToolError(
                f"the statement has more than {MOST_CHARACTERS:,} characters: ask for less at a time"
            )
        if strange := _CONTROL.search(sql):
            raise ToolError(f"the statement holds a character that SQL has no use for: {strange[0]!a}")
        tokens = sqlglot.tokenize(sql, read=self._dialect)
        if len(tokens) > _MOST_TOKENS:
            raise ToolError(f"the statement has more than {_MOST_TOKENS:,} words: ask for less at a time")
        depth = 0
        for token in tokens:
            self._check_word(token)
            depth += (token.token_type in _OPENING) - (token.token_type in _CLOSING)
            if depth > _DEEPEST:
                raise ToolError(f"the statement nests deeper than {_DEEPEST} levels: write it in fewer")

    def _check_word(self, token: Token) -> None:
        if token.token_type not in _QUOTED and not token.text.isascii():
            raise ToolError(
                f"{token.text!a} holds letters that are not plain ones: outside quotes use a-z, 0-9 and _ only"
            )
        long = token.token_type is not TokenType.STRING and len(token.text.encode()) > _LONGEST_NAME
        if long and self._dialect == "postgres":
            raise ToolError(
                f"{token.text[:20]}… is longer than the {_LONGEST_NAME} bytes that a name can have"
            )

    def _parse(self, sql: str) -> exp.Expr:
        trees = [tree for tree in sqlglot.parse(sql, dialect=self._dialect) if tree is not None]
        if len(trees) != 1:
            raise ToolError(f"exactly one statement can run, this is {len(trees)}")
        tree = trees[0]
        if not isinstance(tree, exp.Select | exp.SetOperation | exp.Subquery):
            raise ToolError(f"only a query (SELECT) can run, not {_name(tree)}: the database is read-only")
        return tree

    def _check_nodes(self, tree: exp.Expr) -> None:
        for node in tree.walk():
            if isinstance(node, exp.DataType | exp.PseudoType | exp.ObjectIdentifier):
                if type(node) is not exp.DataType or node.this.name not in allowed.TYPES:
                    raise ToolError(f"the type {node.sql(dialect=self._dialect)} is not offered")
            elif isinstance(node, exp.Func) and type(node).__name__ not in allowed.NODES:
                self._check_function(node)
            elif type(node).__name__ not in allowed.NODES or (
                isinstance(node, exp.RegexpLike) and self._no_regexp
            ):
                raise ToolError(f"{_name(node)} is not offered: only plain queries can run")
            elif fault := _fault(node):
                raise ToolError(fault)

    def _check_function(self, node: exp.Func) -> None:
        written = node.sql(dialect=self._dialect)
        name, parenthesis, _ = written.partition("(")
        if isinstance(node, exp.Table) or not parenthesis or name.upper() not in self._functions:
            asked = name.strip().strip('"').lower()[:60]
            raise ToolError(f"the function {asked} is not offered. {self._near_function(asked)}")

    def _near_function(self, name: str) -> str:
        near = [known for known in sorted(self._functions) if known.startswith(name[:4].upper())][:5]
        return f"Did you mean {', '.join(near).lower()}?" if near else "Use plain SQL functions."

    def _texts_in_double_quotes(self, tree: exp.Expr) -> tuple[str, ...]:
        """SQLite takes "open" for a text where there is no such column; what is hidden is no column either."""
        known = {alias.alias.lower() for alias in tree.find_all(exp.Alias)}
        known.update(name.name.lower() for alias in tree.find_all(exp.TableAlias) for name in alias.columns)
        for reference in tree.find_all(exp.Table):
            if (table := self._schema.find(reference.name)) is not None:
                known.update(column.name.lower() for column in table.columns)
        texts = [
            column
            for column in tree.find_all(exp.Column)
            if not column.table and column.this.args.get("quoted") and column.name.lower() not in known
        ]
        for column in texts:
            column.replace(exp.Literal.string(column.name))
        names = dict.fromkeys(column.name for column in texts)
        return tuple(f'"{name}" is no column and was read as a text' for name in list(names)[:3])

    def _resolve(self, tree: exp.Expr) -> exp.Expr:
        _name_outputs(tree, self._dialect)
        if self._schema.ignores_case:
            for identifier in tree.find_all(exp.Identifier):
                identifier.set("this", self._schema.fold(identifier.name))
        else:
            tree = normalize_identifiers(tree, dialect=self._dialect)
        names = {cte.alias.lower() for cte in tree.find_all(exp.CTE)}
        for name in names:
            if name in self._schema.names or name.startswith(SYSTEM_PREFIXES):
                raise ToolError(f"WITH {name}: a table is called so; give the WITH query a name of its own")
        tree = qualify_tables(tree, dialect=self._dialect, on_qualify=self._place)
        tree = qualify_columns(tree, self._mapping, allow_partial_qualification=True, dialect=self._dialect)
        _leave_out_schemas(tree)
        return quote_identifiers(tree, dialect=self._dialect)

    def _place(self, reference: exp.Table) -> None:
        """Give the table its schema. Raises `ToolError` where there is none such."""
        found = [
            schema
            for schema in ([reference.db] if reference.db else self._schema.folded)
            if self._schema.at(schema, reference.name) is not None
        ]
        default = self._schema.fold(self._schema.default)
        if reference.catalog or not found:
            shown = ".".join(part.name for part in reference.parts)
            raise ToolError(f"there is no table {shown}: {self._schema.near_tables(reference.name)}")
        if len(found) > 1 and default not in found:
            raise ToolError(f"{reference.name} is in several schemas ({', '.join(found)}): say which")
        reference.set("db", exp.to_identifier(default if default in found else found[0], quoted=True))

    def _write(self, tree: exp.Expr) -> str:
        written = tree.sql(dialect=self._dialect, comments=False)
        if len(written) > _MOST_GENERATED:
            raise ToolError("the statement grows too large once its names are resolved: write it more simply")
        return written

    def _check_names(self, tree: exp.Expr) -> None:
        if any(not isinstance(star.parent, exp.Count) for star in tree.find_all(exp.Star)):
            raise ToolError("it is not known which columns * stands for here: name them")
        queries = {cte.alias: _outputs(cte) for cte in tree.find_all(exp.CTE)}
        scopes: _Scopes = defaultdict(dict)
        tables: defaultdict[str, set[Table]] = defaultdict(set)
        for subquery in tree.find_all(exp.Subquery):
            if _read_from(subquery):
                scopes[id(subquery.find_ancestor(exp.Select))][subquery.alias] = _outputs(subquery)
        for reference in tree.find_all(exp.Table):
            table = self._schema.at(reference.db, reference.name)
            scope = scopes[id(reference.find_ancestor(exp.Select))]
            if table is not None and reference.db:
                tables[reference.alias].add(table)
                scope[reference.alias] = table
            elif reference.name in queries and not reference.db:
                scope[reference.alias] = queries[reference.name]
            else:
                raise ToolError(
                    f"there is no table {reference.name}: {self._schema.near_tables(reference.name)}"
                )
        for column in tree.find_all(exp.Column):
            if column.table:
                self._check_column(column, _meant(column, scopes), tables.get(column.table, set()))
            else:
                self._check_output_name(column, tables)

    def _check_column(self, column: exp.Column, meant: "list[_Source]", tables: set[Table]) -> None:
        """What the alias means here must have the column; no table that it stands for anywhere may hide it."""
        name, qualifier = column.name, column.table
        if not meant:
            raise ToolError(f"there is no table or alias {qualifier} for {qualifier}.{name}")
        known = all(self._has(s, name) if isinstance(s, Table) else name in s for s in meant)
        if not known or any(self._schema.hides(table, name) for table in tables):
            here = [source for source in meant if isinstance(source, Table)]
            outputs = sorted({name for source in meant if not isinstance(source, Table) for name in source})
            near = self._schema.near_columns(name, here) or f"it has {', '.join(outputs[:30])}"
            raise ToolError(f"there is no column {qualifier}.{name}: {near}")

    def _check_output_name(self, column: exp.Column, tables: dict[str, set[Table]]) -> None:
        """A name without a table can only be that of an output column, which a query's own ORDER BY and DISTINCT ON
        may use. In an expression it is not that of a table as well, which would be its whole row there.
        """
        query = column.find_ancestor(exp.Select, exp.SetOperation)
        outputs = query.named_selects if query is not None else []
        place = column.find_ancestor(exp.Ordered, exp.Distinct, exp.Query)
        around = place.parent.parent if isinstance(place, exp.Ordered) and place.parent else None
        own = query is not None and (
            around is query or (isinstance(place, exp.Distinct) and place.parent is query)
        )
        alone = column.parent is place or isinstance(column.parent, exp.Tuple)
        plain = own and column.name in outputs and (alone or column.name not in tables)
        if not plain or column.name.lower() in self._schema.hidden_anywhere:
            within = [table for found in tables.values() for table in found]
            if column.name in tables:
                raise ToolError(f"{column.name} is a table: {_WHOLE_ROW}")
            owners = sorted({self._schema.shown(t) for t in within if self._has(t, column.name)})
            if len(owners) > 1:
                raise ToolError(
                    f"{column.name} is in {' and '.join(owners)}: say which, as in {owners[0]}.{column.name}"
                )
            raise ToolError(
                f"there is no column {column.name}: {self._schema.near_columns(column.name, within)}"
            )

    def _has(self, table: Table, name: str) -> bool:
        return any(self._schema.fold(column.name) == name for column in table.columns)


_Source = Table | set[str]  # the columns of a query in WITH or FROM
_Scopes = defaultdict[int, dict[str, _Source]]  # by the identity of a SELECT: what its FROM reads, by alias

_OPENING = (TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.L_BRACE, TokenType.CASE)
_CLOSING = (TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.R_BRACE, TokenType.END)


def _fault(node: exp.Expr) -> str | None:  # noqa: C901, PLR0911  # one line for each thing that a node of a known kind can hide
    match node:
        case exp.Star():
            counted = isinstance(node.parent, exp.Count) and node.arg_key == "this"
            return None if counted or _projected(node) else _WHOLE_ROW
        case exp.Table():
            if not isinstance(node.this, exp.Identifier):
                return f"{_name(node.this)} cannot be read from: only tables can"
            if _given(node) - {"this", "db", "catalog", "alias", "joins"}:
                return "only a table's name and alias can stand in FROM"
            alias = node.args.get("alias")
            return "the columns of a table keep their names" if alias is not None and alias.columns else None
        case exp.Literal() if not node.is_string and not _NUMBER.fullmatch(node.name):
            return f"{node.name} is not a plain number"
        case exp.In() if node.args.get("field") or node.args.get(
            "unnest"
        ):  # to SQLite, IN x reads the table x
            return "IN needs a list or a query in parentheses"
        case exp.Subquery() if isinstance(node.this, exp.Table) and node.alias:
            return "a join in parentheses has no name of its own: name its tables"
        case exp.Join() if node.method and node.method.upper() != "NATURAL":
            return f"{node.method} JOIN is not offered"
        case exp.Identifier() if not node.name.isprintable():
            return "a name holds characters that cannot be seen"
        case exp.Select() if not node.expressions:
            return "SELECT needs at least one column"
        case exp.Select() if _given(node) & {"kind", "operation_modifiers", "into", "locks", "hint"}:
            return "only plain SELECT can run"
    return None


def _outputs(query: exp.CTE | exp.Subquery) -> set[str]:
    """The names of the columns of a query in WITH or FROM."""
    return {*query.alias_column_names} or {*query.named_selects}


def _read_from(subquery: exp.Subquery) -> bool:
    """Whether it stands in FROM, and is no value."""
    node: exp.Expr = subquery
    while isinstance(node.parent, exp.Subquery | exp.Table):
        node = node.parent
    return isinstance(node.parent, exp.From | exp.Join) and node.arg_key == "this"


def _meant(column: exp.Column, scopes: _Scopes) -> list[_Source]:
    """What the alias before a column stands for: in the innermost query that reads something by that name. Where the
    column stands in that query's own FROM or WITH, engines differ, and what lies further out is meant as well.
    """
    found: list[_Source] = []
    node: exp.Expr = column
    in_from = False
    while node.parent is not None:
        in_from |= isinstance(node, exp.From | exp.With) or (
            isinstance(node.parent, exp.Join) and node.arg_key == "this"
        )
        node = node.parent
        if isinstance(node, exp.Select):
            if column.table in (scope := scopes[id(node)]):
                found.append(scope[column.table])
                if not in_from:
                    break
            in_from = False
    return found


def _leave_out_schemas(tree: exp.Expr) -> None:
    """`main.people.id` becomes `people.id`: of three names, engines take the first for a schema, or for a table whose
    column has fields.
    """
    named = {(table.db, table.name) for table in tree.find_all(exp.Table) if table.alias == table.name}
    for column in tree.find_all(exp.Column):
        if column.db and ((column.db, column.table) not in named or column.catalog):
            raise ToolError(
                f"{column.db}.{column.table} is not read here: write {column.table}.{column.name}"
            )
        column.set("db", None)


def _given(node: exp.Expr) -> set[str]:
    return {key for key, value in node.args.items() if value}


def _projected(star: exp.Expr) -> bool:
    """Whether this is `*` or `t.*` in a list of outputs, where it is replaced by columns."""
    parent = star.parent
    if isinstance(parent, exp.Column):
        star, parent = parent, parent.parent
    return isinstance(parent, exp.Select) and star.arg_key == "expressions"


def _name_outputs(tree: exp.Expr, dialect: str) -> None:
    """Outputs without a name get their own text for one, as SQLite does it: models read it better than `_col_0`."""
    query = tree
    while isinstance(query, exp.SetOperation | exp.Subquery):
        query = query.this
    for projection in list(query.selects) if isinstance(query, exp.Select) else ():
        if not isinstance(projection, exp.Alias | exp.Column) and not projection.is_star:
            text = projection.sql(dialect=dialect, comments=False).replace('"', "")
            text = text.encode()[:_LONGEST_NAME].decode(errors="ignore")
            projection.replace(
                exp.alias_(projection.copy(), exp.to_identifier(text, quoted=True), copy=False)
            )


def _name(node: exp.Expr) -> str:
    if isinstance(node, exp.Command):
        return str(node.this).upper()[:40]
    return " ".join(re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z]*|\d+", type(node).__name__)).upper()


def _plain(error: Exception) -> str:
    return _ANSI.sub("", str(error)).strip().split("\n")[0][:300] or type(error).__name__


def _syntax(error: ParseError) -> str:
    if not error.errors:
        return f"this is not valid SQL: {_plain(error)}"
    fault = error.errors[0]
    before, at, after = (fault.get(part) or "" for part in ("start_context", "highlight", "end_context"))
    near = " ".join(f"{before}>>>{at}<<<{after}".split())
    return (
        f"this is not valid SQL: {_ANSI.sub('', str(fault.get('description') or 'syntax error')).rstrip('.')} "
        f"at line {fault.get('line')}, column {fault.get('col')}, near: {near[-160:]}"
    )
