"""One request from question to answer."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.loop import EpisodeError, Finished, last_question, parse_answer, prompt, retrieve, run
from agents.manifest import Agent
from agents.model import Delta, ModelError
from domains.insurance.questions import questions
from feedback.events import Message, ModelCall, Sampling, ToolCall
from tests.agents.conftest import Scripted
from tools import knowledge as knowledge_module
from tools.errors import ToolError
from tools.knowledge import Knowledge

ASKED = (Message(role="user", content="What do the claims cost?"),)


def started(
    agent: Agent,
    model: Scripted,
    knowledge: Knowledge,
    messages: tuple[Message, ...] = ASKED,
    max_tokens: int = 1_000,
) -> AsyncGenerator[Delta | ToolCall | Finished, None]:
    parts = run(agent, messages, model=model, knowledge=knowledge, sampling=Sampling(max_tokens=max_tokens))
    assert isinstance(parts, AsyncGenerator)
    return parts


async def collect(
    parts: AsyncGenerator[Delta | ToolCall | Finished, None],
    into: list[Delta | ToolCall | Finished],
    pause: float = 0,
) -> None:
    """What came before an error stays in `into`."""
    async for part in parts:
        into.append(part)
        await asyncio.sleep(pause)


async def test_what_is_done_streams_by_and_then_comes_whole(agent: Agent, knowledge: Knowledge):
    model = Scripted('{"sql": ', '"SELECT 1"}')
    retrieval, *deltas, finished = [part async for part in started(agent, model, knowledge)]
    assert deltas == [Delta('{"sql": '), Delta('"SELECT 1"}')]
    assert isinstance(finished, Finished)
    assert retrieval == finished.calls[0]
    assert (finished.text, finished.finish_reason) == ('{"sql": "SELECT 1"}', "stop")


async def test_what_was_done_is_recorded_in_order(agent: Agent, knowledge: Knowledge):
    finished = [part async for part in started(agent, Scripted("{}"), knowledge)][-1]
    assert isinstance(finished, Finished)
    retrieval, call = finished.calls
    assert isinstance(retrieval, ToolCall)
    assert isinstance(call, ModelCall)
    assert retrieval.arguments == {"query": "What do the claims cost?", "knowledge": knowledge.digest}
    assert retrieval.result == {
        "schemas": ["claims(claim_id, amount)"],
        "examples": ["How many claims?"],
        "heuristics": ["A loss is a claim."],
    }
    assert call.policy == Scripted.policy
    assert call.text == "{}"


@pytest.mark.parametrize(("asked", "limit", "given_"), [(1_000, 64, 64), (10, 64, 10), (64, 64, 64)])
async def test_the_agents_limit_caps_the_tokens_asked_for(
    limited: Callable[..., Agent], knowledge: Knowledge, asked: int, limit: int, given_: int
):
    model = Scripted("{}")
    async for _ in started(limited(max_tokens=limit), model, knowledge, max_tokens=asked):
        pass
    assert [request.sampling.max_tokens for request in model.requests] == [given_]


async def test_the_model_gets_the_agents_schema_and_the_prompt_before_the_clients_messages(
    agent: Agent, knowledge: Knowledge
):
    model = Scripted("{}")
    messages = (
        Message(role="user", content="Which car is the oldest?"),
        Message(role="assistant", content="{}"),
        *ASKED,
    )
    async for _ in started(agent, model, knowledge, messages):
        pass
    (request,) = model.requests
    assert request.response_schema == agent.response_schema
    assert request.messages[0].role == "system"
    assert request.messages[1:] == messages


async def test_a_model_that_is_too_slow_ends_the_episode_with_504(
    limited: Callable[..., Agent], knowledge: Knowledge
):
    model = Scripted("{", 30.0, "}")
    parts: list[Delta | ToolCall | Finished] = []
    with pytest.raises(EpisodeError, match=r"within 0\.2 s") as ended:
        await collect(started(limited(seconds=0.2), model, knowledge), parts)
    assert (ended.value.status, ended.value.code) == (504, "timeout")
    assert [type(call) for call in ended.value.calls] == [ToolCall]
    assert parts == [*ended.value.calls, Delta("{")]
    assert model.closed == 1


async def test_a_slow_consumer_is_told_of_the_limit_and_not_cancelled_while_it_waits(
    limited: Callable[..., Agent], knowledge: Knowledge
):
    with pytest.raises(EpisodeError) as ended:
        await collect(started(limited(seconds=0.2), Scripted("{", 30.0), knowledge), [], pause=0.4)
    assert ended.value.code == "timeout"


async def test_a_retrieval_that_is_too_slow_ends_the_episode_before_any_call(
    limited: Callable[..., Agent], knowledge: Knowledge, monkeypatch: pytest.MonkeyPatch
):
    async def stuck(*_: object) -> None:
        await asyncio.sleep(30)

    monkeypatch.setattr("agents.loop.asyncio.to_thread", stuck)
    with pytest.raises(EpisodeError) as ended:
        async for _ in started(limited(seconds=0.1), Scripted("{}"), knowledge):
            pass
    assert (ended.value.status, ended.value.calls) == (504, ())


async def test_a_models_failure_ends_the_episode_with_its_status_its_code_and_what_had_been_done(
    agent: Agent, knowledge: Knowledge
):
    failure = ModelError("too long", status=400, code="context_length_exceeded")
    with pytest.raises(EpisodeError, match="too long") as ended:
        async for _ in started(agent, Scripted("{", failure), knowledge):
            pass
    assert (ended.value.status, ended.value.code) == (400, "context_length_exceeded")
    assert [call.kind for call in ended.value.calls] == ["tool"]


async def test_a_knowledge_base_that_is_away_ends_the_episode_with_503(
    agent: Agent, knowledge: Knowledge, monkeypatch: pytest.MonkeyPatch
):
    def away(*_: object) -> None:
        raise ToolError("the knowledge base does not answer")

    monkeypatch.setattr(knowledge, "search", away)
    model = Scripted("{}")
    with pytest.raises(EpisodeError, match="knowledge base") as ended:
        async for _ in started(agent, model, knowledge):
            pass
    assert (ended.value.status, ended.value.code, ended.value.calls) == (503, "tool_unavailable", ())
    assert model.requests == []


async def test_a_defect_is_not_dressed_up_as_an_episodes_end(agent: Agent, knowledge: Knowledge):
    with pytest.raises(ZeroDivisionError):
        async for _ in started(agent, Scripted(ZeroDivisionError("defect")), knowledge):
            pass


async def test_closing_early_closes_the_models_stream_at_once(agent: Agent, knowledge: Knowledge):
    model = Scripted("{", "}")
    parts = started(agent, model, knowledge)
    assert isinstance(await anext(parts), ToolCall)
    assert await anext(parts) == Delta("{")
    assert model.closed == 0
    await parts.aclose()
    assert model.closed == 1


async def test_cancelling_closes_the_models_stream(agent: Agent, knowledge: Knowledge):
    model = Scripted("{", 30.0)

    async def consume() -> None:
        async for _ in started(agent, model, knowledge):
            pass

    task = asyncio.create_task(consume())
    while not model.requests:
        await asyncio.sleep(0.01)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert model.closed == 1


def test_the_question_is_the_last_thing_that_the_user_said():
    say = [Message(role=role, content=role) for role in ("system", "user", "assistant")]
    assert last_question(say) == "user"
    assert last_question([*say, Message(role="user", content="again")]) == "again"
    assert last_question([say[0]]) == ""


def test_the_prompt_holds_what_was_retrieved_and_nothing_else_of_the_knowledge(
    agent: Agent, knowledge: Knowledge
):
    _, context = retrieve(agent, ASKED, knowledge)
    text = prompt(agent, ASKED, context)[0].text
    assert "claims(claim_id, amount)" in text
    assert "A loss is a claim." in text
    assert 'Q: How many claims?\nA: {"sql": "SELECT COUNT(*) FROM claims"}' in text
    assert "vehicles" not in text
    assert "keywords" not in text


def test_what_was_retrieved_is_data_and_never_a_template(agent: Agent):
    item = knowledge_module.Item("schemas", text="{{ 7 * 7 }} {% raise %}")
    text = prompt(agent, ASKED, knowledge_module.Context((item,), (), ()))[0].text
    assert "{{ 7 * 7 }} {% raise %}" in text


def test_no_prompt_gives_away_a_held_out_question_or_its_answer(agent: Agent, root):
    items = knowledge_module.read(root / "domains" / "insurance" / "knowledge.toml")
    insurer = Knowledge(items)
    held_out = {
        text
        for split in ("dev", "test")
        for question in questions(split)
        for text in (question.text, question.sql if question.novelty == "template" else None)
        if text is not None
    }
    for question in questions("test"):
        asked = (Message(role="user", content=question.text),)
        _, context = retrieve(agent, asked, insurer)
        text = prompt(agent, asked, context)[0].text
        assert [secret for secret in held_out if f"{secret}\n" in f"{text}\n" or f'"{secret}"' in text] == []


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('{"sql": "SELECT 1"}', {"sql": "SELECT 1"}),
        (' {"refusal": "no"}\n', {"refusal": "no"}),
        ("{}", {}),
        ('{"sql": "SELECT', None),
        ("SELECT 1", None),
        ("[1]", None),
        ('"text"', None),
        ("null", None),
        ("", None),
        ('{"sql": "a"} and more', None),
        ("9" * 5_000, None),
        ("[" * 100_000, None),
    ],
    ids=lambda value: str(value)[:20],
)
def test_an_answer_is_a_json_object_or_none(text: str, answer: object):
    assert parse_answer(text) == answer


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.one_of(st.text(), JSON.map(json.dumps)))
def test_no_text_breaks_the_parser(text: str):
    answer = parse_answer(text)
    assert answer is None or json.loads(text) == answer
