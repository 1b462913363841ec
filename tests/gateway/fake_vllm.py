"""A stand-in for vLLM's HTTP API: the shapes of 0.32, answers made up from the model's name. For unit tests only."""

import asyncio
import hashlib
import json
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

BASE = "base"


def answer_of(model: str) -> list[str]:
    """The pieces that this model streams: another text for every model, so that a mixture cannot go unseen."""
    return [
        '{"sql": "SELECT ',
        *(f"{n} AS n_{hashlib.sha256(model.encode()).hexdigest()[:4]}, " for n in range(4)),
        '1"}',
    ]


def token_of(model: str, position: int) -> int:
    return int(hashlib.sha256(f"{model} {position}".encode()).hexdigest()[:4], 16)


def logprob_of(model: str, token: int) -> float:
    """What the model thinks of a token, in whatever prompt."""
    return -int(hashlib.sha256(f"{model} {token}".encode()).hexdigest()[:3], 16) / 1000


def prompt_of(messages: list[dict[str, Any]]) -> list[int]:
    return [sum(map(ord, _text(message["content"]))) % 50_000 for message in messages]


def _text(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content)


@dataclass(frozen=True)
class Turn:
    """What the model says in one call of several: some text, and tools with their arguments as it writes them."""

    text: str = ""
    tools: tuple[tuple[str, str], ...] = ()

    def pieces(self) -> list[tuple[str, dict[str, Any]]]:
        """What is streamed: each piece as it is spelt, and as a delta. A tool's name comes before its arguments."""
        words = [f"{word} " for word in self.text.split(" ")] if self.text else []
        words[-1:] = [word.rstrip() for word in words[-1:]]
        pieces: list[tuple[str, dict[str, Any]]] = [(word, {"content": word}) for word in words]
        for index, (name, arguments) in enumerate(self.tools):
            call = {"index": index, "id": f"call_{uuid.uuid4().hex}", "type": "function"}
            pieces.append((name, {"tool_calls": [{**call, "function": {"name": name, "arguments": ""}}]}))
            said = {"index": index, "function": {"arguments": arguments}}
            pieces.append((arguments, {"tool_calls": [said]}))
        return pieces


