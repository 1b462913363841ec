"""What an agent is given: the task's own database and contract, through production's tools. And so the experts:
who knows the answers is right in everything by means of the tools alone, and who errs is right in nothing.
"""

import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from agents.manifest import Agent, McpTools, Tools, ToolSource
from agents.model import Model
from evaluation import experts, report, workbench
from evaluation.baselines import FullContext
from evaluation.episodes import opened
from evaluation.formats import read
from evaluation.results import Result, figures
from evaluation.running import run
from evaluation.scoring.sql import SqlScorer
from evaluation.tasks import ContractTask, Task
from evaluation.workbench import Deployed, WorkbenchError
from feedback.events import Sampling
from tests.evaluation.files import NO_DATA, SHARED, contract_row, contract_set, sql_row, sql_set, written
from tools.documents.library import Library
from tools.knowledge import Knowledge
from tools.mcp.options import McpOptions
from tools.mcp.server import McpServer
from tools.toolbox import Toolbox, ToolPolicy


async def results(
    folder: Path,
    agent: Agent,
    tasks: Sequence[Task],
    model_of: Callable[[Task], Model] = experts.gold,
    deployed: Deployed | None = None,
    mcp: Toolbox | None = None,
) -> list[Result]:
    library = Library(folder / "documents")
    with opened(folder / "episodes.jsonl", {}, fresh=True) as journal:
        async with workbench.opened(agent, deployed, library, mcp) as bench:
            await run(
                tasks, journal, given=bench.given, model_of=model_of, sampling=Sampling(), concurrency=4
            )
        scorer = SqlScorer(() if deployed is None else (deployed.database,))
        return [report.result(task, journal.done[task.id], scorer) for task in tasks]


async def test_the_tables_of_the_tasks_own_database_stand_in_the_prompt_and_its_tools_ask_it(
    tmp_path: Path, with_sql: Agent
):
    (one,) = await results(tmp_path, with_sql, read(sql_set(tmp_path, sql_row(1))).tasks)
    assert one.verdict is not None and one.verdict.correct
    assert [(step.kind, step.name) for step in one.steps] == [
        ("tool", "retrieve"),
        ("model", ""),
        ("tool", "run_sql"),
        ("model", ""),
    ]
    assert "ships(name" in one.steps[0].said
    assert "3" in one.steps[2].said
    assert (one.turns, one.tool_errors) == (2, 0)


async def test_with_one_turn_no_tools_are_offered(tmp_path: Path, analyst: Agent):
    (one,) = await results(tmp_path, analyst, read(sql_set(tmp_path, sql_row(1))).tasks)
    assert one.turns == 1
    assert one.verdict is not None and one.verdict.correct


async def test_an_error_of_a_tool_is_counted_and_so_is_recovering_from_it(tmp_path: Path, with_sql: Agent):
    tasks = read(sql_set(tmp_path, sql_row(1), sql_row(2))).tasks
    right = '{"sql":"SELECT COUNT(*) FROM ships"}'

    def model_of(task: Task) -> Model:
        failing = [("run_sql", {"sql": "SELECT nothing FROM ships"})]
        text = right if task.id == "ships/1" else '{"refusal":"no"}'
        return experts.Expert("trying", first=failing, answer=lambda _: text)

    found = await results(tmp_path, with_sql, tasks, model_of)
    assert [one.tool_errors for one in found] == [1, 1]
    assert figures(found)["tool_error_recovery"].value == 0.5


async def test_the_reviewer_reads_the_tasks_own_contract_and_quotes_only_what_it_was_shown(
    tmp_path: Path, reviewer: Agent
):
    unseen = contract_row("Caps", evidence=[{"text": "no such words at all", "page": 2, "page_end": 2}])
    found = await results(tmp_path, reviewer, read(contract_set(tmp_path, contract_row("Law"), unseen)).tasks)
    assert [one.verdict.outcome for one in found if one.verdict] == ["correct", "wrong_refusal"]
    assert found[0].verdict is not None and found[0].verdict.page_correct
    assert "select_pages" in [step.name for step in found[0].steps]


