"""The load's checker finds every answer that is not whole or not by one policy."""

import asyncio

import pytest

from deploy.load import Load, running
from tests.deploy.fake_gateway import FakeGateway, Way

QUESTIONS = ["How many?", "How much?", "Since when?"]


async def load_of(*ways: Way, requests: int = 6) -> tuple[Load, FakeGateway]:
    async with FakeGateway(ways=ways).served() as gateway, asyncio.timeout(20):
        async with running(gateway.url, "k", agent="sql-analyst", questions=QUESTIONS, concurrency=2) as load:
            await load.settle(requests)
        return load, gateway


async def test_whole_answers_by_one_policy_are_without_error():
    load, gateway = await load_of("good", requests=8)
    assert len(load.answered) >= 8
    assert [one.error for one in load.answered if one.error] == []
    assert {one.policies for one in load.answered} == {("a@1",)}
    for one in load.answered:
        assert one.first_token is not None
        assert 0 <= one.started <= one.first_token <= one.ended <= load.now()
    assert {chat["messages"][-1]["content"] for chat in gateway.chats} == set(QUESTIONS)
    assert all(chat["stream"] and chat["metadata"] == {"purpose": "load"} for chat in gateway.chats)


async def test_what_is_under_way_at_the_end_is_waited_for_and_counted():
    load, gateway = await load_of("good", requests=1)
    assert len(load.answered) == len(gateway.chats) > 1


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("truncated", "truncated: the stream ended without a finish reason"),
        ("refused", "overloaded"),
        ("error event", "the model server failed"),
        ("cut", ""),
    ],
)
async def test_an_answer_that_fails_is_told_and_the_load_goes_on(way: Way, said: str):
    load, _ = await load_of("good", way, requests=8)
    failed = [one for one in load.answered if one.error is not None]
    assert 0.3 < len(failed) / len(load.answered) < 0.7
    assert all(said in (one.error or "") for one in failed)
    assert all(one.ended >= one.started for one in failed)


async def test_an_answer_by_two_policies_names_both():
    load, _ = await load_of("good", "mixed", requests=8)
    mixed = [one for one in load.answered if len(one.policies) != 1]
    assert 0.3 < len(mixed) / len(load.answered) < 0.7
    assert {one.policies for one in mixed} == {("a@1", "a@2")}


async def test_a_server_that_is_away_fails_every_request():
    async with asyncio.timeout(20):
        async with running(
            "http://127.0.0.1:9/v1", "k", agent="sql-analyst", questions=QUESTIONS, concurrency=1
        ) as load:
            await load.settle(2)
    assert load.answered
    assert all(one.error and one.first_token is None and one.policies == () for one in load.answered)
