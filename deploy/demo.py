"""`flywheel demo`: the whole loop on one machine, on a real model, with simulated employees; ends with a report.

Every stage writes its result into `var/demo/state.json`, so that a demo that was interrupted goes on where it stopped.
Nothing is shown that was not measured in the run.
"""

import asyncio
import json
import random
import shutil
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from deploy import curate, employees, insurer, jobs, keys, load, report, setup, training
from deploy.client import AsyncClient
from deploy.errors import FlywheelError
from deploy.settings import Settings
from deploy.supervisor import System, running
from domains.insurance.questions import questions
from feedback.policies import base_policy
from tools.sql import Database
from trainer.config import TrainerConfig
from trainer.reports import Report, TaskResult
from trainer.rewards import Scorer
from trainer.tasks import write

AGENT = "sql-analyst"
_STREAMS = 4  # concurrent requests while policies are swapped
_AROUND_A_SWAP = 6  # requests that end before the next move

Result = dict[str, Any]


def main(settings: Settings, seed: int) -> None:
    """Run the demo to its end. Raises `FlywheelError` when the trained policy does not pass the gate."""
    console = Console()
    setup.setup(settings, console)
    settings = _own_folder(settings)
    state = State.open(settings.var / "state.json", seed, console)
    write(settings.evaluation.tasks, insurer.tasks("test"))
    asyncio.run(Demo(settings, seed, state, console).run())


def _own_folder(settings: Settings) -> Settings:
    """The same settings with everything that the demo writes in a folder of its own: it never touches real feedback."""
    var = settings.var / "demo"
    feedback = settings.feedback.model_copy(
        update={"store_url": f"sqlite:///{var / 'store.db'}", "outbox": var / "outbox.db"}
    )
    evaluation = settings.evaluation.model_copy(update={"tasks": var / "held_out.jsonl"})
    return settings.model_copy(
        update={"var": var, "feedback": feedback, "kafka": None, "evaluation": evaluation}
    )


