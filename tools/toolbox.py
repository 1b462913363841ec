"""The tools that a model may call, and what stands before each: a time limit, retries, a circuit breaker, a bound.

How a call fails decides who is told:

- what the model can mend (a `ToolError`, arguments that are none, a tool that is not there, no answer in time) goes
  back to it in words;
- a tool that is unavailable is tried again, with exponential back-off and full jitter. Where it stays so, nobody can
  tell what the model would have done with the answer: `Outcome.fault` says so, and the episode is invalid;
- anything else that a tool raises is a defect in it, and ends the episode likewise.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    retry_if_not_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from tools.arguments import nearest, parse
from tools.breaker import Breaker
from tools.content import without_middle
from tools.errors import ToolError, ToolUnavailableError
from tools.tool import AnswerCheck, Tool, ToolSpec

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ToolPolicy:
    """How one tool is called. `characters` is for tools that do not bound what they say."""

    seconds: float = 10.0  # for one attempt
    attempts: int = 2  # while it is unavailable
    backoff_seconds: float = 0.2  # at most, before the second attempt; twice as much before each further one
    characters: int = 16_000  # of a result
    failures: int = 5  # in a row, after which it is left alone
    rest_seconds: float = 15.0  # for which it is


@dataclass(frozen=True)
class Outcome:
    """What came of one call. All but `fault` are the fields of `feedback.events.ToolCall`.

    `fault`: it is not the caller's, who can do nothing about it; `error` is then for people.
    """

    name: str
    arguments: dict[str, Any]
    result: str | None = None
    error: str | None = None
    attempts: int = 1
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    latency: float = 0.0  # seconds, pauses between attempts included
    fault: Literal["unavailable", "defect"] | None = None


class Toolbox:
    """Tools by their names, and what an answer that rests on them is checked by.

    Circuit breakers live in it: keep one for as long as what its tools reach is the same.
    """

    def __init__(
        self, tools: Mapping[str, tuple[Tool, ToolPolicy]], checks: Sequence[AnswerCheck] = ()
    ) -> None:
        self.checks = tuple(checks)
        self._tools = {name: _Guarded(name, tool, policy) for name, (tool, policy) in tools.items()}

    @classmethod
    def of(cls, *boxes: "Toolbox") -> "Toolbox":
        """The tools of several, with their breakers. Raises `ValueError` where two have a name in common."""
        joined = cls({}, [check for box in boxes for check in box.checks])
        for tools in [box._tools for box in boxes]:  # noqa: SLF001  # its own class
            if common := joined._tools.keys() & tools.keys():
                raise ValueError(f"two tools are called {min(common)}: offer one of them only")
            joined._tools |= tools
        return joined

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """What a model is told of the tools."""
        return tuple(
            ToolSpec(name, guarded.tool.description, guarded.tool.parameters)
            for name, guarded in self._tools.items()
        )

    async def faults(self, answer: Mapping[str, Any]) -> str | None:
        """What the checks say against an answer; None: nothing."""
        told = [await asyncio.to_thread(check, answer) for check in self.checks]
        return " ".join(filter(None, told)) or None

    async def run(self, name: str, arguments: str, *, seconds: float | None = None) -> Outcome:
        """Call a tool with arguments as a model writes them: JSON. Whatever a tool raises, an `Outcome` tells.

        `seconds` is all that there is for it, attempts and pauses included. Cancelling it cancels the tool.
        """
        if (guarded := self._tools.get(name)) is None:
            return Outcome(name, {}, error=f"there is no tool {name}: {nearest(name, self._tools)}")
        outcome, started = Outcome(name, {}), time.perf_counter()
        limit = asyncio.timeout(seconds)
        try:
            outcome = replace(outcome, arguments=parse(name, arguments, guarded.tool.parameters))
            async with limit:
                async for attempt in guarded.attempts():
                    with attempt:
                        outcome = replace(outcome, attempts=attempt.retry_state.attempt_number)
                        outcome = replace(outcome, result=await guarded.call(outcome.arguments))
        except ToolError as error:
            outcome = replace(outcome, error=str(error))
        except ToolUnavailableError as error:
            outcome = replace(outcome, error=str(error), fault="unavailable")
        except Exception as error:  # noqa: BLE001  # the edge: a tool's defect ends an episode, never the process
            if limit.expired():
                outcome = replace(
                    outcome, error=f"{name} was stopped: the time for this request is running out"
                )
            else:
                _log.exception("the tool %s failed", name)
                outcome = replace(outcome, error=f"a defect in it ({type(error).__name__})", fault="defect")
        return replace(outcome, latency=time.perf_counter() - started)


class _RestingError(ToolUnavailableError):
    """The breaker is open: to try again at once is no use."""


class _Guarded:
    """A tool with what stands before it."""

    def __init__(self, name: str, tool: Tool, policy: ToolPolicy) -> None:
        self.tool = tool
        self._name = name
        self._policy = policy
        self._breaker = Breaker(failures=policy.failures, rest=policy.rest_seconds)

    def attempts(self) -> AsyncRetrying:
        """One after another, while the tool is unavailable."""
        return AsyncRetrying(
            stop=stop_after_attempt(self._policy.attempts),
            wait=wait_random_exponential(multiplier=self._policy.backoff_seconds),
            retry=retry_if_exception_type(ToolUnavailableError) & retry_if_not_exception_type(_RestingError),
            reraise=True,
        )

    async def call(self, arguments: Mapping[str, Any]) -> str:
        """One attempt. Raises what `Tool.call` raises; `ToolError` when there was no answer in time."""
        if (left := self._breaker.enter()) is not None:
            raise _RestingError(f"{self._name} failed again and again; it is tried again in {left:.0f} s")
        limit = asyncio.timeout(self._policy.seconds)
        try:
            async with limit:
                result = await self.tool.call(arguments)
        except ToolError:
            self._breaker.succeeded()
            raise
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if (
                task is not None and not task.cancelling()
            ):  # nobody asked for it: something in the tool gave up
                self._breaker.failed()
                raise RuntimeError(f"{self._name} cancelled itself") from error
            self._breaker.withdrawn()
            raise
        except Exception as error:  # whatever it is, the breaker counts it; it is raised again
            self._breaker.failed()
            if limit.expired():
                message = f"{self._name} gave no answer within {self._policy.seconds:g} s: ask for less"
                raise ToolError(message) from error
            raise
        self._breaker.succeeded()
        return _bounded(result, self._policy.characters)


def _bounded(result: str, limit: int) -> str:
    """A result of at most about `limit` characters, which can be written as UTF-8.

    It is cut in its middle: its end may say what a tool has left out itself, or close a fence around what others wrote.
    """
    result = result.encode(errors="replace").decode()
    if len(result) <= limit:
        return result
    end = limit // 4
    cut = len(result) - limit
    note = f"[… {cut} characters left out: ask for less …]"
    return without_middle(result, limit - end, len(result) - end, note)
