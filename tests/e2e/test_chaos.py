"""`make chaos`, made short: real Kafka, real PostgreSQL, real kills, and a comparison that would notice."""

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from bench.chaos import report
from bench.chaos.clients import Told
from bench.chaos.plan import Cut, FullDisk, Kill, Slow, plan
from bench.chaos.verdict import Recorded, of_ratings, of_requests
from tests.conftest import ROOT
from tests.gateway.conftest import until

_CANNOT_RUN = 2
_MARK = "CHAOS_TEST"


def start(reports: Path, *options: str, mark: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        # A shell has what it starts in the background ignore Ctrl-C, these tests perhaps, and it would be inherited.
        (
            "env",
            "--default-signal=INT",
            sys.executable,
            "-m",
            "bench.chaos",
            "--reports",
            str(reports),
            *options,
        ),
        cwd=ROOT,
        env={**os.environ, _MARK: mark, "KAFKA_HEAP_MAX": os.environ.get("KAFKA_HEAP_MAX", "384m")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def skip_without_servers(returncode: int | None, why: str) -> None:
    if returncode == _CANNOT_RUN and not os.environ.get("CI"):
        pytest.skip(why)


def marked(mark: str) -> Sequence[psutil.Process]:
    """The processes with this mark in their environment, which is inherited."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(_MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def test_what_was_acknowledged_is_stored_once_whatever_was_killed_cut_slowed_and_filled(
    tmp_path: Path,
) -> None:
    chaos = start(tmp_path, "--kills", "6", "--rate", "20")
    output, errors = chaos.communicate()
    skip_without_servers(chaos.returncode, errors)
    assert chaos.returncode == 0, output + errors
    found = json.loads((tmp_path / "chaos.json").read_text())
    starts = found["starts"]
    assert min(starts[name] for name in ("gateway", "broker", "postgres")) > 1
    assert starts["collector-1"] + starts["collector-2"] > 2
    assert found["requests"]["acknowledged"] > 50
    assert found["ratings"]["acknowledged"] > 5
    assert found["dead_letters"] == found["strange"] == 0


async def test_ctrl_c_leaves_no_process_behind(tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    with start(tmp_path, "--rate", "20", mark=mark) as chaos:
        gateway = tmp_path / "chaos" / "gateway-001.log"
        await until(lambda: gateway.exists() or chaos.poll() is not None, 120)
        skip_without_servers(chaos.returncode, "see above")
        assert len(marked(mark)) > 5
        chaos.send_signal(signal.SIGINT)
        assert chaos.wait(120) == 128 + signal.SIGINT
    assert marked(mark) == []


def test_a_plan_is_the_same_for_the_same_seed_and_kills_everybody_equally_often() -> None:
    assert plan(7, 50) == plan(7, 50) != plan(8, 50)
    incidents = [incident for _, incident in plan(7, 50)]
    kills = [incident.victim for incident in incidents if isinstance(incident, Kill)]
    assert {kills.count(victim) for victim in kills} == {10} and len(set(kills)) == 5
    assert sum(isinstance(incident, FullDisk) for incident in incidents) == 1
    assert {type(incident) for incident in incidents} == {Kill, Cut, Slow, FullDisk}


def test_a_request_that_is_missing_twice_or_another_than_was_told_is_noticed() -> None:
    told = Told(asked=6, completed={0: "r0", 1: "r1", 2: "r2", 3: "r3"})
    found = Recorded(requests={0: ["r0"], 2: ["r2", "r2"], 3: ["other"], 4: ["r4"]})
    counts = of_requests(told, found)
    assert (counts.missing, counts.twice, counts.different, counts.untold) == (1, 1, 1, 1)
    assert not counts.right


def test_a_request_that_completed_and_failed_was_recorded_twice() -> None:
    found = Recorded(requests={0: ["r0"]})
    found.unfinished[0] = 1
    assert of_requests(Told(asked=1, completed={0: "r0"}), found).twice == 1


def test_a_request_that_was_cut_off_may_be_recorded_or_not() -> None:
    found = Recorded(requests={0: ["r0"]})
    found.unfinished[1] = 1
    assert of_requests(Told(asked=3), found).right


def test_a_rating_that_is_missing_twice_or_another_than_was_told_is_noticed() -> None:
    told = Told(rated=5, acknowledged={n: (f"f{n}", f"r{n}", True) for n in range(4)})
    found = Recorded(
        ratings={
            0: [("f0", "r0", True)],
            2: [("f2", "r2", True), ("f9", "r2", True)],
            3: [("f3", "r3", False)],
            4: [("f4", "r4", True)],
        }
    )
    counts = of_ratings(told, found)
    assert (counts.missing, counts.twice, counts.different, counts.untold) == (1, 1, 1, 1)
    assert not counts.right


def test_a_run_in_which_nothing_was_acknowledged_of_one_kind_has_shown_nothing(tmp_path: Path) -> None:
    told = Told(asked=1, completed={0: "r0"}, rated=1, acknowledged={0: ("f0", "r0", True)})
    there = Recorded(requests={0: ["r0"]}, ratings={0: [("f0", "r0", True)]})

    def passed(told: Told) -> bool:
        found = {
            "seed": 0,
            "rate": 1.0,
            "rate_reached": 1.0,
            "seconds": 1.0,
            "disk": "none",
            "incidents": {},
            "heard": {},
            "drain_seconds": 0.0,
            "dead_letters": 0,
            "strange": 0,
            "requests": asdict(of_requests(told, there)),
            "ratings": asdict(of_ratings(told, there)),
        }
        return report.write(found, tmp_path / "chaos.json")

    assert passed(told)
    assert not passed(Told(asked=1, completed={0: "r0"}, rated=1))
    assert not passed(Told(asked=1))
