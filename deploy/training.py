"""`flywheel train` and `flywheel evaluate`: the trainer's jobs, and what the gateway is told of their results."""

import asyncio
import json
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Column, Table

from agents.manifest import Agent
from deploy import jobs
from deploy.client import AsyncClient, Client, segment
from deploy.errors import FlywheelError
from deploy.settings import Settings
from feedback.events import PolicyState
from feedback.policies import TRANSITIONS, is_base
from trainer.config import Contender, ContestConfig, TrainerConfig
from trainer.gate import Thresholds, Verdict, judge
from trainer.reports import Report

_SHOTS = 3


def trainer_config(settings: Settings, *, agent: str, dataset: Path, seed: int) -> TrainerConfig:
    """The configuration of a run; the same data set, seed and options always give the same folder, so it resumes."""
    return TrainerConfig(
        **settings.trainer.model_dump(),
        agent=_folder(settings, agent),
        knowledge=settings.knowledge.file,
        knowledge_library=settings.knowledge.library,
        knowledge_embedding=settings.embedding if settings.knowledge.dense else None,
        knowledge_url=settings.knowledge.url,
        databases=settings.sql.databases,
        base_model=settings.vllm.model,
        dataset=dataset,
        run_dir=settings.var / "runs" / f"{dataset.stem}-{seed}",
        checkpoints=settings.var / "checkpoints",
        seed=seed,
    )


def _folder(settings: Settings, agent: str) -> Path:
    known = {Agent.load(folder).name: folder for folder in settings.agents.folders}
    if agent not in known:
        raise FlywheelError(f"no agent {agent}: [agents] folders has {', '.join(known)}")
    return known[agent]


def newest_dataset(settings: Settings) -> Path:
    """The data set that was curated last. Raises `FlywheelError` where there is none."""
    files = sorted((settings.var / "datasets").glob("*.jsonl"), key=lambda file: file.stat().st_mtime)
    if not files:
        raise FlywheelError("no data set yet: collect ratings, then `flywheel curate`")
    return files[-1]


def train(settings: Settings, *, agent: str, dataset: Path | None, seed: int) -> None:
    """Learn from a data set, publish the policies and register the trained one as a candidate."""
    console, client = Console(), Client(settings)
    config = trainer_config(settings, agent=agent, dataset=dataset or newest_dataset(settings), seed=seed)

    async def run() -> str:
        with jobs.Bars(console) as bars:
            result = await jobs.run(settings, "train", config, config.run_dir, bars.show)
        console.print(
            f"trained {result['trained']} (supervised only: {result['supervised']})", highlight=False
        )
        async with client.opened() as gateway:
            await register(gateway, settings, result["trained"])
        return str(result["trained"])

    console.print(f"Next: flywheel evaluate {asyncio.run(run())}", highlight=False)


def evaluate(settings: Settings, *, policy: str) -> None:
    """Hold the contest of a policy and its baselines, judge it, and tell the gateway the verdict."""
    console, client = Console(), Client(settings)
    manifest = checkpoint_manifest(settings, policy)
    config = TrainerConfig.model_validate(manifest["run"])

    async def run() -> Verdict:
        async with client.opened() as gateway:
            active = (await gateway.get("/v1/status"))["agents"][manifest["agent"]]["active"]
            state = (await _states(gateway)).get(policy)
            if state is not None and "evaluated" not in TRANSITIONS[state]:
                raise FlywheelError(f"{policy} is {state}: only a candidate can be evaluated")
            contest = contest_config(settings, config, manifest, active=active)
            with jobs.Bars(console) as bars:
                await jobs.run(settings, "evaluate", contest, contest.reports, bars.show)
            reports = load_reports(contest)
            console.print(accuracy_table(reports))
            verdict = judge_candidate(reports, active=active)
            await register(gateway, settings, policy)
            await tell_verdict(gateway, policy, verdict, reports)
        return verdict

    verdict = asyncio.run(run())
    for reason in verdict.reasons:
        console.print(f"  {reason}", highlight=False)
    if not verdict.passed:
        raise FlywheelError(f"{policy} did not pass the gate and cannot be promoted")
    console.print(f"{policy} passed. Next: flywheel promote {policy}", highlight=False, style="green")


