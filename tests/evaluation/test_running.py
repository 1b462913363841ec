"""A run: resumed, interrupted, and honest about what failed for other reasons than the agent's."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agents.manifest import Agent
from agents.model import Delta, Model, ModelError, ModelRequest
from evaluation.episodes import Episode, EpisodeFileError, Journal, opened
from evaluation.experts import gold
from evaluation.running import HopelessError, Setting, run
from evaluation.tasks import SqlTask, Task
from feedback.events import Message, ModelCall, Sampling
from tools.knowledge import Knowledge

RUN = {"model": "x", "turns": 1}
NOTHING = Knowledge([])


def tasks(count: int) -> list[SqlTask]:
    return [SqlTask(f"t{number}", "How many?", (), golds=("SELECT 1",)) for number in range(count)]


class Failing:
    policy = "failing"

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta | ModelCall]:
        if self._error:
            raise self._error
        yield Delta("")


class Slow:
    policy = "slow"

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta | ModelCall]:
        await asyncio.Event().wait()
        yield Delta("")


async def ask(
    agent: Agent, asked: Sequence[Task], journal: Journal, model_of: Callable[[Task], Model] = gold
) -> list[Episode]:
    """The episodes of this run, in the order in which they ended."""
    ended: list[Episode] = []

    @asynccontextmanager
    async def given(task: Task) -> AsyncIterator[Setting]:
        yield Setting(agent, (Message(role="user", content=task.asked),), NOTHING)

    await run(
        asked, journal, given=given, model_of=model_of, sampling=Sampling(), concurrency=2, done=ended.append
    )
    return ended


async def test_every_task_is_asked_once_and_a_second_start_asks_what_is_left(tmp_path: Path, analyst: Agent):
    path = tmp_path / "run.episodes.jsonl"
    with opened(path, RUN, fresh=False) as journal:
        assert len(await ask(analyst, tasks(3), journal)) == 3
    with opened(path, RUN, fresh=False) as journal:
        assert [episode.task_id for episode in await ask(analyst, tasks(5), journal)] == ["t3", "t4"]
        assert journal.done["t0"].text == '{"sql":"SELECT 1"}'
        assert journal.done["t0"].turns == 1
    with opened(path, RUN, fresh=True) as journal:
        assert len(await ask(analyst, tasks(5), journal)) == 5


async def test_what_ended_before_an_interruption_is_kept(tmp_path: Path, analyst: Agent):
    path = tmp_path / "run.episodes.jsonl"
    with opened(path, RUN, fresh=False) as journal:
        running = asyncio.create_task(
            ask(analyst, tasks(4), journal, lambda task: Slow() if task.id in ("t1", "t3") else gold(task))
        )
        while len(journal.done) < 2:
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    with opened(path, RUN, fresh=False) as journal:
        assert journal.done.keys() == {"t0", "t2"}
        await ask(analyst, tasks(4), journal)
        assert len(journal.done) == 4


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ModelError("away"), "invalid", "upstream_unavailable"),
        (ModelError("too much", status=429, code="rate_limit_exceeded"), "invalid", "rate_limit_exceeded"),
        (ModelError("long", status=400, code="context_length_exceeded"), "failed", "context_length_exceeded"),
        (ZeroDivisionError("a defect"), "invalid", "defect"),
    ],
)
async def test_only_what_the_agent_did_itself_counts_against_it(
    tmp_path: Path, analyst: Agent, error: Exception, status: str, code: str
):
    with opened(tmp_path / "run.episodes.jsonl", RUN, fresh=False) as journal:
        (episode,) = await ask(analyst, tasks(1), journal, lambda _: Failing(error))
    assert (episode.status, episode.code) == (status, code)
    assert str(error) in episode.error


async def test_an_invalid_episode_is_asked_again_and_replaced(tmp_path: Path, analyst: Agent):
    path = tmp_path / "run.episodes.jsonl"
    with opened(path, RUN, fresh=False) as journal:
        await ask(
            analyst,
            tasks(2),
            journal,
            lambda task: Failing(ModelError("away")) if task.id == "t1" else gold(task),
        )
        assert [journal.is_done(name) for name in ("t0", "t1")] == [True, False]
    with opened(path, RUN, fresh=False) as journal:
        (episode,) = await ask(analyst, tasks(2), journal)
        assert (episode.task_id, episode.status) == ("t1", "answered")
    with opened(path, RUN, fresh=False) as journal:
        assert journal.is_done("t1")


async def test_a_run_in_which_nothing_works_stops_early_and_says_why(tmp_path: Path, analyst: Agent):
    with opened(tmp_path / "run.episodes.jsonl", RUN, fresh=False) as journal:
        with pytest.raises(HopelessError, match="wrong key"):
            await ask(analyst, tasks(50), journal, lambda _: Failing(ModelError("wrong key", status=502)))
        assert len(journal.done) < 12


def test_a_line_that_was_cut_off_is_dropped(tmp_path: Path):
    path = tmp_path / "run.episodes.jsonl"
    with opened(path, RUN, fresh=False) as journal:
        journal.add(Episode(task_id="t0", status="answered", text="a\u2028b"))
        journal.add(Episode(task_id="t1", status="answered"))
    path.write_bytes(path.read_bytes()[:-10])
    with opened(path, RUN, fresh=False) as journal:
        assert journal.done.keys() == {"t0"}
        journal.add(Episode(task_id="t2", status="answered"))
    with opened(path, RUN, fresh=False) as journal:
        assert journal.done.keys() == {"t0", "t2"}


def test_where_nothing_was_done_another_run_begins(tmp_path: Path):
    path = tmp_path / "run.episodes.jsonl"
    for run_ in (RUN, {**RUN, "model": "other"}):
        with opened(path, run_, fresh=False) as journal:
            assert journal.done == {}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (
            json.dumps({"run": {**RUN, "model": "other"}}) + '\n{"task_id": "t", "status": "answered"}',
            "model was 'other' and is 'x'",
        ),
        ('{}\n{"task_id": "t", "status": "answered"}', "no episodes of this version"),
        (json.dumps({"run": RUN}) + "\nnonsense", "no episodes of this version"),
    ],
)
def test_another_runs_episodes_are_not_gone_on_with(tmp_path: Path, content: str, fault: str):
    path = tmp_path / "run.episodes.jsonl"
    path.write_text(content + "\n")
    with pytest.raises(EpisodeFileError, match=rf"{fault}.*--fresh"), opened(path, RUN, fresh=False):
        pass
    assert path.read_text() == content + "\n"
