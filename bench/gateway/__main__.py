"""The gateway beside others, in one run: `make bench-gateway` (QUICK=1: two minutes).

Every gateway is pinned to one core, alone; the pretended vLLM and the load generator share the next (with more cores,
each has one). What Flywheel records is written to disk and store by processes of their own, as `flywheel up` has it:
once beside the load, and once on the gateway's core with everything else. All servers run all the time, one is asked at
a time, and a round goes through all of them before the next begins, so that what else the machine does falls on all
alike; the median round counts.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

from bench.gateway import contenders, report
from bench.gateway.contenders import ROOT, UPSTREAM_PORT, Contender, SkippedError
from bench.gateway.load import measure

_START_SECONDS = 120
_CALM_SHARE = 0.05  # of a core, below which the servers are idle
_CALM_SECONDS = 60


class Running:
    """A contender that has been started and answers."""

    def __init__(self, contender: Contender, url: str, process: subprocess.Popen[bytes] | None) -> None:
        self.contender = contender
        self.url = url
        self.process = psutil.Process(process.pid) if process else None

    def cpu(self) -> tuple[float, float]:
        """CPU seconds of the server, and of processes beside it (what delivers Flywheel's events)."""
        if self.process is None:
            return 0.0, 0.0
        beside = self.beside()
        others = [child for child in self.process.children(recursive=True) if child not in beside]
        return sum(map(_cpu, [self.process, *others])), sum(map(_cpu, beside))

    def beside(self) -> list[psutil.Process]:
        """What delivers Flywheel's events."""
        children = self.process.children(recursive=True) if self.process else []
        return [child for child in children if any("feedback." in word for word in child.cmdline())]

    def mebibytes(self) -> float:
        """Resident memory of all its processes."""
        if self.process is None:
            return 0.0
        return (
            sum(one.memory_info().rss for one in [self.process, *self.process.children(recursive=True)])
            / 2**20
        )


def _pinned(core: int, command: tuple[str, ...]) -> tuple[str, ...]:
    return ("taskset", "-c", str(core), *command)


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


class Bench:
    """One run."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        cores = sorted(os.sched_getaffinity(0))
        self.gateway_core = cores[0]
        self.upstream_core, self.load_core = (cores[1:] * 2)[:2] if len(cores) > 1 else (cores[0], cores[0])
        self.running: list[Running] = []
        self.skipped: dict[str, str] = {}
        self._stack = stack
        self._folder = folder
        self._spawn(
            "upstream",
            (sys.executable, "-m", "bench.gateway.upstream", str(UPSTREAM_PORT)),
            {},
            self.upstream_core,
        )

    async def start(self, contender: Contender) -> None:
        """Start it and wait until it answers. Raises `SkippedError`."""
        log = self._folder / "server.log"
        process = None
        if contender.command:
            process, log = self._spawn(
                contender.name, contender.command, contender.environment, self.gateway_core
            )
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and (process is None or process.poll() is None):
            url = contenders.base_url(contender, log)
            if url is not None and await _answers(contender, url):
                self.running.append(Running(contender, url, process))
                return
            await asyncio.sleep(0.5)
        if process is not None:
            process.kill()
        last = (
            (log.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
            if log.exists()
            else ""
        )
        raise SkippedError(f"it does not answer: {last[:200]}")

    def _spawn(
        self, name: str, command: tuple[str, ...], environment: Any, core: int
    ) -> tuple[subprocess.Popen[bytes], Path]:
        log = self._folder / f"{name.replace(' ', '-').replace('/', '-')}.log"
        output = self._stack.enter_context(log.open("wb"))
        process = subprocess.Popen(
            _pinned(core, command),
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=output,
            stderr=output,
        )
        self._stack.callback(_end, process)
        return process, log

    async def one(self, running: Running, *, at_once: int, seconds: float, stream: bool) -> dict[str, Any]:
        """Ask one server, alone."""
        for process in running.beside():
            process.cpu_affinity([self.gateway_core if running.contender.one_core else self.load_core])
        before = running.cpu()
        request = {
            "url": running.url,
            "headers": dict(running.contender.headers),
            "model": running.contender.model,
            "at_once": at_once,
            "seconds": seconds,
            "stream": stream,
        }
        command = _pinned(self.load_core, (sys.executable, "-m", "bench.gateway.load", json.dumps(request)))
        done = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
        output, _ = await done.communicate()
        result: dict[str, Any] = json.loads(output)
        started = time.perf_counter()
        await self._calm()
        after = running.cpu()
        answers = max(1, result.pop("all_answers"))
        result["cpu_us"] = 1e6 * (after[0] - before[0]) / answers
        result["beside_us"] = 1e6 * (after[1] - before[1]) / answers
        result["settled_after_s"] = time.perf_counter() - started
        result["mebibytes"] = running.mebibytes()
        return result

    async def _calm(self) -> None:
        """Wait until the servers have done what they put off, e.g. Flywheel's relay: the next must not pay for it."""
        deadline = time.monotonic() + _CALM_SECONDS
        while time.monotonic() < deadline:
            before = sum(map(sum, (running.cpu() for running in self.running)))
            await asyncio.sleep(0.4)
            if sum(map(sum, (running.cpu() for running in self.running))) - before < 0.4 * _CALM_SHARE:
                return


async def _answers(contender: Contender, url: str) -> bool:
    try:
        tried = await measure(
            url, dict(contender.headers), contender.model, at_once=1, seconds=0.3, stream=False
        )
    except OSError:
        return False
    return tried["answers"] > 0 and not tried["errors"]


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()


async def run(*, seconds: float, rounds: int, at_once: list[int]) -> dict[str, Any]:
    """Measure everything. Returns what the report is made of."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bench = Bench(stack, folder)
        await bench.start(contenders.direct())
        await bench.start(contenders.bare())
        for capture, one_core in ((True, False), (True, True), (False, False)):
            await bench.start(contenders.ours(folder, capture=capture, one_core=one_core))
        for other in (contenders.litellm, contenders.vllm_router, contenders.tensorzero, contenders.portkey):
            try:
                await bench.start(other(folder))
            except SkippedError as reason:
                bench.skipped[other.__name__] = str(reason)
                print(f"skipped: {other.__name__}: {reason}")
        rows: dict[tuple[bool, int, str], list[dict[str, Any]]] = {}
        for number in range(rounds):
            for stream in (False, True):
                for clients in at_once:
                    for running in bench.running:
                        name = running.contender.name
                        print(
                            f"round {number + 1}: {'streams' if stream else 'JSON'} at {clients}: {name}",
                            flush=True,
                        )
                        result = await bench.one(running, at_once=clients, seconds=seconds, stream=stream)
                        rows.setdefault((stream, clients, name), []).append(result)
        return {
            "cores": {
                "gateway": bench.gateway_core,
                "upstream": bench.upstream_core,
                "load": bench.load_core,
            },
            "seconds": seconds,
            "rounds": rounds,
            "skipped": bench.skipped,
            "rows": [
                {"stream": stream, "at_once": clients, "name": name, **_median(results)}
                for (stream, clients, name), results in rows.items()
            ],
        }


def _median(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of each figure; of errors, all."""
    row: dict[str, Any] = {"errors": sum(result["errors"] for result in results)}
    row["an_error"] = next((result["an_error"] for result in results if result["an_error"]), None)
    for name in results[0].keys() - row.keys():
        values = [result[name] for result in results if result[name] is not None]
        row[name] = statistics.median(values) if values else None
    return row


def main() -> int:
    """Exit code 1 when a bar is missed."""
    parser = argparse.ArgumentParser(prog="make bench-gateway", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round at 1, 32 and 256")
    quick = parser.parse_args().quick
    settings = {"seconds": 1.0, "rounds": 1, "at_once": [1, 32, 256]} if quick else {}
    found = asyncio.run(run(**{"seconds": 3.0, "rounds": 3, "at_once": [1, 8, 32, 256], **settings}))
    return report.write(found, ROOT / "reports")


if __name__ == "__main__":
    sys.exit(main())
