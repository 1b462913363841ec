"""What the gateway answers is valid by OpenAI's published OpenAPI document, and the judge can tell."""

import pytest

from tests.gateway.conftest import AGENT, QUESTION, World, sse
from tests.gateway.openapi import Published

CHAT = "/v1/chat/completions"
BODY = {"model": AGENT, "messages": QUESTION}


def test_the_judge_refuses_what_is_not_by_the_document(published: Published) -> None:
    with pytest.raises(
        AssertionError, match=r"CreateChatCompletionResponse.*'choices' is a required property"
    ):
        published.check("CreateChatCompletionResponse", {"id": "x"})
    with pytest.raises(AssertionError, match="no event"):
        published.check_event({"type": "response.unheard_of"})
    with pytest.raises(AssertionError, match="sequence_number"):
        published.check_event({"type": "error", "code": None, "message": "m", "param": None})


async def test_chat_completions_are_by_the_document(live: World, published: Published) -> None:
    client = live.http()
    whole = await client.post(CHAT, json=BODY)
    published.check_answer("POST", "/chat/completions", 200, whole.json())
    streamed = await client.post(
        CHAT, json={**BODY, "stream": True, "stream_options": {"include_usage": True}}
    )
    published.check_chunks(chunk for chunk in sse(streamed.text) if chunk != "[DONE]")


async def test_models_and_errors_are_by_the_document(live: World, published: Published) -> None:
    client = live.http()
    published.check("ListModelsResponse", (await client.get("/v1/models")).json())
    for refused in (
        await client.post(CHAT, json={**BODY, "n": 0}),
        await client.get("/v1/models/none"),
        await live.http(None).get("/v1/models"),
    ):
        published.check("ErrorResponse", refused.json())
