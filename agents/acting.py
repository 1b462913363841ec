"""The tool calls of one turn: made at once, told in their order, and none outlives the turn."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from tools.toolbox import Outcome, Toolbox

_REPEATED = (
    "this very call was made before, and its result is in this conversation: use it, or call differently"
)


@dataclass(frozen=True)
class ToolStarted:
    """The model has called a tool. Its `ToolCall` follows when it is over, in the order in which they started.

    `arguments` is what the model wrote: JSON, or what was to be JSON.
    """

    call_id: str
    name: str
    arguments: str


async def act(
    asked: Sequence[ToolStarted], new: Sequence[ToolStarted], tools: Toolbox, *, until: float
) -> AsyncGenerator[Outcome, None]:
    """What comes of each call in `asked`; only those in `new` are made. `until` is the event loop's time to stop at.

    Closing the generator early, or cancelling it, cancels the tools and waits for them to end.
    """
    seconds = max(0.0, until - asyncio.get_running_loop().time())
    running = {
        call.call_id: asyncio.create_task(tools.run(call.name, call.arguments, seconds=seconds))
        for call in new
    }
    try:
        for call in asked:
            if call.call_id in running:
                yield await running[call.call_id]
            else:
                yield Outcome(call.name, {}, error=_REPEATED)
    finally:
        for task in running.values():
            task.cancel()
        await asyncio.gather(*running.values(), return_exceptions=True)
