"""Metrics that are looked up when somebody asks, not counted on the way: the outboxes, the store, the policies."""

import logging
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from feedback.store import StoreError
from gateway.condition import Figures, waiting

if TYPE_CHECKING:
    from gateway.state import Gateway  # which has the telemetry that this is a part of

_log = logging.getLogger(__name__)


def live(gateway: "Gateway", workers: Collection[Figures]) -> Iterator[Metric]:
    """The state of these workers and of their store, on which it blocks. What cannot be read is missing, and logged."""
    yield GaugeMetricFamily("flywheel_workers", "Processes of the gateway that answer.", value=len(workers))
    yield from _outboxes(workers)
    if gateway.config.kafka is not None:
        yield from _kafka(workers)
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


def _outboxes(workers: Collection[Figures]) -> Iterator[Metric]:
    yield CounterMetricFamily(
        "flywheel_relay_failures",
        "Attempts of the relay that failed, since the gateway started.",
        value=sum(worker.relay_failures for worker in workers),
    )
    yield GaugeMetricFamily(
        "flywheel_outbox_bytes",
        "Size of the outboxes on the disk, their write-ahead logs included.",
        value=sum(worker.outbox_bytes for worker in workers),
    )
    if (depth := waiting(workers)) is not None:
        events, age = depth
        yield GaugeMetricFamily("flywheel_outbox_events", "Events that wait for the relay.", value=events)
        yield GaugeMetricFamily(
            "flywheel_outbox_oldest_age_seconds", "For how long the oldest of them has.", value=age
        )


def _kafka(workers: Collection[Figures]) -> Iterator[Metric]:
    known = next((worker.kafka_lag for worker in workers if worker.kafka_lag is not None), None)
    yield GaugeMetricFamily(
        "flywheel_kafka_up", "Whether Kafka has answered lately.", value=float(known is not None)
    )
    lag = GaugeMetricFamily(
        "flywheel_kafka_lag_records",
        "Records that no collector has written into the store.",
        labels=["topic"],
    )
    for topic, count in (known or {}).items():
        lag.add_metric([topic], count)
    yield lag


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
