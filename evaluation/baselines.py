"""Baselines: what a model does without what the agent has. (Single-turn SQL is the agent itself with one turn.)"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path

from agents.manifest import Agent, Quotas, Tools
from evaluation.running import Setting
from evaluation.tasks import ContractTask, Task
from evaluation.workbench import WorkbenchError
from feedback.events import Message
from tools.content import as_content
from tools.knowledge import Knowledge

_PROMPT = """\
Answer the question about the contract that stands before it. Answer as JSON:
{"answer": "…", "quotes": [{"page": 1, "quote": "…"}]} with every passage that you rely on quoted word for word and
the number of its page; or {"refusal": "…"} if the contract does not say. Answer shortly: for a date, a name or a period
just that; for a clause the clause itself."""
_CHARACTERS_PER_TOKEN = 3  # legal English has more than 4: what is estimated to fit, fits
_OWN_TOKENS = 512  # of the prompt, the question and the template around them


class FullContext:
    """The whole contract in the prompt, and no tools.

    What does not fit the model's window of `window` tokens is cut: from the first page on, as many whole pages are
    given as fit beside the agent's longest answer, at an estimated 3 characters a token; of a first page that does not
    fit by itself, its beginning.
    """

    def __init__(self, agent: Agent, window: int) -> None:
        """Raises `WorkbenchError` where the window has no room beside prompt and answer."""
        tokens = window - agent.limits.max_tokens - _OWN_TOKENS
        if tokens <= 0:
            raise WorkbenchError(
                f"a window of {window} tokens has no room for a contract beside the answer's "
                f"{agent.limits.max_tokens} and the prompt's {_OWN_TOKENS}"
            )
        self._characters = tokens * _CHARACTERS_PER_TOKEN
        limits = agent.limits.model_copy(update={"turns": 1})
        changed = {"prompt": _PROMPT, "quotas": Quotas(schemas=0, examples=0, heuristics=0), "tools": Tools()}
        self._agent = agent.model_copy(update={**changed, "limits": limits})
        self._knowledge = Knowledge([])
        self._whole = lru_cache(maxsize=256)(self._read)

    @asynccontextmanager
    async def given(self, task: Task) -> AsyncIterator[Setting]:
        """The contract before the question, in one message."""
        assert isinstance(task, ContractTask), "whoever opens it knows the tasks"
        text, cut = self._whole(task.path)
        content = f"{as_content(text, f'contract {task.document}')}\n\n{task.asked}"
        message = Message(role="user", content=content)
        yield Setting(self._agent, (message,), self._knowledge, pages_cut=cut)

    def _read(self, path: Path) -> tuple[str, int]:
        pages = path.read_text("utf-8").split("\f")
        given, left = [], self._characters
        for number, page in enumerate(pages, start=1):
            marked = f"[page {number}]\n{page.strip()}\n"
            if len(marked) > left:
                break
            given.append(marked)
            left -= len(marked)
        if not given:
            given.append(f"[page 1]\n{pages[0].strip()}"[:left])
        return "\n".join(given), len(pages) - len(given)
