"""The end of an event's way: what can be parsed becomes a row, what cannot becomes a dead letter with its reason."""

import gc
import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pydantic import BaseModel, ValidationError

from feedback import events
from feedback.store import DeadLetter, Store, UnstorableError

_log = logging.getLogger(__name__)
_OBJECTS = 200_000  # more than a batch holds


def prepare_process() -> None:
    """For a process that does little but collect: Python looks for cycles among objects less often.

    A batch is some ten thousands of objects, none of them in a cycle and all gone when it is written. Looked through
    every 700 of them, as by default, they take twice the time to parse (docs/log.md).
    """
    gc.freeze()
    gc.set_threshold(_OBJECTS)


class Collected(NamedTuple):
    """How many records of a batch were events (delivered before or not), and what the others were, by their place."""

    events: int
    letters: Mapping[int, DeadLetter]

    @property
    def dead_letters(self) -> int:
        """How many records were no events."""
        return len(self.letters)


class Collector:
    """Writes batches into `store`. Stateless between batches, so that any number may run."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def collect(self, batch: Sequence[bytes]) -> Collected:
        """Write the whole batch in one transaction; the same batch again changes nothing. Raises `StoreError`.

        Blocks on the store. No content of a record makes it raise: a batch that can never be taken would be delivered
        for ever, and everything behind it would wait. Where the database itself cannot hold one (an id too long for its
        index, say), the batch is halved until that one is alone, and there are more transactions than one.
        """
        parsed: dict[int, events.AnyEvent] = {}
        dead: dict[int, DeadLetter] = {}
        for place, data in enumerate(batch):
            try:
                parsed[place] = events.parse(data)
            except ValidationError as error:
                dead[place] = DeadLetter(data, reason(data, error))
        try:
            self.store.write(list(parsed.values()), list(dead.values()))
        except UnstorableError:
            for place, why in self._write_in_halves(list(parsed.items())).items():
                dead[place] = DeadLetter(batch[place], why)
            self.store.write([], list(dead.values()))
        if dead:
            first = next(iter(dead.values()))
            _log.error(
                "%d of %d records are dead letters; the first: %s", len(dead), len(batch), first.reason
            )
        return Collected(len(batch) - len(dead), dead)

    def _write_in_halves(self, placed: Sequence[tuple[int, events.AnyEvent]]) -> dict[int, str]:
        """Write what can be written. Where in the batch the others are, each with why it cannot."""
        try:
            self.store.write([event for _, event in placed])
        except UnstorableError as error:
            if len(placed) == 1:
                return {placed[0][0]: f"the store cannot hold it: {error}"}
            middle = len(placed) // 2
            return self._write_in_halves(placed[:middle]) | self._write_in_halves(placed[middle:])
        return {}


def reason(data: bytes, error: ValidationError) -> str:
    """What is wrong and where, without the data itself: reasons are logged, what people wrote is not."""
    if (version := _version(data)) > events.SCHEMA_VERSION:
        return f"schema_version: {version} is newer than {events.SCHEMA_VERSION}, the newest that this code knows"
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    words = (f"{'.'.join(map(str, problem['loc'])) or 'record'}: {problem['msg']}" for problem in problems)
    return "; ".join(words).replace("\0", "\\0")[:1_000]  # names of fields are the sender's, and may hold one


class _Versioned(BaseModel):
    schema_version: int = 0


def _version(data: bytes) -> int:
    try:
        return _Versioned.model_validate_json(data).schema_version
    except ValidationError:
        return 0
