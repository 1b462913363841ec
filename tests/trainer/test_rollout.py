"""Roll-outs and evaluations run the loop that production runs; an invalid episode is never a score."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agents.manifest import Agent
from agents.model import Delta, ModelError, ModelRequest
from feedback.events import Message, ModelCall
from tests.contracts.samples import model_call
from tools.knowledge import Item, Knowledge
from tools.sql import Database
from trainer.evaluate import evaluate
from trainer.rewards import Scorer
from trainer.rollout import roll_out
from trainer.tasks import Task


class Known:
    """A model that knows the answers to some questions, and fails at the others."""

    policy = "sql-analyst@known"

    def __init__(self, answers: dict[str, str]) -> None:
        self.answers = answers
        self.requests: list[ModelRequest] = []
        self.under_way = self.most_under_way = 0

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta | ModelCall]:
        self.requests.append(request)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(0.002)
        self.under_way -= 1
        question = request.messages[-1].content
        if question not in self.answers:
            raise ModelError(f"never heard of {question}", status=503)
        yield model_call(messages=request.messages, sampling=request.sampling, text=self.answers[question])


@pytest.fixture(scope="module")
def agent(pytestconfig: pytest.Config) -> Agent:
    return Agent.load(pytestconfig.rootpath / "agents" / "sql_analyst")


@pytest.fixture(scope="module")
def knowledge() -> Knowledge:
    return Knowledge([Item("schemas", text="claims(claim_id)")])


def task(question: str, reference: dict[str, str]) -> Task:
    return Task(
        id=f"id of {question}",
        messages=(Message(role="user", content=question),),
        reference=reference,
        tags={"level": "simple"},
    )


async def test_episodes_come_back_in_the_order_of_their_tasks_with_what_was_wrong(
    agent: Agent, knowledge: Knowledge
):
    tasks = [task(f"q{number}", {}) for number in range(20)]
    model = Known({f"q{number}": f"a{number}" for number in range(20) if number != 7})
    ended: list[None] = []
    rollouts = await roll_out(
        agent, tasks, model=model, knowledge=knowledge, temperature=0.7, done=lambda: ended.append(None)
    )
    assert [rollout.task for rollout in rollouts] == tasks
    assert [rollout.call.text if rollout.call else None for rollout in rollouts] == [
        None if number == 7 else f"a{number}" for number in range(20)
    ]
    assert [rollout.error for rollout in rollouts if rollout.error] == ["never heard of q7"]
    assert len(ended) == 20


async def test_the_agents_own_limit_and_the_given_temperature_reach_the_model(
    agent: Agent, knowledge: Knowledge
):
    model = Known({"q": "a"})
    await roll_out(agent, [task("q", {})], model=model, knowledge=knowledge, temperature=0.7)
    (request,) = model.requests
    assert (request.sampling.max_tokens, request.sampling.temperature) == (agent.limits.max_tokens, 0.7)
    assert request.response_schema == agent.response_schema


async def test_no_more_episodes_are_under_way_than_allowed(agent: Agent, knowledge: Knowledge):
    model = Known({f"q{number}": "a" for number in range(12)})
    tasks = [task(question, {}) for question in model.answers]
    await roll_out(agent, tasks, model=model, knowledge=knowledge, temperature=0, concurrency=3)
    assert model.most_under_way == 3


async def test_an_evaluation_scores_every_task_and_invents_nothing_for_an_invalid_one(
    agent: Agent, knowledge: Knowledge, insurance: tuple[Path, Path]
):
    gold = {"sql": "SELECT COUNT(*) FROM claims"}
    tasks = [
        task("right", gold),
        task("wrong", gold),
        task("broken", gold),
        task("unanswerable", {"refusal": "no"}),
    ]
    model = Known(
        {
            "right": json.dumps(gold),
            "wrong": '{"sql": "SELECT 0"}',
            "unanswerable": '{"refusal": "not there"}',
        }
    )
    scorer = Scorer([Database(path) for path in insurance])
    report = await evaluate(agent, tasks, contender="x", model=model, knowledge=knowledge, scorer=scorer)
    assert (report.contender, report.policy) == ("x", Known.policy)
    assert [result.outcome for result in report.results] == ["correct", "wrong_rows", None, "correct_refusal"]
    assert [result.answerable for result in report.results] == [True, True, True, False]
    assert [result.tokens for result in report.results] == [2, 2, 0, 2]
    assert report.results[2].text == "never heard of broken"
    assert [result.task_id for result in report.results] == [task.id for task in tasks]
    assert all(request.sampling.temperature == 0 for request in model.requests)


async def test_worked_examples_are_earlier_turns_and_do_not_change_what_is_retrieved(
    agent: Agent, knowledge: Knowledge, insurance: tuple[Path, Path]
):
    shots = [Message(role="user", content="an earlier one"), Message(role="assistant", content="{}")]
    model, scorer = Known({"claims": "{}"}), Scorer([Database(insurance[0])])
    asked = [task("claims", {"refusal": "no"})]
    await evaluate(agent, asked, contender="x", model=model, knowledge=knowledge, scorer=scorer, shots=shots)
    (request,) = model.requests
    assert list(request.messages[1:]) == [*shots, Message(role="user", content="claims")]
    assert "claims(claim_id)" in request.messages[0].text
