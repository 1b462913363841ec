"""A stand-in for vLLM's HTTP API: the shapes of 0.32, answers made up from the model's name. For unit tests only."""

import asyncio
import hashlib
import json
import sys
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


def prompt_of(messages: list[dict[str, str]]) -> list[int]:
    return [sum(map(ord, message["content"])) % 50_000 for message in messages]


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
        app.router.add_post("/v1/completions", self._score)
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

    async def _score(self, request: web.Request) -> web.Response:
        body = await request.json()
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
        body = await request.json()
        self.requests.append(body)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        model = body["model"]
        if not self._knows(model):
            return _error(404, f"The model `{model}` does not exist.")
        assert body["stream"] and body["logprobs"] and body["return_token_ids"]
        prompt = prompt_of(body["messages"])
        if sum(len(message["content"]) for message in body["messages"]) // 4 > self.context_tokens:
            return _error(400, f"This model's maximum context length is {self.context_tokens} tokens.")
        self.running += 1
        try:
            return await self._stream(request, model, prompt)
        except (asyncio.CancelledError, ConnectionResetError):
            self.aborted += 1
            raise
        finally:
            self.running -= 1

    async def _stream(self, request: web.Request, model: str, prompt: list[int]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)

        async def put(choice: dict[str, Any], **extra: Any) -> None:
            chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": model, **extra}
            await response.write(
                b"data: %b\n\n" % json.dumps({**chunk, "choices": [{"index": 0, **choice}]}).encode()
            )

        first = {"delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        await put(first, prompt_token_ids=prompt)
        pieces = answer_of(model)
        for position, piece in enumerate(pieces):
            await asyncio.sleep(self.seconds_per_chunk)
            if position == self.break_after:
                assert request.transport is not None
                request.transport.close()
                return response
            if not self._knows(model):
                self.used_after_unload.append(model)
            token = token_of(model, position)
            logprobs = {
                "content": [{"token": piece, "logprob": logprob_of(model, token), "top_logprobs": []}]
            }
            last = position == len(pieces) - 1
            await put(
                {
                    "delta": {"content": piece},
                    "logprobs": logprobs,
                    "finish_reason": self.finish_reason if last else None,
                    "token_ids": [token],
                }
            )
        await response.write(b"data: [DONE]\n\n")
        return response

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
