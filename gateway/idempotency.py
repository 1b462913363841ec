"""The same request, sent again with the same `Idempotency-Key`, gets the answer that it had, and no new work is done.

After https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/: another request under the same key
is 422, one that is still being answered 409 with `Retry-After`. Only whole, successful answers are kept, streams too:
after an error or a broken connection, the next attempt starts anew. A kept stream is replayed at once.
"""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from feedback.store import Claim, Key, Replies, Reply, Slip, StoreError
from gateway.errors import ApiError

HEADER = "idempotency-key"
REPLAYED = "idempotency-replayed"
HOLD_SECONDS = 60.0  # a process that dies leaves a key claimed for so long
_RENEWALS = 180  # an hour: no answer takes so long
_LONGEST = 255
_KEPT_HEADERS = frozenset({"content-type", "x-policy"})

_log = logging.getLogger(__name__)


def whole(_body: bytes) -> bool:
    """A body that is no stream is complete as soon as it has been sent."""
    return True


def ends_with_done(body: bytes) -> bool:
    """Whether a stream of chat or text completions came to its end: after an error it does not say so."""
    return body.endswith(b"data: [DONE]\n\n") and b'\ndata: {"error":' not in body[-4_096:]


def ends_with_response(body: bytes) -> bool:
    """Whether a stream of typed events (`/v1/responses`) came to its end: its last event says how it ended."""
    last = body[body.rfind(b"\n\nevent: ") + 2 :]  # JSON has no bare line break: never within an event's data
    return last.startswith((b"event: response.completed\n", b"event: response.incomplete\n"))


class Idempotency:
    """What has been claimed and kept, for one gateway. `max_bytes` bounds a kept answer."""

    def __init__(self, replies: Replies, *, max_bytes: int) -> None:
        self._replies = replies
        self._max_bytes = max_bytes

    async def once(
        self,
        request: Request,
        caller: Key,
        data: bytes,
        answer: Callable[[], Awaitable[Response]],
        *,
        complete: Callable[[bytes], bool] = whole,
    ) -> Response:
        """The answer, or a replay of it. Without the header, nothing but `answer()`.

        `data` is the request's body; `complete` tells from the whole body of a successful answer whether it is to be
        kept. Raises what `answer` raises, `ApiError` (400, 409, 422) and `StoreError`.
        """
        name = request.headers.get(HEADER)
        if name is None:
            return await answer()
        digest = hashlib.sha256(f"{request.method} {request.url.path}\n".encode() + data).hexdigest()
        slip = Slip(caller.tenant, caller.id, _checked(name))
        found = await asyncio.to_thread(self._replies.claim, slip, digest)
        if not isinstance(found, Claim):
            return _replay(found)
        held = _Held(self._replies, found)
        try:
            response = await answer()
        except BaseException:
            await asyncio.shield(held.release())
            raise
        return _Kept(response, held, complete, self._max_bytes)


class _Held:
    """A claim that is renewed for as long as the request is being answered."""

    def __init__(self, replies: Replies, claim: Claim) -> None:
        self._replies = replies
        self._claim = claim
        self._renewing = asyncio.create_task(self._renew())

    async def finish(self, reply: Reply) -> None:
        """Keep the answer. Where that fails, the client has its answer all the same."""
        await self._end(self._replies.finish, self._claim, reply)

    async def release(self) -> None:
        """Let the next one answer."""
        await self._end(self._replies.release, self._claim)

    async def _end(self, act: Callable[..., Any], *arguments: Any) -> None:
        self._renewing.cancel()
        try:
            await asyncio.to_thread(act, *arguments)
        except StoreError as error:
            _log.error("the Idempotency-Key of a request stays claimed for a minute: %s", error)

    async def _renew(self) -> None:
        for _ in range(_RENEWALS):
            await asyncio.sleep(HOLD_SECONDS / 3)
            try:
                await asyncio.to_thread(self._replies.renew, self._claim)
            except StoreError as error:
                _log.warning("the claim of an Idempotency-Key was not renewed: %s", error)


class _Kept(Response):
    """Sends another response, and keeps it before its end goes out: who has the end can have it again."""

    def __init__(
        self, response: Response, held: _Held, complete: Callable[[bytes], bool], max_bytes: int
    ) -> None:
        super().__init__()
        self.raw_headers = response.raw_headers
        self.status_code = response.status_code
        self._response = response
        self._held = held
        self._complete = complete
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        status, headers = 0, dict[str, str]()
        body, size, ended = list[bytes](), 0, False

        async def keep(message: Message) -> None:
            nonlocal status, headers, size, ended
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = _kept_headers(message, scope)
            else:
                size += len(message.get("body", b""))
                body.append(message.get("body", b"")) if size <= self._max_bytes else body.clear()
                if not message.get("more_body", False):
                    ended = True
                    await self._end(status, headers, b"".join(body) if size <= self._max_bytes else None)
            await send(message)

        try:
            await self._response(scope, receive, keep)
        finally:
            if not ended:
                await asyncio.shield(self._held.release())

    async def _end(self, status: int, headers: dict[str, str], body: bytes | None) -> None:
        if status < 300 and (body is None or self._complete(body)):
            await self._held.finish(Reply(status, headers, body))
        else:
            await self._held.release()


def _kept_headers(message: Message, scope: Scope) -> dict[str, str]:
    pairs = ((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in message["headers"])
    state = scope.get("state", {})
    ids = {
        f"x-{name.replace('_', '-')}": state[name] for name in ("request_id", "episode_id") if name in state
    }
    return {name: value for name, value in pairs if name in _KEPT_HEADERS} | ids


def _checked(name: str) -> str:
    if 1 <= len(name) <= _LONGEST and name.isascii() and name.isprintable():
        return name
    message = f"{HEADER} must be 1 to {_LONGEST} printable ASCII characters, e.g. a UUID."
    raise ApiError(400, message, code="invalid_value", param=HEADER)


def _replay(found: Reply | str) -> Response:
    if isinstance(found, Reply) and found.body is not None:
        return Response(found.body, found.status, {**found.headers, REPLAYED: "true"})
    if isinstance(found, Reply):
        message = "This request was answered, but the answer was too large to be kept. Use another key to ask again."
        raise ApiError(409, message, code="idempotent_answer_not_kept", param=HEADER)
    if found == "in progress":
        message = "This request is being answered. Retry shortly for its answer."
        raise ApiError(409, message, code="idempotent_request_in_progress", param=HEADER, retry_after=1)
    message = (
        "This key came with another request before. Use a new key for every request, and the same to retry."
    )
    raise ApiError(422, message, code="idempotency_key_reused", param=HEADER)
