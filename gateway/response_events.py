"""The typed events of a streamed response: https://platform.openai.com/docs/api-reference/responses-streaming."""

from typing import Any

from agents.loop import Finished
from agents.model import Delta
from feedback.events import RequestFinished, ToolCall, Turn
from gateway.errors import ApiError
from gateway.openai_chat import logprob
from gateway.openai_response import answer_item, error_object, opened, response_object
from gateway.openai_responses import ResponsesRequest
from gateway.response_items import call_item, hexadecimal
from gateway.sse import frame

_KNOWN_LATER = {"output", "error", "results"}
_STEPS = {"file_search_call": ("in_progress", "searching"), "mcp_call": ("in_progress",)}


class ResponseEvents:
    """The typed events of one streamed response: a `gateway.streaming.Form`."""

    def __init__(self, response_id: str, agent: str, turn: Turn, body: ResponsesRequest) -> None:
        self._id = response_id
        self._agent = agent
        self._opened = opened(response_id, turn, body.instructions)
        self._body = body
        self._obfuscate = bool(body.stream_options and body.stream_options.include_obfuscation)
        self._number = 0
        self._items = 0  # how many output items have been added
        self._answering = False

    def start(self) -> bytes:
        """See `Form`."""
        created = self._event("response.created", response=self._opened)
        return created + self._event("response.in_progress", response=self._opened)

    def piece(self, part: Delta | ToolCall) -> bytes:
        """See `Form`. A tool call comes when it is over, all its events at once."""
        if isinstance(part, ToolCall):
            return self._tool_call(part)
        begun = self._begin_answer()
        tokens = part.tokens if self._body.includes("message.output_text.logprobs") else ()
        if not (part.text or tokens):
            return begun
        logprobs = [logprob(token) for token in tokens]
        return begun + self._in_answer("response.output_text.delta", delta=part.text, logprobs=logprobs)

    def finish(self, _answer: Finished, event: RequestFinished) -> bytes:
        """See `Form`."""
        begun = self._begin_answer()
        response = response_object(event, self._body.include)
        item = response["output"][-1]
        [part] = item["content"]
        text = {"text": part["text"], "logprobs": part["logprobs"]}
        return b"".join(
            (
                begun,
                self._in_answer("response.output_text.done", **text),
                self._in_answer("response.content_part.done", part=part),
                self._event("response.output_item.done", output_index=self._items - 1, item=item),
                self._event(f"response.{response['status']}", response=response),
            )
        )

    def fail(self, problem: ApiError, event: RequestFinished | None) -> bytes:
        """See `Form`."""
        response = self._opened if event is None else response_object(event, self._body.include)
        failed = {**response, "status": "failed", "error": error_object(problem.code, problem.message)}
        return self._event("response.failed", response=failed)

    def _tool_call(self, call: ToolCall) -> bytes:
        results = self._body.includes("file_search_call.results")
        item = call_item(call, f"{hexadecimal(self._id)}_{self._items}", self._agent, results=results)
        index = self._items
        self._items += 1
        begun = {name: value for name, value in item.items() if name not in _KNOWN_LATER}
        steps = [*_STEPS[item["type"]], item["status"]]
        if steps[-1] == "failed" and item["type"] == "file_search_call":
            steps.pop()  # there is no such event: the item alone says it
        return b"".join(
            (
                self._event(
                    "response.output_item.added", output_index=index, item={**begun, "status": "in_progress"}
                ),
                *(
                    self._event(f"response.{item['type']}.{step}", output_index=index, item_id=item["id"])
                    for step in steps
                ),
                self._event("response.output_item.done", output_index=index, item=item),
            )
        )

    def _begin_answer(self) -> bytes:
        if self._answering:
            return b""
        self._answering = True
        item = {**answer_item(self._id, "", "in_progress"), "status": "in_progress", "content": []}
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        self._items += 1
        added = self._event("response.output_item.added", output_index=self._items - 1, item=item)
        return added + self._in_answer("response.content_part.added", part=part)

    def _in_answer(self, kind: str, **fields: Any) -> bytes:
        item = {
            "item_id": f"msg_{hexadecimal(self._id)}",
            "output_index": self._items - 1,
            "content_index": 0,
        }
        return self._event(kind, **item, **fields)

    def _event(self, kind: str, **fields: Any) -> bytes:
        data = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return frame(data, event=kind, obfuscate=self._obfuscate and kind.endswith(".delta"))
