"""What a span says of one call, of a model or of a tool."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from feedback.events import ExternalCall, Message, ToolCall
from feedback.otlp.messages import finish_reasons, flat, messages
from feedback.otlp.source import unix_time
from feedback.otlp.spans import Span
from feedback.otlp.wire import structured, text

ENTITY = "traceloop.entity.name"
_REQUEST = "gen_ai.request."


class Said:
    """A span's attributes, each taken once: what nobody has taken is kept as it is."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self.rest: Mapping[str, Any] = span.said

    def take(self, *names: str) -> Any:
        """The first of these that there is; None where there is none."""
        name = next((name for name in names if self.rest.get(name) is not None), None)
        if name is None:
            return None
        found = self.rest[name]
        self.rest = {other: value for other, value in self.rest.items() if other != name}
        return found

    def text(self, *names: str) -> str:
        """The same as text; empty where there is none."""
        found = self.take(*names)
        return "" if found is None else text(found)

    def number(self, *names: str) -> int | float | None:
        """The first of these that is a number, not below 0."""
        for name in names:
            found = self.rest.get(name)
            if isinstance(found, int | float) and not isinstance(found, bool) and found >= 0:
                self.take(name)
                return found
        return None

    def heard(self) -> tuple[Message, ...]:
        """What went in, the instructions first."""
        instructions = messages(self.take("gen_ai.system_instructions"), "system")
        given = self.take("gen_ai.input.messages", "gen_ai.prompt", "traceloop.entity.input")
        return (*instructions, *messages(given or self._flat("gen_ai.prompt.") or list(self._span.heard)))

    def answered(self) -> tuple[tuple[Message, ...], list[str]]:
        """What came out, a message for each choice, and why they ended."""
        given = self.take("gen_ai.output.messages", "gen_ai.completion", "traceloop.entity.output")
        given = given or self._flat("gen_ai.completion.") or list(self._span.answered)
        reasons = self.take("gen_ai.response.finish_reasons")
        ends = [text(reason) for reason in reasons] if isinstance(reasons, list) else finish_reasons(given)
        return messages(given, "assistant"), ends

    def _flat(self, prefix: str) -> list[dict[str, Any]]:
        found = flat(self.rest, prefix)
        if found:
            self.rest = {name: value for name, value in self.rest.items() if not name.startswith(prefix)}
        return found


class Generation(NamedTuple):
    """A model's call, with its messages as we have them."""

    call: ExternalCall
    heard: tuple[Message, ...]
    answered: tuple[Message, ...]


def generation(span: Span) -> Generation:
    """The call that a model span tells of."""
    said = Said(span)
    heard, (answered, reasons) = said.heard(), said.answered()
    asked_model, model = said.text("gen_ai.request.model"), said.text("gen_ai.response.model")
    sent = {name.removeprefix(_REQUEST): said.take(name) for name in span.said if name.startswith(_REQUEST)}
    if tools := structured(said.take("gen_ai.tool.definitions")):
        sent["tools"] = tools
    prompt = said.number("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens") or 0
    completion = said.number("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens") or 0
    ends = [*reasons, *[None] * len(answered)]
    choices = [
        {"index": index, "message": message.model_dump(mode="json"), "finish_reason": ends[index]}
        for index, message in enumerate(answered)
    ]
    call = ExternalCall(
        model=asked_model or model or "unknown",
        provider_model=model or asked_model or "unknown",
        request={
            **sent,
            "model": asked_model,
            "messages": [message.model_dump(mode="json") for message in heard],
        },
        response={
            "id": said.take("gen_ai.response.id"),
            "model": model or asked_model,
            "choices": choices,
            "usage": {
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "total_tokens": prompt + completion,
            },
        },
        finish_reason=reasons[0] if reasons else "" if span.error is None else "error",
        time_to_first_token=said.number(
            "gen_ai.response.time_to_first_chunk", "gen_ai.server.time_to_first_token"
        ),
        latency=span.seconds,
    )
    # What else was told, in the words in which it was.
    call = call.model_copy(update={"request": {**call.request, "attributes": dict(said.rest)}})
    return Generation(call, heard, answered)


def tool_call(span: Span) -> ToolCall:
    """The call that a tool's or a retrieval's span tells of."""
    said = Said(span)
    name = said.text("gen_ai.tool.name", ENTITY) or span.name.removeprefix("execute_tool ") or "unknown"
    given = structured(said.take("gen_ai.tool.call.arguments", "traceloop.entity.input"))
    arguments = given if isinstance(given, dict) else {} if given is None else {"arguments": given}
    if span.operation == "retrieval":
        name = "retrieval"
        query, source = said.take("gen_ai.retrieval.query.text"), said.take("gen_ai.data_source.id")
        found = {"query": query, "data_source": source}
        arguments |= {name: value for name, value in found.items() if value is not None}
    result = said.take("gen_ai.tool.call.result", "gen_ai.retrieval.documents", "traceloop.entity.output")
    return ToolCall(
        name=name,
        arguments=arguments,
        result=structured(result),
        error=span.error,
        started=unix_time(span.start),
        latency=span.seconds,
    )
