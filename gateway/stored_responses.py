"""Responses that can be looked up: by the tenant that made them, at once and for ever, unless deleted or not stored.

A record is on its way from an outbox to the store when the answer has just been given, and stays in the outbox for as
long as the store takes nothing.
"""

import asyncio
import re

from feedback.events import RequestFinished
from feedback.store import BackgroundResponses, Deletions, Unfinished
from gateway.errors import ApiError
from gateway.openai_response import unfinished_object
from gateway.records import Records

_ID = re.compile(r"resp_[0-9a-f]{32}")


class StoredResponses:
    """Looks responses up and deletes them. Methods raise `StoreError`, `OutboxError`."""

    def __init__(self, records: Records, deletions: Deletions, background: BackgroundResponses) -> None:
        self._records = records
        self._deletions = deletions
        self._background = background

    async def find(self, response_id: str, tenant: str) -> RequestFinished | Unfinished:
        """The response. Raises `ApiError` (404): unknown, deleted, made with `store: false`, or another tenant's."""
        found = await asyncio.to_thread(self._find, response_id, tenant)
        if found is None:
            raise _unknown(response_id)
        return found

    async def get(self, response_id: str, tenant: str) -> RequestFinished:
        """What was recorded. Raises `ApiError`: 404 as `find` does, and when it was lost; 409 while it is made."""
        found = await self.find(response_id, tenant)
        if isinstance(found, RequestFinished):
            return found
        raise _unknown(response_id) if found.lost else _in_progress(response_id)

    async def previous(self, response_id: str, tenant: str) -> RequestFinished:
        """The response that a new one continues. Raises `ApiError` (400): not to be found, or it has no answer."""
        found = await asyncio.to_thread(self._find, response_id, tenant)
        if found is None:
            message = f"Previous response with id {response_id!r} not found: unknown, deleted or not stored."
            raise ApiError(400, message, code="previous_response_not_found", param="previous_response_id")
        if isinstance(found, RequestFinished) and found.status == "completed":
            return found
        status = unfinished_object(found)["status"] if isinstance(found, Unfinished) else found.status
        message = f"Response {response_id!r} is {status}: it has no answer from which to go on."
        raise ApiError(400, message, code="previous_response_not_completed", param="previous_response_id")

    async def delete(self, response_id: str, tenant: str, by: str) -> None:
        """Nobody can look it up or continue it from now on. Raises `ApiError`: 404 as `find`, 409 while it is made."""
        found = await self.find(response_id, tenant)
        if isinstance(found, Unfinished) and not found.lost:
            raise _in_progress(response_id)
        if not await asyncio.to_thread(self._deletions.add, response_id, tenant=tenant, by=by):
            raise _unknown(response_id)

    def _find(self, response_id: str, tenant: str) -> RequestFinished | Unfinished | None:
        if not _ID.fullmatch(response_id) or self._deletions.has(response_id, tenant):
            return None
        event = self._recorded(response_id, tenant)
        if event is not None:
            return event
        unfinished = self._background.find(response_id, tenant)
        if unfinished is not None and not unfinished.lost:
            return unfinished
        # Once more: between the two looks it may have been recorded, and what is recorded is not unfinished any more.
        return self._recorded(response_id, tenant) or unfinished

    def _recorded(self, response_id: str, tenant: str) -> RequestFinished | None:
        event = self._records.find(response_id, tenant)
        if event is None or event.turn is None or event.turn.parameters.get("store") is False:
            return None
        return event


def _in_progress(response_id: str) -> ApiError:
    message = f"Response {response_id!r} is in progress: wait for its end, or cancel it first."
    return ApiError(409, message, code="response_in_progress", param="response_id")


def _unknown(response_id: str) -> ApiError:
    message = f"Response with id {response_id!r} not found: unknown, deleted or not stored."
    return ApiError(404, message, code="response_not_found")
