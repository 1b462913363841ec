"""One side of one leg, in a process of its own: `python -m bench.feedback.worker LEG SIDE PLACE_JSON`.

For each number on standard input so many events go the leg, and a line of JSON comes back: the seconds that it took,
without those of making the events, those that processors worked for it in this process and its children, and their
resident memory in MiB.
"""

import json
import sys
import time
from itertools import islice

import psutil

from bench.feedback import legs
from bench.feedback.material import stream
from bench.feedback.place import Place


def main(leg: str, side: str, place: str) -> None:
    """Until standard input ends."""
    events = stream()
    process = psutil.Process()
    with getattr(legs.LEGS[leg], side)(Place.model_validate_json(place)) as prepare:
        for line in sys.stdin:
            run = prepare(list(islice(events, int(line))))
            all_ = [process, *process.children(recursive=True)]
            busy, started = sum(map(_cpu, all_)), time.perf_counter()
            run()
            seconds = time.perf_counter() - started
            busy = sum(map(_cpu, all_)) - busy
            del run  # and the events with it
            mebibytes = sum(each.memory_info().rss for each in all_) / 2**20
            print(json.dumps({"seconds": seconds, "busy": busy, "mebibytes": mebibytes}), flush=True)


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    main(*sys.argv[1:])
