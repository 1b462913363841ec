"""One child process: it is ready when it answers, its end is reported with its log, and nothing of it is left."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from deploy import process
from deploy.process import StartError, holder, kept, running
from tests.deploy.conftest import fake_program, free_port, of_folder


async def gone(folder: Path, seconds: float = 5) -> bool:
    deadline = time.monotonic() + seconds
    while of_folder(folder) and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    return not of_folder(folder)


async def test_it_is_ready_when_it_answers_and_its_children_end_with_it(tmp_path: Path):
    async with (
        aiohttp.ClientSession() as session,
        running(fake_program("one", free_port(), tmp_path)) as child,
    ):
        assert await child.ready(session) < 20
        assert len(of_folder(tmp_path)) == 3  # guard, server, the server's own child
    assert await gone(tmp_path)


async def test_one_that_ignores_sigterm_is_killed_after_the_grace_period(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.5)
    async with (
        aiohttp.ClientSession() as session,
        running(fake_program("one", free_port(), tmp_path, "stubborn")) as child,
    ):
        await child.ready(session)
        started = time.monotonic()
    assert 0.4 < time.monotonic() - started < 5
    assert await gone(tmp_path)


async def test_its_death_is_told_with_the_end_of_its_log_and_the_mend(tmp_path: Path):
    broken = replace(
        fake_program("one", free_port(), tmp_path),
        command=(sys.executable, "-c", "print('out of cheese'); raise SystemExit(3)"),
    )
    async with aiohttp.ClientSession() as session, running(broken) as child:
        with pytest.raises(StartError) as caught:
            await child.ready(session)
    said = str(caught.value)
    assert "one ended with status 3" in said
    assert "out of cheese" in said
    assert said.endswith("Do the right thing.")


async def test_a_killed_server_takes_its_children_along_and_is_reported(tmp_path: Path):
    async with (
        aiohttp.ClientSession() as session,
        running(fake_program("one", free_port(), tmp_path)) as child,
    ):
        await child.ready(session)
        (server,) = [p for p in of_folder(tmp_path) if p.ppid() == child.pid]
        server.kill()
        await asyncio.wait_for(child.died(), 5)
        assert "one was ended by signal 9" in str(child.death())
        assert await gone(tmp_path)


async def test_one_that_never_answers_fails_after_its_time(tmp_path: Path):
    silent = replace(
        fake_program("one", free_port(), tmp_path),
        command=(sys.executable, "-c", "import time; time.sleep(600)"),
        ready_seconds=0.5,
    )
    async with aiohttp.ClientSession() as session, running(silent) as child:
        with pytest.raises(StartError, match=r"was not ready within 0\.5 s"):
            await child.ready(session)


async def test_the_log_of_the_run_before_is_kept(tmp_path: Path):
    for word in ("first", "second"):
        program = replace(
            fake_program("one", free_port(), tmp_path), command=(sys.executable, "-c", f"print('{word}')")
        )
        async with running(program) as child:
            await child.died()
    assert (tmp_path / "one.log").read_text() == "second\n"
    assert (tmp_path / "one.previous.log").read_text() == "first\n"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_nothing_outlives_its_supervisor_however_that_ends(
    tmp_path: Path, root: Path, number: signal.Signals
):
    port = free_port()
    script = f"""
import asyncio
import signal
from pathlib import Path
from deploy.process import running
from tests.deploy.conftest import fake_program

async def main():
    async with running(fake_program("one", {port}, Path({str(tmp_path)!r}))):
        await asyncio.sleep(600)

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests themselves run in the background
asyncio.run(main())
"""
    supervisor = subprocess.Popen([sys.executable, "-c", script], cwd=root, stderr=subprocess.DEVNULL)
    try:
        async with asyncio.timeout(20):
            while holder(port) is None:
                await asyncio.sleep(0.05)
        os.kill(supervisor.pid, number)
        supervisor.wait(30)
    finally:
        supervisor.kill()
        supervisor.wait()
    assert await gone(tmp_path)


async def test_it_is_said_who_holds_a_port(tmp_path: Path):
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert f"(process {os.getpid()})" in (holder(port) or "")
    assert holder(free_port()) is None


async def test_one_that_is_kept_is_started_again_and_its_end_is_told(tmp_path: Path):
    told: list[StartError] = []
    ends = replace(
        fake_program("one", free_port(), tmp_path),
        command=(
            "/bin/sh",
            "-c",
            f"echo $$ >> {tmp_path}/pids; test $(wc -l < {tmp_path}/pids) -eq 3 && sleep 600",
        ),
    )
    async with kept(ends, told.append) as first:
        await first.died()
        async with asyncio.timeout(20):
            while len(told) < 2 or not of_folder(tmp_path):
                await asyncio.sleep(0.05)
    assert [str(death).splitlines()[0] for death in told] == [
        f"one ended with status 1. The end of {tmp_path}/one.log:"
    ] * 2
    assert await gone(tmp_path)


async def test_one_that_is_kept_and_cannot_be_started_is_an_error(tmp_path: Path):
    missing = replace(fake_program("one", free_port(), tmp_path), folder=tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError):
        async with kept(missing, lambda _: None):
            pass


async def test_it_is_ended_by_the_signal_that_it_wants(tmp_path: Path):
    script = (
        "import signal, sys, time; signal.signal(signal.SIGINT, lambda *_: sys.exit(print('in order'))); "
    )
    wanted = replace(
        fake_program("one", free_port(), tmp_path),
        command=(sys.executable, "-u", "-c", script + "print('runs'); time.sleep(600)"),
        stop_signal=signal.SIGINT,
    )
    async with running(wanted), asyncio.timeout(20):
        while "runs" not in (tmp_path / "one.log").read_text():
            await asyncio.sleep(0.05)
    assert (tmp_path / "one.log").read_text() == "runs\nin order\n"
