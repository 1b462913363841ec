"""What lies on the topics: events, and the dead letters of what is none or does not fit."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import orjson

from feedback.bus.kafka.options import KafkaOptions, Topic

EVENT_TOPICS: tuple[Topic, ...] = ("erasures", "policies", "requests", "ratings")

_PIECE_BYTES = 512 * 1024  # every cluster takes records of this size
_TOPIC_OF: Mapping[str, Topic] = {
    "request_finished": "requests",
    "rating": "ratings",
    "policy_changed": "policies",
    "erased": "erasures",
}
_KEY_OF: Mapping[Topic, tuple[str, ...]] = {  # as `feedback.events.episode_key`
    "requests": ("episode_id",),
    "ratings": ("episode_id", "request_id"),
    "policies": ("agent",),
    "erasures": ("person", "request_id"),
}


def topics_collected(options: KafkaOptions) -> tuple[Topic, ...]:
    """Those that collectors read."""
    return EVENT_TOPICS if options.otlp_tenant is None else (*EVENT_TOPICS, "otlp")


class Record(NamedTuple):
    """One record to be sent; `topic` as it is called on the cluster."""

    topic: str
    key: bytes
    value: bytes
    headers: Mapping[str, str]


class Origin(NamedTuple):
    """Where a dead letter lay; None: it came from an outbox and has not been on a topic."""

    topic: str
    partition: int
    offset: int


class Letter(NamedTuple):
    """A dead letter, whole."""

    data: bytes
    reason: str
    origin: Origin | None


def event_record(body: bytes, options: KafkaOptions) -> Record:
    """The record of an event as JSON.

    Looks only for where it belongs; whether all of it is as an event should be, the collector finds out. What belongs
    nowhere, as it is no event, goes among the requests: the collector finds it there, and makes it a dead letter.
    """
    try:
        event = orjson.loads(body)
        topic = _TOPIC_OF[event["type"]]
        key: str = next(event[name] for name in _KEY_OF[topic] if event.get(name))
        headers = {"type": event["type"], "schema-version": str(event.get("schema_version"))}
        return Record(options.topic(topic), key.encode(), body, headers)
    except (orjson.JSONDecodeError, TypeError, KeyError, StopIteration, AttributeError):
        return Record(options.topic("requests"), hashlib.sha256(body).digest(), body, {})


def dead_letter(
    data: bytes, reason: str, options: KafkaOptions, origin: Origin | None = None
) -> Iterator[Record]:
    """The records of a dead letter: one, or the pieces of a large one, which `Letters` puts together again."""
    digest = hashlib.sha256(data).hexdigest()
    headers = {"reason": reason}
    if origin is not None:
        headers |= {name: str(value) for name, value in origin._asdict().items()}
    count = max(1, -(-len(data) // _PIECE_BYTES))
    for number in range(count):
        piece = data[number * _PIECE_BYTES : (number + 1) * _PIECE_BYTES]
        place = {} if count == 1 else {"digest": digest, "piece": str(number), "pieces": str(count)}
        yield Record(options.topic("dead-letter"), digest.encode(), piece, headers | place)


class Letters:
    """Makes letters of the records of the topic of dead letters, which are added in their order.

    One that was sent twice comes twice. Of a large one whose sender was killed in the middle nothing comes: it has been
    sent again.
    """

    def __init__(self) -> None:
        self._begun: dict[str, dict[int, bytes]] = {}

    def add(self, value: bytes, headers: Mapping[str, str]) -> Letter | None:
        """The letter that is whole with this record."""
        digest = headers.get("digest", "")
        pieces = self._begun.setdefault(digest, {})
        pieces[_number(headers, "piece")] = value
        if len(pieces) < _number(headers, "pieces"):
            return None
        del self._begun[digest]
        data = b"".join(piece for _, piece in sorted(pieces.items()))
        origin = None
        if "topic" in headers:
            origin = Origin(headers["topic"], _number(headers, "partition"), _number(headers, "offset"))
        return Letter(data, headers.get("reason", ""), origin)


def _number(headers: Mapping[str, str], name: str) -> int:
    """0 where there is none, as in a record that somebody else has put there."""
    value = headers.get(name, "")
    return int(value) if value.isdecimal() else 0
