"""Dead letters, another try: what can be read by now goes the way of every event, from its beginning."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from pydantic import ValidationError

from deploy.errors import FlywheelError
from deploy.settings import Settings
from deploy.store import opened
from feedback import events
from feedback.bus.base import Bus, BusError
from feedback.bus.kafka import kafka_bus
from feedback.bus.local import LocalBus
from feedback.collector import Collector, reason
from feedback.redaction import Redactor
from feedback.store import Store
from feedback.store.letters import DeadLetters, Letter

if TYPE_CHECKING:
    from feedback.bus.kafka.told import Told


def newest_first(settings: Settings) -> list[Letter]:
    """All dead letters of the store. Raises `FlywheelError`."""
    with opened(settings) as store:
        return sorted(DeadLetters(store).all(), key=lambda letter: letter.time, reverse=True)


def shown(settings: Settings, prefix: str) -> tuple[Letter, bytes]:
    """A dead letter and its data. Raises `FlywheelError`."""
    with opened(settings) as store:
        letters = DeadLetters(store)
        letter = _the_one(letters, prefix)
        return letter, letters.data(letter)


async def replay(
    settings: Settings, prefixes: Iterable[str] | None, told: Callable[[Letter, str], None]
) -> None:
    """Give these dead letters, or all of them, to the bus if they are events by now, and remove those from the store.

    `told` hears of each that is done, and why it is still none: nothing when it has become an event. Blocks on the
    store. Raises `FlywheelError`.
    """
    with opened(settings) as store:
        letters = DeadLetters(store)
        exports = reader_of_exports(settings, store)
        chosen = letters.all() if prefixes is None else [_the_one(letters, prefix) for prefix in prefixes]
        async with _bus(settings, store) as bus:
            for letter in chosen:
                told(letter, await _again(bus, letters, letter, exports))


async def _again(bus: Bus, letters: DeadLetters, letter: Letter, exports: "Told | None") -> str:
    data = letters.data(letter)
    bodies, why = [data], ""
    try:
        events.parse(data)
    except ValidationError as error:
        if exports is not None:  # it may be an export of OpenTelemetry
            bodies, why = exports.events(data)
        if exports is None or not bodies:
            return reason(data, error)
    try:
        await bus.publish(bodies)
    except BusError as error:
        raise FlywheelError(
            f"the bus did not take {letter.id[:12]}, which stays a dead letter: {error}"
        ) from error
    if not why:
        letters.remove(letter)
    return why


def reader_of_exports(settings: Settings, store: Store) -> "Told | None":
    """What makes events of dead letters that are exports of OpenTelemetry; None where nobody reads such."""
    if settings.kafka is None or settings.kafka.otlp_tenant is None:
        return None
    from feedback.bus.kafka.told import Told  # noqa: PLC0415  # with OpenTelemetry's messages, which take their time

    return Told(settings.kafka.otlp_tenant, store, Redactor(settings.redaction))


@asynccontextmanager
async def _bus(settings: Settings, store: Store) -> AsyncIterator[Bus]:
    if settings.kafka is None:
        yield LocalBus(Collector(store))
        return
    bus = kafka_bus(settings.kafka, settings.feedback.store_url)
    try:
        yield bus
    finally:
        await bus.close()


def _the_one(letters: DeadLetters, prefix: str) -> Letter:
    found = letters.find(prefix)
    if len(found) != 1:
        what = f"{len(found)} dead letters begin" if found else "no dead letter begins"
        raise FlywheelError(f"{what} with {prefix!r}: see `flywheel dead-letters list`")
    return found[0]
