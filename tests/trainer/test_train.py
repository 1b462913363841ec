"""A whole run on a random model: two policies come out, and one that was killed goes on where it stopped."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from feedback.events import Message
from feedback.samples import Curated, Sample, save
from tests.trainer import tiny
from tests.trainer.tiny import torch
from trainer.config import Contender, ContestConfig, TrainerConfig
from trainer.digest import base_digest
from trainer.tasks import Task, write

pytestmark = [pytest.mark.filterwarnings(ignored) for ignored in tiny.IGNORED]

STEPS = 8
MANIFEST = """
name = "chooser"
description = "Has two answers to choose from."
prompt = "prompt.jinja"
response_schema = '{"type": "object", "properties": {"sql": {"enum": ["SELECT 7", "SELECT 8"]}}, "required": ["sql"]}'
[limits]
max_tokens = 24
[metrics.correct]
type = "boolean"
"""


def sample(number: int) -> Sample:
    question = f"What is question {number}?"
    return Sample(
        task_id=f"t{number}",
        question=question,
        messages=(Message(role="user", content=question),),
        reference={"rows": [[7]]} if number % 2 else {"sql": "SELECT 7"},
        corrected=True,
        support=1,
        raters=("ann",),
        request_ids=(f"r{number}",),
        policy="chooser@base-b0",
    )


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def config(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, insurance: tuple[Path, Path]
) -> TrainerConfig:
    """Every test of a run is one on a GPU too, where there is one."""
    folder = tmp_path_factory.mktemp("train")
    tokenizer = tiny.tokenizer()
    tiny.model(tokenizer, dtype=torch.bfloat16).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    agent = folder / "agent"
    agent.mkdir()
    (agent / "manifest.toml").write_text(MANIFEST)
    (agent / "prompt.jinja").write_text("Answer. {% for item in schemas %}{{ item.text }}{% endfor %}")
    (folder / "knowledge.toml").write_text(
        'examples = []\nheuristics = []\n[[schemas]]\ntext = "claims(claim_id)"\nkeywords = "question"\n'
    )
    save(Curated(tuple(sample(number) for number in range(8)), Counter()), folder / "set.jsonl")
    return TrainerConfig.model_validate(
        {
            "agent": agent,
            "knowledge": folder / "knowledge.toml",
            "databases": insurance,
            "base_model": folder / "base",
            "dataset": folder / "set.jsonl",
            "run_dir": folder / "run",
            "checkpoints": folder / "checkpoints",
            "device": request.param,
            "lora": {"rank": 4, "alpha": 8},
            "supervised": {"epochs": 2, "batch_size": 4},
            "grpo": {
                "steps": STEPS,
                "prompts_per_step": 2,
                "generations": 2,
                "save_every": 2,
                "learning_rate": 1e-2,
            },
        }
    )


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def steps(told: list[dict[str, Any]]) -> list[int]:
    """The steps of reinforcement of which a reward was told."""
    return [int(r["step"]) for r in told if r.get("stage") == "reinforced" and "reward" in r]


@pytest.fixture(scope="module")
def killed(config: TrainerConfig, pytestconfig: pytest.Config) -> list[dict[str, Any]]:
    """What a run had told when it was killed, as soon as it had written a checkpoint of its reinforcement."""
    folder = config.run_dir.parent
    (folder / "config.json").write_text(config.model_dump_json())
    progress, log = folder / "progress.jsonl", folder / "log"
    words = ["train", "config.json", "--progress", "progress.jsonl", "--result", "result.json"]
    environment = {"PYTHONPATH": str(pytestconfig.rootpath), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "trainer", *words],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=output,
        )
        try:
            deadline = time.monotonic() + 300
            while not list((config.run_dir / "reinforced").glob("checkpoint-*/trainer_state.json")):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not (folder / "result.json").exists()
    return records(progress)


@pytest.fixture(scope="module")
def resumed(
    config: TrainerConfig, killed: list[dict[str, Any]]
) -> Iterator[tuple[tiny.train.Trained, list[dict[str, Any]]]]:
    """The result of the same run, started again, and what it told from then on."""
    told: list[dict[str, Any]] = []
    threads = torch.get_num_threads()
    yield tiny.train.train(config, told.append), told
    torch.set_num_threads(threads)


def test_the_killed_run_had_finished_its_first_stage_and_part_of_the_second(killed: list[dict[str, Any]]):
    assert {record["stage"] for record in killed} >= {"supervised", "reinforced"}
    assert 2 <= max(steps(killed)) < STEPS
    assert steps(killed) == list(range(1, max(steps(killed)) + 1))


def test_a_run_that_is_started_again_does_the_rest_and_no_finished_step_twice(
    killed: list[dict[str, Any]], resumed: tuple[tiny.train.Trained, list[dict[str, Any]]]
):
    _, told = resumed
    assert {record["stage"] for record in told} == {"reinforced"}
    saved = steps(told)[0] - 1
    assert saved >= 2
    assert saved % 2 == 0
    assert saved <= max(steps(killed))
    assert steps(told) == list(range(saved + 1, STEPS + 1))


def test_every_policy_is_published_with_where_it_comes_from(
    config: TrainerConfig, resumed: tuple[tiny.train.Trained, list[dict[str, Any]]]
):
    trained, _ = resumed
    assert trained.supervised != trained.trained
    manifests = {}
    for folder in config.checkpoints.iterdir():
        assert (folder / "COMPLETE").exists()
        assert len(json.loads((folder / "probes.json").read_text())) == 4
        manifest = json.loads((folder / "manifest.json").read_text())
        assert tiny.train.checkpoint_of(config, manifest["policy"]) == folder
        assert manifest["dataset"] == trained.dataset
        assert TrainerConfig.model_validate(manifest["run"]) == config
        manifests[manifest["stage"]] = manifest
    assert set(manifests) == {"supervised", "reinforced"}
    reinforced = manifests["reinforced"]
    assert reinforced["policy"] == trained.trained
    assert reinforced["parent"] == manifests["supervised"]["policy"] == trained.supervised
    assert manifests["supervised"]["parent"] is None


def test_a_finished_run_is_not_done_again(
    config: TrainerConfig, resumed: tuple[tiny.train.Trained, list[dict[str, Any]]]
):
    told: list[dict[str, Any]] = []
    assert tiny.train.train(config, told.append) == resumed[0]
    assert told == []


def test_a_run_killed_before_it_published_goes_on_from_its_last_checkpoint(
    config: TrainerConfig, resumed: tuple[tiny.train.Trained, list[dict[str, Any]]]
):
    (config.run_dir / "reinforced" / "done.json").unlink()
    told: list[dict[str, Any]] = []
    assert tiny.train.train(config, told.append) == resumed[0]
    assert steps(told) == []


def test_a_checkpoint_that_was_being_written_when_the_run_was_killed_is_passed_over(
    config: TrainerConfig, resumed: tuple[tiny.train.Trained, list[dict[str, Any]]]
):
    (config.run_dir / "reinforced" / "done.json").unlink()
    half = config.run_dir / "reinforced" / f"checkpoint-{STEPS + 2}"
    half.mkdir()
    (half / "adapter_model.safetensors").write_bytes(b"half")
    told: list[dict[str, Any]] = []
    try:
        assert tiny.train.train(config, told.append) == resumed[0]
    finally:
        shutil.rmtree(half, ignore_errors=True)
    assert steps(told) == []


def test_a_contest_reports_every_contender_on_the_same_tasks_and_keeps_what_is_there(
    config: TrainerConfig, resumed: tuple[tiny.train.Trained, list[dict[str, Any]]], tmp_path: Path
):
    tasks = [
        Task(
            id=f"h{n}",
            messages=(Message(role="user", content=f"Held out {n}?"),),
            reference={"sql": "SELECT 7"},
        )
        for n in range(3)
    ]
    write(tmp_path / "tasks.jsonl", tasks)
    contest = ContestConfig(
        trainer=config,
        tasks=tmp_path / "tasks.jsonl",
        reports=tmp_path / "reports",
        contenders=(
            Contender(name="base"),
            Contender(name="base_few_shot", shots=2),
            Contender(name="trained", policy=resumed[0].trained),
        ),
    )
    told: list[dict[str, Any]] = []
    reports = tiny.contest.hold(contest, told.append)
    assert list(reports) == ["base", "base_few_shot", "trained"]
    assert all([r.task_id for r in report.results] == ["h0", "h1", "h2"] for report in reports.values())
    assert reports["trained"].policy == resumed[0].trained
    assert reports["base"].policy == f"chooser@base-{base_digest(config.base_model)}"
    assert {r.outcome for r in reports["base"].results} <= {"correct", "wrong_rows"}
    assert [r["step"] for r in told if r["stage"] == "evaluate base"] == [1, 2, 3]
    again: list[dict[str, Any]] = []
    assert tiny.contest.hold(contest, again.append) == reports
    assert again == []


def test_worked_examples_are_demonstrations_with_a_refusal_first():
    """Last, it would be what a small model copies."""

    def task(name: str, reference: dict[str, Any]) -> Task:
        return Task(id=name, messages=(Message(role="user", content=name),), reference=reference)

    tasks = [
        task("rows", {"rows": [[1]]}),
        *(task(f"sql{n}", {"sql": f"SELECT {n}"}) for n in range(4)),
        task("no", {"refusal": "none"}),
    ]
    shown = tiny.contest.worked_examples(tasks, 3)
    assert [message.content for message in shown if message.role == "user"] == ["no", "sql0", "sql1"]
    assert shown[1].content == '{"refusal":"none"}'
    assert tiny.contest.worked_examples(tasks, 0) == []
    assert len(tiny.contest.worked_examples(tasks[:2], 6)) == 2
