"""Scripted models, to examine the examiner: one answers what is held to be right, the other what is surely wrong.

With tools, the one that is right uses them: it runs the query before it gives it, and reads the pages before it quotes
them. A passage that no tool has shown to it, it does not quote; so it is right only where the tools suffice.
"""

import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from agents.loop import format_answer
from agents.model import Delta, ModelRequest
from evaluation.scoring.text import plain
from evaluation.tasks import ContractTask, SqlTask, Task
from feedback.events import ModelCall, Usage
from tools.content import TAG

Answer = Mapping[str, Any]
_FENCE = re.compile(rf"</?{TAG}[^>]*>")


class Expert:
    """A `Model` that knows one task. It reads and writes no tokens."""

    def __init__(
        self, policy: str, *, first: Sequence[tuple[str, Answer]] = (), answer: Callable[[str], str]
    ) -> None:
        """`first` are tools with arguments, called if they are offered; `answer` makes the text of what came back."""
        self.policy = policy
        self._first = first
        self._answer = answer

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta | ModelCall]:
        """See `agents.model.Model.stream`."""
        shown = [message.text for message in request.messages if message.role == "tool"]
        offered = {tool.name for tool in request.tools} if request.tool_choice != "none" else set()
        calls = [(name, arguments) for name, arguments in self._first if name in offered]
        if calls and not shown:
            yield self._call(request, calls=calls)
            return
        text = self._answer("\n".join(shown))
        yield Delta(text)
        yield self._call(request, text=text)

    def _call(
        self, request: ModelRequest, *, text: str = "", calls: Sequence[tuple[str, Answer]] = ()
    ) -> ModelCall:
        functions = [{"name": name, "arguments": json.dumps(arguments)} for name, arguments in calls]
        asked = (
            {"id": f"call_{number}", "type": "function", "function": function}
            for number, function in enumerate(functions, start=1)
        )
        return ModelCall(
            policy=self.policy,
            messages=request.messages,
            response_schema=request.response_schema,
            sampling=request.sampling,
            text=text,
            tool_calls=tuple(asked),
            prompt_token_ids=(),
            completion_token_ids=(),
            logprobs=(),
            usage=Usage(prompt_tokens=0, completion_tokens=0),
            finish_reason="tool_calls" if calls else "stop",
            time_to_first_token=0,
            latency=0,
        )


def gold(task: Task) -> Expert:
    """Who answers what is held to be right."""
    if not task.answerable:
        return Expert("gold", answer=lambda _: _REFUSAL)
    if isinstance(task, SqlTask):
        sql = task.golds[0] if task.golds else _returning(task)
        return Expert("gold", first=[("run_sql", {"sql": sql})], answer=lambda _: format_answer({"sql": sql}))
    pages = sorted({page for one in task.evidence for page in (one.page, one.page_end)})
    # One by one: together they may be more than one answer of the tool holds.
    reading = [("select_pages", {"pages": str(page)}) for page in pages]
    return Expert("gold", first=reading, answer=lambda shown: _quoting(task, shown))


_REFUSAL = format_answer({"refusal": "there is no such data"})


def _quoting(task: ContractTask, shown: str) -> str:
    """What was shown, and where nothing was, everything."""
    seen = plain(_FENCE.sub(" ", shown))  # a passage may go on over the next page
    quotes = [
        {"page": one.page, "quote": one.text} for one in task.evidence if not shown or plain(one.text) in seen
    ]
    return format_answer({"answer": task.answer, "quotes": quotes}) if quotes else _REFUSAL


def _returning(task: SqlTask) -> str:
    """A query that returns the rows that are right."""
    rows = (", ".join(_literal(value) for value in row) for row in task.rows or ())
    return " UNION ALL ".join(f"SELECT {row}" for row in rows) or "SELECT 1 WHERE 1 = 0"


def _literal(value: object) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return "NULL" if value is None else str(value)


def wrong(task: Task, others: Sequence[Task]) -> Expert:
    """Who errs, each task in one of several ways: too much, too little, something else, a refusal, nonsense.

    Surely wrong, but for a question to which nothing is the right answer. Of a contract, it answers what is right of
    another contract, in a question of another kind.
    """
    way = int(hashlib.sha256(task.id.encode()).hexdigest(), 16)
    if not task.answerable:
        text = format_answer(
            {"sql": "SELECT 1"} if isinstance(task, SqlTask) else {"answer": "Yes.", "quotes": []}
        )
    elif isinstance(task, SqlTask):
        text = _wrong_queries(task)[way % 5]
    else:
        text = _wrong_answers(task, others)[way % 4]
    return Expert("wrong", answer=lambda _: text)


def _wrong_queries(task: SqlTask) -> tuple[str, ...]:
    sql = (task.golds[0] if task.golds else _returning(task)).rstrip().rstrip(";")
    queries = (
        f"SELECT * FROM ({sql}) UNION ALL SELECT * FROM ({sql})",  # noqa: S608  # a script's own; each row once more
        "SELECT 'something else'",
        f"SELECT no_such_column FROM ({sql})",  # noqa: S608  # the same
    )
    return (*(format_answer({"sql": query}) for query in queries), _REFUSAL, sql)


def _wrong_answers(task: ContractTask, others: Sequence[Task]) -> tuple[str, ...]:
    foreign = next(
        (
            {"answer": one.answer, "quotes": [{"page": e.page, "quote": e.text} for e in one.evidence]}
            for one in others
            if isinstance(one, ContractTask)
            and one.answerable
            and one.document != task.document
            and one.groups.get("category") != task.groups.get("category")
        ),
        {"answer": "Something else entirely.", "quotes": []},
    )
    return (
        format_answer(foreign),
        format_answer({"answer": "Yes, the contract says so.", "quotes": []}),
        _REFUSAL,
        "It is on one of its pages.",
    )
