"""OpenAI's published OpenAPI document as a judge of what the gateway answers.

The document is no part of this repository. It is found at the path in `OPENAI_OPENAPI`, or beside the checkout; where
it is absent, tests that ask for it are skipped.
"""

import json
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest

_BESIDE = Path(__file__).parents[3] / "shared" / "openapi" / "openai.json"
_HOW_TO = (
    "OpenAI's OpenAPI document is not here: take it from the repository openai/openai-openapi, convert it to JSON, "
    "and name the file in OPENAI_OPENAPI"
)


class Published:
    """The document. Every check raises `AssertionError`, which says where a value strays from which schema."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = _with_nulls(document)
        self._validators: dict[str, jsonschema.Draft202012Validator] = {}
        self._events = self._stream_events()

    def check(self, schema: str, value: Any) -> None:
        """The value is valid by `components.schemas[schema]`."""
        error = jsonschema.exceptions.best_match(
            self._validator(f"#/components/schemas/{schema}").iter_errors(value)
        )
        assert error is None, f"{schema}, at {error.json_path}: {error.message[:600]}"

    def check_answer(self, method: str, path: str, status: int, value: Any) -> None:
        """The value is what this operation answers with this status; errors are `ErrorResponse`, whatever it says."""
        if status >= 400:
            self.check("ErrorResponse", value)
            return
        pointer = f"#/paths/{path.replace('~', '~0').replace('/', '~1')}/{method.lower()}/responses/{status}"
        pointer += "/content/application~1json/schema"
        error = jsonschema.exceptions.best_match(self._validator(pointer).iter_errors(value))
        assert error is None, f"{method} {path} {status}, at {error.json_path}: {error.message[:600]}"

    def check_event(self, event: dict[str, Any]) -> None:
        """The event is one of those that a stream of `/responses` may hold; its `type` says which."""
        assert event.get("type") in self._events, f"no event of a response is called {event.get('type')!r}"
        self.check(self._events[event["type"]], event)

    def check_chunks(self, chunks: Iterable[dict[str, Any]]) -> None:
        """Every chunk is one of a chat completion's."""
        for chunk in chunks:
            self.check("CreateChatCompletionStreamResponse", chunk)

    def fields(self, schema: str) -> set[str]:
        """The names of all properties of an object, those that it has by `allOf` included."""
        return set(_properties(self._document["components"]["schemas"], schema))

    def _stream_events(self) -> dict[str, str]:
        schemas = self._document["components"]["schemas"]
        names = [item["$ref"].rpartition("/")[2] for item in schemas["ResponseStreamEvent"]["anyOf"]]
        return {tag: name for name in names for tag in schemas[name]["properties"]["type"]["enum"]}

    def _validator(self, pointer: str) -> jsonschema.Draft202012Validator:
        if pointer not in self._validators:
            self._validators[pointer] = jsonschema.Draft202012Validator({**self._document, "$ref": pointer})
        return self._validators[pointer]


def published_document() -> Published:
    """The document. Skips the test where it is absent."""
    path = Path(os.environ.get("OPENAI_OPENAPI", _BESIDE))
    if not path.is_file():
        pytest.skip(_HOW_TO)
    return _load(path)


@cache
def _load(path: Path) -> Published:
    return Published(json.loads(path.read_text("utf-8")))


def _with_nulls(value: Any) -> Any:
    """`nullable: true` is OpenAPI 3.0's; the document says 3.1, whose JSON Schema does not know the word."""
    if isinstance(value, list):
        return [_with_nulls(item) for item in value]
    if not isinstance(value, dict):
        return value
    plain = {key: _with_nulls(item) for key, item in value.items() if key != "nullable" or item is not True}
    return {"anyOf": [plain, {"type": "null"}]} if value.get("nullable") is True else plain


def _properties(schemas: dict[str, Any], name: str) -> Iterable[str]:
    for part in schemas[name].get("allOf", [schemas[name]]):
        if "$ref" in part:
            yield from _properties(schemas, part["$ref"].rpartition("/")[2])
        yield from part.get("properties", ())
