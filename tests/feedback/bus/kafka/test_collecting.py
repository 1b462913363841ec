import asyncio
import json
import signal
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from feedback import events
from feedback.bus.kafka.collecting import Collecting
from feedback.bus.kafka.lag import lag
from feedback.bus.kafka.producer import Sender
from feedback.bus.kafka.records import Record
from tests.contracts.bus import as_json
from tests.contracts.delivery import until
from tests.contracts.samples import rating, request
from tests.feedback.bus.kafka.conftest import collected, collecting, on_dead_letter_topic


def process(options, tmp_path, before="pass"):
    """A collector in a process of its own, as it is started in production; `before` is done first."""
    main = "from feedback.bus.kafka import collecting; sys.exit(collecting.main(*sys.argv[1:]))"
    arguments = (options.model_dump_json(), f"sqlite:///{tmp_path}/store.db")
    return subprocess.Popen(
        [sys.executable, "-c", f"import sys\n{before}\n{main}", *arguments], stderr=subprocess.PIPE
    )


def is_event(data):
    try:
        events.parse(data)
    except ValidationError:
        return False
    return True


def end(running):
    _, log = running.communicate(timeout=30)
    return running.returncode, log.decode()


async def test_while_collectors_come_and_go_every_event_has_its_effect_once(options, bus, store):
    """Each comes and goes in the middle of what flows; the first and the last share the work with another."""
    published = []

    async def publish():
        for number in range(40):
            batch = [rating(f"r{number}-{n}") for n in range(25)]
            await bus.publish(as_json(*batch))
            published.extend(batch)
            await asyncio.sleep(0.05)

    flowing = asyncio.create_task(publish())
    for _ in range(2):
        with collecting(options, store):
            await asyncio.sleep(0.8)
            with collecting(options, store):
                await asyncio.sleep(0.8)
    with collecting(options, store):
        await flowing
        await collected(options)
    found = [each.event_id for each in store.ratings(tenant="default")]
    assert sorted(found) == sorted(each.event_id for each in published)
    assert store.counts()["dead_letters"] == 0


async def test_a_collector_that_is_killed_before_it_commits_its_place_costs_nothing(
    options, bus, store, tmp_path
):
    """The store has the batch, the group does not know: the next reads it again."""
    await bus.publish([*as_json(*(rating(f"r{n}") for n in range(50))), b"rubbish"])
    sooner = (
        "import feedback.bus.kafka.collecting as c; c._SESSION_MS = 6_000"  # the least that brokers allow
    )
    dies = (
        f"{sooner}; import os, kafka; kafka.KafkaConsumer.commit = lambda *_, **__: os.kill(os.getpid(), 9)"
    )
    code, _ = end(process(options, tmp_path, dies))
    assert code == -signal.SIGKILL
    written = store.counts()
    assert written["ratings"] + written["dead_letters"] > 0
    assert sum((await asyncio.to_thread(lag, options)).values()) == 51
    with collecting(options, store):
        await collected(options)
    assert (store.counts()["ratings"], store.counts()["dead_letters"]) == (50, 1)


async def test_an_orderly_end_commits_what_was_collected_and_says_nothing_of_errors(
    options, bus, store, tmp_path
):
    await bus.publish(as_json(*(rating(f"r{n}") for n in range(50))))
    running = process(options, tmp_path)
    await until(lambda: store.counts()["ratings"] == 50)
    running.send_signal(signal.SIGTERM)
    code, log = await asyncio.to_thread(end, running)
    assert code == 0
    assert not [line for line in log.splitlines() if " ERROR " in line or "Traceback" in line]
    assert await asyncio.to_thread(lag, options) == {
        options.topic(topic): 0 for topic in ("erasures", "policies", "requests", "ratings")
    }


@pytest.mark.parametrize(
    "arguments", [("{}", "sqlite:///s.db"), ('{"bootstrap_servers":["b:1"]}', "mongodb://s")]
)
def test_what_it_cannot_be_told_is_said_without_a_trace(arguments):
    module = "feedback.bus.kafka.collecting"
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "CRITICAL" in done.stderr and "Traceback" not in done.stderr


async def test_a_store_that_is_down_is_tried_again_and_the_place_in_the_group_is_kept(
    options, bus, store, stop, monkeypatch, caplog
):
    waits: list[float] = []
    wait = Collecting._wait

    def watched(self, consumer, seconds):
        waits.append(seconds)
        wait(self, consumer, seconds)

    monkeypatch.setattr(Collecting, "_wait", watched)
    with collecting(options, store):
        await bus.publish(as_json(request("before")))
        await collected(options)
        start = stop()
        await bus.publish(as_json(request("meanwhile")))
        await until(lambda: len(waits) >= 2)
        start()
        await collected(options)
    assert [found.request_id for found in store.requests(tenant="default")] == ["before", "meanwhile"]
    assert caplog.text.count("events stay on their topics") == len(waits)


RUBBISH = st.one_of(
    st.none(),
    st.binary(max_size=100),
    st.dictionaries(
        st.sampled_from(["type", "request_id", "tenant", "time", "schema_version"]), st.none()
    ).map(lambda fields: json.dumps(rating().model_dump(mode="json") | fields).encode()),
)
TOPICS = st.sampled_from(["requests", "ratings", "policies", "erasures"])


async def test_whatever_bytes_lie_on_the_topics_end_as_dead_letters_and_nothing_is_stuck(options, bus, store):
    sender = Sender(options)
    sent: list[bytes] = []

    @given(batch=st.lists(st.tuples(TOPICS, RUBBISH), max_size=10))
    @settings(max_examples=30, deadline=None)
    def send(batch):
        sender.send([Record(options.topic(topic), b"k", value, {}) for topic, value in batch])
        sent.extend(value or b"" for _, value in batch)

    await asyncio.to_thread(send)
    with collecting(options, store):
        await bus.publish(as_json(rating("behind all that")))
        await collected(options)
    sender.close()
    assert "behind all that" in [found.request_id for found in store.ratings(tenant="default")]
    dead = [data for data in sent if not is_event(data)]
    assert len(dead) > 10
    letters = await asyncio.to_thread(on_dead_letter_topic, options)
    assert sorted(data for data, _ in letters) == sorted(dead)
    assert {letter.data for letter in store.dead_letters()} == set(dead)


async def test_a_dead_letter_has_its_reason_and_says_where_it_lay(options, bus, store):
    newer = json.dumps(rating().model_dump(mode="json") | {"schema_version": 99}).encode()
    with collecting(options, store):
        await bus.publish([newer])
        await collected(options)
    [(data, headers)] = await asyncio.to_thread(on_dead_letter_topic, options)
    assert data == newer
    assert headers["reason"].startswith("schema_version: 99 is newer than 3")
    assert (headers["topic"], headers["offset"]) == (options.topic("ratings"), "0")
    assert headers["partition"] in {"0", "1", "2"}
    [letter] = store.dead_letters()
    assert letter.reason == headers["reason"]


async def test_events_of_every_version_arrive_as_they_were(options, bus, store, root):
    files = sorted((root / "tests/feedback/data").glob("events_v*.jsonl"))
    lines = [line for file in files for line in file.read_bytes().splitlines()]
    bodies = [
        line for line in lines if not isinstance(events.parse(line), events.Erased)
    ]  # it would take others along
    with collecting(options, store):
        await bus.publish(bodies)
        await collected(options)
    counts = store.counts()
    assert counts["dead_letters"] == 0
    assert sum(counts.values()) == len({events.parse(body).event_id for body in bodies})
