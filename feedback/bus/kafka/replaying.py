"""What was published, collected once more: rebuilds a store, and gives dead letters another try."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from feedback.bus.kafka.options import KafkaOptions, Topic
from feedback.bus.kafka.reading import Read, read
from feedback.bus.kafka.records import EVENT_TOPICS, Letters
from feedback.collector import Collector

if TYPE_CHECKING:
    from feedback.bus.kafka.told import Told

Progress = Callable[[str, int, int], None]
EVERYTHING: tuple[Topic, ...] = (*EVENT_TOPICS, "dead-letter")


def replay(
    options: KafkaOptions,
    collector: Collector,
    *,
    since: datetime | None = None,
    topics: Sequence[Topic] = EVERYTHING,
    told: "Told | None" = None,
    progress: Progress | None = None,
) -> None:
    """Collect what the topics hold, from `since` or from their beginning up to now, a topic after the other.

    What the store has already stays as it is. Dead letters become events where this code can read them by now; exports
    of OpenTelemetry are read by `told` (None: they stay dead letters).
    `progress` is told the topic's name, how many of its records have been read, and how many are left. Blocks; raises
    `BusError` and `StoreError`, and may then be begun again.
    """
    for topic in topics:
        name, whole, done = options.topic(topic), Letters(), 0
        for page in read(options, [name], since):
            if topic == "dead-letter":
                batch = list(_letters(page.records, whole, options, told))
            else:
                batch = [record.value or b"" for record in page.records]
            if batch:
                collector.collect(batch)
            done += len(page.records)
            if progress is not None:
                progress(name, done, page.left)


def _letters(
    records: Sequence[Read], whole: Letters, options: KafkaOptions, told: "Told | None"
) -> Iterator[bytes]:
    for record in records:
        headers = {name: (value or b"").decode(errors="replace") for name, value in record.headers}
        letter = whole.add(record.value or b"", headers)
        if letter is None:
            continue
        if letter.origin is None or letter.origin.topic != options.topic("otlp"):
            yield letter.data
        elif told is not None:
            yield from told.events(letter.data).bodies  # the rest is a dead letter of the store's already
