"""What the model is told: it only grows, but for the one rule by which old results leave it."""

import json

from hypothesis import given
from hypothesis import strategies as st

from agents.conversation import LEFT_OUT, Conversation
from feedback.events import Message
from tests.contracts.samples import model_call

ASKED = (
    Message(role="system", content="s" * 300),
    Message(role="user", content="u" * 300),
    Message(role="tool", content="t" * 300, tool_call_id="the client's own"),
    Message(role="user", content="v" * 300),
)


def talked(turns: list[list[str]], *, tokens: int = 1_000) -> Conversation:
    """A conversation of so many turns, whose calls had these results. The model has counted `tokens` at its last."""
    talk = Conversation(ASKED)
    for number, results in enumerate(turns):
        calls = [
            {
                "id": f"{number}-{place}",
                "function": {"name": "look", "arguments": json.dumps({"of": f"{number}-{place}"})},
            }
            for place in range(len(results))
        ]
        talk.new(
            talk.said(
                model_call(
                    text="",
                    tool_calls=calls,
                    prompt_token_ids=[1] * tokens,
                    completion_token_ids=[],
                    logprobs=[],
                )
            )
        )
        for place, result in enumerate(results):
            talk.answered(f"{number}-{place}", result)
    return talk


TURNS = st.lists(st.lists(st.text(max_size=400), min_size=1, max_size=3), max_size=5)


@given(TURNS, st.integers(0, 3_000))
def test_only_results_before_the_last_turn_are_left_out_the_oldest_first(turns: list[list[str]], within: int):
    talk = talked(turns)
    before, tokens = talk.messages, talk.tokens
    changed = talk.compact(within=within)
    after = talk.messages
    assert len(after) == len(before)
    assert changed == (after != before)
    last = max((place for place, message in enumerate(after) if message.role == "assistant"), default=0)
    replaced = [place for place in range(len(after)) if after[place] != before[place]]
    for place in replaced:
        assert len(ASKED) <= place < last
        assert after[place] == before[place].model_copy(update={"content": LEFT_OUT})
    worth = [
        place
        for place in range(len(ASKED), last)
        if before[place].role == "tool" and len(before[place].text.encode()) > len(LEFT_OUT.encode())
    ]
    assert replaced == worth[: len(replaced)]
    assert talk.tokens <= tokens
    assert talk.tokens <= within or replaced == worth


@given(TURNS)
def test_what_was_compacted_is_not_compacted_again(turns: list[list[str]]):
    talk = talked(turns)
    talk.compact()
    assert not talk.compact()


@given(TURNS)
def test_without_compaction_every_prompt_begins_as_the_one_before(turns: list[list[str]]):
    for number in range(len(turns)):
        shorter, longer = talked(turns[:number]).messages, talked(turns[: number + 1]).messages
        assert longer[: len(shorter)] == shorter


def test_tokens_are_counted_as_far_as_the_model_has_seen_them():
    talk = Conversation([Message(role="user", content="x" * 300)])
    assert talk.tokens == 100
    talk.said(model_call(prompt_token_ids=[1] * 40, completion_token_ids=[2, 3], logprobs=[-1, -1]))
    assert talk.tokens == 42
    talk.answered("1", "y" * 30)
    assert talk.tokens == 52


def test_a_repeated_call_is_known_however_it_is_written_until_its_result_is_left_out():
    talk = Conversation([])
    results = []
    for arguments in ('{"a": 1, "b": 2}', '{"b":2,"a":1}', '{"a": 1', '{"a": 1', '{"a": 2}'):
        name = f"call_{len(results)}"
        calls = [{"id": name, "function": {"name": "look", "arguments": arguments}}]
        results.append(len(talk.new(talk.said(model_call(text="", tool_calls=calls)))))
        talk.answered(name, "r" * 300)
    assert results == [1, 0, 1, 0, 1]
    assert talk.compact()
    again = [{"id": "again", "function": {"name": "look", "arguments": '{"b": 2, "a": 1}'}}]
    assert len(talk.new(talk.said(model_call(text="", tool_calls=again)))) == 1
