"""The turns of one episode: the model writes, its tool calls are made, and so on until it has answered."""

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import jsonschema

from agents.acting import ToolStarted, act
from agents.answer import parse_answer
from agents.conversation import Conversation
from agents.manifest import Agent
from agents.model import Delta, Model, ModelError, ModelRequest, Token
from feedback.events import Call, ModelCall, Sampling, ToolCall
from tools.errors import ToolDefectError, ToolUnavailableError
from tools.toolbox import Toolbox

ANSWER_NOW = "Answer now, in the form that was asked for. No more tools can be called."
_UNREAD = (
    "That was neither an answer nor a tool call that can be read. Write one of them, as you were told to."
)
_CORRECT = "Look again, and give a corrected answer, or refuse."
_STRIKES = 3  # calls repeated, or not to be read: it will not get further by itself


@dataclass
class Turns:
    """One episode, from its prompt to its answer. `deadline` and `answer_by` are times of the event loop.

    What is done is added to `calls`, whether the end is reached or not; then the last of them is the answer.
    """

    agent: Agent
    talk: Conversation
    calls: list[Call]
    model: Model
    tools: Toolbox
    sampling: Sampling
    deadline: float
    answer_by: float  # from here on, the model is asked for its answer
    _strikes: int = 0
    fault: str | None = None  # what is wrong with the answer that it was left with
    _formless: bool = False  # it meant to answer
    _corrected: bool = False  # its last answer was wrong, and it has been told

    async def steps(self) -> AsyncGenerator[Delta | ToolStarted | ToolCall, None]:
        """Raises `ModelError`, `TimeoutError`, `ToolUnavailableError`, `ToolDefectError`."""
        for turn in itertools.count(1):
            last = self._is_last(turn)
            if last and turn > 1:
                self.talk.told(ANSWER_NOW)
            async with aclosing(self._generate(last=last)) as parts:
                async for part in parts:
                    yield part
            call = self.calls[-1]
            assert isinstance(call, ModelCall), "that is what was generated"
            if last or self._is_answer(call):
                async with asyncio.timeout_at(self.deadline):
                    self.fault = await self.tools.faults(parse_answer(call.text) or {})
                if self.fault is None or self._corrected:
                    if self.fault is None and not (last and not self.tools.checks):
                        yield Delta(call.text, tuple(map(Token, call.tokens, call.logprobs)))
                    return
                self._corrected = last
                self._strikes += 1
                self.talk.said(call)
                self.talk.told(f"{self.fault} {_CORRECT}")
                continue
            async with aclosing(self._act(call)) as steps:
                async for step in steps:
                    yield step

    def _is_last(self, turn: int) -> bool:
        limits, written = self.agent.limits, 0
        for call in self.calls:
            written += call.tokens_written if isinstance(call, ModelCall) else 0
        left = None if limits.total_tokens is None else limits.total_tokens - written
        return (
            not self.tools.specs
            or turn >= limits.turns
            or self._formless
            or self._strikes >= _STRIKES
            or (left is not None and left < 2 * self._most)  # the answer's share is kept
            or asyncio.get_running_loop().time() >= self.answer_by
        )

    @property
    def _form(self) -> dict[str, Any]:
        """What an answer looks like."""
        own = self.agent.tools.response_schema if self.tools.specs else None
        return own or self.agent.response_schema

    @property
    def _most(self) -> int:
        """Tokens of one call."""
        own = self.agent.tokens_per_call(with_tools=bool(self.tools.specs))
        return min(self.sampling.max_tokens or own, own)

    async def _generate(self, *, last: bool) -> AsyncGenerator[Delta, None]:
        window = self.agent.limits.context_tokens
        if window is not None and self.talk.tokens + self._most > window:
            self.talk.compact(within=window / 2)  # more than is needed now: each time, the episode is split
        while True:
            try:
                async with _closing(self.model.stream(self._request(last=last))) as parts:
                    while isinstance(part := await self._next(parts), Delta):
                        # What is checked is shown when it has passed.
                        yield part if last and not self.tools.checks else replace(part, final=False)
            except ModelError as error:
                if error.code != "context_length_exceeded" or not self.talk.compact():
                    raise
            else:
                if part is None:
                    raise ModelError("the model ended before its answer was complete", status=502)
                self.calls.append(part)
                return

    def _request(self, *, last: bool) -> ModelRequest:
        return ModelRequest(
            messages=self.talk.messages,
            response_schema=self._form if last else None,
            sampling=self.sampling.model_copy(update={"max_tokens": self._most}),
            tools=self.tools.specs,
            tool_choice="none" if last and self.tools.specs else "auto",
        )

    async def _next(self, parts: AsyncIterator[Delta | ModelCall]) -> Delta | ModelCall | None:
        # Never across a yield: the limit would then cancel the consumer, wherever it waits (PEP 789).
        async with asyncio.timeout_at(self.deadline):
            return await anext(parts, None)

    def _is_answer(self, call: ModelCall) -> bool:
        if call.tool_calls:
            return False
        try:
            answer = json.loads(call.text)
            # In its form without tools as well: it is an answer of this agent's.
            forms = (self._form, self.agent.response_schema)
            return any(jsonschema.Draft202012Validator(form).is_valid(answer) for form in forms)
        except (ValueError, RecursionError):
            return False

    async def _act(self, call: ModelCall) -> AsyncGenerator[ToolStarted | ToolCall, None]:
        asked = self.talk.said(call)
        if not asked and call.text.strip():
            self._formless = True
        elif not asked:  # e.g. what a parser took for a tool call that is none, and kept to itself
            self._strikes += 1
            self.talk.told(_UNREAD)
        new = self.talk.new(asked)
        self._strikes += len(asked) - len(new)
        for started in asked:
            yield started
        async with aclosing(act(asked, new, self.tools, until=self.answer_by)) as outcomes:
            for started in asked:
                outcome = await anext(outcomes)
                self.talk.answered(started.call_id, outcome.error or outcome.result or "")
                told = asdict(outcome)
                fault = told.pop("fault")
                self.calls.append(done := ToolCall(**told))
                yield done
                if fault is not None:
                    failure = ToolUnavailableError if fault == "unavailable" else ToolDefectError
                    raise failure(f"{outcome.name} failed: {outcome.error}")


@asynccontextmanager
async def _closing(
    parts: AsyncIterator[Delta | ModelCall],
) -> AsyncIterator[AsyncIterator[Delta | ModelCall]]:
    try:
        yield parts
    finally:
        if isinstance(parts, AsyncGenerator):
            await parts.aclose()
