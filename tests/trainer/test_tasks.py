"""Tasks and data sets as files."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from feedback.events import Message
from feedback.samples import Curated, DatasetError, Sample, save
from trainer.dataset import EmptyDatasetError, demonstrations, from_samples
from trainer.tasks import Task, TaskFileError, read, write

TASKS = [
    Task(
        id="a",
        messages=(Message(role="user", content="Wie viele Schäden?\n"),),
        reference={"sql": "SELECT 1"},
    ),
    Task(id="b", messages=(), reference={"rows": [[1, None, "x", 2.5]]}, tags={"level": "simple"}),
]


def sample(number: int, reference: dict[str, Any], **fields: Any) -> Sample:
    given = {"corrected": True, "policy": "sql-analyst@base-b0"} | fields
    return Sample(
        task_id=f"t{number}",
        question="How many?",
        messages=(Message(role="user", content="How many?"),),
        reference=reference,
        support=1,
        raters=("ann",),
        request_ids=(f"r{number}",),
        **given,
    )


def saved(path: Path, *references: dict[str, Any]) -> Path:
    save(Curated(tuple(sample(n, reference) for n, reference in enumerate(references)), Counter()), path)
    return path


def test_tasks_come_back_as_they_were_written(tmp_path: Path):
    write(tmp_path / "deep" / "tasks.jsonl", TASKS)
    assert read(tmp_path / "deep" / "tasks.jsonl") == TASKS


@pytest.mark.parametrize(
    "line", ["", "{broken", "[]", '{"id": "x"}', '{"id": "x", "messages": [], "reference": {}, "more": 1}']
)
def test_a_line_that_is_no_task_is_named_by_its_number(tmp_path: Path, line: str):
    path = tmp_path / "tasks.jsonl"
    write(path, TASKS)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(TaskFileError, match=re.escape(f"{path}:3: ")):
        read(path)


def test_a_file_without_tasks_or_that_cannot_be_read_is_named(tmp_path: Path):
    empty, binary = tmp_path / "empty.jsonl", tmp_path / "binary.jsonl"
    empty.touch()
    binary.write_bytes(b"\xff\xfe\n")
    for path in (empty, binary, tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(TaskFileError, match=re.escape(str(path))):
            read(path)


def test_every_sample_becomes_a_task_in_the_files_order(tmp_path: Path):
    references: list[dict[str, Any]] = [{"sql": "SELECT 1"}, {"rows": [[1]]}, {"refusal": "no"}]
    tasks = from_samples(saved(tmp_path / "set.jsonl", *references))
    assert [task.id for task in tasks] == ["t0", "t1", "t2"]
    assert [task.reference for task in tasks] == references
    assert all(task.messages == (Message(role="user", content="How many?"),) for task in tasks)


def test_only_answers_can_be_imitated_rows_say_what_is_right_and_not_how_to_say_it(tmp_path: Path):
    tasks = from_samples(
        saved(tmp_path / "set.jsonl", {"rows": [[1]]}, {"sql": "SELECT 1"}, {"refusal": "no"})
    )
    assert [task.reference for task in demonstrations(tasks)] == [{"sql": "SELECT 1"}, {"refusal": "no"}]


def test_the_queries_of_the_base_model_itself_are_rewarded_and_not_imitated(tmp_path: Path):
    said = [
        sample(0, {"sql": "SELECT 0"}, corrected=False),
        sample(1, {"sql": "SELECT 1"}),
        sample(2, {"sql": "SELECT 2"}, corrected=False, policy="sql-analyst@d1g357"),
    ]
    save(Curated(tuple(said), Counter()), tmp_path / "set.jsonl")
    tasks = from_samples(tmp_path / "set.jsonl")
    assert [task.id for task in tasks] == ["t0", "t1", "t2"]
    assert [task.id for task in demonstrations(tasks)] == ["t1", "t2"]


def test_of_the_base_models_refusals_a_share_is_imitated_and_every_one_that_a_person_wrote(tmp_path: Path):
    own = [sample(number, {"refusal": "none"}, corrected=False) for number in range(8)]
    written = [sample(number, {"refusal": "no"}) for number in range(8, 18)]
    queries = [sample(number, {"sql": "SELECT 1"}) for number in range(18, 28)]
    save(Curated((*own, *written, *queries), Counter()), tmp_path / "set.jsonl")
    tasks = from_samples(tmp_path / "set.jsonl")
    assert len(tasks) == 28
    assert [task.id for task in demonstrations(tasks)] == [f"t{n}" for n in (0, 1, 2, *range(8, 28))]


def test_a_data_set_without_any_answer_to_imitate_is_refused_with_what_to_do(tmp_path: Path):
    for path in (saved(tmp_path / "rows.jsonl", {"rows": [[1]]}), saved(tmp_path / "empty.jsonl")):
        with pytest.raises(EmptyDatasetError, match="flywheel curate"):
            from_samples(path)


def test_a_data_set_that_was_changed_is_refused(tmp_path: Path):
    path = saved(tmp_path / "set.jsonl", {"sql": "SELECT 1"}, {"sql": "SELECT 2"})
    path.write_text(path.read_text().replace("SELECT 2", "SELECT 3"))
    with pytest.raises(DatasetError, match="changed or cut short"):
        from_samples(path)
