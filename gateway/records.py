"""Where a request is that was answered a moment ago: in the store, or in an outbox on its way there."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from feedback import outboxes
from feedback.delivery import Delivery
from feedback.events import RequestFinished, parse
from feedback.store import Store


class Records:
    """Looks requests up. `siblings` are the outboxes of the other workers, which answered some of them."""

    def __init__(self, store: Store, delivery: Delivery, siblings: Sequence[Path] = ()) -> None:
        self._store = store
        self._delivery = delivery
        self._siblings = siblings

    def find(self, request_id: str, tenant: str) -> RequestFinished | None:
        """The request, if it is this tenant's. Blocks; raises `StoreError`, `OutboxError`."""
        # The store twice: between the first look and the one into the outboxes, the record may have moved on.
        return (
            self._store.request(request_id, tenant)
            or self._waiting(request_id, tenant)
            or self._store.request(request_id, tenant)
        )

    def _waiting(self, request_id: str, tenant: str) -> RequestFinished | None:
        for body in self._mentioning(request_id):
            try:
                event = parse(body)
            except ValidationError:  # a later version's, perhaps; it is the collector's to judge
                continue
            if isinstance(event, RequestFinished) and (event.request_id, event.tenant) == (
                request_id,
                tenant,
            ):
                return event
        return None

    def _mentioning(self, request_id: str) -> Iterator[bytes]:
        text = f'"request_id":"{request_id}"'.encode()
        yield from self._delivery.containing(text)
        for path in self._siblings:
            yield from outboxes.containing(path, text)
