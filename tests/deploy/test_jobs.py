"""The trainer's process: its progress is shown as it comes, its result returned, its end explained."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from rich.console import Console

from deploy.errors import FlywheelError
from deploy.jobs import Bars, TrainerError, run
from deploy.settings import Settings


class Config(BaseModel):
    """What the pretended trainer is told."""

    seed: int = 7


PRETENDED = """
import json, sys, time
from pathlib import Path

job, config, _, progress, _, result = sys.argv[1:]
print(f"this is {job}")

def tell(text):
    with open(progress, "a") as file:
        file.write(text)

BODY
"""
GOOD = """
for step in (1, 2, 3):
    tell(json.dumps({"stage": job, "step": step, "steps": 3, "loss": step / 10}) + "\\n")
tell('{"stage": "la')
time.sleep(0.5)
tell('st", "step": 1, "steps": 1}\\n')
Path(result).write_text(json.dumps({"told": json.loads(Path(config).read_text())}))
"""


def pretend(settings: Settings, body: str) -> None:
    """Put a module `trainer` where the process will look first: in the folder of the settings."""
    (settings.root / "trainer.py").write_text(PRETENDED.replace("BODY", body))


async def test_the_result_comes_back_and_progress_is_shown_in_order(settings: Settings, tmp_path: Path):
    pretend(settings, GOOD)
    shown: list[dict[str, Any]] = []
    assert await run(settings, "train", Config(), tmp_path / "run", shown.append) == {"told": {"seed": 7}}
    assert [(record["stage"], record["step"]) for record in shown] == [
        ("train", 1),
        ("train", 2),
        ("train", 3),
        ("last", 1),
    ]
    assert "this is train" in (settings.logs / "trainer.log").read_text()


async def test_what_an_earlier_run_told_is_no_news(settings: Settings, tmp_path: Path):
    pretend(settings, GOOD)
    shown: list[dict[str, Any]] = []
    for _ in range(2):
        await run(settings, "train", Config(), tmp_path / "run", shown.append)
    assert len(shown) == 8


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("sys.exit('trainer: no samples in it')", "no samples in it"),
        ("raise RuntimeError('out of memory')", "RuntimeError: out of memory"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "signal 9"),
        ("print('gave up')", "gave up"),
    ],
)
async def test_an_end_without_a_result_is_told_with_the_end_of_the_log_and_what_to_do(
    settings: Settings, tmp_path: Path, body: str, said: str
):
    pretend(settings, GOOD)
    await run(settings, "train", Config(), tmp_path / "run", lambda _: None)
    pretend(settings, body)
    with pytest.raises(TrainerError, match="goes on where it stopped") as failed:
        await run(settings, "train", Config(), tmp_path / "run", lambda _: None)
    assert said in str(failed.value)
    assert isinstance(failed.value, FlywheelError)


async def test_the_real_trainer_refuses_what_it_cannot_use(settings: Settings, tmp_path: Path, root: Path):
    real = settings.model_copy(update={"root": root})
    with pytest.raises(TrainerError, match="agent"):
        await run(real, "train", Config(), tmp_path / "run", lambda _: None)


def test_a_bar_per_stage_shows_figures_and_notes_are_printed():
    out = io.StringIO()
    with Bars(Console(file=out, width=120, force_terminal=True)) as bars:
        bars.show({"stage": "supervised", "step": 1, "steps": 4, "loss": 1.25})
        bars.show({"stage": "supervised", "step": 4, "steps": 4})
        bars.show({"stage": "reinforced", "step": 1, "steps": 2, "reward": 0.5, "time": 3})
        bars.show({"stage": "reinforced", "note": "invalid episode, not scored: timeout"})
    text = out.getvalue()
    for expected in (
        "supervised",
        "4/4",
        "loss 1.250",
        "reinforced",
        "1/2",
        "reward 0.500",
        "not scored: timeout",
    ):
        assert expected in text
    assert json.dumps({"time": 3}) not in text
