import pytest

from feedback.bus.local import LocalBus
from feedback.collector import Collector
from tests.contracts.bus import BusContract


class TestLocalBus(BusContract):
    @pytest.fixture
    def bus(self, store):
        return LocalBus(Collector(store))
