"""Every migration goes up and down again on a store with content, and loses nothing that its tables can hold."""

from datetime import UTC, datetime, timedelta

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from feedback.store import Deletions, Keys, Store
from feedback.store.engine import configuration
from feedback.store.tables import metadata
from tests.contracts.samples import rating, request

FIRST, HEAD = "0001", "head"


@pytest.fixture
def store(any_store: Store) -> Store:
    return any_store


@pytest.fixture
def config() -> Config:
    return configuration()


def _move(store: Store, config: Config, revision: str) -> None:
    with store.writing() as connection:
        config.attributes["connection"] = connection
        (command.upgrade if revision == HEAD else command.downgrade)(config, revision)


def test_down_to_the_first_and_up_again_keeps_events_and_keys(store: Store, config: Config):
    keys = Keys(store)
    secret = keys.create("ann", ["rate"], tenant="acme")
    asked, rated = request(output="a\0b"), rating(comment="\\u0000 \0")
    store.write([asked, rated])
    before = keys.lookup(secret)
    _move(store, config, FIRST)
    with store.reading() as connection:
        columns = {column["name"] for column in inspect(connection).get_columns("api_keys")}
    assert columns == {"key_hash", "owner", "tenant", "scopes", "created", "revoked"}
    _move(store, config, HEAD)
    with store.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    assert keys.lookup(secret) == before
    assert store.request("r1", "default") == asked
    assert list(store.ratings(tenant="default")) == [rated]


def test_a_key_that_has_expired_does_not_live_again_when_the_column_goes(store: Store, config: Config):
    keys, now = Keys(store), datetime.now(UTC)
    over = keys.create("ann", [], expires=now - timedelta(days=1))
    later = keys.create("bob", [], expires=now + timedelta(days=1))
    _move(store, config, FIRST)
    _move(store, config, HEAD)
    assert keys.lookup(over) is None
    assert keys.lookup(later) is not None


def test_what_was_deleted_does_not_come_back_when_the_table_is_not_needed_for_a_while(
    store: Store, config: Config
):
    deletions = Deletions(store)
    deletions.add("resp_1", tenant="acme", by="ann")
    _move(store, config, FIRST)
    _move(store, config, HEAD)
    assert deletions.has("resp_1", "acme")


def test_requests_of_before_are_found_by_their_traces_and_spans(store: Store, config: Config):
    asked = [request(f"r{n}", trace_id=f"{n:032x}") for n in range(5)]
    store.write([*asked, request("r5")])
    _move(store, config, "0007")
    _move(store, config, HEAD)
    for one in asked:
        assert store.newest("default", trace_id=one.trace_id) == one
        assert store.newest("default", span_id=one.span_id) == one
