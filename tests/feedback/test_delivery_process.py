import asyncio
import os
import signal
import socket
import subprocess
import sys
from functools import partial

import psutil
import pytest

from feedback.delivery_process import _LENGTH, Apart, _Link, _Record, delivering_apart
from feedback.outbox import OutboxError, encoded
from tests.contracts.delivery import DeliveryContract, busy, until
from tests.contracts.samples import rating, request


def changed(delivery: Apart, pid: int) -> bool:
    return delivery._process.pid != pid and delivery._reached


class TestApart(DeliveryContract):
    @pytest.fixture
    def opened(self, folder):
        url = f"sqlite:///{folder}/store.db"
        return lambda max_bytes=None: delivering_apart(folder / "outbox.db", max_bytes, url)

    async def test_it_does_not_begin_while_what_is_left_cannot_be_delivered(self, opened, stop, store):
        async with opened() as delivery:
            start = stop()
            await delivery.append(request())
        with pytest.raises(OutboxError, match="store did not take the batch"):
            async with opened():
                pass
        start()
        async with opened():
            assert store.counts()["requests"] == 1

    async def test_a_process_that_was_killed_is_replaced_and_nobody_notices(self, opened, store):
        async with opened() as delivery:
            for number in range(4):
                await until(lambda: delivery._reached)
                appending = [
                    asyncio.create_task(delivery.append(rating(f"r{number}-{n}"))) for n in range(50)
                ]
                await asyncio.sleep(0.002 * number)
                os.kill(delivery._process.pid, signal.SIGKILL)
                await asyncio.gather(*appending)
            await delivery.check()
        found = [each.request_id for each in store.ratings(tenant="default")]
        assert sorted(found) == sorted(f"r{number}-{n}" for number in range(4) for n in range(50))

    async def test_records_that_end_the_process_twice_are_refused_and_later_ones_taken(
        self, opened, folder, store
    ):
        async with opened() as delivery:
            with busy(folder / "outbox.db"):
                appending = asyncio.create_task(delivery.append(rating("deadly")))
                for _ in range(2):
                    killed = delivery._process.pid
                    await asyncio.sleep(0.2)
                    os.kill(killed, signal.SIGKILL)
                    await until(partial(changed, delivery, killed))
                with pytest.raises(OutboxError, match="twice"):
                    await appending
            await delivery.append(rating("later"))
        assert "later" in [found.request_id for found in store.ratings(tenant="default")]

    async def test_while_no_process_can_be_started_events_are_refused_and_then_taken_again(
        self, opened, store, monkeypatch
    ):
        async def no_more(*_command, **_options):
            raise OSError("no more processes")

        async with opened() as delivery:
            with monkeypatch.context() as patched:
                patched.setattr(asyncio, "create_subprocess_exec", no_more)
                os.kill(delivery._process.pid, signal.SIGKILL)
                with pytest.raises(OutboxError, match="no more processes"):
                    await delivery.append(rating("early"))
            await delivery.append(rating("later"))
        assert [found.request_id for found in store.ratings(tenant="default")] == ["later"]

    async def test_while_the_store_takes_nothing_a_killed_process_is_replaced_all_the_same(
        self, opened, stop, store
    ):
        async with opened() as delivery:
            start = stop()
            await delivery.append(request("r1"))
            os.kill(delivery._process.pid, signal.SIGKILL)
            await delivery.append(request("r2"))
            start()
        assert [found.request_id for found in store.requests(tenant="default")] == ["r1", "r2"]

    async def test_what_comes_up_as_a_process_begins_is_given_to_it_once(
        self, opened, folder, store, monkeypatch
    ):
        """Records are confirmed by their number: were one sent twice, the next would be confirmed before its time."""
        received = _Link.data_received
        beside: list[_Record] = []

        def with_company(link: _Link, data: bytes) -> None:
            """An append in the very turn of the event loop in which the process says that it has begun."""
            if not link.begun.done():
                record = _Record(encoded(rating("beside")), asyncio.get_running_loop().create_future())
                for queue in (delivery._unconfirmed, delivery._unsent, beside):
                    queue.append(record)
                asyncio.get_running_loop().call_soon(delivery._send)
            received(link, data)

        async with opened() as delivery:
            monkeypatch.setattr(_Link, "data_received", with_company)
            os.kill(delivery._process.pid, signal.SIGKILL)
            await until(lambda: bool(beside))
            await beside[0].done
            with busy(folder / "outbox.db"):
                waiting = asyncio.create_task(delivery.append(rating("after")))
                await asyncio.sleep(0.3)
                assert not waiting.done()
            await waiting
        assert [found.request_id for found in store.ratings(tenant="default")] == ["beside", "after"]

    async def test_signals_for_all_do_not_end_it_before_the_gateway(self, opened, store):
        async with opened() as delivery:
            pid = delivery._process.pid
            delivery._process.send_signal(signal.SIGTERM)
            delivery._process.send_signal(signal.SIGINT)
            await delivery.append(rating())
            assert delivery._process.pid == pid
        assert store.counts()["ratings"] == 1

    async def test_an_end_leaves_no_process_behind(self, opened):
        async with opened() as delivery:
            await delivery.append(rating())
            left = psutil.Process(delivery._process.pid)
            await until(lambda: len(left.children()) == 1)
            family = [left, *left.children()]
        assert psutil.wait_procs(family, timeout=10)[1] == []


def test_who_is_left_by_its_gateway_delivers_what_it_was_given_and_ends_without_a_word(tmp_path, store):
    ours, theirs = socket.socketpair()
    command = [
        sys.executable,
        "-m",
        "feedback.delivering",
        str(theirs.fileno()),
        f"{tmp_path}/outbox.db",
    ]
    with ours, theirs:
        process = subprocess.Popen(
            [*command, "0", f"sqlite:///{tmp_path}/store.db", "", "1"],
            pass_fds=(theirs.fileno(),),
            stderr=subprocess.PIPE,
        )
        theirs.close()
        assert ours.recv(100) == b"0 0 \n"
        body = request().model_dump_json().encode()
        ours.sendall(_LENGTH.pack(len(body)) + body + _LENGTH.pack(9) + b"half")
    assert process.wait(30) == 0
    assert process.stderr is not None and process.stderr.read() == b""
    process.stderr.close()
    assert store.counts()["requests"] == 1
