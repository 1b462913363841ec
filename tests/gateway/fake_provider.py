"""A stand-in for another provider's API, on a real socket: OpenAI's `/v1/chat/completions`, whole and streamed."""

import asyncio
import json
import re
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

PIECES = ("There ", "are ", "12.")
TOOL_CALL: dict[str, Any] = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "count_claims", "arguments": '{"status": "open"}'},
}
USAGE = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}


@dataclass
class FakeProvider:
    """How it should behave, and what has been asked of it. It answers with a tool call where tools are offered."""

    tool_calls: int = 1  # of which all have the same id
    failures: deque[tuple[int, str]] = field(default_factory=deque)  # status and message of the next answers
    headers: dict[str, str] = field(default_factory=dict)  # of failures
    seconds_per_chunk: float = 0.001
    content: str = "".join(PIECES)
    break_after: int | None = None  # chunks, then the connection is cut
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    running: int = 0
    url: str = ""

    @asynccontextmanager
    async def served(self) -> AsyncIterator["FakeProvider"]:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/v1"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        self.keys.append(request.headers.get("authorization", ""))
        if self.failures:
            status, message = self.failures.popleft()
            error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
            return web.json_response({"error": error}, status=status, headers=self.headers)
        self.running += 1
        try:
            return await self._stream(request, body) if body.get("stream") else await self._whole(body)
        finally:
            self.running -= 1

    async def _whole(self, body: dict[str, Any]) -> web.Response:
        await asyncio.sleep(self.seconds_per_chunk * len(PIECES))
        message: dict[str, Any] = {"role": "assistant", "content": self.content, "refusal": None}
        reason = "stop"
        if body.get("tools"):
            message, reason = (
                {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL] * self.tool_calls},
                "tool_calls",
            )
        choices = [
            {"index": index, "message": message, "finish_reason": reason, "logprobs": None}
            for index in range(body.get("n") or 1)
        ]
        return web.json_response(
            {**_head(body, "chat.completion"), "choices": choices, "usage": USAGE},
            headers={"x-own": "secret"},
        )

    async def _stream(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": piece} for piece in re.findall(r"\S+\s*", self.content)]
        reason = "stop"
        if body.get("tools"):
            opening = {**TOOL_CALL, "function": {"name": "count_claims", "arguments": ""}}
            parts = [{"index": 0, "function": {"arguments": part}} for part in ('{"status"', ': "open"}')]
            deltas = [
                {"role": "assistant", "content": None, "tool_calls": [{"index": 0, **opening}]},
                *({"tool_calls": [part]} for part in parts),
            ]
            reason = "tool_calls"
        steps: list[tuple[dict[str, Any], str | None]] = [*((delta, None) for delta in deltas), ({}, reason)]
        for position, (delta, finish) in enumerate(steps):
            if position == self.break_after:
                assert request.transport is not None
                request.transport.close()
                return response
            await asyncio.sleep(self.seconds_per_chunk)
            choices = [
                {"index": index, "delta": delta, "finish_reason": finish, "logprobs": None}
                for index in range(body.get("n") or 1)
            ]
            await _put(response, {**_head(body, "chat.completion.chunk"), "choices": choices})
        if (body.get("stream_options") or {}).get("include_usage"):
            await _put(response, {**_head(body, "chat.completion.chunk"), "choices": [], "usage": USAGE})
        await response.write(b"data: [DONE]\n\n")
        return response


def _head(body: dict[str, Any], kind: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-theirs",
        "object": kind,
        "created": 1_700_000_000,
        "model": f"{body['model']}-0613",
    }


async def _put(response: web.StreamResponse, chunk: dict[str, Any]) -> None:
    await response.write(b"data: %b\n\n" % json.dumps(chunk).encode())
