import asyncio
import os

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from feedback.bus.base import BusError
from feedback.bus.kafka import producer, topics
from feedback.bus.kafka.producer import KafkaBus
from feedback.bus.kafka.reading import read
from feedback.bus.kafka.replaying import replay
from feedback.collector import Collector
from feedback.store import Store
from tests.contracts.bus import as_json
from tests.contracts.delivery import until
from tests.contracts.samples import change, model_call, rating, request
from tests.feedback.bus.kafka.conftest import collected, collecting


def on_topic(options, topic):
    return [record.value for page in read(options, [options.topic(topic)]) for record in page.records]


def long_request(tokens):
    """As the longest that a gateway takes: a hundred thousand tokens, with what the server knows of each."""
    ids = tuple(range(tokens))
    return request(
        "long",
        calls=(
            model_call(
                prompt_token_ids=ids,
                completion_token_ids=ids,
                logprobs=tuple(-n / 7_919 for n in ids),
                tokens=tuple(f"token{n}" for n in ids),
            ),
        ),
    )


async def test_the_order_of_each_episode_is_kept(options, bus):
    rated = [rating("r", episode_id=f"e{n % 5}", comment=str(n)) for n in range(500)]
    for start in range(0, 500, 70):
        await bus.publish(as_json(*rated[start : start + 70]))
    bodies = await asyncio.to_thread(on_topic, options, "ratings")
    assert len(bodies) == 500
    for episode in range(5):
        wanted = as_json(*(each for each in rated if each.episode_id == f"e{episode}"))
        assert [body for body in bodies if f'"e{episode}"'.encode() in body] == wanted


async def test_the_longest_request_is_taken_as_it_is(options, bus, store):
    body = as_json(long_request(230_000))[0]
    assert len(body) > 10_000_000
    with collecting(options, store):
        await bus.publish([body])
        await collected(options)
    assert store.counts()["requests"] == 1 and store.counts()["dead_letters"] == 0


async def test_what_a_topic_does_not_take_is_a_dead_letter_holds_up_nothing_and_can_be_replayed(
    options, bus, store
):
    """A cluster that takes less than was asked for, and an event that does not get smaller by compression."""
    admin = KafkaAdminClient(bootstrap_servers=options.bootstrap_servers)
    asked = ConfigResource(
        ConfigResourceType.TOPIC, options.topic("requests"), {"max.message.bytes": "600000"}
    )
    admin.alter_configs([asked])
    admin.close()
    await until(lambda: bool(topics.differences(options)))  # the broker hears of it a moment later
    assert "requests has max.message.bytes 600000" in topics.differences(options)[0]
    large = request("large", episode_id="e", output=os.urandom(700_000).hex())
    around = [request(f"r{n}", episode_id="e") for n in range(6)]
    await bus.publish(as_json(*around[:3], large, *around[3:]))
    assert await asyncio.to_thread(on_topic, options, "requests") == as_json(*around)
    assert len(await asyncio.to_thread(on_topic, options, "dead-letter")) == 3
    seen = []
    replay(options, Collector(store), progress=lambda *all: seen.append(all))
    assert {found.request_id for found in store.requests(tenant="default")} == {
        "large",
        *(each.request_id for each in around),
    }
    assert (options.topic("requests"), 6, 0) in seen


async def test_a_store_is_rebuilt_from_the_topics_and_a_second_time_changes_nothing(
    options, bus, store, tmp_path
):
    sent = [request("r1"), rating("r1"), rating("r1", rater="bob"), change("sql-analyst@1", "candidate")]
    await bus.publish([*as_json(*sent), b"rubbish"])
    with collecting(options, store):
        await collected(options)
    rebuilt = Store.open(f"sqlite:///{tmp_path}/rebuilt.db")
    for _ in range(2):
        await asyncio.to_thread(replay, options, Collector(rebuilt))
        assert rebuilt.counts() == store.counts()
    assert rebuilt.request("r1", "default") == sent[0]
    rebuilt.close()


async def test_policies_are_in_the_store_when_the_bus_has_settled_though_nobody_collects(
    options, store, tmp_path
):
    bus = KafkaBus(options, f"sqlite:///{tmp_path}/store.db")
    changed = change("sql-analyst@1", "candidate")
    await bus.publish(as_json(changed, request()))
    await bus.settle()
    await bus.close()
    assert store.policy_changes("sql-analyst") == [changed]
    assert store.counts()["requests"] == 0


async def test_topics_that_are_missing_are_named(kafka_broker, options, monkeypatch):
    monkeypatch.setattr(producer, "_REQUEST_MS", 500)
    bus = KafkaBus(options.model_copy(update={"prefix": "nowhere"}))
    with pytest.raises(BusError, match=r"nowhere\.ratings: .*kafka init"):
        await bus.publish(as_json(rating()))
    await bus.close()
