import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feedback.collector import Collector
from feedback.store import StoreError
from tests.contracts.samples import rating, request

VALID = rating().model_dump(mode="json")
RUBBISH = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=200).map(str.encode),
    st.dictionaries(st.sampled_from([*VALID, "other"]), st.none() | st.integers() | st.text(max_size=20)).map(
        lambda fields: json.dumps(VALID | fields).encode()
    ),
)


@given(batch=st.lists(RUBBISH, max_size=5))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_bytes_come_each_record_ends_as_an_event_or_as_a_dead_letter(any_store, batch):
    good = rating().model_dump_json().encode()
    collected = Collector(any_store).collect([*batch, good])
    assert collected.events + collected.dead_letters == len(batch) + 1
    assert collected.events >= 1
    kept = {letter.data for letter in any_store.dead_letters()}
    assert len([data for data in batch if data in kept]) == collected.dead_letters


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "JSON"),
        (b"[]", "object"),
        (b"{}", "type"),
        (b'{"type": "unheard_of"}', "type"),
        (json.dumps({**VALID, "schema_version": 99}).encode(), "schema_version"),
        (json.dumps({**VALID, "surprise": 1}).encode(), "surprise"),
        (json.dumps({**VALID, "time": "9999-12-31T23:59:59-05:00"}).encode(), "out of range"),
        (json.dumps({**VALID, "time": "2026-01-01T00:00:00"}).encode(), "timezone"),
        (json.dumps({**VALID, "value": [1]}).encode(), "value"),
        (json.dumps({**VALID, "correction": {"n": 0}}).replace(": 0", ": " + "9" * 6000).encode(), "number"),
        (
            json.dumps({**VALID, "correction": {"n": 0}}).replace(": 0", ": " + "[" * 500).encode(),
            "recursion",
        ),
    ],
)
def test_a_dead_letter_says_what_was_wrong(store, data, reason):
    Collector(store).collect([data])
    [letter] = store.dead_letters()
    assert letter.data == data
    assert reason in letter.reason


def test_the_reason_and_the_log_quote_nothing_that_people_wrote(store, caplog):
    Collector(store).collect([json.dumps({**VALID, "value": ["a private matter"]}).encode()])
    [letter] = store.dead_letters()
    assert "private" not in letter.reason + caplog.text
    assert "dead letters" in caplog.text


def test_when_the_store_fails_nothing_of_the_batch_is_kept(store):
    with store.writing() as connection:
        connection.exec_driver_sql("DROP TABLE ratings")
        connection.exec_driver_sql("CREATE TABLE ratings (event_id)")
    with pytest.raises(StoreError):
        Collector(store).collect([x.model_dump_json().encode() for x in (request(), rating())] + [b"rubbish"])
    assert sum(store.counts().values()) == 0
