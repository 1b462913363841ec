"""What a gateway on Kafka says in its log."""

import asyncio
import re

from feedback.bus.kafka import topics
from feedback.bus.kafka.options import KafkaOptions
from tests.gateway.conftest import World
from tests.gateway.processes import answers, free_port, gateway


async def test_neither_kafka_python_nor_alembic_says_anything_where_all_is_well(
    world: World, kafka_broker: str
) -> None:
    options = KafkaOptions(bootstrap_servers=tuple(kafka_broker.split(",")), prefix="quiet", group="quiet")
    await asyncio.to_thread(topics.create, options)
    port = free_port()
    config = world.config.model_copy(update={"port": port, "kafka": options, "delivery_process": True})
    log = world.folder / "gateway.log"
    async with gateway(config, world.folder, log=log) as process:
        await answers(f"http://127.0.0.1:{port}/readyz", process)
        process.terminate()
        assert await process.wait() == 0
    told = log.read_text()
    assert "startup complete" in told
    assert re.findall(r".* (?:kafka|alembic)\..*", told) == []
