"""What a run is told: a mistake answers at once, in one line, before anything heavy is imported."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from trainer.__main__ import main
from trainer.config import ContestConfig, Grpo, Options, TrainerConfig

HEAVY = ("torch", "transformers", "trl", "peft", "datasets")
GOOD: dict[str, Any] = {
    "agent": "agents/sql_analyst",
    "knowledge": "knowledge.toml",
    "databases": ["production.db"],
    "base_model": "model",
    "dataset": "set.jsonl",
    "run_dir": "run",
    "checkpoints": "checkpoints",
}
# Runs the command as `python -m trainer` does and says on standard error which heavy modules it has imported.
SPY = f"""
import runpy, sys
sys.argv = ["trainer", *sys.argv[1:]]
try:
    runpy.run_module("trainer", run_name="__main__")
finally:
    sys.stderr.write("imported:" + ",".join(name for name in {HEAVY!r} if name in sys.modules))
"""


def trainer(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SPY, *words], cwd=root, capture_output=True, text=True, check=False, timeout=60
    )


def test_a_minimal_configuration_has_all_defaults():
    config = TrainerConfig.model_validate(GOOD)
    assert (config.seed, config.device, config.threads, config.lora.rank) == (0, "auto", None, 8)


def test_a_configuration_survives_its_way_to_the_trainers_process():
    config = TrainerConfig.model_validate({**GOOD, "seed": 3, "grpo": {"steps": 5}})
    assert TrainerConfig.model_validate_json(config.model_dump_json()) == config
    contest = ContestConfig.model_validate(
        {"trainer": config, "tasks": "t.jsonl", "reports": "r", "contenders": [{"name": "base"}]}
    )
    assert ContestConfig.model_validate_json(contest.model_dump_json()) == contest


@pytest.mark.parametrize(
    "change",
    [
        {"databases": []},
        {"device": "tpu"},
        {"threads": 0},
        {"unknown": 1},
        {"grpo": {"generations": 1}},
        {"grpo": {"epsilon_low": 1}},
        {"supervised": {"learning_rate": 0}},
        {"lora": {"rank": 0}},
    ],
)
def test_a_value_out_of_range_is_refused_by_its_name(change: dict[str, Any]):
    with pytest.raises(ValidationError) as refused:
        TrainerConfig.model_validate({**GOOD, **change})
    (error,) = refused.value.errors()
    assert error["loc"][0] == next(iter(change))


def test_every_option_says_what_it_is_or_is_plain_by_its_name():
    assert set(Options.model_fields) == {"threads", "device", "lora", "supervised", "grpo"}
    assert Grpo.model_fields["save_every"].description


@pytest.fixture(autouse=True)
def _environment_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """`main` sets variables for the libraries that it imports."""
    monkeypatch.setattr(os, "environ", os.environ.copy())


@pytest.mark.parametrize(
    "content",
    [
        "{broken",
        "[]",
        "{}",
        json.dumps({**GOOD, "databases": []}),
        json.dumps({**GOOD, "grpo": {"steps": 0, "generations": 1}}),
        json.dumps({**GOOD, "seed": "x", "unknown": 1}),
    ],
)
@pytest.mark.parametrize("job", ["train", "evaluate"])
def test_a_bad_configuration_answers_in_one_line_that_names_the_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    job: str,
    content: str,
):
    config, result = tmp_path / "bad.json", tmp_path / "result.json"
    config.write_text(content)
    words = [job, str(config), "--progress", str(tmp_path / "p.jsonl"), "--result", str(result)]
    monkeypatch.setattr(sys, "argv", ["trainer", *words])
    assert main() == 2
    message = capsys.readouterr().err
    assert message.startswith("trainer: ")
    assert len(message.splitlines()) == 1, message
    assert str(config) in message
    assert not result.exists()


def test_a_bad_configuration_answers_without_torch(root: Path, tmp_path: Path):
    config = tmp_path / "bad.json"
    config.write_text(json.dumps({**GOOD, "databases": []}))
    done = trainer(
        root, "train", str(config), "--progress", str(tmp_path / "p"), "--result", str(tmp_path / "r")
    )
    assert done.returncode == 2
    assert "databases" in done.stderr
    assert done.stderr.endswith("imported:")


def test_a_configuration_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "none.json"
    monkeypatch.setattr(sys, "argv", ["trainer", "train", str(path), "--progress", "p", "--result", "r"])
    assert main() == 2
    assert str(path) in capsys.readouterr().err


def test_help_is_given_without_torch(root: Path):
    done = trainer(root, "train", "--help")
    assert done.returncode == 0
    assert "--progress" in done.stdout
    assert done.stderr == "imported:"


@pytest.mark.parametrize("words", [(), ("dance", "x.json"), ("train",)])
def test_a_command_that_makes_no_sense_is_refused_with_the_usage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
):
    monkeypatch.setattr(sys, "argv", ["trainer", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: python -m trainer")