@dataclass
class State:
    """The stages that are done, with their results and seconds."""

    path: Path
    seed: int
    stages: dict[str, Result]

    @classmethod
    def open(cls, path: Path, seed: int, console: Console) -> "State":
        """Take up an unfinished demo with this seed, or begin a clean one; say which."""
        try:
            known = json.loads(path.read_text())
            if known["seed"] == seed and "report" not in known["stages"] and known["stages"]:
                console.print(
                    f"Resuming the demo with seed {seed} after stage “{list(known['stages'])[-1]}”."
                )
                return cls(path, seed, known["stages"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass
        shutil.rmtree(path.parent, ignore_errors=True)
        path.parent.mkdir(parents=True)
        console.print(f"Starting a clean demo with seed {seed}.")
        return cls(path, seed, {})

    def __getitem__(self, stage: str) -> Result:
        return dict(self.stages[stage]["result"])

    def seconds(self) -> dict[str, float]:
        """Wall-clock seconds of each stage."""
        return {name: round(stage["seconds"], 1) for name, stage in self.stages.items()}

    def record(self, stage: str, result: Result, seconds: float) -> None:
        """Write a finished stage down, whole or not at all."""
        self.stages[stage] = {"result": result, "seconds": seconds}
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps({"seed": self.seed, "stages": self.stages}))
        part.replace(self.path)


class Demo:
    """One demo: its stages in the order in which the data flows."""

    def __init__(self, settings: Settings, seed: int, state: State, console: Console) -> None:
        self._settings = settings
        self._seed = seed
        self._state = state
        self._console = console
        self._production = Database(settings.sql.databases[0])
        self._scorer = Scorer([Database(path) for path in settings.sql.databases])
        self._held_out = insurer.tasks("test")
        unseen = [question for question in questions("test") if question.level == "simple"]
        self._question = random.Random(seed).choice(unseen)

    async def run(self) -> None:
        """All stages, and the report."""
        started = time.perf_counter()
        async with running(self._settings, self._console) as system:
            if "start" not in self._state.stages:
                self._state.record("start", {}, time.perf_counter() - started)
            await self._stage("before", "One question, before anything is learnt", lambda: self._ask(system))
            await self._stage(
                "collect",
                "Employees ask, rate and correct (a script plays them)",
                lambda: self._collect(system),
            )
            await self._stage("curate", "Ratings become a data set", self._curate)
            await self._stage("train", "Training: supervised start, then reinforcement", self._train)
            await self._stage("evaluate", "Contest on held-out questions", self._evaluate)
            await self._stage("gate", "The gate", lambda: self._gate(system))
            if self._state["gate"]["passed"]:
                await self._stage(
                    "swap", "Promotion under load, roll-back, promotion again", lambda: self._swap(system)
                )
                await self._stage(
                    "served", "Held-out questions through the gateway", lambda: self._served(system)
                )
                await self._stage("after", "The same question, after", lambda: self._ask(system))
        await self._stage("report", "Report", self._report)
        if not self._state["gate"]["passed"]:
            raise FlywheelError(
                "the trained policy did not pass the gate, so nothing was promoted; the report says why"
            )

    async def _stage(self, name: str, title: str, work: Callable[[], Awaitable[Result]]) -> None:
        if name in self._state.stages:
            return
        self._console.rule(f"[bold]{title}", align="left")
        started = time.perf_counter()
        self._state.record(name, await work(), time.perf_counter() - started)

    # ---- serve

    async def _ask(self, system: System) -> Result:
        """Ask the demo's one question and say what is wrong with the answer."""
        async with AsyncOpenAI(base_url=f"{system.base_url}/v1", api_key=system.key) as client:
            completion = await client.chat.completions.create(
                model=AGENT,
                messages=[{"role": "user", "content": self._question.text}],
                metadata={"purpose": "load"},
            )
        text = completion.choices[0].message.content or ""
        outcome = self._scorer.score(text, insurer.gold(self._question)).outcome
        say = self._console.print
        say(f"  question: {self._question.text}", markup=False, highlight=False)
        say(f"  answer by {completion.system_fingerprint}: {text}", markup=False, highlight=False)
        say(
            f"  verdict: {_VERDICTS[outcome]}",
            style="green" if outcome == "correct" else "red",
            highlight=False,
        )
        if outcome != "correct":
            say(f"  right would be: {self._question.sql}", markup=False, highlight=False)
        return {
            "question": self._question.text,
            "policy": completion.system_fingerprint,
            "answer": text,
            "outcome": outcome,
            "gold": self._question.sql,
        }

    # ---- feedback

    async def _collect(self, system: System) -> Result:
        with keys.opened(self._settings) as store:
            secrets = {name: store.create(name, ("invoke", "rate")) for name in employees.NAMES}
        visits = employees.plan(questions("train"), self._seed)
        with self._bar("questions asked and rated", len(visits)) as done:
            counts = await employees.work(
                f"{system.base_url}/v1", secrets, visits, agent=AGENT, production=self._production, done=done
            )
        self._show_counts("what the employees did", counts)
        await self._landed(system, len(visits))
        return dict(counts)

    async def _landed(self, system: System, ratings: int) -> None:
        """Wait until everything that was acknowledged is in the store."""
        async with AsyncClient(system.base_url, system.key) as client:
            for _ in range(300):
                status = await client.get("/v1/status")
                if status["outbox"]["depth"] == 0:
                    return
                await asyncio.sleep(0.1)
        raise FlywheelError(
            f"the outbox still holds events 30 s after {ratings} ratings; see var/demo/log/gateway.log"
        )

    async def _curate(self) -> Result:
        dataset = await asyncio.to_thread(curate.make, self._settings, AGENT)
        forms = [next(iter(sample.reference)) for sample in dataset.curated.samples]
        counts = {f"samples with {form}": forms.count(form) for form in dict.fromkeys(forms)}
        counts |= {f"ratings not used: {reason}": n for reason, n in sorted(dataset.curated.rejected.items())}
        self._show_counts(f"data set {dataset.path.stem}", counts)
        return {"path": str(dataset.path), "counts": counts}

    # ---- learning

    def _config(self) -> TrainerConfig:
        path = Path(self._state["curate"]["path"])
        return training.trainer_config(self._settings, agent=AGENT, dataset=path, seed=self._seed)

    async def _train(self) -> Result:
        config = self._config()
        with jobs.Bars(self._console) as bars:
            return await jobs.run(self._settings, "train", config, config.run_dir, bars.show)

    async def _evaluate(self) -> Result:
        manifest = training.checkpoint_manifest(self._settings, self._state["train"]["trained"])
        contest = training.contest_config(
            self._settings, self._config(), manifest, active=base_policy(AGENT, manifest["base_digest"])
        )
        with jobs.Bars(self._console) as bars:
            await jobs.run(self._settings, "evaluate", contest, contest.reports, bars.show)
        reports = training.load_reports(contest)
        self._console.print(training.accuracy_table(reports))
        return {name: str(contest.reports / f"{name}.json") for name in reports}

    def _reports(self) -> dict[str, Report]:
        stages = self._state["evaluate"] | (self._state["served"] if "served" in self._state.stages else {})
        return {name: Report.load(Path(path)) for name, path in stages.items()}

    async def _gate(self, system: System) -> Result:
        policy = self._state["train"]["trained"]
        reports = self._reports()
        verdict = training.judge_candidate(reports, active=reports["base"].policy)
        async with AsyncClient(system.base_url, system.key) as client:
            await training.register(client, self._settings, policy)
            await training.tell_verdict(client, policy, verdict, reports)
        for reason in verdict.reasons:
            self._console.print(
                f"  {reason}", highlight=False, style=None if reason.startswith("pass") else "red"
            )
        return verdict.model_dump()

    # ---- promotion

    async def _swap(self, system: System) -> Result:
        """Promote, roll back and promote again, while streams go on; every answer is checked."""
        policy = self._state["train"]["trained"]
        url, v1 = f"/v1/policies/{policy}/promote", f"{system.base_url}/v1"
        asked = [question.text for question in questions("train")]
        marks: dict[str, float] = {}
        async with (
            AsyncClient(system.base_url, system.key) as client,
            load.running(v1, system.key, agent=AGENT, questions=asked, concurrency=_STREAMS) as streams,
        ):
            with self._console.status("promoting under a load of streaming requests"):
                await streams.settle(_AROUND_A_SWAP)
                swap = await client.post(url, {"reason": "passed the gate"})
                marks["promoted"] = streams.now()
                await streams.settle(_AROUND_A_SWAP)
                began = time.perf_counter()
                back = await client.post(
                    f"/v1/agents/{AGENT}/rollback", {"reason": "the demo shows a roll-back"}
                )
                rollback_seconds = time.perf_counter() - began
                marks["rolled back"] = streams.now()
                await streams.settle(_AROUND_A_SWAP)
                await client.post(url, {"reason": "and forward again"})
                marks["promoted again"] = streams.now()
                await streams.settle(_AROUND_A_SWAP)
        answered = streams.answered
        result = {
            "policy": policy,
            "previous": swap["previous"],
            "requests": len(answered),
            "failed": sum(one.error is not None for one in answered),
            "mixed_policy": sum(len(one.policies) != 1 for one in answered),
            "load_seconds": swap["load_seconds"],
            "probe_seconds": swap["probe_seconds"],
            "probe_mean_delta": swap["probe_mean_delta"],
            "flip_seconds": swap["flip_seconds"],
            "rollback_seconds": rollback_seconds,
            "rollback_flip_seconds": back["flip_seconds"],
        }
        self._show_counts("hot swap", dict(result))
        return result | {"marks": marks, "answered": [one.model_dump(mode="json") for one in answered]}

    async def _served(self, system: System) -> Result:
        """The held-out questions as any client would ask them."""
        gate = asyncio.Semaphore(employees.CONCURRENCY)
        policies: set[str] = set()
        started = time.perf_counter()
        with self._bar("held-out questions answered", len(self._held_out)) as done:
            async with AsyncOpenAI(
                base_url=f"{system.base_url}/v1", api_key=system.key, max_retries=0
            ) as client:

                async def one(index: int) -> TaskResult:
                    task = self._held_out[index]
                    async with gate:
                        completion = await client.chat.completions.create(
                            model=AGENT,
                            messages=[{"role": "user", "content": task.messages[-1].text}],
                            metadata={"purpose": "evaluation"},
                        )
                    policies.add(completion.system_fingerprint or "none named")
                    text = completion.choices[0].message.content or ""
                    done()
                    return TaskResult(
                        task_id=task.id,
                        tags=task.tags,
                        answerable="refusal" not in task.reference,
                        outcome=self._scorer.score(text, task.reference).outcome,
                        text=text,
                        tokens=completion.usage.completion_tokens if completion.usage else 0,
                    )

                results = await asyncio.gather(*(one(index) for index in range(len(self._held_out))))
        served = Report(
            contender="served_after_swap",
            policy=" ".join(sorted(policies)),
            seconds=time.perf_counter() - started,
            results=tuple(results),
        )
        path = self._settings.var / "evaluations" / "served_after_swap.json"
        served.save(path)
        return {"served_after_swap": str(path)}

    # ---- report

    async def _report(self) -> Result:
        finished = {name: stage["result"] for name, stage in self._state.stages.items()}
        metrics = Path(self._config().run_dir / "progress.jsonl")
        folder = self._settings.root / "reports"
        summary = report.write(
            folder,
            seed=self._seed,
            stages=finished,
            seconds=self._state.seconds(),
            reports=self._reports(),
            metrics=metrics,
        )
        self._console.print(training.accuracy_table(self._reports()))
        self._console.print(f"  {summary['conclusion']}", highlight=False, style="bold")
        self._console.print(
            f"  Report: {folder / 'demo.html'}  figures: {folder / 'demo.json'}", highlight=False
        )
        return {"html": str(folder / "demo.html")}

    def _bar(self, title: str, total: int) -> "_Bar":
        return _Bar(self._console, title, total)

    def _show_counts(self, title: str, counts: dict[str, Any]) -> None:
        table = Table(title=title, show_header=False, title_justify="left")
        for name, value in counts.items():
            table.add_row(name, f"{value:.3f}" if isinstance(value, float) else str(value))
        self._console.print(table)


class _Bar:
    """A progress bar as a context that gives the function to call at each step."""

    def __init__(self, console: Console, title: str, total: int) -> None:
        columns = TextColumn("  {task.description}"), BarColumn(bar_width=28), MofNCompleteColumn()
        self._progress = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)
        self._task = self._progress.add_task(title, total=total)

    def __enter__(self) -> Callable[[], None]:
        self._progress.start()
        return lambda: self._progress.advance(self._task)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


_VERDICTS = {
    "correct": "right",
    "correct_refusal": "right: it cannot be answered",
    "wrong_rows": "wrong: it runs, but answers another question",
    "sql_error": "wrong: the SQL does not run",
    "wrong_refusal": "wrong: it can be answered",
    "hallucination": "wrong: the data cannot answer this",
    "malformed": "wrong: it is not an answer in the agreed form (cut short at the token limit)",
}
