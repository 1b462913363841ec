"""Task files: both public formats and our own are known by their fields, and a bad line is told with its place."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from evaluation.formats import TaskFileError, chosen, read
from evaluation.tasks import ContractTask, SqlTask
from tests.evaluation.files import (
    NO_DATA,
    SHARED,
    contract_row,
    contract_set,
    database,
    sql_row,
    sql_set,
    written,
)


def test_a_question_to_a_database_is_read_with_all_that_is_accepted(tmp_path: Path):
    row = sql_row(
        1, gold_sql_alternatives=["SELECT 3"], evidence="Ships float.", ordered=True, category="counts"
    )
    task_set = read(sql_set(tmp_path, row))
    (task,) = task_set.tasks
    assert task_set.format == "text2sql"
    assert isinstance(task, SqlTask)
    assert task.golds == ("SELECT COUNT(*) FROM ships", "SELECT 3")
    assert task.databases == (tmp_path / "db" / "ships.sqlite",)
    assert task.asked == "How many ships? (1)\n\nShips float."
    assert task.ordered
    assert task.groups["category"] == "counts"


@pytest.mark.parametrize(
    "fields", [{"db_path_2": "db/other.sqlite"}, {"shadow_db_paths": ["db/other.sqlite"]}]
)
def test_any_further_field_with_db_path_in_its_name_is_another_instance(
    tmp_path: Path, fields: dict[str, Any]
):
    database(tmp_path / "db" / "other.sqlite", {})
    (task,) = read(sql_set(tmp_path, sql_row(1, **fields))).tasks
    assert isinstance(task, SqlTask)
    assert [path.name for path in task.databases] == ["ships.sqlite", "other.sqlite"]


def test_a_question_without_gold_has_no_answer_and_keeps_the_query_that_its_words_ask_for(tmp_path: Path):
    row = sql_row(1, gold_sql=None, answerable=False, gold_sql_original="SELECT 'no idea'")
    (task,) = read(sql_set(tmp_path, row)).tasks
    assert isinstance(task, SqlTask)
    assert not task.answerable
    assert task.refusals == ("SELECT 'no idea'",)


def test_a_question_about_a_contract_is_read_with_its_evidence_and_the_contracts_type(tmp_path: Path):
    task_set = read(
        contract_set(tmp_path, contract_row("Law"), contract_row("Caps", answer=None, answerable=False))
    )
    task, without = task_set.tasks
    assert task_set.format == "contracts"
    assert isinstance(task, ContractTask) and isinstance(without, ContractTask)
    assert (task.answer, task.answer_kind, task.evidence[0].page) == ("New York", "value", 3)
    assert task.groups == {"category": "Law", "answer": "value", "contract type": "Supply"}
    assert not without.answerable


def test_our_own_tasks_are_read_and_ask_the_deployments_databases(tmp_path: Path):
    message = {"role": "user", "content": "How many?"}
    rows = [
        {
            "id": "a",
            "messages": [message],
            "reference": {"sql": "SELECT 1 ORDER BY 1"},
            "tags": {"level": "easy"},
        },
        {"id": "b", "messages": [message], "reference": {"rows": [[1, None]]}},
        {"id": "c", "messages": [message], "reference": {"refusal": "no such data"}},
    ]
    tasks = [task for task in read(written(tmp_path / "own.jsonl", *rows)).tasks if isinstance(task, SqlTask)]
    assert [task.answerable for task in tasks] == [True, True, False]
    assert (tasks[0].ordered, tasks[0].databases, tasks[1].rows) == (True, (), ((1, None),))


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        ("{", "not JSON"),
        ("[]", "a JSON object is expected"),
        (sql_row(2, gold_sql=7), "gold_sql: Input should be a valid string"),
        (sql_row(1), "a second time"),
        (sql_row(2, gold_sql=None, answerable=True), "answerable, but without gold_sql"),
        (sql_row(2, db_path="db/none.sqlite"), "there is no file"),
        (sql_row(2, db_path="../../etc/passwd"), "lies outside of"),
        (sql_row(2, db_path_2=7), "must be a path"),
        ({"question": "?"}, "id: Field required"),
    ],
)
def test_a_bad_line_is_told_with_file_line_and_fault(tmp_path: Path, bad: Any, fault: str):
    path = sql_set(tmp_path, sql_row(1), bad)
    with pytest.raises(TaskFileError, match=f"^{re.escape(str(path))}:2: .*{re.escape(fault)}"):
        read(path)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path):
    outside = database(tmp_path / "outside.sqlite", {})
    path = sql_set(tmp_path / "set", sql_row(1, db_path="db/link.sqlite"))
    (tmp_path / "set" / "db" / "link.sqlite").symlink_to(outside)
    with pytest.raises(TaskFileError, match="lies outside of"):
        read(path)


def test_a_contract_outside_of_the_folder_is_not_read(tmp_path: Path):
    (tmp_path / "secret.txt").write_text("secret")
    with pytest.raises(TaskFileError, match="lies outside of"):
        read(contract_set(tmp_path / "set", contract_row("Law", contract="../../secret")))


def test_an_unknown_format_is_told_what_the_known_ones_have(tmp_path: Path):
    with pytest.raises(TaskFileError, match=r"no known format: text2sql has .*; here are answer, prompt"):
        read(written(tmp_path / "x.jsonl", {"prompt": 1, "answer": 2}))


@pytest.mark.parametrize(("content", "fault"), [(b"", "no tasks in it"), (b"\xff\n", "not UTF-8")])
def test_a_file_without_tasks_is_told(tmp_path: Path, content: bytes, fault: str):
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(TaskFileError, match=fault):
        read(path)


def test_line_separators_within_a_text_end_no_line(tmp_path: Path):
    path = written(tmp_path / "tasks.jsonl", json.dumps(sql_row(1, question="a\u2028b"), ensure_ascii=False))
    (task,) = read(sql_set(tmp_path, path.read_text("utf-8").strip("\n"))).tasks
    assert task.question == "a\u2028b"


def test_a_sample_is_drawn_by_its_seed_and_a_limit_without_one_is_taken_from_the_top(tmp_path: Path):
    task_set = read(sql_set(tmp_path, *(sql_row(n) for n in range(20))))
    drawn = chosen(task_set, limit=5, seed=1)
    assert drawn == chosen(task_set, limit=5, seed=1)
    assert drawn != chosen(task_set, limit=5, seed=2)
    assert chosen(task_set, limit=5, seed=None) == task_set.tasks[:5]
    assert chosen(task_set, limit=None, seed=3) == task_set.tasks


@pytest.mark.skipif(not SHARED.is_dir(), reason=NO_DATA)
@pytest.mark.parametrize(
    ("file", "count", "answerable"),
    [
        ("text2sql/dev.jsonl", 608, 608),
        ("text2sql/train.jsonl", 6_788, 6_683),
        ("contracts/questions_dev.jsonl", 1_228, 536),
        ("contracts/questions_train.jsonl", 3_095, 1_277),
    ],
)
def test_the_public_sets_are_read_whole(file: str, count: int, answerable: int):
    tasks = read(SHARED / file).tasks
    assert len(tasks) == count
    assert sum(task.answerable for task in tasks) == answerable
