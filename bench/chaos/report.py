"""What came of it, as tables and as JSON."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_KINDS = ("requests", "ratings")
_WRONG = ("missing", "twice", "different")


def write(found: dict[str, Any], path: Path) -> bool:
    """Print and save; whether something was acknowledged, and all of it is there, once, as it was."""
    wrong = sum(found[kind][count] for kind in _KINDS for count in _WRONG)
    found["passed"] = (
        wrong + found["dead_letters"] + found["strange"] == 0
        and found["drain_seconds"] is not None
        and all(found[kind]["acknowledged"] for kind in _KINDS)  # where nothing was, nothing was tried
    )
    path.write_text(json.dumps(found, indent=2) + "\n")
    console = Console()
    console.print(_counts("what happened", found["incidents"]))
    for title, counts in found["heard"].items():
        console.print(_counts(f"what clients heard when {title}", counts))
    console.print(_comparison(found))
    waited = found["drain_seconds"]
    for line in (
        f"{found['rate_reached']:g} requests/s of {found['rate']:g} for {found['seconds']:g} s; seed {found['seed']}",
        f"full was {found['disk']}",
        "something still waits" if waited is None else f"all had arrived {waited:g} s after the last request",
        f"dead letters: {found['dead_letters']}; rows that nobody asked for: {found['strange']}",
        f"written: {path}",
    ):
        console.print(line, highlight=False)
    console.print("passed" if found["passed"] else "FAILED", style="green" if found["passed"] else "red")
    return bool(found["passed"])


def _counts(title: str, counts: dict[str, int]) -> Table:
    table = Table(title, "times")
    for name, count in counts.items():
        table.add_row(name, str(count))
    return table


def _comparison(found: dict[str, Any]) -> Table:
    table = Table("", "requests", "ratings")
    for name in found["requests"]:
        style = "red" if name in _WRONG and (found["requests"][name] or found["ratings"][name]) else None
        table.add_row(name, str(found["requests"][name]), str(found["ratings"][name]), style=style)
    return table
