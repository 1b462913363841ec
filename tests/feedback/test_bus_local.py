import pytest

from feedback.bus.local import LocalBus
from feedback.collector import Collector
from tests.contracts.bus import BusContract


class TestLocalBus(BusContract):
    @pytest.fixture
    def bus(self, store):
        return LocalBus(Collector(store))

    @pytest.fixture
    def stop(self, store):
        """The table is away: a real error of the database."""

        def rename(old, new):
            with store.writing() as connection:
                connection.exec_driver_sql(f"ALTER TABLE {old} RENAME TO {new}")

        def stop():
            rename("requests", "away")
            return lambda: rename("away", "requests")

        return stop
