"""MLflow's assessments, https://mlflow.org/docs/latest/api_reference/rest-api.html (`mlflow/protos/assessments.proto`).

Feedback is a rating, an expectation a correction. The source's id is one of those for whom the key's owner speaks.
"""

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator
from starlette.responses import JSONResponse

from feedback.events import Rating
from gateway.errors import ApiError
from gateway.opinion import About, Opinion, Value, as_tags, readings
from gateway.wire import Body, Refused, load

ERROR = {
    "title": "MlflowError",
    "type": "object",
    "required": ["error_code", "message"],
    "properties": {"error_code": {"type": "string"}, "message": {"type": "string"}},
}
_CODES = {
    400: "INVALID_PARAMETER_VALUE",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    413: "INVALID_PARAMETER_VALUE",
    429: "REQUEST_LIMIT_EXCEEDED",
    503: "TEMPORARILY_UNAVAILABLE",
}
_KINDS: Mapping[str, Literal["human", "model", "code"]] = {
    "HUMAN": "human",
    "LLM_JUDGE": "model",
    "CODE": "code",
}
_NOBODY = {None, "", "default"}  # MLflow's own default for an id


class AssessmentSource(Body):
    """Who says it."""

    source_type: Literal["HUMAN", "LLM_JUDGE", "CODE"]
    source_id: str | None = Field(None, max_length=200)


class AssessmentFeedback(Body):
    """What is thought of it."""

    REFUSED: ClassVar[Mapping[str, Refused]] = {
        "error": Refused("a judge that failed has said nothing; send what it says when it succeeds")
    }
    value: bool | float | str | dict[str, bool | float | str]


class SerializedValue(Body):
    """A list or an object, which MLflow writes as text."""

    serialization_format: Literal["JSON_FORMAT"]
    value: str


class AssessmentExpectation(Body):
    """The answer as it should have been."""

    value: Any = None
    serialized_value: SerializedValue | None = None

    def expected(self) -> dict[str, Any] | str:
        """The correction that it is. Raises `ApiError` (400)."""
        said = self.value
        if self.serialized_value is not None:
            try:
                said = load(self.serialized_value.value.encode())
            except ApiError as error:
                raise _no_expectation(error.message.rstrip(".")) from error
        if isinstance(said, dict) or (isinstance(said, str) and said):
            return said
        raise _no_expectation("an answer is an object or a text")


class MlflowAssessment(Body):
    """An assessment, as MLflow's client sends it."""

    REFUSED: ClassVar[Mapping[str, Refused]] = {
        "issue": Refused("there are no issues here"),
        "error": Refused("a judge that failed has said nothing; send what it says when it succeeds"),
        "valid": Refused("an assessment is valid until another one overrides it", (True,)),
        "assessment_id": Refused("it is given here", ("",)),
    }

    assessment_name: str = Field(min_length=1, max_length=200)
    source: AssessmentSource
    feedback: AssessmentFeedback | None = None
    expectation: AssessmentExpectation | None = None
    rationale: str | None = Field(None, max_length=20_000)
    metadata: dict[str, str] | None = None
    trace_id: str | None = Field(None, max_length=200)
    span_id: str | None = Field(None, max_length=200)
    overrides: str | None = Field(None, max_length=200)
    create_time: str | None = None
    last_update_time: str | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> "MlflowAssessment":
        if (self.feedback is None) == (self.expectation is None):
            raise ValueError("send either feedback or expectation")
        return self

    def opinion(self, trace_id: str) -> Opinion:
        """What it says of a trace. An expectation says as well that the answer was not `correct`. Raises `ApiError`."""
        if self.trace_id not in (None, "", trace_id):
            message = f"trace_id: the path says {trace_id!r}."
            raise ApiError(400, message, code="invalid_value", param="assessment.trace_id")
        values: tuple[Value, ...] = (False,)
        if self.feedback is not None:
            said = self.feedback.value
            values = (said,) if isinstance(said, dict) else tuple(readings(said))
        return Opinion(
            About(trace=trace_id, span=self.span_id or None, param="trace_id"),
            name="correct" if self.feedback is None else self.assessment_name,
            values=values,
            correction=None if self.expectation is None else self.expectation.expected(),
            comment=self.rationale or None,
            tags=as_tags(
                assessment_name=None if self.feedback else self.assessment_name,
                create_time=self.create_time,
                last_update_time=self.last_update_time,
                metadata=self.metadata or None,
            ),
            source="mlflow",
            apart=True,
            rater=None if self.source.source_id in _NOBODY else self.source.source_id,
            rater_kind=_KINDS[self.source.source_type],
        )


class MlflowCreateAssessment(Body):
    """The body of `POST /api/3.0/mlflow/traces/{trace_id}/assessments`."""

    assessment: MlflowAssessment
    trace_id: str | None = None  # some versions send what the path says


def created(asked: MlflowAssessment, trace_id: str, rating: Rating) -> JSONResponse:
    """The assessment, as MLflow's client reads it."""
    given = asked.model_dump(mode="json", exclude_none=True, exclude={"create_time", "last_update_time"})
    return JSONResponse({"assessment": {**given, **_kept(rating, trace_id), "valid": True}})


def found(rating: Rating, trace_id: str, *, stands: bool) -> JSONResponse:
    """A rating, by whatever door it came, as MLflow's client reads an assessment of the trace."""
    source_types = {kind: name for name, kind in _KINDS.items()}
    _, _, who = rating.rater.partition("/")
    said: dict[str, Any] = {"feedback": {"value": rating.value}}
    if rating.correction is not None:
        serialized = {"serialization_format": "JSON_FORMAT", "value": json.dumps(rating.correction)}
        said = {"expectation": {"serialized_value": serialized}}
    if rating.comment:
        said["rationale"] = rating.comment
    return JSONResponse(
        {
            "assessment": {
                "assessment_name": rating.tags.get("assessment_name", rating.name),
                "source": {"source_type": source_types[rating.rater_kind], "source_id": who or "default"},
                **said,
                **_kept(rating, trace_id),
                "valid": stands and not rating.withdrawn,
            }
        }
    )


def refusal(error: ApiError) -> JSONResponse:
    """An error as MLflow's client reads it."""
    code = _CODES.get(error.status, "INTERNAL_ERROR")
    return JSONResponse({"error_code": code, "message": error.message}, error.status, error.all_headers())


def _kept(rating: Rating, trace_id: str) -> dict[str, str]:
    time = rating.time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "assessment_id": rating.event_id,
        "trace_id": trace_id,
        "create_time": time,
        "last_update_time": time,
    }


def _no_expectation(why: str) -> ApiError:
    return ApiError(400, f"expectation: {why}.", code="invalid_value", param="assessment.expectation")
