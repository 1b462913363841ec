import itertools
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback import events
from feedback.bus.kafka.options import KafkaOptions
from feedback.bus.kafka.records import Letters, Origin, dead_letter, event_record
from tests.contracts.samples import change, rating, request

OPTIONS = KafkaOptions(bootstrap_servers=("b:1",))
EVENTS: dict[str, list[events.AnyEvent]] = {
    "requests": [request()],
    "ratings": [
        rating(),
        rating(episode_id="e"),
        events.Rating(rater="ann", episode_id="e", value=True),
        rating(episode_id=""),
    ],
    "policies": [change("sql-analyst@1", "candidate")],
    "erasures": [events.Erased(person="ann", by="bob"), events.Erased(request_id="r1", by="bob")],
}


@pytest.mark.parametrize(("topic", "event"), [(topic, event) for topic in EVENTS for event in EVENTS[topic]])
def test_an_event_goes_to_its_topic_by_the_key_that_keeps_its_order(topic, event):
    body = event.model_dump_json().encode()
    record = event_record(body, OPTIONS)
    headers = {"type": event.type, "schema-version": str(events.SCHEMA_VERSION)}
    assert record == (f"flywheel.{topic}", events.episode_key(event).encode(), body, headers)


@pytest.mark.parametrize("version", [1, 2])
def test_every_version_that_was_ever_written_finds_its_place(root, version):
    for line in (root / f"tests/feedback/data/events_v{version}.jsonl").read_bytes().splitlines():
        record = event_record(line, OPTIONS)
        assert record.key == events.episode_key(events.parse(line)).encode()
        assert record.headers["schema-version"] == str(version)


@given(
    st.one_of(
        st.binary(),
        st.recursive(
            st.none() | st.integers() | st.text() | st.sampled_from(["rating", "request_finished"]),
            lambda inner: (
                st.lists(inner) | st.dictionaries(st.sampled_from(["type", "episode_id", "agent"]), inner)
            ),
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_whatever_bytes_come_they_are_sent_somewhere(body):
    record = event_record(body, OPTIONS)
    assert record.value == body and record.topic.startswith("flywheel.")


@pytest.mark.parametrize("size", [0, 10, 512 * 1024, 512 * 1024 + 1, 3 * 512 * 1024])
def test_a_dead_letter_of_any_size_is_whole_again_though_others_lie_between_its_pieces(size):
    origin = Origin("flywheel.ratings", 2, 7)
    data, other = os.urandom(size), os.urandom(2 * 512 * 1024)
    first, second = list(dead_letter(data, "why", OPTIONS, origin)), list(dead_letter(other, "so", OPTIONS))
    assert all(len(record.value) <= 512 * 1024 for record in first)
    cut, whole = first[:1] if len(first) > 1 else [], Letters()  # its sender was killed, and sent it again
    mixed = [x for pair in itertools.zip_longest(cut + first, second) for x in pair if x is not None]
    found = [letter for record in mixed if (letter := whole.add(record.value, record.headers)) is not None]
    assert sorted(found, key=lambda letter: letter.reason) == [(other, "so", None), (data, "why", origin)]


def test_what_others_have_put_on_the_topic_of_dead_letters_is_a_letter_without_a_reason():
    assert Letters().add(b"hello", {"pieces": "many"}) == (b"hello", "", None)
