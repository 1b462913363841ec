import asyncio
from dataclasses import replace

from feedback.bus.kafka.lag import lag
from gateway.condition import Figures
from gateway.telemetry.lag import watched
from gateway.telemetry.live import _kafka
from tests.contracts.bus import as_json
from tests.contracts.delivery import until
from tests.contracts.samples import rating, request
from tests.feedback.bus.kafka.conftest import collected, collecting

WORKER = Figures(
    pid=1,
    in_flight={},
    outstanding={},
    recorded=0,
    relay_failures=0,
    outbox_bytes=0,
    outbox_events=0,
    outbox_oldest_age=0.0,
    kafka_lag=None,
)


async def test_the_lag_is_what_the_group_has_not_collected(options, bus, store):
    await bus.publish(as_json(*(rating(f"r{n}") for n in range(30)), request()))
    behind = await asyncio.to_thread(lag, options)
    assert (behind[options.topic("ratings")], behind[options.topic("requests")]) == (30, 1)
    with collecting(options, store):
        await collected(options)
    assert set((await asyncio.to_thread(lag, options)).values()) == {0}


async def test_the_lag_is_watched_beside_the_gateway_and_told_by_its_metrics(options, bus):
    await bus.publish(as_json(rating()))
    async with watched(options) as watching:
        await until(lambda: watching.by_topic is not None)
    workers = [WORKER, replace(WORKER, kafka_lag=watching.by_topic)]
    samples = {
        (sample.name, sample.labels.get("topic")): sample.value
        for metric in _kafka(workers)
        for sample in metric.samples
    }
    assert samples["flywheel_kafka_up", None] == 1
    assert samples["flywheel_kafka_lag_records", options.topic("ratings")] == 1


async def test_without_kafka_nothing_is_watched_and_one_that_is_silent_is_said_to_be_down():
    async with watched(None) as watching:
        assert watching.by_topic is None
    [up, lag_of] = _kafka([WORKER])
    assert up.samples[0].value == 0 and lag_of.samples == []
