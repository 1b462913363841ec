"""An answer on its way to a client that may leave at any moment."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import orjson
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agents.loop import Finished
from gateway.errors import EXPECTED, to_api_error
from gateway.invocation import Answer
from gateway.openai_chat import ChatFormat

T = TypeVar("T")


async def collect(receive: Receive, answer: Answer) -> Finished:
    """The whole answer. Raises what `Answer.finished` raises, and `ClientDisconnect`; then the answer is cancelled."""
    try:
        return await unless_disconnected(receive, answer.finished())
    finally:
        await answer.cancel()


class ChatStream(Response):
    """Server-sent events as OpenAI frames them. An error before the first byte is an ordinary error response."""

    def __init__(self, answer: Answer, form: ChatFormat, headers: dict[str, str]) -> None:
        super().__init__(headers={**headers, "cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self.headers["content-type"] = "text/event-stream; charset=utf-8"
        self._answer = answer
        self._form = form

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it all. A client that leaves cancels the generation, which is recorded; nobody is there to be told."""
        try:
            await unless_disconnected(receive, self._send(scope, receive, send))
        except ClientDisconnect:
            return
        finally:
            await self._answer.cancel()

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def put(*chunks: dict[str, Any], end: bytes = b"") -> None:
            nonlocal started
            if not started:
                started = True
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                chunks = (self._form.first_chunk(), *chunks)
            body = b"".join(b"data: %b\n\n" % orjson.dumps(chunk) for chunk in chunks) + end
            await send({"type": "http.response.body", "body": body, "more_body": not end})

        try:
            async for text in self._answer.deltas():
                await put(self._form.delta_chunk(text))
            finished = (
                await self._answer.finished()
            )  # recorded: only now may the client hear that it is complete
        except EXPECTED as error:
            problem = to_api_error(error)
            if not started:
                await problem.response()(scope, receive, send)
                return
            body = b"data: %b\n\n" % orjson.dumps(problem.body())
            await send({"type": "http.response.body", "body": body, "more_body": False})
            return
        await put(*self._form.last_chunks(finished), end=b"data: [DONE]\n\n")


async def unless_disconnected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client leaves. Raises `ClientDisconnect` then."""
    working = asyncio.ensure_future(work)
    gone = asyncio.create_task(_disconnect(receive))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        gone.cancel()
        await asyncio.wait({working, gone})


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
