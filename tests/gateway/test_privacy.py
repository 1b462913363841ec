"""What is not to be kept is not, though the client sees it; what is to be forgotten goes, wherever it is on its way."""

from datetime import timedelta
from typing import Any

import pytest

from feedback.redaction import RedactionOptions
from feedback.retention import RetentionOptions
from feedback.store import Keys
from feedback.store.retention import Retention
from gateway.housekeeping import Housekeeping
from tests.gateway.conftest import AGENT, QUESTION, TEXT, World, until
from tests.gateway.fake_vllm import BASE, answer_of

ANN = "ann@example.com"
HOURS = timedelta(hours=24)
ANSWER = "".join(answer_of(BASE))
RULES = RedactionOptions(rules=("email",), patterns={"answer": "SELECT"})
ASKED: list[dict[str, Any]] = [{"role": "user", "content": f"Who is {ANN}?"}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": ASKED},
    "/v1/responses": {"input": f"Who is {ANN}?"},
    "/v1/completions": {"prompt": f"Who is {ANN}?"},
}


def written(world: World) -> bytes:
    return b"".join(path.read_bytes() for path in world.folder.glob("*.db*"))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "model"),
    [
        (path, model)
        for path in BODIES
        for model in (AGENT, BASE)
        if "/completions" not in path[:15] or model == BASE
    ],
)
async def test_the_client_has_the_answer_and_the_record_has_no_trace_of_what_is_redacted(
    world: World, path: str, model: str, stream: bool
) -> None:
    async with world.running(redaction=RULES):
        headers = {"x-episode-id": "e1"}
        body = {**BODIES[path], "model": model, "stream": stream}
        response = await world.http().post(path, json=body, headers=headers)
        assert response.status_code == 200, response.text
        assert "SELECT" in response.text
        async with world.store() as store:
            await until(lambda: list(store.requests(tenant="default", episode_id="e1")))
            [event] = store.requests(tenant="default", episode_id="e1")
    assert event.redacted == ("answer", "email")
    assert event.input[-1].content == "Who is [EMAIL]?"
    assert "[ANSWER]" in str(event.output)
    assert ANN.encode() not in written(world) and b"SELECT count" not in written(world)
    [call] = [call for call in event.calls if call.kind == "model"]
    assert (call.prompt_token_ids, call.completion_token_ids, call.logprobs, call.tokens) == ((), (), (), ())


async def test_a_response_that_is_looked_up_is_what_was_kept_and_does_not_invent_what_was_used(
    world: World,
) -> None:
    async with world.running(redaction=RULES):
        made = await world.openai().responses.create(
            model=BASE, input=f"Who is {ANN}?", instructions=f"Ask {ANN}."
        )
        again = await world.openai().responses.retrieve(made.id)
    assert "SELECT" in made.output_text and made.usage is not None
    assert "[ANSWER]" in again.output_text and again.usage is None
    assert again.instructions == "Ask [EMAIL]."


async def test_a_response_in_the_background_waits_without_it_too(world: World) -> None:
    world.vllm.seconds_per_chunk = 0.2
    async with world.running(redaction=RULES):
        client = world.openai()
        made = await client.responses.create(
            model=BASE, input=TEXT, instructions=f"Ask {ANN}.", background=True
        )
        assert made.instructions == f"Ask {ANN}."
        waiting = await client.responses.retrieve(made.id)
        assert (waiting.status, waiting.instructions) == ("in_progress", "Ask [EMAIL].")
        assert ANN.encode() not in written(world)
        await client.responses.cancel(made.id)


async def test_another_tenants_words_are_kept_as_they_are(world: World) -> None:
    async with world.running(redaction=RedactionOptions(tenants={"other": {"rules": ("email",)}})):
        for who, tenant, kept in (("ann", "default", ANN), ("eve", "other", "[EMAIL]")):
            made = await world.openai(who).chat.completions.create(model=BASE, messages=ASKED)  # type: ignore[arg-type]  # a dict
            event = await world.recorded(made.id, tenant)
            assert event.input[0].content == f"Who is {kept}?"


async def eraser(world: World, *scopes: str, tenant: str = "default") -> dict[str, str]:
    async with world.store() as store:
        secret = Keys(store).create("priv", scopes or ("erase",), tenant=tenant)
    return {"authorization": f"Bearer {secret}"}


async def test_what_a_person_asked_and_said_is_in_no_file_of_the_gateway_any_more(live: World) -> None:
    ids = {}
    for who in ("ann", "bob"):
        made = await live.openai(who).chat.completions.create(
            model=AGENT,
            messages=[{"role": "user", "content": f"{who.upper()}S-WORDS"}],
            extra_headers={"idempotency-key": who},
        )
        ids[who] = made.id
        said = {"request_id": made.id, "value": False, "comment": f"ABOUT-{who.upper()}"}
        assert (await live.http("bob").post("/v1/feedback", json=said)).status_code == 200
    headers = await eraser(live)
    response = await live.http(None).post(
        "/v1/erasures", json={"person": "ann", "reason": "asked"}, headers=headers
    )
    assert response.status_code == 202, response.text
    assert response.json()["tenant"] == "default"
    async with live.store() as store:
        await until(lambda: store.counts()["erasures"] == 1)
        await until(lambda: [r.request_id for r in store.ratings(tenant="default")] == [ids["bob"]])
        assert store.request(ids["ann"], "default") is None
        await Housekeeping(store, Retention(store, RetentionOptions(), replies_for=HOURS)).round()

        def gone() -> bool:
            found = written(live)
            assert b"BOBS-WORDS" in found and b"ABOUT-BOB" in found
            return not any(text in found for text in (b"ANNS-WORDS", b"ABOUT-ANN", ids["ann"].encode()))

        await until(gone)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "invalid_value"),
        ({"person": "ann", "request_id": "r1"}, "invalid_value"),
        ({"person": ""}, "invalid_value"),
        ({"person": "ann", "all": True}, "unknown_parameter"),
    ],
)
async def test_an_erasure_is_of_a_person_or_of_a_request(
    live: World, body: dict[str, Any], code: str
) -> None:
    response = await live.http(None).post("/v1/erasures", json=body, headers=await eraser(live))
    assert (response.status_code, response.json()["error"]["code"]) == (400, code)


async def test_who_erases_in_another_tenant_operates_too_and_belongs_to_the_operators(live: World) -> None:
    body = {"person": "eve", "tenant": "other"}
    keys = [
        await eraser(live),
        await eraser(live, "erase", "operate", tenant="third"),
        await eraser(live, "erase", "operate"),
    ]
    got = [(await live.http(None).post("/v1/erasures", json=body, headers=key)).status_code for key in keys]
    assert got == [403, 403, 202]


async def test_what_is_said_of_an_erased_request_later_is_not_kept(live: World) -> None:
    """It is taken, as any rating is that comes before its request has landed."""
    client = live.openai()
    made, other = [await client.chat.completions.create(model=AGENT, messages=QUESTION) for _ in range(2)]
    headers = await eraser(live)
    response = await live.http(None).post("/v1/erasures", json={"request_id": made.id}, headers=headers)
    assert response.status_code == 202
    for name in (made.id, other.id):
        said = {"request_id": name, "value": True}
        assert (await live.http().post("/v1/feedback", json=said)).status_code == 200
    async with live.store() as store:
        await until(lambda: store.counts()["ratings"] == 1)
        [rating] = store.ratings(tenant="default")
    assert rating.request_id == other.id
