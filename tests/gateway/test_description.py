"""/openapi.json tells the truth: whatever it allows, and whatever it does not, the gateway answers as it says."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import aiohttp

from gateway.app import create_app
from gateway.config import ExternalModel
from tests.gateway.conftest import AGENT, BASE_POLICY, QUESTION, World
from tests.gateway.fake_provider import FakeProvider
from tests.gateway.fake_vllm import BASE
from tests.gateway.processes import answers, free_port, gateway, model_server

_EXAMPLES = 60  # made up for each operation, beside those that its schema calls for
_CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
)
_OPEN: dict[str, list[Any]] = {
    "/healthz": [],
    "/readyz": [],
    "/arize_phoenix_version": [],
    "/metrics": [{}, {"key": []}],
}
_BASIC: list[Any] = [{"key": []}, {"basic": []}]  # where other products' clients rate


async def test_no_request_is_answered_otherwise_than_the_document_says_and_none_is_a_defect(
    world: World,
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    headers = {"authorization": f"Bearer {world.keys['ops']}"}
    policy, path = world.checkpoint("d1")
    log = world.folder / "gateway.log"
    async with (
        model_server(free_port(), seconds_per_chunk=0.0) as vllm_url,
        FakeProvider().served() as provider,
    ):
        other = ExternalModel(name="big", model="openai/gpt-large", api_base=provider.url, retries=0)
        changes = {"port": port, "vllm_url": vllm_url, "external": (other,)}
        world.config = world.config.model_copy(update=changes)
        async with (
            gateway(world.config, world.folder, log=log) as process,
            aiohttp.ClientSession(url, headers=headers) as session,
        ):
            await answers(f"{url}/readyz", process)
            chat = {"model": AGENT, "messages": QUESTION}
            async with session.post("/v1/chat/completions", json=chat) as response:
                request_id = (await response.json())["id"]
                episode_id = response.headers["x-episode-id"]
            rating = {"request_id": request_id, "value": True}
            async with session.post("/v1/feedback", json=rating) as response:
                feedback_id = (await response.json())["feedback_id"]
            async with session.post("/v1/responses", json={"model": AGENT, "input": "How many?"}) as response:
                response_id = (await response.json())["id"]
            names = {
                "body": {
                    "model": [AGENT, BASE_POLICY, "big", BASE],
                    "policy": [policy],
                    "path": [str(path)],
                    "request_id": [request_id],
                    "previous_response_id": [response_id],
                    "name": ["correct"],
                    "episode_id": [episode_id],
                },
                "path": {
                    "name": [AGENT],
                    "agent": [AGENT],
                    "policy": [policy],
                    "response_id": [response_id],
                    "trace_id": [request_id],
                    "feedback_id": [feedback_id],
                },
                "query": {"agent": [AGENT], "request_id": [request_id]},
            }
            said, code = await _schemathesis(url, world, names)
            await answers(f"{url}/readyz", process)
    assert code == 0, said[-20_000:]
    assert "Traceback" not in log.read_text()
    async with world.store() as store:
        counts = store.counts()
    # It met what there is.
    assert provider.requests
    assert counts["requests"] > len(provider.requests) and counts["ratings"] and counts["policy_changes"] > 1


async def _schemathesis(url: str, world: World, names: dict[str, dict[str, list[str]]]) -> tuple[str, int]:
    """What it said, and its exit status. The same requests in every run."""
    command = [
        str(Path(sys.executable).parent / "schemathesis"),
        *("run", f"{url}/openapi.json", "--header", f"Authorization: Bearer {world.keys['ops']}"),
        *("--generation-deterministic", "--max-examples", str(_EXAMPLES), "--continue-on-failure"),
        *("--phases", "examples,coverage,fuzzing", "--checks", ",".join(_CHECKS)),
        *("--warnings", "off", "--no-color"),
    ]
    environment = {
        **os.environ,
        "SCHEMATHESIS_HOOKS": "tests.gateway.schemathesis_hooks",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "REAL_NAMES": json.dumps(names),
    }
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=world.folder,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return said.decode(), process.returncode


def test_the_document_describes_every_body_error_and_key(world: World) -> None:
    document = create_app(world.config).openapi()
    assert create_app(world.config).openapi() == document  # nothing of the first was used up
    schemas = document["components"]["schemas"]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            takes_body = method == "post" and not path.endswith("/cancel")
            assert ("requestBody" in operation) == takes_body, (method, path)
            assert "422" not in operation["responses"] and "default" in operation["responses"]
            others = path.startswith("/api/") or path.endswith("_annotations")
            assert operation["security"] == (_BASIC if others else _OPEN.get(path, [{"key": []}]))
            assert operation["description"]
    references = {line.split('"')[0] for line in json.dumps(document).split("#/components/schemas/")[1:]}
    assert references <= set(schemas)
    assert schemas["ChatRequest"]["properties"]["temperature"]["anyOf"][0]["maximum"] == 2
