"""/openapi.json, made true: what the routes' signatures cannot say, for they read and check their bodies themselves."""

import copy
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

_REFERENCE = "#/components/schemas/{model}"
_KEY = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API key, `fw-…`. Operators make them: `flywheel keys create`.",
}
_BASIC = {"type": "http", "scheme": "basic", "description": "The same key as the password, of any user."}
_ERROR = {
    "title": "Error",
    "description": "Every error, in OpenAI's shape.",
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string", "description": "What is wrong, and what to do about it."},
                "type": {"type": "string", "examples": ["invalid_request_error", "server_error"]},
                "param": {"type": ["string", "null"], "description": "The field at fault."},
                "code": {"type": ["string", "null"], "examples": ["invalid_value", "model_not_found"]},
            },
        }
    },
}
_ERROR_REFERENCE = {"$ref": _REFERENCE.format(model="Error")}
_REFUSED = {
    "description": "Refused or failed; `error.code` says why.",
    "content": {"application/json": {"schema": _ERROR_REFERENCE}},
}


def takes(*kinds: type[BaseModel] | dict[str, Any]) -> dict[str, Any]:
    """`openapi_extra` of a route that reads one of these as JSON: models, or schemas with a title."""
    schemas = [
        dict(kind) if isinstance(kind, dict) else kind.model_json_schema(ref_template=_REFERENCE)
        for kind in kinds
    ]
    schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def asks(kind: type[BaseModel]) -> dict[str, Any]:
    """`openapi_extra` of a route that reads one of these from its query."""
    schema = kind.model_json_schema(ref_template=_REFERENCE)
    required = schema.get("required", [])
    return {
        "parameters": [
            {"name": name, "in": "query", "required": name in required, "schema": field}
            for name, field in schema["properties"].items()
        ]
    }


def streams(description: str) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route that answers with JSON, or with server-sent events where the body asks for a stream."""
    kinds = {
        "application/json": {"schema": {"type": "object"}},
        "text/event-stream": {},  # of a schema, readers do not agree whether it is of one event or of all
    }
    return {200: {"description": description, "content": kinds}}


def errors_as(schema: dict[str, Any] | None) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route whose own errors are of this schema, or, None, plain text."""
    own: dict[str, Any] = {"application/json": {"schema": {"anyOf": [schema, _ERROR_REFERENCE]}}}
    if schema is None:
        own = {"text/plain": {"schema": {"type": "string"}}, "application/json": {"schema": _ERROR_REFERENCE}}
    return {"default": {"description": "Refused or failed, as this API's clients read it.", "content": own}}


BASIC: dict[str, Any] = {"security": [{"key": []}, {"basic": []}]}  # as `OPEN`, of one that takes either
OPEN: dict[str, Any] = {"security": []}  # `openapi_extra` of a route that asks for no key


class Described(FastAPI):
    """An application whose document says how its bodies, its errors and its keys look."""

    def openapi(self) -> dict[str, Any]:
        """The document, made once."""
        if self.openapi_schema is None:
            self.openapi_schema = _completed(copy.deepcopy(super().openapi()))
        return self.openapi_schema


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    components = document.setdefault("components", {})
    components["securitySchemes"] = {"key": _KEY, "basic": _BASIC}
    schemas = components.setdefault("schemas", {})
    schemas["Error"] = _ERROR
    for name in (
        "HTTPValidationError",
        "ValidationError",
    ):  # FastAPI's own form of errors, which nobody meets here
        schemas.pop(name, None)
    for path in document["paths"].values():
        for operation in path.values():
            operation.setdefault("security", [{"key": []}])
            operation["responses"].pop("422", None)
            operation["responses"].setdefault("default", _REFUSED)
            _hoist(operation.get("requestBody", {}), schemas)
    return document


def _hoist(request_body: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Move the schemas of a body to the document's own, where their references look for them."""
    for content in request_body.get("content", {}).values():
        kinds = content["schema"].get("anyOf", [content["schema"]])
        for kind in kinds:
            for name, schema in {**kind.pop("$defs", {}), kind["title"]: kind}.items():
                if schemas.setdefault(name, schema) != schema:
                    raise ValueError(f"two schemas of the API are called {name}: rename one")
        references = [{"$ref": _REFERENCE.format(model=kind["title"])} for kind in kinds]
        content["schema"] = references[0] if len(references) == 1 else {"anyOf": references}
