"""`flywheel evaluate --tasks`: from the command line to the report, with a model behind a real socket."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from agents.external import load
from agents.manifest import Agent, McpTools, Tools
from deploy import evaluating
from deploy.errors import FlywheelError
from deploy.settings import Settings
from evaluation.report import Report
from gateway.sources import McpSource
from tests.evaluation.files import contract_set, sql_row, sql_set
from tests.gateway.fake_provider import FakeProvider

COUNT = '{"sql": "SELECT COUNT(*) FROM ships"}'


@pytest.fixture(autouse=True, scope="module")
def _loaded() -> None:
    load()


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    """In a thread of its own, for the command has an event loop of its own."""
    loop, fake = asyncio.new_event_loop(), FakeProvider(content=COUNT)
    thread = Thread(target=loop.run_forever)
    thread.start()
    serving = fake.served()
    asyncio.run_coroutine_threadsafe(serving.__aenter__(), loop).result(10)
    yield fake
    asyncio.run_coroutine_threadsafe(serving.__aexit__(None, None, None), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def evaluate(run: Any, tmp_path: Path) -> Any:
    """Run the command on a task file with its report in `report.json`; what it prints, in one line each."""

    def evaluate(tasks: Path, *words: str) -> Any:
        return run("evaluate", "--tasks", str(tasks), "--out", str(tmp_path / "report.json"), *words)

    return evaluate


def report(tmp_path: Path) -> Report:
    return Report.load(tmp_path / "report.json")


def test_any_server_that_speaks_openais_api_is_evaluated_and_a_second_start_asks_nothing_again(
    evaluate: Any, provider: FakeProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("THEIR_KEY", "sk-theirs")
    tasks = sql_set(tmp_path / "set", *(sql_row(n) for n in range(5)))
    words = ("--model", "strong", "--url", provider.url, "--key-variable", "THEIR_KEY", "--turns", "1")
    done = evaluate(tasks, *words, "--limit", "3")
    assert done.code == 0, done.err
    assert "accuracy" in done.out and "report.html" in done.out
    found = report(tmp_path)
    assert (found.tasks, found.overall["accuracy"].value) == (3, 1.0)
    assert (found.overall["prompt_tokens"].value, found.policies) == (20, ("strong",))
    assert set(provider.keys) == {"Bearer sk-theirs"}
    assert "ships(name" in provider.requests[0]["messages"][0]["content"]
    again = evaluate(tasks, *words)
    assert "going on: 3 of 5 are done" in again.out
    assert (len(provider.requests), report(tmp_path).tasks) == (5, 5)


def test_a_configured_external_model_is_found_by_its_name_and_its_failures_are_not_scored(
    evaluate: Any, provider: FakeProvider, settings: Settings, tmp_path: Path
):
    with (settings.root / "flywheel.toml").open("a") as file:
        file.write(
            f'\n[[external]]\nname = "gpt"\nmodel = "openai/gpt-x"\napi_base = "{provider.url}"\nretries = 0\n'
        )
    provider.failures.append((500, "broken"))
    tasks = sql_set(tmp_path / "set", sql_row(1), sql_row(2))
    done = evaluate(tasks, "--model", "gpt", "--concurrency", "1")
    assert "1 episodes are invalid and not scored" in done.out
    assert (report(tmp_path).invalid, report(tmp_path).overall["accuracy"].n) == (1, 1)
    done = evaluate(tasks, "--model", "gpt")
    assert "1 of them invalid and asked again" in done.out
    assert (report(tmp_path).invalid, report(tmp_path).overall["accuracy"].n) == (0, 2)


def test_a_contract_is_given_whole_to_a_baseline(evaluate: Any, provider: FakeProvider, tmp_path: Path):
    provider.content = json.dumps(
        {"answer": "New York", "quotes": [{"page": 3, "quote": "the State of New York"}]}
    )
    words = ("--model", "strong", "--url", provider.url, "--full-context")
    unknown = evaluate(contract_set(tmp_path / "set"), *words)
    assert unknown.code == 1 and "say --window TOKENS" in unknown.err
    done = evaluate(contract_set(tmp_path / "set"), *words, "--window", "4000")
    assert done.code == 0, done.err
    assert report(tmp_path).overall["page_correct"].value == 1
    assert "[page 3]" in provider.requests[0]["messages"][1]["content"]


def test_the_scripts_check_a_set_and_two_reports_are_compared(evaluate: Any, run: Any, tmp_path: Path):
    tasks = sql_set(tmp_path / "set")
    assert evaluate(tasks, "--model", "gold").code == 0
    other = ("--tasks", str(tasks), "--out", str(tmp_path / "other.json"))
    done = run("evaluate", *other, "--model", "wrong", "--against", str(tmp_path / "report.json"))
    assert "accuracy against gold: -100.0 points" in done.out
    assert Report.load(tmp_path / "other.json").overall["accuracy"].value == 0


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ((), "name a POLICY, or all of --tasks, --model and --out"),
        (("--model", "gold", "--agent", "nobody"), "no agent nobody"),
        (("--model", "base"), "no vLLM answers at"),
        (("--model", "x", "--key-variable", "KEY"), "--key-variable belongs to --url"),
        (("--model", "x", "--url", "http://127.0.0.1:1", "--key-variable", "KEY"), "variable KEY is not set"),
        (("--model", "gold", "--full-context"), "these tasks are about databases"),
        (("--model", "gold", "--against", "none.json"), "none.json: No such file"),
        (("sql-analyst@abc", "--model", "gold"), "these are two ways"),
    ],
)
def test_what_cannot_be_run_is_told_in_one_line(
    evaluate: Any, tmp_path: Path, words: tuple[str, ...], fault: str
):
    done = evaluate(sql_set(tmp_path / "set"), *words)
    assert done.code == 1
    assert fault in done.err and done.err.count("\n") == 1
    assert not (tmp_path / "report.json").exists()


def test_a_bad_task_file_is_told_with_its_line(evaluate: Any, tmp_path: Path):
    done = evaluate(sql_set(tmp_path / "set", sql_row(1), "{"), "--model", "gold")
    assert done.code == 1 and "tasks.jsonl:2: not JSON" in done.err


def test_an_mcp_server_that_is_not_there_is_named_before_a_question_is_asked(
    settings: Settings, tmp_path: Path
):
    agent = Agent.load(settings.agents.folders[0])
    limits = agent.limits.model_copy(update={"turns": 4})
    tools = Tools(mcp={"crm": McpTools(offer=("find_customer",))})
    agent = agent.model_copy(update={"limits": limits, "tools": tools})

    async def opened(mcp: dict[str, McpSource]) -> None:
        async with evaluating.mcp(settings.model_copy(update={"mcp": mcp}), agent):
            pytest.fail("there is nothing to open")

    with pytest.raises(FlywheelError, match=r"add \[mcp\.crm\] to flywheel\.toml"):
        asyncio.run(opened({}))
    with pytest.raises(FlywheelError, match=r"cannot work without mcp\.crm"):
        asyncio.run(opened({"crm": McpSource(command=(str(tmp_path / "none"),))}))
