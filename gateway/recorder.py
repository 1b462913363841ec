"""Makes one event of each request and rating, and has it on the disk before the answer is complete."""

import logging
from collections import OrderedDict
from collections.abc import Coroutine
from typing import Any, Literal, NamedTuple

from feedback.delivery import Delivery
from feedback.events import Erased, Rating, RequestFinished, span_id
from feedback.outbox import OutboxError

_log = logging.getLogger(__name__)


class Recorded(NamedTuple):
    """What a rating needs to know of a request."""

    tenant: str
    agent: str
    episode_id: str
    trace_id: str | None


class Recorder:
    """Hands events to the delivery. Remembers the newest `remember` requests, for ratings that overtake the relay.

    `recorded` counts the requests.
    """

    def __init__(self, delivery: Delivery, *, remember: int = 10_000) -> None:
        self.recorded = 0
        self._delivery = delivery
        self._remember = remember
        self._recent: OrderedDict[str, Recorded] = OrderedDict()

    async def request(self, event: RequestFinished) -> None:
        """Return when the request is on the disk. Raises `OutboxError`: then the answer must not be given."""
        about = Recorded(event.tenant, event.agent, event.episode_id, event.trace_id)
        await self._append(self._delivery.append(event), event.request_id, about)

    async def encoded(self, event: bytes, request_id: str, about: Recorded) -> None:
        """As `request`, for a `RequestFinished` that is JSON already."""
        await self._append(self._delivery.append_encoded(event), request_id, about)

    async def _append(self, append: Coroutine[Any, Any, None], request_id: str, about: Recorded) -> None:
        try:
            await append
        except OutboxError as error:
            _log.error("request %s was not recorded: %s", request_id, error)
            raise
        self.recorded += 1
        self._recent[request_id] = about
        if len(self._recent) > self._remember:
            self._recent.popitem(last=False)

    async def rating(self, event: Rating) -> None:
        """Return when the rating is on the disk. Raises `OutboxError`: then it must not be acknowledged."""
        await self._delivery.append(event)

    async def erasure(self, event: Erased) -> None:
        """Return when the erasure is on the disk. Raises `OutboxError`: then it must not be acknowledged."""
        await self._delivery.append(event)
        if event.request_id is not None:
            self._recent.pop(event.request_id, None)

    def newest(self, group: Literal["episode_id", "trace_id"], name: str, tenant: str) -> str | None:
        """The id of the last such request in an episode, or in a trace. Looks at every one: not for the event loop."""
        return next(
            (
                request_id
                for request_id, about in reversed(list(self._recent.items()))
                if getattr(about, group) == name and about.tenant == tenant
            ),
            None,
        )

    def recent_span(self, span: str, tenant: str) -> str | None:
        """The id of such a request by its span's. Looks at every one: not for the event loop."""
        return next(
            (name for name in list(self._recent) if span_id(name) == span and self.recent(name, tenant)), None
        )

    def recent(self, request_id: str, tenant: str) -> Recorded | None:
        """A request of this tenant that was recorded lately by this process."""
        found = self._recent.get(request_id)
        return found if found is not None and found.tenant == tenant else None
