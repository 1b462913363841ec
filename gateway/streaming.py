"""An answer on its way to a client that may leave at any moment."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from agents.acting import ToolStarted
from agents.loop import Finished
from agents.model import Delta
from feedback.events import RequestFinished
from gateway.errors import EXPECTED, ApiError, to_api_error
from gateway.invocation import Answer
from gateway.progress import Step

T = TypeVar("T")


async def collect(request: Request, answer: Answer) -> Finished:
    """The whole answer. Raises what `Answer.finished` raises, and `ClientDisconnect`; then the answer is cancelled."""
    try:
        return await unless_disconnected(request.receive, answer.finished())
    finally:
        await answer.cancel()
        request.state.waited = answer.waited


class WholeAnswer(Response):
    """JSON, sent when all of the answer has been made and recorded. Sending it raises what `collect` does."""

    def __init__(
        self, answer: Answer, form: Callable[[RequestFinished], dict[str, Any]], headers: dict[str, str]
    ) -> None:
        super().__init__(headers=headers)
        self._answer = answer
        self._form = form
        self._told = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        await collect(Request(scope, receive), self._answer)
        event = self._answer.event
        assert event is not None, "an answer is finished when it has been recorded, not before"
        await JSONResponse(self._form(event), headers=self._told)(scope, receive, send)


class Form(Protocol):
    """How one API writes a streamed answer: each method gives the server-sent events for what has happened."""

    def start(self) -> bytes:
        """Before anything else."""
        ...

    def piece(self, step: Step) -> bytes:
        """A part of the answer, or of what is done for it; nothing where this API has no place for it."""
        ...

    def finish(self, answer: Finished, event: RequestFinished) -> bytes:
        """What says that the answer is complete; only asked for when it has been recorded."""
        ...

    def fail(self, problem: ApiError, event: RequestFinished | None) -> bytes:
        """What says that there will be no answer; `event` is what was recorded of it, if anything."""
        ...


class EventStream(Response, ABC):
    """Server-sent events, for as long as the client stays."""

    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__(headers={**headers, "cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self.headers["content-type"] = "text/event-stream; charset=utf-8"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it all. A client that leaves ends the answer, which is recorded; nobody is there to be told."""
        try:
            await unless_disconnected(receive, self._send(scope, receive, send))
        except ClientDisconnect:
            return
        finally:
            await self._over()

    @abstractmethod
    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response, its start included."""

    @abstractmethod
    async def _over(self) -> None:
        """Nothing more is sent: what is still being made is in vain."""


class AnswerStream(EventStream):
    """Server-sent events. Until there is something to show, an error is an ordinary error response."""

    def __init__(self, answer: Answer, form: Form, headers: dict[str, str]) -> None:
        super().__init__(headers)
        self._answer = answer
        self._form = form

    async def _over(self) -> None:
        await self._answer.cancel()

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False
        held = self._form.start()

        async def put(body: bytes, *, more: bool = True) -> None:
            nonlocal started
            if not started:
                started = True
                scope["state"]["waited"] = self._answer.waited
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": body, "more_body": more})

        try:
            async for step in self._answer.steps():
                piece = self._form.piece(step)
                held += piece
                if held and (started or _begins(step, piece)):
                    await put(held)
                    held = b""
            finished = await self._answer.finished()
        except EXPECTED as error:
            problem = to_api_error(error)
            if started:
                await put(self._form.fail(problem, self._answer.event), more=False)
            else:
                await problem.response()(scope, receive, send)
            return
        event = self._answer.event
        assert event is not None, "an answer is finished when it has been recorded, not before"
        await put(held + self._form.finish(finished, event), more=False)


def _begins(step: Step, piece: bytes) -> bool:
    """Whether a client is told from here on: of the answer, or of a tool that runs. What was retrieved can wait."""
    if isinstance(step.part, Delta):
        return step.part.final
    return isinstance(step.part, ToolStarted) and bool(piece)


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
