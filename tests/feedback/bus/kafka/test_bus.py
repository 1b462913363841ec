import pytest

from feedback.bus.kafka import clients
from feedback.bus.kafka.producer import Sender
from tests.contracts.bus import BusContract
from tests.feedback.bus.kafka.conftest import collected, collecting


class TestKafkaBus(BusContract):
    @pytest.fixture(autouse=True)
    def _collected(self, options, store):
        self.options = options
        with collecting(options, store):
            yield

    @pytest.fixture
    def stop(self, bus, monkeypatch):
        """Nobody answers where the brokers should be."""
        monkeypatch.setattr(clients, "_BOOTSTRAP_MS", 300)

        def stop():
            there = bus._sender
            bus._sender = Sender(self.options.model_copy(update={"bootstrap_servers": ("127.0.0.1:1",)}))

            def start():
                bus._sender = there

            return start

        return stop

    async def arrived(self):
        await collected(self.options)
