"""Responses in the background: their clients are answered at once, and look them up or cancel them at any worker.

Such a response is made as any other is, for a client that stays until somebody cancels it. While nothing has been
recorded, a row in the store tells of it, held by the worker that makes it: see `feedback.store.background`.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Scope

from feedback.events import RequestFinished
from feedback.outbox import OutboxError
from feedback.redaction import Redactor
from feedback.store import BackgroundResponses, Key, StoreError, Unfinished
from gateway.errors import EXPECTED, ApiError
from gateway.pool import Pool
from gateway.records import Records
from gateway.stored_responses import StoredResponses

HOLD = timedelta(seconds=60)  # then its worker is taken for dead
KEEP = timedelta(days=1)  # so long it can be looked up that a response was lost, at least
_RENEW_SECONDS = 1.0
_CANCEL_SECONDS, _LOOK_SECONDS = 5.0, 0.1

_log = logging.getLogger(__name__)


class Background:
    """Those of one worker, `most` at a time."""

    def __init__(
        self,
        unfinished: BackgroundResponses,
        responses: StoredResponses,
        records: Records,
        pool: Pool,
        *,
        most: int,
        redactor: Redactor,
    ) -> None:
        self._unfinished = unfinished
        self._responses = responses
        self._records = records
        self._pool = pool
        self._most = max(1, most)
        self._redactor = redactor
        self._stops: dict[str, asyncio.Event] = {}  # by id, of what has been begun and is not over
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._landing: set[str] = set()  # over and recorded, and maybe not in the store yet

    async def start(
        self,
        request: Request,
        caller: Key,
        shown: dict[str, Any],
        begin: Callable[[], Awaitable[Response]],
    ) -> Response:
        """Answer with `shown`, the response in progress, and send what `begin` gives to nobody.

        Raises `ApiError` (429), `StoreError` and what `begin` raises: then there is nothing to look up.
        """
        self._pool.check_room()
        if len(self._stops) >= self._most:
            message = f"{len(self._stops)} responses are being made in the background, which is the limit. Retry later."
            raise ApiError(429, message, code="too_many_requests", retry_after=1)
        response_id = shown["id"]
        stop = self._stops[response_id] = asyncio.Event()
        try:
            work = await begin()
        except BaseException:
            del self._stops[response_id]
            raise
        try:
            await asyncio.to_thread(self._add, response_id, caller.tenant, shown)
        except BaseException:
            stop.set()  # what has begun is ended by its own rules: recorded as cancelled, its limits settled
            raise
        finally:
            make = self._make(response_id, caller.tenant, work, request.scope, stop)
            task = self._tasks[response_id] = request.state.lasting = asyncio.create_task(make)
            task.add_done_callback(partial(self._over, response_id))
        told = {name: value for name, value in work.headers.items() if name.startswith("x-")}
        return JSONResponse(shown, headers=told)

    def _add(self, response_id: str, tenant: str, shown: dict[str, Any]) -> None:
        self._unfinished.add(response_id, tenant, self._redactor.response(shown, tenant))

    async def _make(
        self, response_id: str, tenant: str, work: Response, scope: Scope, stop: asyncio.Event
    ) -> None:
        async def receive() -> Message:
            await stop.wait()
            return {"type": "http.disconnect"}

        with suppress(*EXPECTED):  # recorded: who looks it up is told
            await work(scope, receive, _to_nobody)
        # What could not be recorded is held no longer, and so is soon shown as lost.
        with suppress(StoreError, OutboxError):
            if await asyncio.to_thread(self._records.find, response_id, tenant) is not None:
                self._landing.add(response_id)

    def _over(self, response_id: str, task: asyncio.Task[None]) -> None:
        del self._stops[response_id], self._tasks[response_id]
        if not task.cancelled() and (defect := task.exception()) is not None:
            _log.error("defect while making %s in the background", response_id, exc_info=defect)

    async def cancel(self, response_id: str, tenant: str) -> RequestFinished | Unfinished:
        """The response, when it has been cancelled; as it is where it was over, or its worker takes long.

        Raises `ApiError` (404), `StoreError`, `OutboxError`.
        """
        found = await self._responses.find(response_id, tenant)
        if isinstance(found, RequestFinished) or found.lost:
            return found
        await asyncio.to_thread(self._unfinished.cancel, response_id, tenant)
        if response_id in self._stops:
            self._stops[response_id].set()
        until = time.monotonic() + _CANCEL_SECONDS
        while isinstance(found, Unfinished) and time.monotonic() < until:
            await asyncio.sleep(_LOOK_SECONDS)
            found = await self._responses.find(response_id, tenant)
        return found

    async def run(self) -> None:
        """Hold what is being made, and hear of cancellations, until cancelled."""
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            held = {*self._tasks, *self._landing}
            if not held:
                continue
            try:
                left = await asyncio.to_thread(self._unfinished.renew, held)
            except StoreError as error:
                _log.warning("%d responses in the background were not held for longer: %s", len(held), error)
                continue
            self._landing -= held - left.keys()
            for response_id, cancelled in left.items():
                if cancelled and response_id in self._stops:
                    self._stops[response_id].set()

    async def ended(self) -> None:
        """Return when all are over: after what makes them has been drained."""
        if self._tasks:
            await asyncio.wait(set(self._tasks.values()))


async def _to_nobody(_message: Message) -> None:
    pass
