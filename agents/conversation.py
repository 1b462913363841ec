"""What an episode's model has been told so far, and how that is kept within its context.

One rule of compaction: when the next call would not fit, results of tools leave the prompt, the oldest first, each for
a line that says how to get it again. What was asked, what the model wrote and the results of the last turn stay.
"""

import json
from collections.abc import Sequence
from typing import Any

from agents.acting import ToolStarted
from feedback.events import Message, ModelCall
from tools.arguments import canonical

LEFT_OUT = "[left out to make room: the same call brings it back]"
_BYTES_PER_TOKEN = 3.0  # of what no model has counted yet: few, so that the guess is rather too high


class Conversation:
    """The messages of one episode. They only grow, but for `compact`: so each prompt begins as the last one did."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = tuple(messages)
        self._asked = len(self.messages)
        self._counted, self._tokens = 0, 0  # the first so many messages are so many tokens
        self._standing: dict[str, str] = {}  # call id → the call, for those whose results stand in `messages`

    def said(self, call: ModelCall) -> tuple[ToolStarted, ...]:
        """The model has spoken. What it wants to be run."""
        self._counted = len(self.messages) + 1
        self._tokens = call.tokens_read + call.tokens_written
        tool_calls = tuple(map(_readable, call.tool_calls))
        self.messages += (Message(role="assistant", content=call.text, tool_calls=tool_calls),)
        return tuple(
            ToolStarted(made["id"], made["function"]["name"], made["function"]["arguments"])
            for made in call.tool_calls
        )

    def new(self, asked: Sequence[ToolStarted]) -> tuple[ToolStarted, ...]:
        """Those of the calls whose results are not in the conversation yet, nor asked for twice at once."""
        fresh = []
        for call in asked:
            key = _key(call)
            if key not in self._standing.values():
                self._standing[call.call_id] = key
                fresh.append(call)
        return tuple(fresh)

    def answered(self, call_id: str, text: str) -> None:
        """What came of a call."""
        self.messages += (Message(role="tool", content=text, tool_call_id=call_id),)

    def told(self, text: str) -> None:
        """What the loop has to say itself."""
        self.messages += (Message(role="user", content=text),)

    @property
    def tokens(self) -> int:
        """How many the messages are: counted by the model as far as it has seen them, guessed for the rest."""
        return self._tokens + round(sum(map(_weight, self.messages[self._counted :])))

    def compact(self, *, within: float = 0.0) -> bool:
        """Apply the rule until the messages are `within` so many tokens, if they can be. Whether anything was left out.

        The prompt begins differently from then on: the episode is split there, see `agents.segments`.
        """
        kept = list(self.messages)
        last = max((place for place, message in enumerate(kept) if message.role == "assistant"), default=0)
        left = self.tokens
        for place in range(self._asked, last):
            if left <= within:
                break
            message = kept[place]
            stub = message.model_copy(update={"content": LEFT_OUT})
            if message.role == "tool" and (saved := _weight(message) - _weight(stub)) > 0:
                kept[place] = stub
                left -= round(saved)
                self._standing.pop(message.tool_call_id or "", None)
        if kept == list(self.messages):
            return False
        self.messages = tuple(kept)
        self._counted, self._tokens = len(kept), left
        return True


def _weight(message: Message) -> float:
    """About how many tokens."""
    return len(message.text.encode()) / _BYTES_PER_TOKEN


def _readable(made: dict[str, Any]) -> dict[str, Any]:
    """A tool call as templates and providers can render it: with an object for arguments, if only an empty one."""
    try:
        if isinstance(json.loads(made["function"]["arguments"]), dict):
            return made
    except (ValueError, RecursionError):
        pass
    return {**made, "function": {**made["function"], "arguments": "{}"}}


def _key(call: ToolStarted) -> str:
    """The same for calls that differ in how they are written at most."""
    try:
        return f"{call.name} {canonical(json.loads(call.arguments))}"
    except (ValueError, RecursionError):
        return f"{call.name} {call.arguments}"
