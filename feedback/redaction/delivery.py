"""The one place that every event of a gateway passes on its way to the outbox."""

import asyncio

from pydantic import BaseModel

from feedback.delivery import Delivery
from feedback.outbox import Depth, encoded
from feedback.redaction.redactor import Redactor


class _Redacting:
    """A `Delivery` that hands on what the redactor leaves. In a thread: a long text holds up nobody else's answer."""

    def __init__(self, delivery: Delivery, redactor: Redactor) -> None:
        self._delivery = delivery
        self._redactor = redactor

    @property
    def failures(self) -> int:
        """See `Delivery`."""
        return self._delivery.failures

    async def append(self, event: BaseModel) -> None:
        """See `Delivery`."""
        await self.append_encoded(encoded(event))

    async def append_encoded(self, body: bytes) -> None:
        """See `Delivery`."""
        kept = await asyncio.to_thread(self._redactor.event, body)
        await self._delivery.append_encoded(kept)

    async def check(self) -> None:
        """See `Delivery`."""
        await self._delivery.check()

    def containing(self, text: bytes) -> list[bytes]:
        """See `Delivery`."""
        return self._delivery.containing(text)

    def depth(self) -> Depth:
        """See `Delivery`."""
        return self._delivery.depth()


def redacting(delivery: Delivery, redactor: Redactor) -> Delivery:
    """The delivery, behind the redactor; itself where that looks for nothing: what is off costs nothing."""
    return _Redacting(delivery, redactor) if redactor.on else delivery