class _Form:
    """An answer in the shapes of vLLM: chat or completion, whole or in pieces, one choice or several."""

    def __init__(
        self,
        body: dict[str, Any],
        tool_calls: tuple[dict[str, Any], ...],
        finish_reason: str,
        turn: Turn | None = None,
    ) -> None:
        self.body = body
        self.model: str = body["model"]
        self._chat = "messages" in body
        said = turn.pieces() if turn is not None else ()
        self._deltas = [delta for _, delta in said]
        self._pieces = [piece for piece, _ in said] or answer_of(self.model)
        self._tool_calls = tool_calls
        calls = tool_calls or (turn is not None and turn.tools)
        self._finish_reason = "tool_calls" if calls else finish_reason
        prompts = 1 if self._chat or isinstance(body["prompt"], str) else len(body["prompt"])
        self._choices = (body.get("n") or 1) * prompts

    @property
    def length(self) -> int:
        return len(self._pieces)

    def head(self, kind: str = "") -> dict[str, Any]:
        object_ = f"chat.completion{kind}" if self._chat else "text_completion"
        return {"id": "chatcmpl-1", "object": object_, "created": 1_700_000_000, "model": self.model}

    def usage(self) -> dict[str, Any]:
        completion = self.length * self._choices
        prompt = len(self._prompt())
        total = {
            "prompt_tokens": prompt,
            "total_tokens": prompt + completion,
            "completion_tokens": completion,
        }
        return {**total, "prompt_tokens_details": None}

    def whole(self) -> dict[str, Any]:
        choices = []
        for index in range(self._choices):
            choice: dict[str, Any] = {
                "index": index,
                "stop_reason": None,
                "finish_reason": self._finish_reason,
            }
            if self._chat:
                content = None if self._tool_calls else "".join(self._pieces)
                nothing = {"refusal": None, "annotations": None, "audio": None, "function_call": None}
                calls = list(self._tool_calls)
                choice["message"] = {"role": "assistant", "content": content, **nothing, "tool_calls": calls}
            else:
                choice["text"] = "".join(self._pieces)
            choice["logprobs"] = self._logprobs(range(self.length), index)
            if self.body.get("return_token_ids"):
                choice["token_ids"] = [self._token(position, index) for position in range(self.length)]
                if not self._chat:
                    choice["prompt_token_ids"] = self._prompt()
            choices.append(choice)
        shared = (
            {"prompt_token_ids": self._prompt()} if self._chat and self.body.get("return_token_ids") else {}
        )
        return {**self.head(), "choices": choices, "usage": self.usage(), "prompt_logprobs": None, **shared}

    def first(self) -> list[dict[str, Any]]:
        if not self._chat:
            return []
        delta = {"delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        shared = {"prompt_token_ids": self._prompt()} if self.body.get("return_token_ids") else {}
        return [
            {**self.head(".chunk"), "choices": [{"index": index, **delta}], **shared}
            for index in range(self._choices)
        ]

    def piece(self, position: int) -> list[dict[str, Any]]:
        last = position == self.length - 1
        chunks = []
        for index in range(self._choices):
            choice: dict[str, Any] = {"index": index, "logprobs": self._logprobs([position], index)}
            if self._chat:
                choice["delta"] = self._delta(position)
            else:
                choice["text"] = self._pieces[position]
            choice["finish_reason"] = self._finish_reason if last else None
            if last:
                choice["stop_reason"] = None
            if self.body.get("return_token_ids"):
                choice["token_ids"] = [self._token(position, index)]
                if not self._chat and position == 0:
                    choice["prompt_token_ids"] = self._prompt()
            chunks.append({**self.head(".chunk"), "choices": [choice]})
        return chunks

    def _delta(self, position: int) -> dict[str, Any]:
        if self._deltas:
            return self._deltas[position]
        if not self._tool_calls:
            return {"content": self._pieces[position]}
        if position < len(
            self._tool_calls
        ):  # the name first, the arguments a piece later, as vLLM's parsers do
            call = self._tool_calls[position]
            function = {"name": call["function"]["name"]}
            return {"tool_calls": [{"index": position, **call, "function": function}]}
        position -= len(self._tool_calls)
        if position < len(self._tool_calls):
            function = {"arguments": self._tool_calls[position]["function"]["arguments"]}
            return {"tool_calls": [{"index": position, "function": function}]}
        return {}

    def _prompt(self) -> list[int]:
        return prompt_of(self.body["messages"]) if self._chat else [1, 2, 3]

    def _token(self, position: int, index: int) -> int:
        return token_of(self.model, position) + index

    def _logprobs(self, positions: Any, index: int) -> dict[str, Any] | None:
        tokens = [self._pieces[position] for position in positions]
        values = [logprob_of(self.model, self._token(position, index)) for position in positions]
        if not self._chat:
            if self.body.get("logprobs") is None:
                return None
            offsets = [0] * len(tokens)
            found = {"text_offset": offsets, "token_logprobs": values, "tokens": tokens}
            return {**found, "top_logprobs": [None] * len(tokens)}
        if not self.body.get("logprobs"):
            return None
        pairs = zip(tokens, values, strict=True)
        return {
            "content": [
                {"token": token, "logprob": value, "bytes": [], "top_logprobs": []} for token, value in pairs
            ]
        }


def _event(chunk: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % json.dumps(chunk, separators=(",", ":")).encode()


@dataclass
class FakeVllm:
    """What the server has loaded, how it should behave, and what has been asked of it."""

    adapters: dict[str, str] = field(default_factory=dict)
    seconds_per_chunk: float = 0.001
    load_seconds: float = 0.0
    context_tokens: int = 10_000
    finish_reason: str = "stop"
    drift: float = 0.0  # added to the logprobs of newly loaded adapters
    break_after: int | None = None  # chunks, then the connection is cut
    error_after: int | None = None  # chunks, then an error event
    refuse: tuple[int, str] | None = None  # status and message for everything generated
    tool_calls: tuple[dict[str, Any], ...] = ()  # what the model calls instead of saying anything
    turns: tuple[Turn, ...] = ()  # what it says as long as it may call tools, one after the other
    last: str = ""  # what it says when it may not call them any more; nothing: as without tools
    running: int = 0
    aborted: int = 0
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)  # of the same requests, names in lower case
    loads: list[str] = field(default_factory=list)
    unloads: list[str] = field(default_factory=list)
    used_after_unload: list[str] = field(default_factory=list)
    url: str = ""

    def restart(self) -> None:
        """A new process: it has forgotten every adapter."""
        self.adapters.clear()

    @asynccontextmanager
    async def served(self, port: int = 0) -> AsyncIterator["FakeVllm"]:
        app = web.Application()
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/load_lora_adapter", self._load)
        app.router.add_post("/v1/unload_lora_adapter", self._unload)
        app.router.add_post("/v1/completions", self._complete)
        app.router.add_post("/v1/embeddings", self._embed)
        app.router.add_post("/v1/chat/completions", self._chat)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        host, bound = runner.addresses[0][:2]
        self.url = f"http://{host}:{bound}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response()

    async def _models(self, request: web.Request) -> web.Response:
        base = {"id": BASE, "object": "model", "root": "/models/base", "parent": None}
        loras = [{"id": n, "object": "model", "root": p, "parent": BASE} for n, p in self.adapters.items()]
        return web.json_response({"object": "list", "data": [base, *loras]})

    async def _load(self, request: web.Request) -> web.Response:
        body = await request.json()
        await asyncio.sleep(self.load_seconds)
        if body["lora_name"] in self.adapters:
            return _error(400, f"The lora adapter '{body['lora_name']}' has already been loaded.")
        self.adapters[body["lora_name"]] = body["lora_path"]
        self.loads.append(body["lora_name"])
        return web.Response(text="Success")

    async def _unload(self, request: web.Request) -> web.Response:
        name = (await request.json())["lora_name"]
        if self.adapters.pop(name, None) is None:
            return _error(404, f"The lora adapter '{name}' cannot be found.")
        self.unloads.append(name)
        return web.Response(text="Success")

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        return self._score(body) if "prompt_logprobs" in body else await self._generate(request, body)

    async def _embed(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.requests.append(body)
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        data = [{"object": "embedding", "index": n, "embedding": [0.5, n]} for n in range(len(texts))]
        usage = {"prompt_tokens": 3, "total_tokens": 3, "completion_tokens": 0}
        answer = {"id": "embd-1", "object": "list", "created": 1, "model": body["model"]}
        return web.json_response({**answer, "data": data, "usage": usage})

    def _score(self, body: dict[str, Any]) -> web.Response:
        model, prompt = body["model"], body["prompt"]
        if not self._knows(model):
            return _error(404, f"The model `{model}` does not exist.")
        assert body["prompt_logprobs"] == 0
        entries: list[Any] = [None]
        entries += [
            {str(token): {"logprob": logprob_of(model, token) + self.drift, "rank": 1}}
            for token in prompt[1:]
        ]
        choice = {
            "index": 0,
            "text": "x",
            "logprobs": None,
            "finish_reason": "length",
            "prompt_logprobs": entries,
        }
        return web.json_response({"id": "cmpl-1", "model": model, "choices": [choice], "usage": {}})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._generate(request, await request.json())

    async def _generate(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        self.requests.append(body)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        model = body["model"]
        if self.refuse is not None:
            return _error(*self.refuse)
        if not self._knows(model):
            return _error(404, f"The model `{model}` does not exist.")
        said = [_text(message["content"]) for message in body.get("messages") or ()] or [
            str(body.get("prompt"))
        ]
        if sum(map(len, said)) // 4 > self.context_tokens:
            return _error(400, f"This model's maximum context length is {self.context_tokens} tokens.")
        form = _Form(body, self.tool_calls, self.finish_reason, self._turn(body))
        self.running += 1
        try:
            if not body.get("stream"):
                await asyncio.sleep(self.seconds_per_chunk * len(answer_of(model)))
                return web.json_response(form.whole())
            return await self._stream(request, form)
        except (asyncio.CancelledError, ConnectionResetError):
            self.aborted += 1
            raise
        finally:
            self.running -= 1

    async def _stream(self, request: web.Request, form: "_Form") -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for chunk in form.first():
            await response.write(_event(chunk))
        for position in range(form.length):
            await asyncio.sleep(self.seconds_per_chunk)
            if position == self.break_after:
                assert request.transport is not None
                request.transport.close()
                return response
            if position == self.error_after:
                error = {"message": "the engine died", "type": "InternalServerError", "code": 500}
                await response.write(_event({"error": error}))
                break
            if not self._knows(form.model):
                self.used_after_unload.append(form.model)
            for chunk in form.piece(position):
                await response.write(_event(chunk))
        else:
            if (form.body.get("stream_options") or {}).get("include_usage"):
                await response.write(_event({**form.head(".chunk"), "choices": [], "usage": form.usage()}))
        await response.write(b"data: [DONE]\n\n")
        return response

    def _turn(self, body: dict[str, Any]) -> Turn | None:
        if body.get("tool_choice") == "none" and self.last:
            return Turn(self.last)
        if body.get("tool_choice") != "auto":
            return None
        number = sum(message["role"] == "assistant" for message in body["messages"])
        return self.turns[number] if number < len(self.turns) else None

    def _knows(self, model: str) -> bool:
        return model == BASE or model in self.adapters


def _error(status: int, message: str) -> web.Response:
    error = {"message": message, "type": "BadRequestError", "param": None, "code": status}
    return web.json_response({"error": error}, status=status)


async def _serve(port: int, seconds_per_chunk: float) -> None:
    async with FakeVllm(seconds_per_chunk=seconds_per_chunk).served(port) as vllm:
        while True:
            await asyncio.sleep(1)
            vllm.requests.clear()  # nobody looks: it runs as a process of its own, maybe for long


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2])))
