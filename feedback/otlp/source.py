"""Who tells, the ids that follow from what is told, and what became of it."""

import hashlib
import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from feedback.events import Rating, RequestFinished

PREFIX = "otlp-"
# The ids that `feedback.events.new_id` makes for answers, and those that are made here.
_OURS = re.compile(
    r"(chatcmpl-|resp_|cmpl-|embd-)[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}|otlp-.*", re.DOTALL
)
_SHORT = 200  # characters that a `ShortText` has room for
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Source(NamedTuple):
    """Whose the records are, and when they came: none may claim a later time, or it would outlive its erasure."""

    tenant: str
    caller: str
    received: datetime

    def time(self, nanoseconds: int) -> datetime:
        """A Unix time; when the records came, where it is not given or later."""
        return min(unix_time(nanoseconds), self.received) if nanoseconds else self.received

    def id_of(self, *what: str) -> str:
        """The id of the event that was made of this: always the same."""
        named = "\0".join((self.tenant, *what))
        return PREFIX + hashlib.blake2b(named.encode(), digest_size=16).hexdigest()


class Converted(NamedTuple):
    """The events, and of how many spans or log records none could be made, with the reasons."""

    events: tuple[RequestFinished | Rating, ...]
    rejected: int = 0
    reasons: tuple[str, ...] = ()


def unix_time(nanoseconds: int) -> datetime:
    """A Unix time in nanoseconds, to the microsecond."""
    return _EPOCH + timedelta(microseconds=nanoseconds // 1_000)


def is_ours(response_id: str) -> bool:
    """Whether this gateway could have given the id itself."""
    return _OURS.fullmatch(response_id) is not None


def foreign(response_id: str) -> str:
    """The id under which what has this id elsewhere is kept here."""
    return short(PREFIX + response_id if is_ours(response_id) else response_id)


def short(text: str, most: int = _SHORT) -> str:
    """Cut where it is too long for a name. Two long ids with one beginning stay two."""
    if len(text) <= most:
        return text
    end = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    return text[: most - len(end) - 1] + "~" + end
