"""Makes one event of each request and rating, and has it on the disk before the answer is complete."""

import logging
from collections import OrderedDict
from typing import NamedTuple

from feedback.events import Rating, RequestFinished
from feedback.outbox import Outbox, OutboxError

_log = logging.getLogger(__name__)


class Recorded(NamedTuple):
    """What a rating needs to know of a request."""

    tenant: str
    agent: str
    episode_id: str
    trace_id: str | None


class Recorder:
    """Appends to the outbox. Remembers the newest `remember` requests, for ratings that overtake the relay."""

    def __init__(self, outbox: Outbox, *, remember: int = 10_000) -> None:
        self._outbox = outbox
        self._remember = remember
        self._recent: OrderedDict[str, Recorded] = OrderedDict()

    async def request(self, event: RequestFinished) -> None:
        """Return when the request is on the disk. Raises `OutboxError`: then the answer must not be given."""
        try:
            await self._outbox.append(event)
        except OutboxError as error:
            _log.error("request %s (%s) was not recorded: %s", event.request_id, event.status, error)
            raise
        self._recent[event.request_id] = Recorded(event.tenant, event.agent, event.episode_id, event.trace_id)
        if len(self._recent) > self._remember:
            self._recent.popitem(last=False)

    async def rating(self, event: Rating) -> None:
        """Return when the rating is on the disk. Raises `OutboxError`: then it must not be acknowledged."""
        await self._outbox.append(event)

    def recent(self, request_id: str, tenant: str) -> Recorded | None:
        """A request of this tenant that was recorded lately by this process."""
        found = self._recent.get(request_id)
        return found if found is not None and found.tenant == tenant else None
