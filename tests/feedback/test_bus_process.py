import asyncio
import os
import struct
import subprocess
import sys

import pytest

from feedback.bus.base import BusError
from feedback.bus.process import ProcessBus
from tests.contracts.bus import BusContract, as_json
from tests.contracts.samples import request


class TestProcessBus(BusContract):
    @pytest.fixture
    async def bus(self, tmp_path, store):
        bus = ProcessBus(f"sqlite:///{tmp_path}/store.db")
        yield bus
        await bus.close()

    async def test_a_collector_that_was_killed_is_started_again(self, bus, store):
        await bus.publish(as_json(request("r1")))
        os.kill(bus._process.pid, 9)
        await bus._process.wait()
        with pytest.raises(BusError):
            await bus.publish(as_json(request("r2")))
        await bus.publish(as_json(request("r2")))
        assert store.counts()["requests"] == 2

    async def test_a_store_that_cannot_be_opened_is_said(self, tmp_path):
        bus = ProcessBus(f"sqlite:///{tmp_path}")
        with pytest.raises(BusError, match="cannot open the store"):
            await bus.publish([])
        await bus.close()

    async def test_a_batch_that_was_cut_is_no_batch(self, bus, store):
        await bus.publish([])
        bus._process.stdin.write(b"\x00\x00\x00\x01\x00\x00\x00\x09half")
        bus._process.stdin.close()
        assert await asyncio.wait_for(bus._process.wait(), 5) == 0
        assert sum(store.counts().values()) == 0

    def test_who_is_left_by_its_parent_has_written_the_batch_and_ends_without_a_word(self, tmp_path, store):
        command = (sys.executable, "-m", "feedback.bus.collecting", f"sqlite:///{tmp_path}/store.db")
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as left:
            assert left.stdin is not None and left.stdout is not None and left.stderr is not None
            left.stdout.close()
            [record] = as_json(request("r1"))
            left.stdin.write(struct.pack(">II", 1, len(record)) + record)
            left.stdin.flush()
            assert left.wait(20) == 0
            assert left.stderr.read() == b""
        assert store.counts()["requests"] == 1
