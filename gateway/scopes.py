"""What a key may do: the one table of scopes, and which of them each route asks for.

A test holds the table to the routes that there are, and each route to the table.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:  # the command line reads this table for its --help, which must not load a database library
    from feedback.store import Key

Scope = Literal["invoke", "ingest", "rate", "review", "operate", "admin", "erase"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

MEANING: Mapping[Scope, str] = {
    "invoke": "ask agents and models, list them, and look up its tenant's responses",
    "ingest": "send what its own agents did, as traces by OpenTelemetry",
    "rate": "rate answers of its tenant, and read its owner's own ratings",
    "review": "read everyone's ratings in its tenant",
    "operate": "see and change policies and the state of the gateway, which all tenants share",
    "admin": "make, limit, list and revoke the keys of its tenant",
    "erase": "have a person or a request of its tenant forgotten, for good",
}

# Any one of the scopes is enough. An empty tuple: nobody needs a key.
ROUTES: Mapping[str, tuple[Scope, ...]] = {
    "POST /v1/chat/completions": ("invoke",),
    "POST /v1/completions": ("invoke",),
    "POST /v1/embeddings": ("invoke",),
    "POST /v1/responses": ("invoke",),
    "POST /mcp": ("invoke",),
    "GET /v1/responses/{response_id}": ("invoke",),
    "DELETE /v1/responses/{response_id}": ("invoke",),
    "POST /v1/responses/{response_id}/cancel": ("invoke",),
    "GET /v1/responses/{response_id}/input_items": ("invoke",),
    "GET /v1/models": ("invoke",),
    "GET /v1/models/{name}": ("invoke",),
    "POST /v1/feedback": ("rate",),
    "POST /v1/feedback/batch": ("rate",),
    "GET /v1/feedback": ("rate", "review"),
    "GET /v1/feedback/{feedback_id}": ("rate", "review"),
    "DELETE /v1/feedback/{feedback_id}": ("rate",),
    "POST /api/public/scores": ("rate",),
    "DELETE /api/public/scores/{score_id}": ("rate",),
    "POST /api/public/ingestion": ("rate",),
    "GET /api/public/projects": ("rate",),
    "POST /api/3.0/mlflow/traces/{trace_id}/assessments": ("rate",),
    "GET /api/3.0/mlflow/traces/{trace_id}/assessments/{assessment_id}": ("rate",),
    "DELETE /api/3.0/mlflow/traces/{trace_id}/assessments/{assessment_id}": ("rate",),
    "POST /v1/span_annotations": ("rate",),
    "POST /v1/trace_annotations": ("rate",),
    "POST /v1/session_annotations": ("rate",),
    "POST /v1/traces": ("ingest",),
    "POST /v1/logs": ("rate",),
    "POST /v1/erasures": ("erase",),
    "GET /v1/policies": ("operate",),
    "POST /v1/policies": ("operate",),
    "POST /v1/policies/{policy}/evaluation": ("operate",),
    "POST /v1/policies/{policy}/promote": ("operate",),
    "POST /v1/agents/{agent}/rollback": ("operate",),
    "GET /v1/status": ("operate",),
    "GET /v1/keys": ("admin",),
    "POST /v1/keys": ("admin",),
    "GET /v1/keys/{key_id}": ("admin",),
    "POST /v1/keys/{key_id}": ("admin",),
    "DELETE /v1/keys/{key_id}": ("admin",),
    "GET /arize_phoenix_version": (),
    "GET /healthz": (),
    "GET /readyz": (),
    "GET /metrics": ("operate",),
    "GET /docs": (),
    "GET /docs/oauth2-redirect": (),
    "GET /redoc": (),
    "GET /openapi.json": (),
}

# A tenant's administrator rules over what is the tenant's. Operating reaches beyond it, and is only handed on.
_OF_A_TENANT: frozenset[Scope] = frozenset({"invoke", "ingest", "rate", "review", "admin", "erase"})


def grantable(maker: "Key") -> frozenset[str]:
    """The scopes that a key with the scope `admin` may give to a key that it makes, in its own tenant."""
    return _OF_A_TENANT | (maker.scopes & {"operate"})


def latest_expiry(maker: "Key", wanted: datetime | None) -> datetime | None:
    """When a new key ends: as wanted, but never after its maker, which could otherwise outlive itself."""
    ends = [time.astimezone(UTC) for time in (maker.expires, wanted) if time is not None]
    return min(ends, default=None)
