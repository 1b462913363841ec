"""What no collector could read, as it lies on its topic."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from feedback.bus.kafka.options import KafkaOptions
from feedback.bus.kafka.reading import Read, read
from feedback.bus.kafka.records import Letter, Letters, Origin


def dead_letters(options: KafkaOptions, since: datetime | None = None) -> Iterator[Letter]:
    """Every dead letter, whole and once, oldest first. Blocks; raises `BusError`."""
    whole = Letters()
    seen: set[Origin] = set()
    for page in read(options, [options.topic("dead-letter")], since):
        for letter in letters_in(page.records, whole):
            if letter.origin is None or letter.origin not in seen:
                yield letter
            if letter.origin is not None:
                seen.add(letter.origin)


def letters_in(records: Sequence[Read], whole: Letters) -> Iterator[Letter]:
    """The letters that are whole with these records."""
    for record in records:
        headers = {name: (value or b"").decode(errors="replace") for name, value in record.headers}
        letter = whole.add(record.value or b"", headers)
        if letter is not None:
            yield letter
