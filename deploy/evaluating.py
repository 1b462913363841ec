"""`flywheel evaluate --tasks`: an agent with any model on a set of tasks, and the report on it."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from agents import external
from agents.manifest import Agent, ManifestError, Tools
from deploy.contestants import Contestant, contestant
from deploy.errors import FlywheelError
from deploy.settings import Settings
from evaluation import episodes, formats, report, running, workbench
from evaluation.baselines import FullContext
from evaluation.comparison import compare
from evaluation.episodes import Episode, Journal
from evaluation.errors import EvaluationError
from evaluation.report import Report
from evaluation.results import METRICS, Result
from evaluation.scoring.sql import SqlScorer
from evaluation.tasks import ContractTask, SqlTask, Task
from evaluation.workbench import Deployed
from feedback.events import Sampling
from tools.documents.library import Library
from tools.embedding import Embedder, EmbeddingError, open_embedder
from tools.errors import ToolError
from tools.knowledge import KnowledgeError
from tools.knowledge.shelf import Shelf
from tools.mcp.options import McpError
from tools.mcp.server import McpServer
from tools.tool import Tool
from tools.toolbox import Toolbox, ToolPolicy

_SCORED_AT_ONCE = 4
_TURNS = 8  # of an agent that has tools and no number of its own


@dataclass(frozen=True)
class Examination:
    """What is to be examined, and how; see `flywheel evaluate --help`."""

    agent: str
    tasks: Path
    model: str
    out: Path
    url: str | None = None
    key_variable: str | None = None
    turns: int | None = None
    full_context: bool = False
    window: int | None = None
    temperature: float = 0.0
    limit: int | None = None
    sample: int | None = None
    concurrency: int = 8
    fresh: bool = False
    against: Path | None = None

    @property
    def journal(self) -> Path:
        """The episodes, beside the report."""
        return self.out.with_suffix(".episodes.jsonl")


def examine(settings: Settings, asked: Examination) -> Report:
    """Ask the tasks that are not done yet, score all, write the report and say what it found.

    Raises `FlywheelError`; what is done when it is interrupted stays done.
    """
    console = Console(soft_wrap=True)
    try:
        other = Report.load(asked.against) if asked.against else None
        task_set = formats.read(asked.tasks)
        agent = _agent(settings, asked)
        tasks = formats.chosen(task_set, limit=asked.limit, seed=asked.sample)
        identity = _identity(asked, agent, task_set.digest)
        with episodes.opened(asked.journal, identity, fresh=asked.fresh) as journal:
            _say_what_is_done(console, journal, tasks)
            asyncio.run(_ask(settings, asked, agent, tasks, journal, console))
            done = journal.done
        results = _scored(settings, tasks, done, console)
        chosen = {"limit": asked.limit, "sample": asked.sample}
        told = {**identity, "tasks": str(asked.tasks), "format": task_set.format, **chosen}
        found = report.summary(told, [done[task.id].policy for task in tasks if task.id in done], results)
        if other is not None:
            against = compare(results, other.results, model=str(other.run.get("model")))
            found = found.model_copy(update={"against": against})
    except (EvaluationError, ManifestError, EmbeddingError) as error:
        raise FlywheelError(str(error)) from error
    except KeyboardInterrupt:
        console.print(
            f"\nstopped. What is done is in {asked.journal}: the same command goes on.", highlight=False
        )
        raise
    found.save(asked.out)
    _tell(console, found, asked)
    return found


def _agent(settings: Settings, asked: Examination) -> Agent:
    folders = settings.agents.folders  # and those beside them: an agent need not be served to be examined
    beside = {path.parent for folder in folders for path in folder.parent.glob("*/manifest.toml")}
    known = {agent.name: agent for agent in map(Agent.load, [*sorted(beside - {*folders}), *folders])}
    if asked.agent not in known:
        raise FlywheelError(f"no agent {asked.agent}: there are {', '.join(sorted(known))}")
    agent = known[asked.agent]
    turns = asked.turns or agent.limits.turns
    if asked.turns is None and turns == 1 and agent.tools != Tools():
        turns = _TURNS  # its manifest is made for the model that serves here; any other is examined with the tools
    return agent.model_copy(update={"limits": agent.limits.model_copy(update={"turns": turns})})


def _identity(asked: Examination, agent: Agent, tasks_digest: str) -> dict[str, Any]:
    """What decides the answers: with the same, a run goes on."""
    return {
        "agent": agent.name,
        "agent_digest": hashlib.sha256(agent.model_dump_json().encode()).hexdigest()[:12],
        "model": asked.model,
        "url": asked.url,
        "turns": agent.limits.turns,
        "full_context": asked.full_context,
        "window": asked.window,
        "temperature": asked.temperature,
        "tasks_digest": tasks_digest,
    }


def _say_what_is_done(console: Console, journal: Journal, tasks: Sequence[Task]) -> None:
    found = [journal.done[task.id] for task in tasks if task.id in journal.done]
    if found:
        invalid = sum(episode.status == "invalid" for episode in found)
        again = f", {invalid} of them invalid and asked again" if invalid else ""
        console.print(
            f"going on: {len(found)} of {len(tasks)} are done{again} (--fresh starts anew)", highlight=False
        )


async def _ask(
    settings: Settings,
    asked: Examination,
    agent: Agent,
    tasks: Sequence[Task],
    journal: Journal,
    console: Console,
) -> None:
    async with AsyncExitStack() as stack:
        stack.push_async_callback(external.close)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        session = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout))
        model = await contestant(
            settings, asked.model, session, url=asked.url, key_variable=asked.key_variable
        )
        given = await stack.enter_async_context(_given(settings, asked, agent, tasks, model))
        bar = stack.enter_context(_bar(console))
        row = bar.add_task(
            "asking", total=len(tasks), completed=sum(journal.is_done(task.id) for task in tasks), note=""
        )
        invalid = 0

        def ended(episode: Episode) -> None:
            nonlocal invalid
            invalid += episode.status == "invalid"
            bar.update(row, advance=1, note=f"{invalid} invalid" if invalid else "")

        await running.run(
            tasks,
            journal,
            given=given,
            model_of=lambda task: model.of(task, tasks),
            sampling=Sampling(temperature=asked.temperature, max_tokens=running.MAX_TOKENS),
            concurrency=asked.concurrency,
            done=ended,
        )


def _scored(
    settings: Settings, tasks: Sequence[Task], done: Mapping[str, Episode], console: Console
) -> list[Result]:
    scorer = SqlScorer(settings.sql.databases)
    results = []
    with _bar(console) as bar, ThreadPoolExecutor(_SCORED_AT_ONCE) as pool:
        row = bar.add_task("scoring", total=len(tasks), note="")
        for one in pool.map(lambda task: report.result(task, done.get(task.id), scorer), tasks):
            results.append(one)
            bar.update(row, advance=1)
    return results


@asynccontextmanager
async def _given(
    settings: Settings, asked: Examination, agent: Agent, tasks: Sequence[Task], model: Contestant
) -> AsyncIterator[running.Given]:
    """What the agent works with on each task."""
    if asked.full_context:
        if not all(isinstance(task, ContractTask) for task in tasks):
            raise FlywheelError("--full-context gives a contract whole: these tasks are about databases")
        window = asked.window or model.window
        if window is None:
            raise FlywheelError(f"how much {asked.model} can read is not known: say --window TOKENS")
        yield FullContext(agent, window).given
        return
    deployed = None
    if any(isinstance(task, SqlTask) and not task.databases for task in tasks):
        shelf = await asyncio.to_thread(_shelf, settings)
        deployed = Deployed(shelf.current, settings.sql.databases[0])
    library = Library(settings.var / "evaluations" / "documents", _embedder(settings, agent, tasks))
    async with (
        mcp(settings, agent) as servers,
        workbench.opened(agent, deployed, library, servers) as bench,
    ):
        yield bench.given


def _shelf(settings: Settings) -> Shelf:
    """What is served: the settings' file, and what was added."""
    known = settings.knowledge
    try:
        return Shelf(
            known.file,
            library=known.library,
            embedding=settings.embedding if known.dense else None,
            url=known.url,
        )
    except (KnowledgeError, ToolError) as error:
        raise FlywheelError(str(error)) from error


