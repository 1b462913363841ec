"""W3C trace context, https://www.w3.org/TR/trace-context/: a request continues its caller's trace, or begins one.

Span ids are derived from the request's id, not drawn. So whoever knows a request's id and trace knows its span: a
rating that comes days later is put on the span that it is about, and the model server is told of a span that has not
been made yet.
"""

import random
import re
from collections.abc import Iterable
from typing import NamedTuple

from opentelemetry.trace import TraceState

from feedback.events import span_id

_TRACEPARENT = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
_SAMPLED = 0x01
_KNOWN_FLAGS = 0x03  # sampled, and level 2's "the trace id is random"; unknown ones must not be passed on


class Trace(NamedTuple):
    """The place of one span: its trace, itself, and what it is part of. All ids in lower-case hexadecimal."""

    trace_id: str
    span_id: str
    parent_id: str | None = None
    flags: int = 0
    state: str = ""

    @property
    def sampled(self) -> bool:
        """Whether the spans of this trace are to be exported."""
        return bool(self.flags & _SAMPLED)

    @property
    def traceparent(self) -> str:
        """The header that makes the receiver's spans children of this one."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"

    def headers(self) -> dict[str, str]:
        """What goes with a request to another server."""
        headers = {"traceparent": self.traceparent}
        return {**headers, "tracestate": self.state} if self.state else headers

    def child(self, name: str) -> "Trace":
        """A part of this span; `name` is unique among its parts."""
        return self._replace(span_id=span_id(f"{self.span_id}/{name}"), parent_id=self.span_id)


def begin(request_id: str, headers: Iterable[tuple[bytes, bytes]], *, share: float = 0.0) -> Trace:
    """The span of a request, in the caller's trace where `headers` (as ASGI has them) say so, else in a new one.

    A malformed or repeated `traceparent` counts as none. The caller decides whether its trace is sampled; of those that
    begin here, `share` (0 to 1) are.
    """
    found = [item for item in headers if item[0] in (b"traceparent", b"tracestate")]
    parents = [value for name, value in found if name == b"traceparent"]
    match = _TRACEPARENT.fullmatch(parents[0].strip(b" \t")) if len(parents) == 1 else None
    if match is None or (match[1] == b"00" and match[5]):
        trace_id = f"{random.getrandbits(128) or 1:032x}"  # an id need not be hard to guess
        # By the id's lower half, as OpenTelemetry's TraceIdRatioBased decides: every service comes to the same.
        sampled = share > 0 and int(trace_id[16:], 16) < share * 2**64
        return Trace(trace_id, span_id(request_id), None, _SAMPLED if sampled else 0)
    states = [value.decode("latin-1") for name, value in found if name == b"tracestate"]
    return Trace(
        match[2].decode(),
        span_id(request_id),
        match[3].decode(),
        int(match[4], 16) & _KNOWN_FLAGS,
        TraceState.from_header(states).to_header() if states else "",
    )


def request_trace(trace_id: str, request_id: str) -> Trace:
    """The span of a request that was answered before, by what is recorded of it."""
    return Trace(trace_id, span_id(request_id), flags=_SAMPLED)
