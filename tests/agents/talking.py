"""A model that says what it is told to say, turn by turn, through a chat template: its tokens are characters."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from agents.model import Delta, ModelError, ModelRequest
from feedback.events import Message, ModelCall
from tests.contracts.samples import model_call
from tools.errors import ToolError
from tools.toolbox import Toolbox, ToolPolicy

END = "<end>"
Turn = (
    str | Exception | Sequence[tuple[str, str]]
)  # a text; or calls of tools: the name, and arguments as written


def written(name: str, arguments: str) -> str:
    return f"<call>{name} {arguments}</call>"


def rendered(messages: Sequence[Message]) -> str:
    """A chat template: it has arguments in its own form, whatever the model wrote."""
    text = ""
    for message in messages:
        calls = [call["function"] for call in message.tool_calls]
        forms = [written(call["name"], json.dumps(json.loads(call["arguments"]))) for call in calls]
        text += f"<{message.role}>{message.text}{''.join(forms)}{END}"
    return text + "<assistant>"


def tokens(text: str) -> tuple[int, ...]:
    return tuple(map(ord, text))


class Talking:
    """A `Model`. A turn beyond the last one is the last one again; `window` is how many tokens a prompt may have."""

    policy = "sql-analyst@talking"

    def __init__(self, *turns: Turn, window: int = 1_000_000) -> None:
        self.turns = turns
        self.window = window
        self.requests: list[ModelRequest] = []
        self.calls: list[ModelCall] = []

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta | ModelCall]:
        turn = self.turns[min(len(self.requests), len(self.turns) - 1)]
        self.requests.append(request)
        prompt = tokens(rendered(request.messages))
        if len(prompt) > self.window:
            raise ModelError("too long", status=400, code="context_length_exceeded")
        if isinstance(turn, Exception):
            raise turn
        text = turn if isinstance(turn, str) else ""
        calls = () if isinstance(turn, str) else turn
        completion = tokens(text + "".join(written(*call) for call in calls) + END)
        for word in text.split():
            yield Delta(word)
        call = model_call(
            policy=self.policy,
            messages=request.messages,
            sampling=request.sampling,
            text=text,
            tool_calls=[
                {
                    "id": f"call_{len(self.requests)}_{number}",
                    "type": "function",
                    "function": {"name": name, "arguments": arguments},
                }
                for number, (name, arguments) in enumerate(calls)
            ],
            prompt_token_ids=prompt,
            completion_token_ids=completion,
            logprobs=[-0.5] * len(completion),
            tokens=list(map(chr, completion)),
            finish_reason="tool_calls" if calls else "stop",
        )
        self.calls.append(call)
        yield call


class Answering:
    """A tool that answers at once, from a table by its only argument; what is not in it the model can mend."""

    description = "Answers."
    parameters: Mapping[str, Any] = {"properties": {"of": {"type": "string"}}, "required": ["of"]}

    def __init__(self, **answers: str | Exception) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def call(self, arguments: Mapping[str, Any]) -> str:
        self.asked.append(arguments["of"])
        answer = self.answers.get(arguments["of"]) or ToolError(f"there is no {arguments['of']}")
        if isinstance(answer, Exception):
            raise answer
        return answer


def toolbox(tool: Any, *names: str, **policy: Any) -> Toolbox:
    policy = {"backoff_seconds": 0.0, **policy}
    return Toolbox({name: (tool, ToolPolicy(**policy)) for name in names or ("look_up",)})
