"""`search_knowledge`: the knowledge as a tool that a model calls while it works."""

import asyncio
from typing import get_args

from pydantic import BaseModel, ConfigDict, Field

from tools.content import as_content
from tools.errors import ToolError, ToolUnavailableError
from tools.knowledge.index import Knowledge
from tools.knowledge.items import Item, Kind
from tools.tool import FunctionTool, Tool

_OF_ONE_KIND, _OF_EACH = 6, 3  # items in an answer
_CHARACTERS = 6_000  # of an answer
_QUERY_CHARACTERS = 1_000


class _Search(BaseModel):
    model_config = ConfigDict(extra="forbid")

    query: str = Field(
        min_length=1, max_length=_QUERY_CHARACTERS, description="What is sought, in words or as a question."
    )
    kind: Kind | None = Field(
        None,
        description="schemas: tables and their columns; examples: answered questions; heuristics: rules of the house. "
        "Left out: some of each.",
    )


def tools(knowledge: Knowledge) -> list[Tool]:
    """The tools over one collection, as the tenant sees it that `knowledge` is of."""

    async def search(arguments: _Search) -> str:
        quotas: dict[Kind, int] = (
            dict.fromkeys(get_args(Kind), _OF_EACH)
            if arguments.kind is None
            else {arguments.kind: _OF_ONE_KIND}
        )
        try:
            context = await asyncio.to_thread(knowledge.search, arguments.query, quotas)
        except ToolError as error:  # the server is away, which no other query mends
            raise ToolUnavailableError(str(error)) from error
        found = [*context.schemas, *context.examples, *context.heuristics]
        if not found:
            return "Nothing in the knowledge speaks of that. Try other words."
        return as_content(_bounded([_written(item) for item in found]), "knowledge")

    return [
        FunctionTool(
            "search_knowledge",
            "Search what is known of the data: tables, answered questions, rules. The best comes first.",
            _Search,
            search,
        )
    ]


def _written(item: Item) -> str:
    if item.kind == "examples":
        return f"example: {item.question}\n{item.answer}"
    return f"{'schema' if item.kind == 'schemas' else 'rule'}: {item.text}"


def _bounded(texts: list[str]) -> str:
    whole = "\n\n".join(texts)
    if len(whole) <= _CHARACTERS:
        return whole
    return f"{whole[:_CHARACTERS]}\n[cut off after {_CHARACTERS} of {len(whole)} characters]"
