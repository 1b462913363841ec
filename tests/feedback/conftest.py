import pytest

from feedback.outbox import Outbox
from feedback.store import Store


@pytest.fixture
def store(tmp_path):
    store = Store.open(f"sqlite:///{tmp_path}/store.db")
    yield store
    store.close()


@pytest.fixture
def outbox(tmp_path):
    outbox = Outbox(tmp_path / "outbox.db")
    yield outbox
    outbox.close()
