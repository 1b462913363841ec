"""Langfuse's scores, https://api.reference.langfuse.com: alone, in a list (SDK 5), or as ingested events (SDK 2 to 4).

What an event of ours has no field for (environment, metadata, the client's time, …) is kept as a tag.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator
from starlette.responses import JSONResponse

from feedback.events import CLIENT_ID
from gateway.errors import ApiError
from gateway.opinion import About, Opinion, as_tags, readings
from gateway.wire import Body, Refused, validate

MOST = 500  # scores or events at once
SCORES = {"title": "LangfuseScores", "type": "array", "items": {}, "maxItems": MOST}
ERROR = {
    "title": "LangfuseError",
    "type": "object",
    "required": ["message", "error"],
    "properties": {"message": {"type": "string"}, "error": {"type": ["string", "null"]}},
}


class LangfuseScore(Body):
    """A score: what one thinks of a trace, of one observation (span) in it, or of a session (episode)."""

    REFUSED: ClassVar[Mapping[str, Refused]] = {
        "datasetRunId": Refused("there are no runs of data sets here; score a trace")
    }

    name: str = Field(min_length=1, max_length=200)
    value: bool | float | str
    id: str | None = Field(None, min_length=1, max_length=200)
    trace_id: str | None = Field(None, alias="traceId", min_length=1, max_length=200)
    observation_id: str | None = Field(None, alias="observationId", min_length=1, max_length=200)
    session_id: str | None = Field(None, alias="sessionId", min_length=1, max_length=200)
    data_type: Literal["NUMERIC", "BOOLEAN", "CATEGORICAL", "TEXT", "CORRECTION"] | None = Field(
        None, alias="dataType"
    )
    comment: str | None = Field(None, max_length=20_000)
    metadata: Any = None
    environment: str | None = None
    queue_id: str | None = Field(None, alias="queueId")
    config_id: str | None = Field(None, alias="configId")
    source: str | None = None
    timestamp: str | None = None

    @model_validator(mode="after")
    def _about_one_thing(self) -> "LangfuseScore":
        if (self.trace_id is None) == (self.session_id is None):
            raise ValueError("send either traceId or sessionId")
        if self.observation_id is not None and self.trace_id is None:
            raise ValueError("observationId: send its traceId with it")
        if self.data_type == "CORRECTION" and not (isinstance(self.value, str) and self.value):
            raise ValueError("value: a correction is a text")
        return self

    def opinion(self) -> Opinion:
        """What it says. A correction says as well that the answer was not `correct`, whatever the name of its score."""
        corrects = self.data_type == "CORRECTION"
        return Opinion(
            About(
                trace=self.trace_id, span=self.observation_id, episode_id=self.session_id, param=self._param()
            ),
            name="correct" if corrects else self.name,
            values=(False,) if corrects else readings(self.value),
            correction=str(self.value) if corrects else None,
            comment=self.comment,
            tags=as_tags(
                **{CLIENT_ID: self.id},
                environment=self.environment,
                queue_id=self.queue_id,
                config_id=self.config_id,
                score_source=self.source,
                timestamp=self.timestamp,
                metadata=self.metadata,
            ),
            source="langfuse",
            apart=True,
        )

    def _param(self) -> str:
        if self.session_id is not None:
            return "sessionId"
        return "traceId" if self.observation_id is None else "observationId"


class LangfuseEvent(Body):
    """One event of a batch. Only scores are taken; traces are recorded here as they happen."""

    model_config = ConfigDict(extra="allow")
    id: str
    type: str
    body: Any = None


class LangfuseBatch(Body):
    """The body of `POST /api/public/ingestion`. `metadata` describes the SDK."""

    batch: list[Any] = Field(max_length=MOST, description="Each answered by itself; scores are taken.")
    metadata: Any = None


def accepted(errors: Sequence[ApiError], count: int) -> JSONResponse:
    """The answer to a list of scores. Raises the `ApiError` of one that failed here, for all of them.

    Clients send a whole list again that was refused as a whole (5xx), and nothing of one that was taken in part.
    """
    for error in errors:
        if error.status >= 500:
            raise error
    if not errors:
        return JSONResponse({"message": "Accepted"}, 202)
    messages = [{"message": error.message} for error in errors]
    return JSONResponse({"accepted": count - len(errors), "rejected": len(errors), "errors": messages}, 207)


def opinion_of_event(event: Any) -> Opinion:
    """What an event of a batch says. Raises `ApiError` (400) where it is no score."""
    read = validate(event, LangfuseEvent)
    if read.type != "score-create":
        message = f"type: {read.type!r} is not taken. Only scores are; what is asked here is recorded as it happens."
        raise ApiError(400, message, code="invalid_value", param="type")
    return validate(read.body, LangfuseScore).opinion()


def ingested(events: Sequence[Any], outcomes: Sequence[object]) -> JSONResponse:
    """The answer to a batch of events, each by its id."""
    successes, errors = [], []
    for event, outcome in zip(events, outcomes, strict=True):
        name = str(event.get("id", "")) if isinstance(event, dict) else ""
        if isinstance(outcome, ApiError):
            said = {"message": outcome.message, "error": outcome.code}
            errors.append({"id": name, "status": outcome.status, **said})
        else:
            successes.append({"id": name, "status": 201})
    return JSONResponse({"successes": successes, "errors": errors}, 207)


def projects_of(tenant: str) -> JSONResponse:
    """The list of projects as Langfuse's SDK reads it, with a tenant in the place of project and organization."""
    named = {"id": tenant, "name": tenant}
    return JSONResponse({"data": [{**named, "organization": named, "metadata": {}}]})


def refusal(error: ApiError) -> JSONResponse:
    """An error as Langfuse's clients read it."""
    return JSONResponse({"message": error.message, "error": error.code}, error.status, error.all_headers())
