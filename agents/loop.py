"""One request to an agent, from question to answer: retrieve, call the model, make its tool calls, give the answer.

`run` is the only way in which an agent acts. The gateway streams what it yields; the trainer rolls out the same
generator, so that what is trained is what is served.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from agents.acting import ToolStarted
from agents.answer import format_answer, parse_answer
from agents.conversation import Conversation
from agents.manifest import Agent
from agents.model import Delta, Model, ModelError
from agents.turns import Turns
from feedback.events import Call, Message, ModelCall, Sampling, ToolCall
from tools.errors import ToolDefectError, ToolError, ToolUnavailableError
from tools.knowledge import Context, Kind, Knowledge
from tools.toolbox import Toolbox

__all__ = [
    "RETRIEVAL",
    "EpisodeError",
    "Finished",
    "Step",
    "ToolStarted",
    "format_answer",
    "last_question",
    "parse_answer",
    "prompt",
    "retrieve",
    "run",
]

RETRIEVAL = "retrieve"  # the name under which a retrieval is recorded
_UNTIL_THE_ANSWER = 0.75  # of an episode's time; the rest is for the answer


@dataclass(frozen=True)
class Finished:
    """The answer is complete; `calls` is all that was done for it, in order.

    `fault` is what the tools' checks say against it (a quotation that does not stand in the document): who asked must
    not get it.
    """

    text: str
    finish_reason: str
    calls: tuple[Call, ...]
    fault: str | None = None


Step = Delta | ToolStarted | ToolCall | Finished


class EpisodeError(Exception):
    """The episode ended without an answer; `calls` is what had been done by then.

    `status` and `code` are those of `agents.model.ModelError`.
    """

    def __init__(self, message: str, *, status: int, code: str, calls: tuple[Call, ...]) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.calls = calls


async def run(
    agent: Agent,
    messages: Sequence[Message],
    *,
    model: Model,
    knowledge: Knowledge,
    sampling: Sampling,
    seconds: float | None = None,
    tools: Toolbox | None = None,
) -> AsyncIterator[Step]:
    """Answer the last user message. Raises `EpisodeError`; yields what is done as it is done, then one `Finished`.

    With `tools`, and more than one turn, the model may call them until it answers in the agent's form. It is made to
    answer in its last turn, and where it did not find the form by itself, repeats itself, or has used up its tokens
    or three quarters of its time. What it writes before is a `Delta` that is not `final`; where that turns out to be
    the answer, it comes once more. The final ones together are `Finished.text`.

    Where the tools check answers (`Toolbox.checks`), a wrong one is sent back with what is wrong, the last one once.
    One that is wrong even so is a `Finished` with its `fault`, and none of it is final.

    `sampling.max_tokens` is for each model call, and capped by the agent's own limit. The request is abandoned after
    `limits.seconds`, or sooner after `seconds`. Closing the iterator early closes the model's stream and stops the
    tools.
    """
    calls: list[Call] = []
    own = agent.limits.seconds
    limit = own if seconds is None else min(seconds, own)
    began = asyncio.get_running_loop().time()
    deadline = began + limit
    if tools is None or agent.limits.turns == 1:
        tools = Toolbox({})
    try:
        async with asyncio.timeout_at(deadline):
            retrieval, context = await asyncio.to_thread(retrieve, agent, messages, knowledge)
        calls.append(retrieval)
        yield retrieval
        turns = Turns(
            agent,
            Conversation(prompt(agent, messages, context, [spec.name for spec in tools.specs])),
            calls,
            model=model,
            tools=tools,
            sampling=sampling,
            deadline=deadline,
            answer_by=began + limit * _UNTIL_THE_ANSWER,
        )
        async with aclosing(turns.steps()) as steps:
            async for step in steps:
                yield step
        answer = calls[-1]
        assert isinstance(answer, ModelCall), "see Turns"
        yield Finished(answer.text, answer.finish_reason, tuple(calls), turns.fault)
    except ModelError as error:
        raise EpisodeError(str(error), status=error.status, code=error.code, calls=tuple(calls)) from error
    except (ToolError, ToolUnavailableError) as error:
        raise EpisodeError(str(error), status=503, code="tool_unavailable", calls=tuple(calls)) from error
    except ToolDefectError as error:
        raise EpisodeError(str(error), status=500, code="tool_failed", calls=tuple(calls)) from error
    except TimeoutError as error:
        whose = "the agent's" if limit == own else "the client's"
        message = f"no answer within {limit:g} s ({whose} limit)"
        raise EpisodeError(message, status=504, code="timeout", calls=tuple(calls)) from error


def retrieve(agent: Agent, messages: Sequence[Message], knowledge: Knowledge) -> tuple[ToolCall, Context]:
    """What the agent's quotas bring up for the last question, and the record of the retrieval."""
    question = last_question(messages)
    quotas: dict[Kind, int] = {
        "schemas": agent.quotas.schemas,
        "examples": agent.quotas.examples,
        "heuristics": agent.quotas.heuristics,
    }
    began, started = datetime.now(UTC), time.perf_counter()
    context = knowledge.search(question, quotas)
    call = ToolCall(
        name=RETRIEVAL,
        arguments={"query": question, "knowledge": knowledge.digest},
        result={
            "schemas": [item.text for item in context.schemas],
            "examples": [item.question for item in context.examples],
            "heuristics": [item.text for item in context.heuristics],
        },
        started=began,
        latency=time.perf_counter() - started,
    )
    return call, context


def last_question(messages: Sequence[Message]) -> str:
    """The text of the last user message; the empty string when there is none."""
    return next((message.text for message in reversed(messages) if message.role == "user"), "")


def prompt(
    agent: Agent, messages: Sequence[Message], context: Context, tools: Sequence[str] = ()
) -> tuple[Message, ...]:
    """What the model sees: the agent's prompt with what was retrieved in it, then the client's messages.

    `tools` are the names of those that it may call.
    """
    text = _template(agent.prompt).render(
        schemas=context.schemas, examples=context.examples, heuristics=context.heuristics, tools=tools
    )
    return (Message(role="system", content=text.strip()), *messages)


@lru_cache(maxsize=64)
def _template(source: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(source)
