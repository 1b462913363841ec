"""A policy served by vLLM, over its OpenAI-compatible API.

Token ids and logprobs are the server's own (`return_token_ids`, `logprobs`), collected while the text streams by.
"""

import time
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import aiohttp
import orjson

from agents.model import Delta, ModelError, ModelRequest, Token
from feedback.events import ModelCall, new_id

_LINE_BYTES = 16 * 2**20  # the first chunk holds the token ids of the whole prompt
_CONTEXT_HINTS = ("maximum context length", "max_model_len", "longer than the maximum")


class VllmModel:
    """One served model or adapter. The caller owns `session`; `name` is what vLLM calls the policy.

    `headers` is asked, as each call goes out, what goes with it.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        base_url: str,
        *,
        name: str,
        policy: str,
        headers: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self.policy = policy
        self._session = session
        self._url = f"{base_url.rstrip('/')}/v1/chat/completions"
        self._name = name
        self._headers = headers

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta | ModelCall]:
        """See `agents.model.Model.stream`. Closing the iterator early cancels the generation on the server."""
        began, started = datetime.now(UTC), time.perf_counter()
        collected = _Collected(self._name)
        body = orjson.dumps(self._body(request))
        try:
            headers = {"content-type": "application/json", **self._headers()}
            async with self._session.post(self._url, data=body, headers=headers) as response:
                if response.status != 200:
                    raise refusal(response.status, await response.text())
                while line := await response.content.readline(max_line_length=_LINE_BYTES):
                    if not line.startswith(b"data: "):
                        continue
                    if line.startswith(b"data: [DONE]"):
                        break
                    delta = collected.add(line[6:])
                    if delta.text or delta.tokens:
                        yield delta
        except (aiohttp.ClientError, ConnectionError) as error:
            raise ModelError(f"the model server does not answer ({error}); try again shortly") from error
        if collected.finish_reason is None:
            raise ModelError("the model server ended the stream before the answer was complete", status=502)
        yield collected.call(request, self.policy, began, started)

    def _body(self, request: ModelRequest) -> dict[str, Any]:
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": self._name,
            "messages": [message.model_dump() for message in request.messages],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "stream": True,
            "logprobs": True,
            "return_token_ids": True,
        }
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        if sampling.stop:
            body["stop"] = sampling.stop
        body |= _tools(request)
        if request.response_schema is not None:
            schema = {"name": "answer", "strict": True, "schema": request.response_schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body


def _tools(request: ModelRequest) -> dict[str, Any]:
    """What is sent of tools, and recorded as having been sent. vLLM keeps them in the prompt with `none`, too."""
    if not request.tools:
        return {}
    offered = [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": dict(tool.parameters),
            },
        }
        for tool in request.tools
    ]
    return {"tools": offered, "tool_choice": request.tool_choice}


class _Collected:
    """What a stream has said so far."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._text: list[str] = []
        self._prompt: list[int] = []
        self._tokens: list[int] = []
        self._spelled: list[Token] = []
        self._tool_calls: dict[int, dict[str, Any]] = {}
        self._first: float | None = None
        self.finish_reason: str | None = None

    def add(self, data: bytes) -> Delta:
        """Take one chunk in; return what it adds."""
        try:
            return self._add(orjson.loads(data))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ModelError("the model server sent a malformed chunk", status=502) from error

    def _add(self, chunk: dict[str, Any]) -> Delta:
        if "error" in chunk:
            raise ModelError(
                f"the model server failed: {chunk['error'].get('message', 'no reason given')}", status=502
            )
        if chunk.get("model") != self._name:
            raise ModelError(f"asked {self._name}, answered by {chunk.get('model')}", status=502)
        self._prompt = chunk.get("prompt_token_ids") or self._prompt
        text = ""
        spelled: list[Token] = []
        for choice in chunk["choices"]:
            self._tokens += choice.get("token_ids") or ()
            entries = (choice.get("logprobs") or {}).get("content") or ()
            spelled += [Token(entry["token"], entry["logprob"]) for entry in entries]
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            text += choice["delta"].get("content") or ""
            for position, piece in enumerate(choice["delta"].get("tool_calls") or ()):
                self._add_tool_call(piece.get("index", position), piece)
        if self._tokens and self._first is None:
            self._first = time.perf_counter()
        self._text.append(text)
        self._spelled += spelled
        return Delta(text, tuple(spelled))

    def _add_tool_call(self, index: int, piece: dict[str, Any]) -> None:
        """A piece of a tool call, or the whole of one, as some of vLLM's parsers have it."""
        call = self._tool_calls.setdefault(
            index, {"id": None, "type": "function", "function": {"name": "", "arguments": ""}}
        )
        call["id"] = call["id"] or piece.get("id")
        said = piece.get("function") or {}
        for field in ("name", "arguments"):
            call["function"][field] += said.get(field) or ""

    def _complete_tool_calls(self) -> tuple[dict[str, Any], ...]:
        """In their order, each with an id of its own, which its result is to name."""
        calls = {}
        for _, call in sorted(self._tool_calls.items()):
            name = call["id"] if call["id"] and call["id"] not in calls else new_id("call_")
            calls[name] = {**call, "id": name}
        return tuple(calls.values())

    def call(self, request: ModelRequest, policy: str, began: datetime, started: float) -> ModelCall:
        now = time.perf_counter()
        if len(self._spelled) != len(self._tokens):
            said = f"{len(self._tokens)} tokens and {len(self._spelled)} logprobs"
            raise ModelError(f"the model server sent {said}: its answer cannot be recorded", status=502)
        return ModelCall(
            policy=policy,
            messages=request.messages,
            response_schema=request.response_schema,
            sampling=request.sampling,
            parameters=_tools(request),
            text="".join(self._text),
            tool_calls=self._complete_tool_calls(),
            prompt_token_ids=tuple(self._prompt),
            completion_token_ids=tuple(self._tokens),
            logprobs=tuple(token.logprob for token in self._spelled),
            tokens=tuple(token.text for token in self._spelled),
            finish_reason=self.finish_reason or "",
            started=began,
            time_to_first_token=(self._first or now) - started,
            latency=now - started,
        )


def refusal(status: int, body: str) -> ModelError:
    """The error for an answer of vLLM's that is not 200: its own words, as something that a client can act on."""
    try:
        error = orjson.loads(body).get("error", {})
        message = str(error.get("message", body))
    except (orjson.JSONDecodeError, AttributeError):
        error, message = {}, body
    message = message[:500] or f"HTTP {status}"
    if (
        status == 404 and not error
    ):  # not a model that vLLM lacks, but a path: embeddings of a model that only writes
        message = "The model that is served cannot do this. Ask one that can, or use another endpoint."
        return ModelError(message, status=400, code="unsupported_operation")
    if status == 400 and any(hint in message for hint in _CONTEXT_HINTS):
        return ModelError(message, status=400, code="context_length_exceeded")
    if status == 404:
        return ModelError(message, status=503, code="policy_not_loaded")
    if status == 400:
        return ModelError(message, status=400, code="invalid_value")
    return ModelError(
        f"the model server answered {status}: {message}", status=502 if status >= 500 else status
    )
