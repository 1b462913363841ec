"""Metrics that are looked up when somebody asks, not counted on the way: the outbox, the store, the policies."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from feedback.outbox import OutboxError
from feedback.store import StoreError

if TYPE_CHECKING:
    from gateway.state import Gateway  # which has the telemetry that this is a part of

_log = logging.getLogger(__name__)


def live(gateway: "Gateway") -> Iterator[Metric]:
    """The state of this process and of its store. Blocks on both. What cannot be read is missing, and logged."""
    yield from _outbox(gateway)
    yield from _store(gateway)
    active = InfoMetricFamily(
        "flywheel_active_policy", "The policy that answers for an agent.", labels=["agent"]
    )
    loaded = GaugeMetricFamily(
        "flywheel_policy_loaded", "Whether the active policy can answer now.", labels=["agent"]
    )
    for agent in gateway.agents:
        policy = gateway.serving.alias(agent).active
        active.add_metric([agent], {"policy": policy})
        loaded.add_metric([agent], float(gateway.serving.is_ready(policy)))
    yield active
    yield loaded


def _outbox(gateway: "Gateway") -> Iterator[Metric]:
    yield CounterMetricFamily(
        "flywheel_relay_failures",
        "Attempts of the relay that failed, since the gateway started.",
        value=gateway.relay.failures,
    )
    yield GaugeMetricFamily(
        "flywheel_outbox_bytes",
        "Size of the outbox on the disk, its write-ahead log included.",
        value=_size(gateway.config.outbox_path),
    )
    try:
        depth = gateway.outbox.depth()
    except OutboxError as error:
        _log.warning("the depth of the outbox is missing from the metrics: %s", error)
        return
    yield GaugeMetricFamily("flywheel_outbox_events", "Events that wait for the relay.", value=depth.events)
    yield GaugeMetricFamily(
        "flywheel_outbox_oldest_age_seconds",
        "For how long the oldest of them has.",
        value=depth.oldest_age_seconds,
    )


def _store(gateway: "Gateway") -> Iterator[Metric]:
    up = GaugeMetricFamily("flywheel_store_up", "Whether the store answers.", value=0)
    try:
        letters = gateway.store.dead_letter_count()
    except StoreError as error:
        _log.warning("the dead letters are missing from the metrics: %s", error)
    else:
        up = GaugeMetricFamily("flywheel_store_up", "Whether the store answers.", value=1)
        yield GaugeMetricFamily(
            "flywheel_dead_letters", "Records in the store that are no events.", value=letters
        )
    yield up


def _size(path: Path) -> int:
    size = 0
    for file in (path, path.with_name(f"{path.name}-wal")):
        with contextlib.suppress(FileNotFoundError):  # the log comes and goes
            size += file.stat().st_size
    return size