@asynccontextmanager
async def mcp(settings: Settings, agent: Agent) -> AsyncIterator[Toolbox]:
    """The tools that MCP servers have for the agent, as the gateway offers them. Raises `FlywheelError`."""
    tools: dict[str, tuple[Tool, ToolPolicy]] = {}
    async with AsyncExitStack() as stack:
        for name, section in agent.tools.mcp.items() if agent.limits.turns > 1 else ():
            if name not in settings.mcp:
                raise FlywheelError(f"{agent.name} works with mcp.{name}: add [mcp.{name}] to flywheel.toml")
            server = McpServer(name, settings.mcp[name])
            stack.push_async_callback(server.close)
            try:
                offered = await server.tools(section.offer)
            except McpError as error:
                raise FlywheelError(f"{agent.name} cannot work without mcp.{name}: {error}") from error
            policy = ToolPolicy(seconds=section.seconds, attempts=section.attempts)
            tools.update({tool.name: (tool, policy) for tool in offered})
        yield Toolbox(tools)


def _embedder(settings: Settings, agent: Agent, tasks: Sequence[Task]) -> Embedder | None:
    """For searches by meaning, where any can be made: it takes a while to be ready."""
    own = agent.tools.documents
    searches = (
        own is not None and agent.limits.turns > 1 and (own.offer is None or "search_meaning" in own.offer)
    )
    reads = searches and any(isinstance(task, ContractTask) for task in tasks)
    return open_embedder(settings.embedding) if reads else None


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("  {task.description:<8}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("[red]{task.fields[note]}"),
        console=console,
    )


def _tell(console: Console, found: Report, asked: Examination) -> None:
    columns = (Column(name, justify="right", no_wrap=True) for name in ("value", "95 % interval", "n"))
    table = Table(Column("", no_wrap=True), *columns, box=SIMPLE, padding=(0, 1, 0, 0))
    for metric in METRICS:
        if (figure := found.overall.get(metric.name)) is not None:
            scale, unit = (100, " %") if metric.share else (1, "")
            value, low, high = (f"{scale * end:.1f}" for end in (figure.value, figure.low, figure.high))
            table.add_row(metric.name.replace("_", " "), value + unit, f"{low} to {high}", str(figure.n))
    console.print(table)
    if found.against is not None and (gain := found.against.metrics.get("accuracy")) is not None:
        points, low, high = (f"{100 * end:+.1f}" for end in (gain.difference, gain.low, gain.high))
        console.print(
            f"accuracy against {found.against.model}: {points} points ({low} to {high}) on {gain.n} tasks",
            highlight=False,
        )
    if found.bad_tasks:
        console.print(f"{found.bad_tasks} tasks cannot be evaluated: see the report", style="yellow")
    if found.invalid:
        console.print(
            f"{found.invalid} episodes are invalid and not scored: the same command asks them again",
            style="red",
        )
    console.print(f"{asked.out}\n{asked.out.with_suffix('.html')}", highlight=False)
