"""`gen_ai.evaluation.result`, a log record or an event of a span → a `Rating`."""

from typing import Any, Final, Protocol, get_args

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from pydantic import ValidationError

from feedback.events import SPAN_ID, Rating, RequestFinished
from feedback.otlp.source import PREFIX, Converted, Source, foreign, is_ours, short
from feedback.otlp.spans import EVALUATION, Key
from feedback.otlp.wire import attributes, text

RATER_KIND: Final = "flywheel.rater.kind"  # our own: the conventions do not say whether a person judged
_KINDS = get_args(Rating.model_fields["rater_kind"].annotation)
_NAME, _VALUE, _LABEL = (f"gen_ai.evaluation.{name}" for name in ("name", "score.value", "score.label"))
_EXPLANATION, _RESPONSE = "gen_ai.evaluation.explanation", "gen_ai.response.id"
_CONVERSATION = "gen_ai.conversation.id"


def ratings(export: ExportLogsServiceRequest, source: Source) -> Converted:
    """The ratings in an export of log records; other records are nobody's business here."""
    found: list[Rating] = []
    reasons: list[str] = []
    for resource in export.resource_logs:
        for scope in resource.scope_logs:
            for record in scope.log_records:
                said = attributes(record.attributes)
                if EVALUATION not in (record.event_name, said.pop("event.name", None)):
                    continue
                time = record.time_unix_nano or record.observed_time_unix_nano
                rating = evaluation(said, time, _span(record), source)
                if isinstance(rating, Rating):
                    found.append(rating)
                else:
                    reasons.append(rating)
    return Converted(tuple(found), len(reasons), tuple(reasons))


def evaluation(
    said: dict[str, Any],
    time: int,
    span: Key | None,
    source: Source,
    request: RequestFinished | None = None,
    call: int | None = None,
) -> Rating | str:
    """The rating, or why there is none. `time` in Unix nanoseconds; `request` and `call`: what the span is known to be.

    `value` is the score where it is a number, else the label.
    """
    rest = dict(said)
    score, label = rest.pop(_VALUE, None), rest.pop(_LABEL, None)
    if isinstance(score, int | float):
        value: bool | float | str = score if isinstance(score, bool) else float(score)
        if label is not None:
            rest[_LABEL] = label
    elif isinstance(label, bool | str):
        value = label
    else:
        return "an evaluation without a score and without a label"
    response_id, conversation = rest.pop(_RESPONSE, None), rest.get(_CONVERSATION)
    target = None if span is None else source.id_of(*span)
    episode = short(text(conversation)) if conversation else None
    if response_id:
        target, call = short(text(response_id)), None
    elif request is not None:
        target, episode = request.request_id, request.episode_id
    if target is None and episode is None:
        return "an evaluation that names no response, has no span and no conversation"
    kind = rest.pop(RATER_KIND, None)
    name = text(rest.pop(_NAME, ""))
    if span is not None:
        rest |= {"otel.trace.id": span[0], SPAN_ID: span[1]}
    try:
        return Rating(
            event_id=source.id_of(
                "rating", source.caller, name, target or "", episode or "", text(value), str(time)
            ),
            time=source.time(time),
            tenant=source.tenant,
            rater=source.caller,
            rater_kind=kind if kind in _KINDS else "code",
            source="otlp",
            request_id=target,
            call=call,
            episode_id=episode,
            name=name,
            value=value,
            comment=None if (why := rest.pop(_EXPLANATION, None)) is None else text(why),
            tags={name: text(value) for name, value in rest.items()},
        )
    except ValidationError as error:
        first = error.errors()[0]
        return f"an evaluation whose {'.'.join(map(str, first['loc']))} cannot be taken: {first['msg']}"


class Known(Protocol):
    """Looks requests of the tenant up."""

    def request(self, request_id: str) -> RequestFinished | None:
        """By its id."""
        ...

    def of_span(self, span_id: str) -> RequestFinished | None:
        """By its span's id."""
        ...


def aimed(taken: Converted, known: Known) -> Converted:
    """The same, with each rating of what it is about as far as that is known here.

    A response id that this gateway could have given is its own where it has such a request, else another gateway's. A
    span is rated by the id of its request; where that has not come yet, by the one that it will have unless its span
    has a response's.
    """
    events = (_aimed(event, known) if isinstance(event, Rating) else event for event in taken.events)
    return taken._replace(events=tuple(events))


def _aimed(rating: Rating, known: Known) -> Rating:
    request_id = rating.request_id
    if request_id is None or not is_ours(request_id):
        return rating
    told = request_id.startswith(PREFIX)
    if told:
        found = known.of_span(rating.tags[SPAN_ID]) if SPAN_ID in rating.tags else None
    else:
        found = known.request(request_id)
    if found is not None:
        return rating.model_copy(update={"request_id": found.request_id, "episode_id": found.episode_id})
    return rating if told else rating.model_copy(update={"request_id": foreign(request_id)})


def _span(record: LogRecord) -> Key | None:
    if len(record.trace_id) == 16 and len(record.span_id) == 8 and any(record.span_id):
        return record.trace_id.hex(), record.span_id.hex()
    return None
