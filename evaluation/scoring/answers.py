"""What an agent has answered, read from its last text.

- SQL: `{"sql": …}`, beside it whatever else the agent tells;
- contracts: `{"answer": …, "quotes": [{"page": …, "quote": …}, …]}`, pages counted from 1;
- either: `{"refusal": …}`, the database or the contract has no answer.

A text that is not JSON by itself may hold it in one fenced block, as models do that no grammar guides.
"""

import re
from typing import Any, NamedTuple

from agents.loop import parse_answer

_FENCED = re.compile(r"```(?:json)?\s*\n(.*?)\n?```", re.DOTALL)


class Quote(NamedTuple):
    """A passage that the agent cites; `page` None where it names none."""

    text: str
    page: int | None


def read(text: str) -> dict[str, Any] | None:
    """The answer; None where there is none to be read."""
    answer = parse_answer(text)
    blocks = _FENCED.findall(text) if answer is None else []
    return parse_answer(blocks[0]) if len(blocks) == 1 else answer


def is_refusal(answer: dict[str, Any]) -> bool:
    """Whether it says that there is no answer."""
    return isinstance(answer.get("refusal"), str)


def quotes(answer: dict[str, Any]) -> tuple[Quote, ...]:
    """What it cites; what is no quote in the form above is passed over."""
    given = answer.get("quotes")
    return tuple(
        Quote(one["quote"], page if isinstance(page := one.get("page"), int) else None)
        for one in (given if isinstance(given, list) else ())
        if isinstance(one, dict) and isinstance(one.get("quote"), str) and one["quote"].strip()
    )
