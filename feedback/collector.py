"""The end of an event's way: what can be parsed becomes a row, what cannot becomes a dead letter with its reason."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

from pydantic import ValidationError

from feedback import events
from feedback.store import DeadLetter, Store

_log = logging.getLogger(__name__)


class Collected(NamedTuple):
    """How many records of a batch were events, and how many were not (events delivered before count too)."""

    events: int
    dead_letters: int


class Collector:
    """Writes batches into the store. Stateless between batches, so that any number may run."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self, batch: Sequence[bytes]) -> Collected:
        """Write the whole batch in one transaction; the same batch again changes nothing. Raises `StoreError`.

        Blocks on the store. No content of a record makes it raise: a batch that can never be taken would be delivered
        for ever, and everything behind it would wait.
        """
        parsed: list[events.AnyEvent] = []
        dead: list[DeadLetter] = []
        for data in batch:
            try:
                parsed.append(events.parse(data))
            except ValidationError as error:
                dead.append(DeadLetter(data, reason(error)))
        self._store.write(parsed, dead)
        if dead:
            _log.error(
                "%d of %d records are dead letters; the first: %s", len(dead), len(batch), dead[0].reason
            )
        return Collected(len(parsed), len(dead))


def reason(error: ValidationError) -> str:
    """What is wrong and where, without the data itself: reasons are logged, what people wrote is not."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    words = (f"{'.'.join(map(str, problem['loc'])) or 'record'}: {problem['msg']}" for problem in problems)
    return "; ".join(words)[:1_000]
