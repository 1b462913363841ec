import pytest

from tests.contracts.bus import BusContract
from tests.feedback.bus.kafka.conftest import collected, collecting


class TestKafkaBus(BusContract):
    @pytest.fixture(autouse=True)
    def _collected(self, options, store):
        self.options = options
        with collecting(options, store):
            yield

    @pytest.fixture
    def stop(self, brokers_away):
        return brokers_away

    async def arrived(self):
        await collected(self.options)
