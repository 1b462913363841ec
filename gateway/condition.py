"""How one process is doing, and all of them together."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from feedback.outbox import OutboxError
from feedback.store import StoreError
from gateway.workers.peers import PeerError

if TYPE_CHECKING:
    from gateway.state import Gateway  # which has the parts that this asks

_ASK_SECONDS = 5.0  # for another worker's answer, which waits for the model servers

_STORE_SECONDS = 2.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Figures:
    """What one worker counts by itself. `outbox_events` and the age, in seconds, are None where it cannot be read."""

    pid: int
    in_flight: Mapping[str, int]  # requests in progress, by policy
    outstanding: Mapping[str, int]  # and by model server
    recorded: int  # requests, since it was started
    relay_failures: int
    outbox_bytes: int
    outbox_events: int | None
    outbox_oldest_age: float | None
    kafka_lag: Mapping[str, int] | None  # by topic, at one worker; see `gateway.telemetry.lag`


async def figures(gateway: "Gateway") -> Figures:
    """Those of this worker."""
    events = age = None
    try:
        events, age = await asyncio.to_thread(gateway.delivery.depth)
    except OutboxError as error:
        _log.warning("the depth of the outbox is not known: %s", error)
    return Figures(
        pid=os.getpid(),
        in_flight=gateway.serving.in_flight(),
        outstanding={replica.url: replica.outstanding for replica in gateway.pool.replicas},
        recorded=gateway.recorder.recorded,
        relay_failures=gateway.delivery.failures,
        outbox_bytes=_size(gateway.outbox_path),
        outbox_events=events,
        outbox_oldest_age=age,
        kafka_lag=gateway.lag.by_topic,
    )


async def all_figures(gateway: "Gateway") -> dict[int, Figures]:
    """Those of every worker that answers, by its number."""
    found = {gateway.peers.place.number: await figures(gateway)}
    for number, answer in (await gateway.peers.ask_all("GET", "/figures", seconds=_ASK_SECONDS)).items():
        if isinstance(answer, PeerError):
            _log.warning("the figures of worker %d are missing: %s", number, answer)
        else:
            found[number] = Figures(**answer)
    return dict(sorted(found.items()))


def waiting(workers: Collection[Figures]) -> tuple[int, float] | None:
    """How many events wait in all outboxes, and for how long the oldest has; None where one cannot be read.

    A sum without one of them would look better than it is.
    """
    events = [worker.outbox_events for worker in workers if worker.outbox_events is not None]
    ages = [worker.outbox_oldest_age for worker in workers if worker.outbox_oldest_age is not None]
    return None if len(events) < len(workers) else (sum(events), max(ages))


class Condition(NamedTuple):
    """In words: what keeps from answering, and what does not, though something waits for it."""

    missing: list[str]
    degraded: list[str]


async def condition(gateway: "Gateway") -> Condition:
    """This worker's.

    It serves without the store: answers are recorded in the outbox, and keys that it knows go on working. To be taken
    out of a balancer, all gateways at once, would make an outage of that.
    """
    found, degraded = [], []
    answers = await asyncio.gather(*(replica.ready() for replica in gateway.pool.replicas))
    if not any(answers):
        found += [f"vLLM at {replica.url} does not answer" for replica in gateway.pool.replicas]
    try:
        async with asyncio.timeout(_STORE_SECONDS):
            await asyncio.to_thread(gateway.store.dead_letter_count)  # any question that is quick
    except TimeoutError:
        degraded.append(f"the store does not answer within {_STORE_SECONDS:g} s")
    except StoreError as error:
        degraded.append(f"the store does not answer: {error}")
    try:
        await gateway.delivery.check()
    except OutboxError as error:
        found.append(f"the outbox takes no events: {error}")
    for agent in gateway.agents:
        active = gateway.serving.alias(agent).active
        if not gateway.serving.is_ready(active):
            found.append(f"{active}, the active policy of {agent}, is not loaded")
    return Condition(found + (gateway.keeper.problems or [] if found else []), degraded)


async def condition_anywhere(gateway: "Gateway") -> Condition:
    """The same of all workers; what several say is said once."""
    own, others = await asyncio.gather(
        condition(gateway), gateway.peers.ask_all("GET", "/condition", seconds=_ASK_SECONDS)
    )
    missing, degraded = dict.fromkeys(own.missing), dict.fromkeys(own.degraded)
    for answer in others.values():
        told = Condition([str(answer)], []) if isinstance(answer, PeerError) else Condition(**answer)
        missing.update(dict.fromkeys(told.missing))
        degraded.update(dict.fromkeys(told.degraded))
    return Condition(list(missing), list(degraded))


def _size(path: Path) -> int:
    size = 0
    for file in (path, path.with_name(f"{path.name}-wal")):
        with contextlib.suppress(FileNotFoundError):  # the log comes and goes
            size += file.stat().st_size
    return size
