"""The typed events of a streamed response: https://platform.openai.com/docs/api-reference/responses-streaming.

An item of the answer begins with its first piece. That it is complete is said with the response, when that has been
recorded: who acts on a function call, or shows an answer as final, then acts on what cannot be lost any more.
"""

from collections import deque
from functools import partial
from typing import Any, NamedTuple

from agents.acting import ToolStarted
from agents.loop import RETRIEVAL, Finished
from agents.model import Delta
from feedback.events import RequestFinished, ToolCall, Turn
from gateway.errors import ApiError
from gateway.openai_chat import logprob
from gateway.openai_response import error_object, opened, response_object
from gateway.openai_responses import ResponsesBody
from gateway.progress import Step
from gateway.response_items import answer_id, call_item, hexadecimal, said_item
from gateway.sse import frame

_EMPTY: dict[str, dict[str, Any]] = {
    "message": {"role": "assistant", "content": []},
    "reasoning": {"summary": [], "content": []},
    "function_call": {"arguments": ""},
}
_PARTS: dict[str, dict[str, Any]] = {
    "message": {"type": "output_text", "text": "", "annotations": [], "logprobs": []},
    "reasoning": {"type": "reasoning_text", "text": ""},
}


class ReasoningDelta(NamedTuple):
    """A piece of what the model reasons before it answers."""

    text: str


class FunctionCallDelta(NamedTuple):
    """A piece of a function call that the client is to run, the answer's `number`-th. The first piece has the names."""

    number: int
    call_id: str
    name: str
    arguments: str


