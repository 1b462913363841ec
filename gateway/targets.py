"""What a rating is about: found wherever it is on its way to the store, or taken on trust where it may still come."""

import asyncio
import re
import time
import uuid
from typing import NamedTuple

from agents.metrics import Level
from feedback.events import RequestFinished
from gateway.errors import ApiError
from gateway.opinion import About
from gateway.recorder import Recorder
from gateway.records import Records
from gateway.telemetry import call_spans

EARLY_SECONDS = 3_600.0  # for so long a request that was given an id may not have been recorded yet
_OURS = re.compile(r"(?:chatcmpl-|resp_|cmpl-|embd-)([0-9a-f]{32})")
_TRACE = re.compile(r"(?:tr-)?([0-9a-f]{32})")  # MLflow puts `tr-` before OpenTelemetry's


class Target(NamedTuple):
    """What is rated. `request_id` None: the episode. `agent` None: the request has not been recorded yet.

    `told`: others told of it, and gave the agent its name.
    """

    request_id: str | None
    call: int | None
    episode_id: str | None
    agent: str | None
    trace_id: str | None = None
    told: bool = False

    @property
    def level(self) -> Level:
        """At which level a metric has to be declared for it."""
        if self.request_id is None:
            return "episode"
        return "request" if self.call is None else "call"


class Targets:
    """Finds them. Raises `ApiError` (404) for what there is not or is another tenant's; `StoreError`, `OutboxError`."""

    def __init__(self, recorder: Recorder, records: Records) -> None:
        self._recorder = recorder
        self._records = records

    async def find(self, about: About, tenant: str) -> Target:
        """What the client means."""
        if about.episode_id is not None:
            return await self._episode(about.episode_id, about.param, tenant)
        if about.request_id is not None:
            return await self._request(about.request_id, about.call, about.param, tenant)
        if about.trace is not None:
            return await self._of_trace(about.trace, about.span, about.param, tenant)
        return await self._of_span(str(about.span), about.param, tenant)

    async def _request(self, request_id: str, call: int | None, param: str, tenant: str) -> Target:
        recent = self._recorder.recent(request_id, tenant)
        if recent is not None and call is None:
            return Target(request_id, None, recent.episode_id, recent.agent, recent.trace_id)
        found = await asyncio.to_thread(self._records.find, request_id, tenant)
        if found is not None:
            return _of(found, call)
        if is_early(request_id):
            return Target(request_id, call, None, None)
        message = f"There is no request {request_id!r}. Send the `id` of a completion that this gateway gave."
        raise ApiError(404, message, code="request_not_found", param=param)

    async def _episode(self, episode_id: str, param: str, tenant: str) -> Target:
        found = await asyncio.to_thread(self._records.newest, "episode_id", episode_id, tenant)
        if found is None:
            last = await asyncio.to_thread(self._recorder.newest, "episode_id", episode_id, tenant)
            recent = self._recorder.recent(last, tenant) if last is not None else None
            if recent is not None:
                return Target(None, None, episode_id, recent.agent, recent.trace_id)
            message = f"There is no episode {episode_id!r}. Send the `x-episode-id` of an answer."
            raise ApiError(404, message, code="episode_not_found", param=param)
        told = found.origin == "otlp"
        return Target(None, None, episode_id, found.agent, found.trace_id, told)

    async def _of_trace(self, trace: str, span: str | None, param: str, tenant: str) -> Target:
        """The last request of a trace, which has the result; or what has the span: a request, or a call in the last."""
        ids = _TRACE.fullmatch(trace)
        if ids is None and span is None:
            return await self._request(trace, None, param, tenant)
        if ids is None:
            last = await asyncio.to_thread(self._records.find, trace, tenant)
        else:
            last = await asyncio.to_thread(self._records.newest, "trace_id", ids[1], tenant)
            later = await self._between(ids[1], last, tenant)
            if later is not None and span is None:
                return await self._request(later, None, param, tenant)
        if last is None and span is not None:
            return await self._of_span(span, param, tenant)
        if last is None:
            message = (
                f"There is no request of the trace {trace!r}. Send the trace id of an answer's `traceparent`."
            )
            raise ApiError(404, message, code="trace_not_found", param=param)
        if span is None or span == last.span_id:
            return _of(last, None)
        spans = call_spans(last)
        return _of(last, spans.index(span)) if span in spans else await self._of_span(span, param, tenant)

    async def _between(self, trace_id: str, last: RequestFinished | None, tenant: str) -> str | None:
        """The last request of a trace, if it has left the outbox and is not in the store yet: on a topic."""
        recent = await asyncio.to_thread(self._recorder.newest, "trace_id", trace_id, tenant)
        if recent is None or (last is not None and last.request_id == recent):
            return None
        found = await asyncio.to_thread(self._records.find, recent, tenant)
        return recent if found is None else None

    async def _of_span(self, span: str, param: str, tenant: str) -> Target:
        found = await asyncio.to_thread(self._records.of_span, span, tenant)
        if found is None:
            recent = await asyncio.to_thread(self._recorder.recent_span, span, tenant)
            if recent is not None:
                return await self._request(recent, None, param, tenant)
            message = (
                f"There is no request with the span {span!r}. Send the span id of an answer's `traceparent`."
            )
            raise ApiError(404, message, code="span_not_found", param=param)
        return _of(found, None)


def is_early(request_id: str) -> bool:
    """Whether it may be an id that this gateway gave lately, for a request that has yet to be recorded."""
    ours = _OURS.fullmatch(request_id)
    if ours is None:
        return False
    made = uuid.UUID(ours[1])
    age = time.time() - (made.int >> 80) / 1_000  # RFC 9562: the first 48 bits are Unix time in milliseconds
    return made.version == 7 and 0 <= age <= EARLY_SECONDS


def _of(found: RequestFinished, call: int | None) -> Target:
    if call is not None and call >= len(found.calls):
        count = len(found.calls)
        message = (
            f"The request {found.request_id!r} has {count} calls, counted from 0: there is no call {call}."
        )
        raise ApiError(404, message, code="call_not_found", param="call")
    told = found.origin == "otlp"
    return Target(found.request_id, call, found.episode_id, found.agent, found.trace_id, told)
