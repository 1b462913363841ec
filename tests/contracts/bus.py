"""What every bus must do, seen from its two ends: what is published, and what the store then holds."""

from collections.abc import Callable

import pytest

from feedback.bus.base import Bus, BusError
from feedback.store import Store
from tests.contracts.samples import change, rating, request


def as_json(*events):
    return [event.model_dump_json().encode() for event in events]


class BusContract:
    """A subclass has the fixtures `bus`, `store` (behind the bus's collector) and `stop` (returns `start`)."""

    async def arrived(self) -> None:
        """Wait until everything published has been collected. A bus that is done when `publish` is needs nothing."""

    async def test_what_is_published_reaches_the_store(self, bus: Bus, store: Store):
        asked, rated, changed = request(), rating(), change("sql-analyst@1", "candidate")
        await bus.publish(as_json(asked, rated, changed))
        await self.arrived()
        assert store.request("r1", "default") == asked
        assert list(store.ratings(tenant="default")) == [rated]
        assert store.policy_changes("sql-analyst") == [changed]

    async def test_a_batch_delivered_twice_has_the_effect_of_one(self, bus: Bus, store: Store):
        batch = [*as_json(request(), rating()), b"rubbish"]
        await bus.publish(batch)
        await bus.publish(batch)
        await self.arrived()
        assert store.counts() == {
            "requests": 1,
            "ratings": 1,
            "policy_changes": 0,
            "erasures": 0,
            "dead_letters": 1,
        }

    async def test_a_record_that_is_no_event_does_not_hold_up_the_others(self, bus: Bus, store: Store):
        await bus.publish([*as_json(request("r1")), b"\xff\x00 rubbish", *as_json(request("r2"))])
        await self.arrived()
        assert [found.request_id for found in store.requests(tenant="default")] == ["r1", "r2"]
        [letter] = store.dead_letters()
        assert letter.data == b"\xff\x00 rubbish"
        assert "JSON" in letter.reason

    async def test_a_batch_that_is_not_taken_is_refused_and_may_be_published_again(
        self, bus: Bus, store: Store, stop: Callable[[], Callable[[], None]]
    ):
        start = stop()
        with pytest.raises(BusError):
            await bus.publish(as_json(request()))
        start()
        await bus.publish(as_json(request()))
        await self.arrived()
        assert store.request("r1", "default") is not None

    async def test_an_empty_batch_is_taken(self, bus: Bus, store: Store):
        await bus.publish([])
        await self.arrived()
        assert sum(store.counts().values()) == 0
