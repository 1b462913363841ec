"""What clients were told against what the store holds."""

from collections import Counter
from dataclasses import dataclass, field

from bench.chaos.clients import MARK, Told
from feedback.bus.kafka.options import KafkaOptions
from feedback.bus.kafka.reading import read
from feedback.store import Store

_TENANT = "default"


@dataclass
class Recorded:
    """What the store holds, by the number that clients gave it; `strange` are rows without one."""

    requests: dict[int, list[str]] = field(default_factory=dict)  # ids of the request, completed
    unfinished: Counter[int] = field(default_factory=Counter)  # rows that say it failed or was cancelled
    ratings: dict[int, list[tuple[str, str, bool]]] = field(default_factory=dict)
    strange: int = 0
    dead_letters: int = 0


@dataclass(frozen=True)
class Counts:
    """Of requests, or of ratings. Nothing may be `missing`, `twice` or `different`.

    `untold` were recorded though the client never heard so: it was cut off in between. That is allowed.
    """

    sent: int
    acknowledged: int
    recorded: int
    missing: int
    twice: int
    different: int
    untold: int

    @property
    def right(self) -> bool:
        """Whether everything that was acknowledged is there, once, as it was."""
        return not (self.missing or self.twice or self.different)


def recorded(store: Store, kafka: KafkaOptions) -> Recorded:
    """Read it all, and count what lies on the topic of dead letters. Raises `StoreError`, `BusError`."""
    found = Recorded(dead_letters=store.dead_letter_count() + _on_topic(kafka))
    for request in store.requests(tenant=_TENANT):
        if (mark := request.metadata.get(MARK)) is None:
            found.strange += 1
        elif request.status == "completed":
            found.requests.setdefault(int(mark), []).append(request.request_id)
        else:
            found.unfinished[int(mark)] += 1
    for rating in store.ratings(tenant=_TENANT):
        if (mark := rating.tags.get(MARK)) is None:
            found.strange += 1
        else:
            row = rating.event_id, str(rating.request_id), rating.value is True
            found.ratings.setdefault(int(mark), []).append(row)
    return found


def of_requests(told: Told, found: Recorded) -> Counts:
    """Each was sent once, so each may be there once at most, completed or not."""
    rows = Counter({number: len(ids) for number, ids in found.requests.items()}) + found.unfinished
    return Counts(
        sent=told.asked,
        acknowledged=len(told.completed),
        recorded=len(rows),
        missing=sum(number not in found.requests for number in told.completed),
        twice=sum(count > 1 for count in rows.values()),
        different=sum(
            request_id not in found.requests.get(number, [request_id])
            for number, request_id in told.completed.items()
        ),
        untold=len(found.requests.keys() - told.completed.keys()),
    )


def of_ratings(told: Told, found: Recorded) -> Counts:
    """The same of ratings."""
    return Counts(
        sent=told.rated,
        acknowledged=len(told.acknowledged),
        recorded=len(found.ratings),
        missing=sum(number not in found.ratings for number in told.acknowledged),
        twice=sum(len(rows) > 1 for rows in found.ratings.values()),
        different=sum(
            rating not in found.ratings.get(number, [rating]) for number, rating in told.acknowledged.items()
        ),
        untold=len(found.ratings.keys() - told.acknowledged.keys()),
    )


def _on_topic(kafka: KafkaOptions) -> int:
    return sum(len(page.records) for page in read(kafka, [kafka.topic("dead-letter")]))