def contest_config(
    settings: Settings, config: TrainerConfig, manifest: dict[str, Any], *, active: str
) -> ContestConfig:
    """The contenders: base, base with worked examples, supervised only, whatever serves now, and the candidate."""
    policy, control = manifest["policy"], manifest["parent"]
    contenders = [Contender(name="base"), Contender(name="base_few_shot", shots=_SHOTS)]
    if control:
        contenders.append(Contender(name="supervised", policy=control))
    if not is_base(active) and active != control:
        contenders.append(Contender(name="active", policy=active))
    contenders.append(Contender(name="trained", policy=policy))
    return ContestConfig(
        trainer=config,
        tasks=settings.evaluation.tasks,
        reports=settings.var / "evaluations" / policy.partition("@")[2],
        contenders=tuple(contenders),
    )


def checkpoint_manifest(settings: Settings, policy: str) -> dict[str, Any]:
    """What a checkpoint says of itself. Raises `FlywheelError`."""
    path = checkpoint_path(settings, policy) / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
    except OSError as error:
        raise FlywheelError(
            f"{policy} has no checkpoint at {path.parent}: see `flywheel policies`"
        ) from error
    return manifest


def checkpoint_path(settings: Settings, policy: str) -> Path:
    """The folder of a trained policy."""
    return settings.var / "checkpoints" / policy.partition("@")[2]


def load_reports(contest: ContestConfig) -> dict[str, Report]:
    """The reports of a contest that was held."""
    return {c.name: Report.load(contest.reports / f"{c.name}.json") for c in contest.contenders}


def judge_candidate(reports: dict[str, Report], *, active: str) -> Verdict:
    """The gate's verdict on the contender `trained`."""
    baselines = [report for name, report in reports.items() if name != "trained"]
    serving = next(report.contender for report in baselines if report.policy == active)
    return judge(reports["trained"], baselines, active=serving, thresholds=Thresholds())


async def register(client: AsyncClient, settings: Settings, policy: str) -> None:
    """Make a checkpoint known to the gateway; nothing happens when it is already."""
    if policy in await _states(client):
        return
    manifest = checkpoint_manifest(settings, policy)
    evidence = {key: manifest[key] for key in ("base", "base_digest", "dataset", "stage", "parent")}
    path = str(checkpoint_path(settings, policy).resolve())
    await client.post("/v1/policies", {"policy": policy, "path": path, "evidence": evidence})


async def _states(client: AsyncClient) -> dict[str, PolicyState]:
    """The state of every policy that the gateway knows."""
    return {row["policy"]: row["state"] for row in (await client.get("/v1/policies"))["data"]}


async def tell_verdict(
    client: AsyncClient, policy: str, verdict: Verdict, reports: dict[str, Report]
) -> None:
    """Put the verdict and its figures into the policy's history."""
    evidence = {
        "accuracy": {name: report.accuracy.model_dump() for name, report in reports.items()},
        "comparisons": [comparison.model_dump() for comparison in verdict.comparisons],
    }
    body = {"passed": verdict.passed, "reasons": list(verdict.reasons), "evidence": evidence}
    await client.post(f"/v1/policies/{segment(policy)}/evaluation", body)


def accuracy_table(reports: dict[str, Report]) -> Table:
    """Every contender's accuracy in per cent with its interval, in all and by level; fits 80 columns."""
    levels = list(next(iter(reports.values())).by("level"))
    columns = [Column(name, justify="right", no_wrap=True) for name in ("all", "95 % interval")]
    columns += [Column(level[:10], justify="right") for level in levels]
    table = Table(
        Column(no_wrap=True), *columns, title="held-out accuracy, %", box=SIMPLE, padding=(0, 1, 0, 0)
    )
    for name, report in reports.items():
        total, by = report.accuracy, report.by("level")
        interval = f"{100 * total.low:.1f} to {100 * total.high:.1f}"
        cells = [f"{100 * by[level].accuracy:.0f}" for level in levels]
        table.add_row(name, f"{100 * total.accuracy:.1f}", interval, *cells)
    return table
