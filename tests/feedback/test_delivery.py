import pytest

from feedback.bus.base import BusError
from feedback.bus.local import LocalBus
from feedback.collector import Collector
from feedback.delivery import delivering
from tests.contracts.delivery import DeliveryContract
from tests.contracts.samples import request


class TestHere(DeliveryContract):
    @pytest.fixture
    def opened(self, folder, store):
        bus = LocalBus(Collector(store))
        return lambda max_bytes=None: delivering(folder / "outbox.db", max_bytes, bus)

    async def test_it_does_not_begin_while_what_is_left_cannot_be_delivered(self, opened, stop, store):
        async with opened() as delivery:
            start = stop()
            await delivery.append(request())
        with pytest.raises(BusError):
            async with opened():
                pass
        start()
        async with opened():
            assert store.counts()["requests"] == 1
