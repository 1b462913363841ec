"""A request is bounded in every direction, and who goes beyond hears by how much and in which."""

import asyncio
import json
from typing import Any

import pytest

from gateway.config import Bounds
from gateway.errors import ApiError
from gateway.wire import load
from tests.gateway.conftest import AGENT, QUESTION, World

CHAT = "/v1/chat/completions"
GOOD: dict[str, Any] = {"model": AGENT, "messages": QUESTION}
SMALL = Bounds(
    max_header_bytes=2_048, max_depth=8, max_messages=2, max_text_characters=200, max_generation_tokens=100
)


def _nested(depth: int) -> dict[str, Any]:
    value: Any = "x"
    for _ in range(depth - 1):
        value = [value]
    return {"metadata": value}


BEYOND: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({"messages": QUESTION * 3}, 400, "array_above_max_length", "messages"),
    ({"max_tokens": 101}, 400, "integer_above_max_value", "max_tokens"),
    ({"max_completion_tokens": 10**15}, 400, "integer_above_max_value", "max_completion_tokens"),
    ({"max_tokens": 50, "n": 3}, 400, "integer_above_max_value", "max_tokens"),
    (_nested(9), 400, "invalid_json", None),
    ({"user": "x" * 250}, 413, "request_too_large", None),
    ({"metadata": {"x" * 60 + str(n): "" for n in range(4)}}, 413, "request_too_large", None),
]


async def test_what_is_beyond_a_bound_is_refused_by_name(world: World) -> None:
    async with world.running(bounds=SMALL):
        client = world.http()
        for change, status, code, param in BEYOND:
            response = await client.post(CHAT, json={**GOOD, **change})
            error = response.json()["error"]
            assert (response.status_code, error["code"], error["param"]) == (status, code, param), change
        at_the_bound = {**GOOD, "messages": QUESTION * 2, "max_tokens": 100}
        assert (await client.post(CHAT, json=at_the_bound)).status_code == 200
        assert len(world.vllm.requests) == 1


@pytest.mark.parametrize("path", ["/v1/feedback", "/v1/keys", "/v1/policies"])
async def test_the_configured_bounds_hold_on_every_route_with_a_body(world: World, path: str) -> None:
    async with world.running(bounds=SMALL):
        async with world.store() as store:
            world.keys = {**world.keys, "all": _all(store)}
        response = await world.http("all").post(path, json={"x": "y" * 250})
        assert (response.status_code, response.json()["error"]["code"]) == (413, "request_too_large")


def _all(store: Any) -> str:
    from feedback.store import Keys
    from gateway.scopes import SCOPES

    return Keys(store).create("all", SCOPES)


@pytest.mark.parametrize("depth", [1, 7, 8, 9, 40])
def test_depth_is_counted_alike_however_many_brackets_there_are(depth: int) -> None:
    data = json.dumps(_nested(depth)).encode()
    flat = json.dumps({**_nested(depth), "y": [[]] * 50}).encode()
    for body in (data, flat):
        if depth > 8:
            with pytest.raises(ApiError):
                load(body, SMALL)
        else:
            load(body, SMALL)


async def test_headers_beyond_the_bound_are_431(world: World) -> None:
    async with world.running(bounds=SMALL):
        for path, headers in (("/healthz", {"x-long": "y" * 3_000}), ("/healthz?" + "q" * 3_000, {})):
            response = await world.http().get(path, headers=headers)
            assert response.status_code == 431
            assert response.json()["error"]["code"] == "request_headers_too_large"
        fits = await world.http().get("/healthz", headers={"x-long": "y" * 1_000})
        assert fits.status_code == 200


async def _pour(world: World, head: bytes, more: bytes) -> int:
    """How much the gateway takes from one who never stops sending, in bytes; at most 5 MB."""
    port = int(world.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sent = len(head)
    try:
        writer.write(head)
        async with asyncio.timeout(10):
            while not reader.at_eof() and sent < 5_000_000:
                writer.write(more * 50)
                await writer.drain()
                sent += len(more) * 50
                await asyncio.sleep(0.001)
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()
    return sent


@pytest.mark.parametrize(
    ("head", "more"),
    [
        (b"GET /healthz HTTP/1.1\r\nhost: x\r\n", b"x-more: " + b"y" * 1_000 + b"\r\n"),
        (b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-one: ", b"y" * 1_000),
        (b"GET /", b"y" * 1_000),
        (
            b"POST /v1/feedback HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n",
            b"x-more: " + b"y" * 1_000 + b"\r\n",
        ),
    ],
    ids=["headers", "one header", "path", "trailers"],
)
async def test_headers_without_end_end_the_connection(world: World, head: bytes, more: bytes) -> None:
    async with world.running(bounds=SMALL):
        assert await _pour(world, head, more) < 5_000_000
        assert (await world.http().get("/healthz")).status_code == 200


async def test_a_body_of_many_small_chunks_is_no_head(world: World) -> None:
    async with world.running(bounds=SMALL):

        async def chunked() -> Any:
            data = json.dumps(GOOD).encode() + b" " * 1_000
            for at in range(0, len(data), 1):
                yield data[at : at + 1]

        assert (await world.http().post(CHAT, content=chunked())).status_code == 200
