"""What was measured, as a table and JSON, and whether it clears the bars."""

import itertools
import json
import os
import platform
import sqlite3
import statistics
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from rich.console import Console
from rich.table import Table

from bench.feedback.legs import LEGS

_SHARE_OF_RAW = 0.5
_ACKNOWLEDGED_MS, _VISIBLE_MS = 5.0, 1_000.0  # in 99 of 100 cases
_LONG = 100_000  # events, from which on memory is judged: before, a turn has fewer of them at hand
_FLAT = 1.05  # times the memory at a tenth of the events: more at the end is growth


class Turn(NamedTuple):
    """So many events over a leg at once, after which its side has taken `size`.

    `busy` are the seconds that processors worked for it, `mebibytes` the memory, in its own processes; no server's.
    """

    size: int
    events: int
    seconds: float
    busy: float
    mebibytes: float


def machine() -> dict[str, Any]:
    """Where the figures come from."""
    libraries = ("kafka-python", "psycopg", "pydantic", "sqlalchemy", "orjson", "uvloop", "flywheel")
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "libraries": {name: metadata.version(name) for name in libraries},
    }


def leg(ours: Sequence[Turn], raw: Sequence[Turn]) -> dict[str, Any]:
    """The figures of a leg. The ratio is that of the last decade: the median over its turns, ours against raw."""
    last = _decades(ours)[-1]
    ratios = [theirs.seconds / mine.seconds for mine, theirs in zip(ours, raw, strict=True) if mine in last]
    memory = [max(turn.mebibytes for turn in part) for part in _decades(ours)]
    return {
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "ours": [_rate(part) for part in _decades(ours)],
        "raw": [_rate(part) for part in _decades(raw)],
        "mebibytes": memory,
        "growth": memory[-1] / memory[-2] if ours[-1].size >= _LONG else None,
    }


def _decades(turns: Sequence[Turn]) -> list[list[Turn]]:
    """The turns up to a thousand events, from there to ten thousand, and so on."""
    return [list(part) for _, part in itertools.groupby(turns, key=lambda turn: len(str(turn.size - 1)))]


def _rate(turns: Sequence[Turn]) -> dict[str, float]:
    events = sum(turn.events for turn in turns)
    return {
        "to": turns[-1].size,
        "per_second": events / sum(turn.seconds for turn in turns),
        "cpu_us": 1e6 * sum(turn.busy for turn in turns) / events,
    }


def bars(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each bar, and whether it is met."""
    all_ = []
    for name, figures in found["legs"].items():
        all_.append(_bar(f"{name}, of {LEGS[name].limit}", figures["ratio"], least=_SHARE_OF_RAW))
        if figures["growth"] is not None:
            all_.append(_bar(f"{name}, memory, times that at a tenth", figures["growth"], most=_FLAT))
    if "latency" in found:
        waits = found["latency"]
        all_.append(
            _bar("rating acknowledged, p99 ms", waits["acknowledged_ms"]["p99"], most=_ACKNOWLEDGED_MS)
        )
        all_.append(_bar("rating visible, p99 ms", waits["visible_ms"]["p99"], most=_VISIBLE_MS))
        all_.append(_bar("errors under load", sum(waits["errors"].values()), most=0))
    return all_


def _bar(what: str, value: float, *, least: float | None = None, most: float | None = None) -> dict[str, Any]:
    met = (least is None or value >= least) and (most is None or value <= most)
    words = f"at least {least:g}" if most is None else f"at most {most:g}"
    return {"what": what, "value": value, "bar": words, "met": met}


def write(found: dict[str, Any], folder: Path) -> int:
    """Print and save. Returns 1 when a bar is missed."""
    found["bars"] = bars(found)
    folder.mkdir(exist_ok=True)
    path = folder / "feedback.json"
    path.write_text(json.dumps(found, indent=2) + "\n")
    console = Console(width=120)
    if found["legs"]:
        console.print(_table(found["legs"]))
    if "latency" in found:
        console.print_json(data=found["latency"])
    for bar in found["bars"]:
        verdict = "met   " if bar["met"] else "MISSED"
        console.print(f"{verdict} {bar['what']}: {bar['value']:.2f} ({bar['bar']})", highlight=False)
    console.print(f"written: {path}", highlight=False)
    return 0 if all(bar["met"] for bar in found["bars"]) else 1


def _table(legs: Mapping[str, Any]) -> Table:
    table = Table(title="events a second, each while the number of events grew to that of its column")
    sizes = [row["to"] for figures in list(legs.values())[:1] for row in figures["ours"]]
    for head in ("leg", "side", *(f"{size:,}" for size in sizes), "ratio", "CPU µs", "MiB"):
        table.add_column(head, justify="left" if head in {"leg", "side"} else "right")
    for name, figures in legs.items():
        for side, what in (("ours", "Flywheel"), ("raw", LEGS[name].limit)):
            rows = figures[side]
            rates = [f"{row['per_second']:,.0f}" for row in rows]
            mine = side == "ours"
            ratio, memory = (
                (f"{figures['ratio']:.2f}", f"{figures['mebibytes'][-1]:.0f}") if mine else ("", "")
            )
            busy = f"{rows[-1]['cpu_us']:.0f}"
            table.add_row(name if mine else "", what, *rates, ratio, busy, memory, end_section=not mine)
    return table
