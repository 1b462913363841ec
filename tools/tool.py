"""What an agent may do: a tool says what it takes, does it, and answers in words that a model reads."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from tools.errors import ToolError


@dataclass(frozen=True)
class ToolSpec:
    """What a model is told of a tool; see `Tool`."""

    name: str
    description: str
    parameters: Mapping[str, Any]


AnswerCheck = Callable[[Mapping[str, Any]], str | None]
"""What is wrong with an answer in an agent's form, in words that a model can act on; None: nothing. It may block."""


class Tool(Protocol):
    """Something that a model can call. Safe to be called several times at once; cancelling a call stops its work.

    `parameters` is the JSON schema of the arguments, `description` what the model reads to know when to call it.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]

    async def call(self, arguments: Mapping[str, Any]) -> str:
        """What comes back to the model, bounded in length. Raises `ToolError` for what the model can mend,
        `ToolUnavailableError` where trying again may help; anything else is a defect and ends the episode as invalid.
        """
        ...


Arguments = TypeVar("Arguments", bound=BaseModel)


class FunctionTool(Generic[Arguments]):
    """A tool made of an async function and a pydantic model for its arguments."""

    def __init__(
        self,
        name: str,
        description: str,
        arguments: type[Arguments],
        function: Callable[[Arguments], Awaitable[str]],
    ) -> None:
        self.name = name
        self.description = description
        self.parameters: Mapping[str, Any] = arguments.model_json_schema()
        self._arguments = arguments
        self._function = function

    async def call(self, arguments: Mapping[str, Any]) -> str:
        """See `Tool.call`: arguments that are not as declared are told with what is wrong with each."""
        try:
            parsed = self._arguments.model_validate(arguments)
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(map(str, fault['loc'])) or 'arguments'}: {fault['msg']}"
                for fault in error.errors()
            )
            raise ToolError(f"wrong arguments for {self.name}: {faults}") from error
        return await self._function(parsed)
