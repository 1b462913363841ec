"""Run the trainer as a process of its own, and show how far it is."""

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from deploy import process
from deploy.errors import FlywheelError
from deploy.process import Program
from deploy.settings import Settings

_POLL_SECONDS = 0.3
_SHOWN = {
    "reward": "reward",
    "loss": "loss",
}  # with these a line has 80 columns; the others are in progress.jsonl


class TrainerError(FlywheelError):
    """The trainer ended without a result. The message holds the end of its log."""


async def run(
    settings: Settings, job: str, config: BaseModel, folder: Path, show: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Run `python -m trainer JOB`; return its result. `show` sees each progress record. Raises `TrainerError`."""
    told, progress, result = _files(folder, job, config)
    program = Program(
        name="trainer",
        command=(
            *(sys.executable, "-W", "ignore", "-m", "trainer", job, str(told)),
            *("--progress", str(progress), "--result", str(result)),
        ),
        environment={},
        ready=process.at_once,
        log=settings.logs / "trainer.log",
        folder=settings.root,
        ready_seconds=0,
        mend="The run goes on where it stopped when you start it again.",
    )
    with progress.open() as records:
        records.seek(0, 2)  # what an earlier run said is not news
        async with process.running(program) as trainer:
            ended = asyncio.create_task(trainer.died())
            while not ended.done():
                await asyncio.wait({ended}, timeout=_POLL_SECONDS)
                _forward(records, show)
    return _answer(result, trainer)


def _files(folder: Path, job: str, config: BaseModel) -> tuple[Path, Path, Path]:
    """What the trainer is told, where it says how far it is, and where it leaves its result."""
    folder.mkdir(parents=True, exist_ok=True)
    told, progress, result = (
        folder / name for name in (f"{job}.config.json", "progress.jsonl", f"{job}.result.json")
    )
    told.write_text(config.model_dump_json(indent=1))
    result.unlink(missing_ok=True)
    progress.touch()
    return told, progress, result


def _answer(result: Path, trainer: process.Process) -> dict[str, Any]:
    if not result.exists():
        raise TrainerError(str(trainer.death()))
    answer: dict[str, Any] = json.loads(result.read_text())
    return answer


def _forward(records: Any, show: Callable[[dict[str, Any]], None]) -> None:
    while True:
        start = records.tell()
        line = records.readline()
        if not line.endswith("\n"):
            records.seek(start)
            return
        show(json.loads(line))


class Bars:
    """A progress bar per stage, made when a stage is first heard of."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, record: dict[str, Any]) -> None:
        """Take in one progress record: `stage`, `step`, `steps` and figures, or a `note`."""
        if "note" in record:
            self._progress.console.print(f"  {record['note']}", style="yellow", highlight=False)
            return
        stage = record["stage"]
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=record["steps"], figures="")
        figures = "  ".join(f"{label} {record[key]:.3f}" for key, label in _SHOWN.items() if key in record)
        task = self._tasks[stage]
        self._progress.update(task, completed=record["step"], total=record["steps"])
        if figures:
            self._progress.update(task, figures=figures)
