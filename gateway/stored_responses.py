"""Responses that can be looked up: by the tenant that made them, at once and for ever, unless deleted or not stored.

A record is on its way from an outbox to the store when the answer has just been given, and stays in the outbox for as
long as the store takes nothing.
"""

import asyncio
import re

from feedback.events import RequestFinished
from feedback.store import Deletions
from gateway.errors import ApiError
from gateway.records import Records

_ID = re.compile(r"resp_[0-9a-f]{32}")


class StoredResponses:
    """Looks responses up and deletes them. Methods raise `StoreError`, `OutboxError`."""

    def __init__(self, records: Records, deletions: Deletions) -> None:
        self._records = records
        self._deletions = deletions

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
        event = self._records.find(response_id, tenant)
        found = event is not None and event.turn is not None and event.metadata.get("store") != "false"
        return event if found else None


def _unknown(response_id: str) -> ApiError:
    message = f"Response with id {response_id!r} not found: unknown, deleted or not stored."
    return ApiError(404, message, code="response_not_found")
