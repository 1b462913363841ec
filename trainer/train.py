"""One training run: data set in, two published policies out (supervised only, and reinforced).

Every stage leaves a marker, so that a run that was killed goes on where it stopped; the reinforced stage goes on from
its own last checkpoint.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from transformers import PreTrainedTokenizerBase

from agents.loop import format_answer, prompt, retrieve
from agents.manifest import Agent
from feedback.events import ModelCall
from feedback.samples import read_header
from tools.knowledge import Knowledge
from tools.knowledge.shelf import Shelf
from tools.sql import Database
from trainer import grpo
from trainer.checkpoint import publish
from trainer.config import TrainerConfig
from trainer.dataset import demonstrations, from_samples
from trainer.policy import (
    load_adapter,
    load_base,
    load_tokenizer,
    new_adapter,
    prepare_process,
    resolve_device,
)
from trainer.rewards import Scorer
from trainer.rollout import roll_out
from trainer.sampler import Sampler
from trainer.supervised import Chat, tune
from trainer.tasks import Task

_PROBES = 4  # each costs a CPU seconds of everybody's time when the policy is promoted

Emit = Callable[[dict[str, Any]], None]


class Trained(BaseModel):
    """What a run made: the policies' names; their checkpoints lie in folders of their digests."""

    model_config = ConfigDict(frozen=True)

    supervised: str
    trained: str
    dataset: str


@dataclass(frozen=True)
class World:
    """What both stages need."""

    config: TrainerConfig
    agent: Agent
    knowledge: Knowledge
    scorer: Scorer
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    tasks: list[Task]
    dataset: str

    @classmethod
    def open(cls, config: TrainerConfig) -> "World":
        """Load all but the weights."""
        prepare_process(seed=config.seed, threads=config.threads)
        return cls(
            config=config,
            agent=_unhurried(Agent.load(config.agent)),
            knowledge=_knowledge(config),
            scorer=Scorer([Database(path) for path in config.databases]),
            tokenizer=load_tokenizer(config.base_model),
            device=resolve_device(config.device),
            tasks=from_samples(config.dataset),
            dataset=read_header(config.dataset).dataset_id,
        )

    @property
    def use_cpu(self) -> bool:
        """Whether there is no GPU to train on."""
        return self.device.type == "cpu"


def _knowledge(config: TrainerConfig) -> Knowledge:
    """What everybody may see of what is served now, for the whole run."""
    shelf = Shelf(
        config.knowledge,
        library=config.knowledge_library,
        embedding=config.knowledge_embedding,
        url=config.knowledge_url,
    )
    return shelf.current


def _unhurried(agent: Agent) -> Agent:
    """Without the limit on wall clock: a whole batch shares this process, and its time says nothing of an answer's."""
    return agent.model_copy(update={"limits": agent.limits.model_copy(update={"seconds": 3_600.0})})


def train(config: TrainerConfig, emit: Emit) -> Trained:
    """Run to the end, or go on from where an earlier run with the same `run_dir` stopped."""
    world = World.open(config)
    supervised = _stage(config.run_dir / "supervised", lambda folder: _supervise(world, folder, emit))
    trained = _stage(
        config.run_dir / "reinforced", lambda folder: _reinforce(world, folder, supervised, emit)
    )
    return Trained(supervised=supervised, trained=trained, dataset=world.dataset)


def _stage(folder: Path, work: Callable[[Path], str]) -> str:
    """Do a stage, or take the policy that it has already published."""
    done = folder / "done.json"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        policy = work(folder)
        done.with_suffix(".part").write_text(json.dumps(policy))
        done.with_suffix(".part").replace(done)
    published: str = json.loads(done.read_text())
    return published


def _supervise(world: World, folder: Path, emit: Emit) -> str:
    """What reinforcement starts from, and by itself its control."""
    config = world.config
    model = new_adapter(load_base(config.base_model, world.device), config.lora)
    tune(
        model,
        world.tokenizer,
        _examples(world),
        config.supervised,
        seed=config.seed,
        run_dir=folder,
        use_cpu=world.use_cpu,
        log=lambda numbers: emit({"stage": "supervised", **numbers}),
    )
    return _publish(world, model, "supervised")


def _reinforce(world: World, folder: Path, start: str, emit: Emit) -> str:
    config = world.config
    base = load_base(config.base_model, world.device)
    model = load_adapter(base, checkpoint_of(config, start), trainable=True)
    grpo.train(
        model,
        world.tokenizer,
        world.tasks,
        _examples(world),
        config.grpo,
        agent=world.agent,
        knowledge=world.knowledge,
        scorer=world.scorer,
        policy=f"{world.agent.name}@training",
        seed=config.seed,
        run_dir=folder,
        use_cpu=world.use_cpu,
        log=lambda numbers: emit({"stage": "reinforced", **numbers}),
        note=lambda text: emit({"stage": "reinforced", "note": text}),
    )
    return _publish(world, model, "reinforced", parent=start)


def _examples(world: World) -> list[tuple[Chat, str]]:
    """What is imitated: prompts as production would send them, with the answers to give."""
    examples = []
    for task in demonstrations(world.tasks):
        _, context = retrieve(world.agent, task.messages, world.knowledge)
        chat = [message.model_dump() for message in prompt(world.agent, task.messages, context)]
        examples.append((chat, format_answer(task.reference)))
    return examples


def _publish(world: World, model: Any, stage: str, *, parent: str | None = None) -> str:
    """Publish the adapter as it is now; return the policy's name."""
    config = world.config
    model.eval()
    manifest = publish(
        model,
        config.checkpoints,
        agent=world.agent.name,
        base=config.base_model,
        dataset=world.dataset,
        stage=stage,
        parent=parent,
        run=config.model_dump(mode="json"),
        probes=asyncio.run(_probes(world, model)),
        pad=int(world.tokenizer.pad_token_id),
    )
    model.train()
    return manifest.policy


async def _probes(world: World, model: Any) -> Sequence[ModelCall]:
    """The policy's own greedy answers to a few tasks."""
    sampler = Sampler(model, world.tokenizer, policy=world.agent.name)
    rollouts = await roll_out(
        world.agent, world.tasks[:_PROBES], model=sampler, knowledge=world.knowledge, temperature=0.0
    )
    return [rollout.call for rollout in rollouts if rollout.call is not None]


def checkpoint_of(config: TrainerConfig, policy: str) -> Path:
    """The folder of a published policy."""
    return config.checkpoints / policy.partition("@")[2]
