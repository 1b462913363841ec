"""A stand-in for the gateway's public API: chat completions that go as they are told to, and ratings that are kept."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

Way = Literal["good", "truncated", "mixed", "refused", "error event", "cut"]


@dataclass
class FakeGateway:
    """`ways` are gone in turn; `answer` makes the text for a question."""

    ways: tuple[Way, ...] = ("good",)
    answer: Callable[[str], str] = lambda _: '{"sql": "SELECT 1"}'
    chats: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    ratings: list[dict[str, Any]] = field(default_factory=list)
    raters: list[str] = field(default_factory=list)
    refuse_ratings: bool = False
    url: str = ""

    @asynccontextmanager
    async def served(self) -> AsyncIterator["FakeGateway"]:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/feedback", self._feedback)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/v1"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _feedback(self, request: web.Request) -> web.Response:
        if self.refuse_ratings:
            return web.json_response({"error": {"message": "no such request"}}, status=404)
        self.ratings.append(await request.json())
        self.raters.append(_key(request))
        return web.json_response({"id": "x"}, status=201)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        way = self.ways[len(self.chats) % len(self.ways)]
        self.chats.append(body)
        number = len(self.chats)
        self.keys.append(_key(request))
        await asyncio.sleep(0.01)
        if way == "refused":
            return web.json_response({"error": {"message": "overloaded", "code": "x"}}, status=503)
        text = self.answer(body["messages"][-1]["content"])
        if not body.get("stream"):
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            return web.json_response({**_head(number), "object": "chat.completion", "choices": [choice]})
        return await self._stream(request, way, text, number)

    async def _stream(self, request: web.Request, way: Way, text: str, number: int) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream", "x-policy": "a@1"})
        await response.prepare(request)

        async def put(data: dict[str, Any]) -> None:
            await response.write(f"data: {json.dumps(data)}\n\n".encode())

        def chunk(content: str, finish: str | None, policy: str) -> dict[str, Any]:
            choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
            head = {**_head(number), "object": "chat.completion.chunk", "choices": [choice]}
            return {**head, "system_fingerprint": policy}

        await put(chunk(text, None, "a@1"))
        if way == "cut":
            assert request.transport is not None
            request.transport.close()
            return response
        if way == "error event":
            await put({"error": {"message": "the model server failed", "code": "upstream_unavailable"}})
        elif way != "truncated":
            await put(chunk("", "stop", "a@2" if way == "mixed" else "a@1"))
        await response.write(b"data: [DONE]\n\n")
        return response


def _key(request: web.Request) -> str:
    return request.headers["authorization"].removeprefix("Bearer ")


def _head(number: int) -> dict[str, Any]:
    return {"id": f"chatcmpl-{number}", "created": 0, "model": "sql-analyst", "system_fingerprint": "a@1"}
