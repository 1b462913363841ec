"""The conversation that a response belongs to, from what was recorded: what came before it, and what was answered."""

from typing import Any

from feedback.events import Message, ModelCall, RequestFinished, ToolCall, Turn
from gateway.response_items import answer_items, items_of


def history(previous: RequestFinished | None) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    """The messages up to and with the answer of a response, and the ids of all their items.

    Its instructions are none of them: they hold for one response only, as in OpenAI's API.
    """
    if previous is None:
        return (), ()
    messages = previous.input if instructions_of(previous) is None else previous.input[1:]
    answered = answer_of(previous)
    if answered is None:
        return messages, _turn(previous).items
    ids = (item["id"] for item in answer_items(answered, previous.request_id))
    return (*messages, answered), (*_turn(previous).items, *ids)


def instructions_of(event: RequestFinished) -> str | None:
    """What the request told the model beside the conversation."""
    found = sum(len(items_of(message)) for message in event.input)
    return event.input[0].text if found > len(_turn(event).items) else None


def input_items(event: RequestFinished) -> list[dict[str, Any]]:
    """The conversation that the response answers, oldest first: that of the responses before it included."""
    ids = _turn(event).items
    items = [item for message in event.input for item in items_of(message)]
    return [{"id": name, **item} for name, item in zip(ids, items[-len(ids) :], strict=True)]


def answer_of(event: RequestFinished) -> Message | None:
    """What was answered, as far as the request came; None where there is nothing."""
    call = next((call for call in reversed(event.calls) if isinstance(call, ModelCall)), None)
    text = event.output
    # An agent's tools are run here: what it calls is none of the client's.
    own = any(isinstance(one, ToolCall) for one in event.calls)
    calls = () if call is None or own else call.tool_calls
    reasoning = None if call is None else call.reasoning
    if text is None and event.status == "completed" and not calls:
        text = ""
    if text is None and not calls and not reasoning:
        return None
    return Message(role="assistant", content=text, tool_calls=calls, reasoning=reasoning)


def _turn(event: RequestFinished) -> Turn:
    assert event.turn is not None, "the request came by another API"
    return event.turn
