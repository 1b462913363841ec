"""A plain model's answer as a response: vLLM is asked for a chat, and the client reads `/v1/responses`.

What is collected is the same as for a chat, and so is the record, from which the response is made. vLLM does not tell a
refusal from any other text: what a model declines is its answer.
"""

from typing import Any

import orjson

from agents.model import Delta, Token
from feedback.events import RequestFinished, Turn, parse
from gateway.errors import ApiError
from gateway.openai_response import response_object
from gateway.openai_responses import ResponsesBody
from gateway.passthrough.capture import Capture, Choice
from gateway.passthrough.request import Asked
from gateway.response_events import FunctionCallDelta, ReasoningDelta, ResponseEvents


class ResponseCapture(Capture):
    """One choice, told as a response. Nothing is held back of a stream: what says "complete" comes with the record."""

    def __init__(
        self, asked: Asked, *, request_id: str, model: str, policy: str, body: ResponsesBody
    ) -> None:
        super().__init__(asked, request_id=request_id, model=model, policy=policy)
        self._body = body
        self._events = ResponseEvents(request_id, model, Turn.model_validate(asked.turn), body)
        self.order = self._events.order

    def end(self, event: bytes | None) -> bytes:
        """See `Capture`."""
        recorded = _read(event)
        if self._asked.stream:
            return self._events.complete(recorded)
        return orjson.dumps(response_object(recorded, self._body.include))

    def failed(self, error: ApiError, event: bytes | None) -> bytes:
        """See `Capture`."""
        return self._events.fail(error, None if event is None else _read(event))

    def _take(self, kept: Choice, choice: dict[str, Any]) -> dict[str, Any] | None:
        kept.spelled += [entry["token"] for entry in _entries(choice)]
        return super()._take(kept, choice)

    def _chunk(self, chunk: dict[str, Any]) -> bytes:
        if not chunk.get("choices"):
            return self._last_words(chunk)
        said = []
        if self.first is None:
            self._begin(chunk)
            said.append(self._events.start())
        [kept], [choice] = self.choices, chunk["choices"]
        kept.prompt = chunk.get("prompt_token_ids") or kept.prompt
        kept.finish_reason = choice.get("finish_reason") or kept.finish_reason
        kept.add_delta(choice["delta"])
        self._take(kept, choice)
        return b"".join([*said, *self._pieces(kept, choice)])

    def _pieces(self, kept: Choice, choice: dict[str, Any]) -> list[bytes]:
        delta = choice["delta"]
        said = []
        if reasoning := delta.get("reasoning") or delta.get("reasoning_content"):
            said.append(self._events.reasoning(ReasoningDelta(reasoning)))
        if text := delta.get("content"):
            tokens = tuple(Token(entry["token"], entry["logprob"]) for entry in _entries(choice))
            said.append(self._events.text(Delta(text, tokens)))
        calls = [*kept.tool_calls]
        for position, piece in enumerate(delta.get("tool_calls") or ()):
            index = piece.get("index", position)
            call = kept.tool_calls[index]
            arguments = (piece.get("function") or {}).get("arguments") or ""
            part = FunctionCallDelta(calls.index(index), call["id"], call["function"]["name"], arguments)
            said.append(self._events.function_call(part))
        return said


def _entries(choice: dict[str, Any]) -> list[dict[str, Any]]:
    """The tokens of a choice or a chunk."""
    entries: list[dict[str, Any]] = (choice.get("logprobs") or {}).get("content") or []
    return entries


def _read(event: bytes | None) -> RequestFinished:
    """What was recorded, as it will be read whenever the response is looked up."""
    assert event is not None, "an answer is complete when it has been recorded, not before"
    recorded = parse(event)
    assert isinstance(recorded, RequestFinished)
    return recorded
