"""Frameworks that people build agents with reach the gateway by its address alone: nothing is patched or configured.

They are installed in an environment of their own, as openai-agents owns a package `agents` too.
"""

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.gateway.conftest import AGENT, TEXT, World, until
from tests.gateway.fake_vllm import BASE, answer_of

pytestmark = pytest.mark.clients

_PYTHON = ROOT / "var" / "clients" / "bin" / "python"
_INSTALL_SECONDS = 300
_OPENAI_AGENTS = """
import asyncio, json, sys
from openai import AsyncOpenAI
from agents import Agent, OpenAIChatCompletionsModel, Runner, set_tracing_disabled

async def main(url, key, model, question):
    set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=url, api_key=key, max_retries=0)
    agent = Agent(name="analyst", model=OpenAIChatCompletionsModel(model=model, openai_client=client))
    whole = await Runner.run(agent, question)
    stream = Runner.run_streamed(agent, question)
    pieces = [
        event.data.delta
        async for event in stream.stream_events()
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
    ]
    print(json.dumps([whole.final_output, "".join(pieces), stream.final_output]))

asyncio.run(main(*sys.argv[1:]))
"""
_LANGCHAIN = """
import json, sys
from langchain_openai import ChatOpenAI

url, key, model, question = sys.argv[1:]
llm = ChatOpenAI(model=model, base_url=url, api_key=key, max_retries=0)
whole = llm.invoke(question)
chunks = list(llm.stream(question))
total = chunks[0]
for chunk in chunks[1:]:
    total += chunk
print(json.dumps([whole.content, "".join(chunk.content for chunk in chunks), total.content]))
"""
_OPENAI_AGENTS_TOOLS = """
import asyncio, json, sys
from openai import AsyncOpenAI
from agents import Agent, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled

@function_tool
def add(a: int) -> str:
    "Adds one."
    return str(a + 1)

async def main(url, key, model, question):
    set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=url, api_key=key, max_retries=0)
    agent = Agent(name="adder", tools=[add], model=OpenAIResponsesModel(model=model, openai_client=client))
    print(json.dumps((await Runner.run(agent, question)).final_output))

asyncio.run(main(*sys.argv[1:]))
"""
_LANGCHAIN_TOOLS = """
import json, sys
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

@tool
def add(a: int) -> str:
    "Adds one."
    return str(a + 1)

url, key, model, question = sys.argv[1:]
llm = ChatOpenAI(model=model, base_url=url, api_key=key, max_retries=0, use_responses_api=True).bind_tools([add])
messages = [HumanMessage(question)]
messages.append(llm.invoke(messages))
messages += [add.invoke(call) for call in messages[-1].tool_calls]
chunks = list(llm.stream(messages))
total = chunks[0]
for chunk in chunks[1:]:
    total += chunk
print(json.dumps("".join(block["text"] for block in total.content if block["type"] == "text")))
"""
_CALL = {"id": "call-1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}


@pytest.fixture(scope="module")
def isolated() -> Path:
    """The interpreter of the environment that `make clients` makes."""
    if not _PYTHON.is_file():
        try:
            made = subprocess.run(
                ["make", "clients"],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
                timeout=_INSTALL_SECONDS,
            )
        except subprocess.TimeoutExpired:
            pytest.skip(f"`make clients` did not end within {_INSTALL_SECONDS} s")
        if made.returncode != 0:
            last = (made.stderr.strip().splitlines() or ["no reason given"])[-1]
            pytest.skip(f"no package index can be reached; run `make clients` where one can: {last}")
    return _PYTHON


@pytest.mark.parametrize("script", [_OPENAI_AGENTS, _LANGCHAIN], ids=["openai-agents", "langchain"])
async def test_an_agent_answers_a_framework_whole_and_streamed(
    isolated: Path, live: World, script: str
) -> None:
    assert await _run(isolated, live, script, AGENT) == ["".join(answer_of(BASE))] * 3
    assert len(live.vllm.requests) == 2


@pytest.mark.parametrize(
    "script", [_OPENAI_AGENTS_TOOLS, _LANGCHAIN_TOOLS], ids=["openai-agents", "langchain"]
)
async def test_a_framework_runs_the_tools_of_a_plain_model_by_the_responses_api(
    isolated: Path, live: World, script: str
) -> None:
    live.vllm.tool_calls = (_CALL,)
    running = asyncio.create_task(_run(isolated, live, script, BASE))
    await until(lambda: live.vllm.requests or running.done(), 60)
    live.vllm.tool_calls = ()  # from now on the model answers
    assert await running == "".join(answer_of(BASE))
    _, second = live.vllm.requests
    assert [message["role"] for message in second["messages"]] == ["user", "assistant", "tool"]
    assert (second["messages"][1]["tool_calls"], second["messages"][2]["content"]) == ([_CALL], "2")


async def _run(isolated: Path, live: World, script: str, model: str) -> Any:
    """What the script prints."""
    process = await asyncio.create_subprocess_exec(
        str(isolated),
        *("-I", "-c", script, f"{live.url}/v1", live.keys["ann"], model, TEXT),
        cwd=live.folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, problem = await process.communicate()
    assert process.returncode == 0, problem.decode()[-3_000:]
    return json.loads(said)
