"""The end of an event's way: what can be parsed becomes a row, what cannot becomes a dead letter with its reason."""

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pydantic import BaseModel, ValidationError

from feedback import events
from feedback.store import DeadLetter, Store

_log = logging.getLogger(__name__)


class Collected(NamedTuple):
    """How many records of a batch were events (delivered before or not), and what the others were, by their place."""

    events: int
    letters: Mapping[int, DeadLetter]

    @property
    def dead_letters(self) -> int:
        """How many records were no events."""
        return len(self.letters)


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
        dead: dict[int, DeadLetter] = {}
        for place, data in enumerate(batch):
            try:
                parsed.append(events.parse(data))
            except ValidationError as error:
                dead[place] = DeadLetter(data, _reason(data, error))
        self._store.write(parsed, list(dead.values()))
        if dead:
            first = next(iter(dead.values()))
            _log.error(
                "%d of %d records are dead letters; the first: %s", len(dead), len(batch), first.reason
            )
        return Collected(len(parsed), dead)


def _reason(data: bytes, error: ValidationError) -> str:
    """What is wrong and where, without the data itself: reasons are logged, what people wrote is not."""
    if (version := _version(data)) > events.SCHEMA_VERSION:
        return f"schema_version: {version} is newer than {events.SCHEMA_VERSION}, the newest that this code knows"
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    words = (f"{'.'.join(map(str, problem['loc'])) or 'record'}: {problem['msg']}" for problem in problems)
    return "; ".join(words)[:1_000]


class _Versioned(BaseModel):
    schema_version: int = 0


def _version(data: bytes) -> int:
    try:
        return _Versioned.model_validate_json(data).schema_version
    except ValidationError:
        return 0