class ResponseEvents:
    """The typed events of one streamed response: a `gateway.streaming.Form`.

    `order` is the kinds of the answer's items, as they began.
    """

    def __init__(self, response_id: str, agent: str, turn: Turn, body: ResponsesBody) -> None:
        self.order: list[str] = []
        self._id = response_id
        self._agent = agent
        self._opened = opened(response_id, turn, body.instructions)
        self._body = body
        self._number = 0
        self._items = 0  # how many output items have been added
        self._begun: dict[tuple[str, int], int] = {}  # kind and number of an answer's item → where it is
        self._running: deque[tuple[str, int]] = deque()  # tools: their arguments, and where their items are
        self._said = 0, ""  # by the model, in which call: nobody knows yet whether it goes on to call tools

    def start(self) -> bytes:
        """See `Form`."""
        created = self._event("response.created", response=self._opened)
        return created + self._event("response.in_progress", response=self._opened)

    def piece(self, step: Step) -> bytes:
        """See `Form`."""
        part = step.part
        if isinstance(part, ToolStarted):
            return self._said_before() + self._tool_begun(part, step.call)
        if isinstance(part, ToolCall):
            return self._tool_over(part, step.call)
        if part.final:
            return self.text(part)
        before = self._said[1] if self._said[0] == step.call else ""
        self._said = step.call, before + part.text
        return b""

    def text(self, part: Delta) -> bytes:
        """A piece of the answer."""
        begun = self._begin("message")
        tokens = part.tokens if self._body.includes("message.output_text.logprobs") else ()
        if not (part.text or tokens):
            return begun
        logprobs = [logprob(token) for token in tokens]
        where = self._where("message")
        said = {"content_index": 0, "delta": part.text, "logprobs": logprobs}
        return begun + self._event("response.output_text.delta", **where, **said)

    def reasoning(self, part: ReasoningDelta) -> bytes:
        """A piece of the reasoning."""
        begun = self._begin("reasoning")
        where = self._where("reasoning")
        return begun + self._event("response.reasoning_text.delta", **where, content_index=0, delta=part.text)

    def function_call(self, part: FunctionCallDelta) -> bytes:
        """A piece of a function call."""
        begun = self._begin("function_call", part.number, call_id=part.call_id, name=part.name)
        if not part.arguments:
            return begun
        where = self._where("function_call", part.number)
        return begun + self._event("response.function_call_arguments.delta", **where, delta=part.arguments)

    def finish(self, _answer: Finished, event: RequestFinished) -> bytes:
        """See `Form`."""
        return self.complete(event)

    def complete(self, event: RequestFinished) -> bytes:
        """What says that the items of the answer, and the response, are complete."""
        response = response_object(event, self._body.include)
        ends = []
        calls = 0
        for item in response["output"]:
            if item["type"] == "function_call":
                ends.append(self._end(item, calls))
                calls += 1
            elif item["type"] in _EMPTY and item["id"] == answer_id(item["type"], self._id):
                ends.append(self._end(item, 0))
        return b"".join(ends) + self._event(f"response.{response['status']}", response=response)

    def fail(self, problem: ApiError, event: RequestFinished | None) -> bytes:
        """See `Form`."""
        response = self._opened if event is None else response_object(event, self._body.include)
        failed = {**response, "status": "failed", "error": error_object(problem.code, problem.message)}
        return self._event("response.failed", response=failed)

    def _tool_begun(self, tool: ToolStarted, call: int) -> bytes:
        """What announces a call, and that it runs."""
        name = f"mcp_{hexadecimal(self._id)}_{call}"
        item = {"id": name, "type": "mcp_call", "server_label": self._agent, "name": tool.name}
        where = {"output_index": self._items, "item_id": name}
        self._running.append((tool.arguments, self._items))
        return b"".join(
            (
                self._add({**item, "status": "in_progress", "arguments": ""}),
                self._event("response.mcp_call.in_progress", **where),
                self._event("response.mcp_call_arguments.done", **where, arguments=tool.arguments),
            )
        )

    def _tool_over(self, call: ToolCall, number: int) -> bytes:
        """What says how a call ended. The retrieval, which comes first of all, is announced with it."""
        results = self._body.includes("file_search_call.results")
        show = partial(call_item, call, self._id, number, self._agent, results=results)
        if call.name == RETRIEVAL:
            index, item = self._items, show()
            begun = {name: value for name, value in item.items() if name != "results"}
            told = [self._add({**begun, "status": "in_progress"})]
            steps = ["in_progress", "searching"]
            if item["status"] == "completed":  # there is no event for one that failed: the item alone says it
                steps.append("completed")
        else:
            arguments, index = self._running.popleft()
            told, item = [], show(arguments=arguments)
            steps = [item["status"]]
        where = {"output_index": index, "item_id": item["id"]}
        told += [self._event(f"response.{item['type']}.{step}", **where) for step in steps]
        return b"".join((*told, self._event("response.output_item.done", output_index=index, item=item)))

    def _said_before(self) -> bytes:
        """What the model said before it called tools, all its events at once; nothing where that was told."""
        number, text = self._said
        if not text:
            return b""
        index, item = self._items, said_item(text, self._id, number)
        self._said = number, ""
        [part] = item["content"]
        where = {"output_index": index, "item_id": item["id"], "content_index": 0}
        return b"".join(
            (
                self._add({**item, "status": "in_progress", "content": []}),
                self._event("response.content_part.added", **where, part={**part, "text": ""}),
                self._event("response.reasoning_text.delta", **where, delta=part["text"]),
                self._event("response.reasoning_text.done", **where, text=part["text"]),
                self._event("response.content_part.done", **where, part=part),
                self._event("response.output_item.done", output_index=index, item=item),
            )
        )

    def _add(self, item: dict[str, Any]) -> bytes:
        """What announces the next item."""
        index = self._items
        self._items += 1
        return self._event("response.output_item.added", output_index=index, item=item)

    def _begin(self, kind: str, number: int = 0, **known: Any) -> bytes:
        """What announces an item of the answer; nothing where it has been."""
        if (kind, number) in self._begun:
            return b""
        self._begun[kind, number] = self._items
        self.order.append(kind)
        where = self._where(kind, number)
        added = self._add(
            {"id": where["item_id"], "type": kind, "status": "in_progress", **_EMPTY[kind], **known}
        )
        if kind not in _PARTS:
            return added
        part = _PARTS[kind]
        return added + self._event("response.content_part.added", **where, content_index=0, part=part)

    def _end(self, item: dict[str, Any], number: int) -> bytes:
        """What says that an item of the answer is complete, and announces it if there has been no piece of it."""
        kind = item["type"]
        known = {name: item[name] for name in ("call_id", "name") if name in item}
        begun = self._begin(kind, number, **known)
        where = self._where(kind, number)
        if kind == "function_call":
            said = {"name": item["name"], "arguments": item["arguments"]}
            done = self._event("response.function_call_arguments.done", **where, **said)
        else:
            [part] = item["content"]
            said = {name: part[name] for name in ("text", "logprobs") if name in part}
            done = self._event(f"response.{part['type']}.done", **where, content_index=0, **said)
            done += self._event("response.content_part.done", **where, content_index=0, part=part)
        index = where["output_index"]
        return begun + done + self._event("response.output_item.done", output_index=index, item=item)

    def _where(self, kind: str, number: int = 0) -> dict[str, Any]:
        return {"item_id": answer_id(kind, self._id, number), "output_index": self._begun[kind, number]}

    def _event(self, kind: str, **fields: Any) -> bytes:
        data = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return frame(data, event=kind, obfuscate=self._body.obfuscate and kind.endswith(".delta"))
