"""What is wrong with a manifest: in which line, and how it is mended."""

import difflib
import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import jinja2
import jinja2.meta
import jsonschema
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

PROMPT_SEES = ("schemas", "examples", "heuristics", "tools")


@dataclass(frozen=True)
class Fault:
    """Something wrong with the field at `path`: the keys that lead to it."""

    path: tuple[str | int, ...]
    message: str

    def told(self, file: Path, line: int) -> str:
        """In words: where, what, and the mend."""
        return f"{file}:{line}: {'.'.join(map(str, self.path))}: {self.message}"


def take_prompt(data: dict[str, Any], folder: Path) -> Iterator[Fault]:
    """Put the prompt itself in the place of its file's name, where it can be read."""
    name = data.get("prompt")
    if not isinstance(name, str):
        return
    file = folder / name
    try:
        data["prompt"] = file.read_text("utf-8")
        tree = jinja2.Environment(autoescape=True).parse(data["prompt"])
    except (OSError, UnicodeError) as error:
        yield Fault(("prompt",), f"{file} cannot be read ({error}): name the template's file")
    except jinja2.TemplateSyntaxError as error:
        yield Fault(("prompt",), f"{file}:{error.lineno}: {error.message}")
    else:
        for unknown in sorted(jinja2.meta.find_undeclared_variables(tree) - set(PROMPT_SEES)):
            message = f"{file} uses {unknown}, which no prompt sees{_nearest(unknown, PROMPT_SEES)}"
            yield Fault(("prompt",), message)


def take_schemas(data: dict[str, Any]) -> Iterator[Fault]:
    """Put each response schema in the place of its JSON, where it is one."""
    for path in (("response_schema",), ("tools", "response_schema")):
        table: Any = data
        for key in path[:-1]:
            table = table.get(key)
        if isinstance(table, dict) and "response_schema" in table:
            source, table["response_schema"] = table["response_schema"], {}
            try:
                table["response_schema"] = _schema(source)
            except _SchemaError as error:
                yield Fault(path, str(error))


class _SchemaError(Exception):
    pass


def _schema(source: Any) -> dict[str, Any]:
    if not isinstance(source, str):
        raise _SchemaError('a text that holds a JSON schema is needed: \'{"type": "object"}\'')
    try:
        schema = json.loads(source)
    except (ValueError, RecursionError) as error:
        raise _SchemaError(f"no JSON: {error}") from error
    if not isinstance(schema, dict):
        raise _SchemaError('a JSON object is needed, such as \'{"type": "object"}\'')
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise _SchemaError(f"no JSON schema: {error.json_path}: {error.message}") from error
    return schema


def invalid(error: ValidationError, model: type[BaseModel]) -> Iterator[Fault]:
    """What pydantic has found."""
    for fault in error.errors():
        yield Fault(fault["loc"], _in_words(fault, model))


def _in_words(fault: ErrorDetails, model: type[BaseModel]) -> str:
    *parents, field = map(str, fault["loc"]) if fault["loc"] else [""]
    if fault["type"] == "missing":
        return f"{field} is missing: add it"
    if fault["type"] == "extra_forbidden":
        known = _fields(model, parents)
        return f"there is no such field{_nearest(field, known)}"
    message = fault["msg"].removeprefix("Value error, ")
    given = fault["input"]
    return f"{message} (it is {given!r})" if isinstance(given, str | int | float) else message


def _fields(model: Any, path: list[str]) -> list[str]:
    """What may stand in the table at `path`."""
    for key in path:
        if isinstance(model, type) and issubclass(model, BaseModel):
            model = model.model_fields[key].annotation
            if get_origin(model) in (Union, UnionType):  # an optional table
                model = next(part for part in get_args(model) if part is not type(None))
        else:
            model = get_args(model)[-1]  # a dictionary's values
    return list(model.model_fields)


def _nearest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f": did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"


def line_of(text: str, path: tuple[str | int, ...]) -> int:
    """The line (from 1) in which what lies at `path` begins in a TOML document; of what is not there, its table's.

    The document is read line by line: what a line has brought begins behind the last line up to which it was valid.
    """
    lines = text.splitlines(keepends=True)
    line, deepest, valid = 1, 0, 0
    for end in range(1, len(lines) + 1):
        try:
            data = tomllib.loads("".join(lines[:end]))
        except tomllib.TOMLDecodeError:
            continue  # in the middle of something
        if (depth := _depth(data, path)) > deepest:
            line, deepest = valid + 1, depth
        valid = end
    return line


def _depth(data: Any, path: tuple[str | int, ...]) -> int:
    for depth, key in enumerate(path):
        if isinstance(data, dict) and key in data:
            data = data[key]
        else:
            return depth
    return len(path)