async def test_a_task_without_a_database_is_about_the_deployments(tmp_path: Path, with_sql: Agent):
    sql_set(tmp_path)
    message = {"role": "user", "content": "How many?"}
    own = written(tmp_path / "own.jsonl", {"id": "a", "messages": [message], "reference": {"rows": [[3]]}})
    deployed = Deployed(Knowledge([]), tmp_path / "db" / "ships.sqlite")
    (one,) = await results(tmp_path, with_sql, read(own).tasks, deployed=deployed)
    assert one.verdict is not None and one.verdict.correct


async def test_knowledge_is_searched_where_the_prompt_is_filled_from_and_an_mcp_server_is_asked(
    tmp_path: Path, with_sql: Agent
):
    crm = McpServer(
        "crm",
        McpOptions(command=(sys.executable, "-m", "tests.tools.mcp.crm"), folder=Path(__file__).parents[2]),
    )
    tools = Tools(knowledge=ToolSource(), mcp={"crm": McpTools(offer=("find_customer",))})
    agent = with_sql.model_copy(update={"tools": tools})
    try:
        (found,) = await crm.tools(("find_customer",))
        first = [("search_knowledge", {"query": "ships"}), (found.name, {"name": "Ann"})]
        (one,) = await results(
            tmp_path,
            agent,
            read(sql_set(tmp_path, sql_row(1))).tasks,
            lambda _: experts.Expert(
                "trying", first=first, answer=lambda _: '{"sql":"SELECT COUNT(*) FROM ships"}'
            ),
            mcp=Toolbox({found.name: (found, ToolPolicy())}),
        )
    finally:
        await crm.close()
    said = {step.name: step.said for step in one.steps if step.kind == "tool"}
    assert "schema: ships(name" in said["search_knowledge"]
    assert "Ann, customer 7" in said[found.name]
    assert one.verdict is not None and one.verdict.correct


async def test_a_contract_is_given_whole_and_what_does_not_fit_is_cut_page_by_page(
    tmp_path: Path, reviewer: Agent
):
    (task,) = read(contract_set(tmp_path)).tasks
    room = reviewer.limits.max_tokens + 512
    async with FullContext(reviewer, room + 1_000).given(task) as setting:
        text = setting.messages[0].text
        assert (setting.pages_cut, setting.tools, setting.agent.limits.turns) == (0, None, 1)
        assert "[page 3]\nThis Agreement" in text and text.endswith(task.asked)
    async with FullContext(reviewer, room + 50).given(task) as setting:
        assert setting.pages_cut == 2
        assert "[page 1]" in setting.messages[0].text and "[page 2]" not in setting.messages[0].text
    async with FullContext(reviewer, room + 5).given(task) as setting:
        assert setting.pages_cut == 2
        assert "[page 1]\nSUPPL" in setting.messages[0].text
    with pytest.raises(WorkbenchError, match="no room for a contract"):
        FullContext(reviewer, room)


def sampled(file: str, count: int) -> list[Task]:
    return random.Random(0).sample(read(SHARED / file).tasks, count)


def outcomes(found: Sequence[Result]) -> Counter[bool]:
    return Counter(one.verdict is not None and one.verdict.correct for one in found)


@pytest.mark.skipif(not SHARED.is_dir(), reason=NO_DATA)
async def test_who_knows_the_queries_is_right_in_all_public_questions_and_who_errs_in_none(
    tmp_path: Path, with_sql: Agent
):
    tasks = [*sampled("text2sql/dev.jsonl", 30), *sampled("text2sql/train.jsonl", 30)]
    assert outcomes(await results(tmp_path, with_sql, tasks)) == {True: 60}
    wrong = await results(tmp_path, with_sql, tasks, lambda task: experts.wrong(task, tasks))
    assert outcomes(wrong) == {False: 60}


@pytest.mark.skipif(not SHARED.is_dir(), reason=NO_DATA)
async def test_who_knows_the_clauses_is_right_about_all_public_contracts_and_who_errs_about_none(
    tmp_path: Path, reviewer: Agent
):
    tasks = [task for task in sampled("contracts/questions_dev.jsonl", 100) if isinstance(task, ContractTask)]
    found = await results(tmp_path, reviewer, tasks)
    assert outcomes(found) == {True: 100}
    assert figures(found)["page_correct"].value > 0.95  # some annotations begin in the middle of a word
    wrong = await results(tmp_path, reviewer, tasks, lambda task: experts.wrong(task, tasks))
    assert outcomes(wrong) == {False: 100}
