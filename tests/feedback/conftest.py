import pytest

from feedback.outbox import Outbox
from feedback.store import Store


@pytest.fixture
def store(tmp_path):
    store = Store.open(f"sqlite:///{tmp_path}/store.db")
    yield store
    store.close()


@pytest.fixture
def postgres_store(postgres_store_url):
    store = Store.open(postgres_store_url)
    yield store
    store.close()


@pytest.fixture(params=["store", "postgres_store"])
def any_store(request):
    """The test runs on SQLite and on PostgreSQL."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def outbox(tmp_path):
    outbox = Outbox(tmp_path / "outbox.db")
    yield outbox
    outbox.close()


@pytest.fixture
def stop(store):
    """The store stops taking requests: its table is away, a real error of the database. Returns what brings it back."""

    def rename(old, new):
        with store.writing() as connection:
            connection.exec_driver_sql(f"ALTER TABLE {old} RENAME TO {new}")

    def stop():
        rename("requests", "away")
        return lambda: rename("away", "requests")

    return stop
