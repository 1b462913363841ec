"""Responses that can be looked up: by the tenant that made them, at once and for ever, unless deleted or not stored.

A record is on its way from the outbox to the store when the answer has just been given, and stays in the outbox for as
long as the store takes nothing.
"""

import asyncio
import re

from pydantic import ValidationError

from feedback.events import RequestFinished, parse
from feedback.outbox import Outbox
from feedback.store import Deletions, Store
from gateway.errors import ApiError

_ID = re.compile(r"resp_[0-9a-f]{32}")


class StoredResponses:
    """Looks responses up and deletes them. Methods raise `StoreError`, `OutboxError`."""

    def __init__(self, store: Store, outbox: Outbox) -> None:
        self._store = store
        self._outbox = outbox
        self._deletions = Deletions(store)

    async def get(self, response_id: str, tenant: str) -> RequestFinished:
        """The response. Raises `ApiError` (404): unknown, deleted, made with `store: false`, or another tenant's."""
        event = await asyncio.to_thread(self._find, response_id, tenant)
        if event is None:
            raise _unknown(response_id)
        return event

    async def previous(self, response_id: str, tenant: str) -> RequestFinished:
        """The response that a new one continues. Raises `ApiError` (400): not to be found, or it has no answer."""
        event = await asyncio.to_thread(self._find, response_id, tenant)
        if event is None:
            message = f"Previous response with id {response_id!r} not found: unknown, deleted or not stored."
            raise ApiError(400, message, code="previous_response_not_found", param="previous_response_id")
        if event.status != "completed":
            message = f"Response {response_id!r} is {event.status}: it has no answer from which to go on."
            raise ApiError(400, message, code="previous_response_not_completed", param="previous_response_id")
        return event

    async def delete(self, response_id: str, tenant: str, by: str) -> None:
        """Nobody can look it up or continue it from now on. Raises `ApiError` (404) where `get` does."""
        await self.get(response_id, tenant)
        if not await asyncio.to_thread(self._deletions.add, response_id, tenant=tenant, by=by):
            raise _unknown(response_id)

    def _find(self, response_id: str, tenant: str) -> RequestFinished | None:
        if not _ID.fullmatch(response_id) or self._deletions.has(response_id, tenant):
            return None
        # The store twice: between the first look and the one into the outbox, the record may have moved on.
        event = (
            self._store.request(response_id, tenant)
            or self._waiting(response_id, tenant)
            or self._store.request(response_id, tenant)
        )
        found = event is not None and event.turn is not None and event.metadata.get("store") != "false"
        return event if found else None

    def _waiting(self, response_id: str, tenant: str) -> RequestFinished | None:
        for body in self._outbox.containing(f'"request_id":"{response_id}"'.encode()):
            try:
                event = parse(body)
            except ValidationError:  # a later version's, perhaps; it is the collector's to judge
                continue
            if isinstance(event, RequestFinished) and (event.request_id, event.tenant) == (
                response_id,
                tenant,
            ):
                return event
        return None


def _unknown(response_id: str) -> ApiError:
    message = f"Response with id {response_id!r} not found: unknown, deleted or not stored."
    return ApiError(404, message, code="response_not_found")
