import itertools
import json

import pytest

from bench.feedback import report
from bench.feedback.__main__ import grow, plan
from bench.feedback.legs import LEGS
from bench.feedback.material import stream
from bench.feedback.report import Turn
from bench.feedback.servers import Servers
from feedback.events import Rating, RequestFinished, parse

LOCAL = [name for name, leg in LEGS.items() if not leg.kafka and leg.store == "sqlite"]
FEW = 40


def test_the_events_are_distinct_and_valid_and_of_the_size_that_is_claimed():
    bodies = list(itertools.islice(stream(), 400))
    events = [parse(body) for body in bodies]
    assert len({event.event_id for event in events}) == 400
    assert [event.event_id for event in events] == sorted(event.event_id for event in events)
    for kind, size, number in ((RequestFinished, 3_500, 360), (Rating, 400, 40)):
        sizes = [len(body) for body, event in zip(bodies, events, strict=True) if isinstance(event, kind)]
        assert len(sizes) == number
        assert all(0.8 * size < each < 1.2 * size for each in sizes)


def test_a_leg_grows_by_turns_that_end_at_each_power_of_ten():
    sizes = list(itertools.accumulate(plan(100_000)))
    assert {1_000, 10_000, 100_000} <= set(sizes)
    assert sizes[-1] == 100_000
    assert max(plan(100_000)) <= 10_000


async def measured(leg, folder, running):
    done: list[int] = []
    turns = await grow(leg, running.places(folder, leg), FEW, done.append)
    assert sum(done) == FEW
    return report.leg(**turns)


@pytest.mark.parametrize("leg", LOCAL)
async def test_both_sides_of_a_leg_take_a_few_events(leg, tmp_path):
    figures = await measured(leg, tmp_path, Servers())
    assert figures["ratio"] > 0


@pytest.mark.parametrize("leg", [name for name in LEGS if name not in LOCAL])
async def test_so_they_do_on_kafka_and_postgresql(leg, tmp_path, kafka_broker, postgres_url):
    figures = await measured(leg, tmp_path, Servers((kafka_broker,), postgres_url))
    assert figures["ratio"] > 0


def turns(seconds, mebibytes=100.0):
    return [
        Turn(size, events, seconds, 0.5, mebibytes) for size, events in ((10_000, 10_000), (100_000, 90_000))
    ]


def found(*, ours=1.5, growth=1.0, acknowledged=4.0):
    mine = [turns(ours)[0], turns(ours, 100.0 * growth)[1]]
    return {
        "legs": {leg: report.leg(mine, turns(1.0)) for leg in LEGS},
        "latency": {
            "acknowledged_ms": {"p99": acknowledged},
            "visible_ms": {"p99": 300.0},
            "bare_commit_ms": {"p99": 2.0},
            "errors": {},
        },
    }


def test_the_report_has_every_leg_and_says_which_bars_are_met(tmp_path, capsys):
    assert report.write(found(), tmp_path) == 0
    written = json.loads((tmp_path / "feedback.json").read_text())
    assert set(written["legs"]) == set(LEGS)
    assert len(written["bars"]) == 2 * len(LEGS) + 3
    assert all(bar["met"] for bar in written["bars"])
    assert "MISSED" not in capsys.readouterr().out


@pytest.mark.parametrize("worse", [{"ours": 2.5}, {"growth": 1.2}, {"acknowledged": 6.0}])
def test_a_bar_that_is_missed_is_the_exit_code(worse, tmp_path, capsys):
    assert report.write(found(**worse), tmp_path) == 1
    assert "MISSED" in capsys.readouterr().out
