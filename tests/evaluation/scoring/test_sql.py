"""Answers to questions that a database has, or has not, the answer to."""

from dataclasses import replace
from pathlib import Path

import pytest

from agents.loop import format_answer
from evaluation.scoring import BadTaskError, Outcome
from evaluation.scoring.sql import SqlScorer
from evaluation.tasks import SqlTask
from tests.evaluation.files import database

NAMES = "SELECT name FROM ships ORDER BY name"


@pytest.fixture
def task(tmp_path: Path) -> SqlTask:
    ships = database(tmp_path / "ships.sqlite", {"Ada": 10, "Bea": 20, "Cleo": 20})
    return SqlTask("1", "Which ships?", (ships,), golds=(NAMES,))


def outcome(task: SqlTask, sql: str) -> Outcome:
    return SqlScorer().score(task, format_answer({"sql": sql})).outcome


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        (NAMES, "correct"),
        ("SELECT tons, name AS ship FROM ships", "correct"),
        ("SELECT tons FROM ships", "wrong"),
        ("SELECT name FROM ships LIMIT 2", "wrong"),
        ("SELECT nam FROM ships", "sql_error"),
        ("DELETE FROM ships", "sql_error"),
        ("SELECT name FROM ships UNION ALL SELECT name FROM ships", "wrong"),
    ],
)
def test_a_query_is_right_when_it_returns_what_the_gold_does(task: SqlTask, sql: str, expected: Outcome):
    assert outcome(task, sql) == expected


def test_the_order_counts_where_it_is_asked_for(task: SqlTask):
    backwards = f"{NAMES} DESC"
    assert outcome(task, backwards) == "correct"
    assert outcome(replace(task, ordered=True), backwards) == "wrong"
    assert outcome(replace(task, ordered=True), NAMES) == "correct"


def test_every_accepted_query_is_accepted_and_one_that_does_not_run_is_passed_over(task: SqlTask):
    task = replace(task, golds=("SELECT nothing", "SELECT 1", NAMES))
    assert outcome(task, "SELECT 1") == outcome(task, NAMES) == "correct"
    with pytest.raises(BadTaskError, match="no accepted query"):
        outcome(replace(task, golds=("SELECT nothing",)), "SELECT 1")


def test_an_answer_must_agree_with_one_reading_on_both_databases(task: SqlTask, tmp_path: Path):
    other = database(tmp_path / "other.sqlite", {"Dora": 5})
    both = replace(task, databases=(*task.databases, other), golds=(NAMES, "SELECT MAX(tons) FROM ships"))
    assert outcome(both, "SELECT name FROM ships WHERE tons > 0") == "correct"
    assert outcome(task, "SELECT name FROM ships WHERE tons > 9") == "correct"
    assert outcome(both, "SELECT name FROM ships WHERE tons > 9") == "wrong"
    by_accident_on_each = (
        "SELECT CASE WHEN (SELECT COUNT(*) FROM ships) = 1 THEN name ELSE 20 END FROM ships LIMIT 1"
    )
    assert outcome(both, by_accident_on_each) == "wrong"


def test_to_return_nothing_where_nothing_is_right_is_marked(task: SqlTask):
    scorer = SqlScorer()
    nothing = replace(task, golds=("SELECT name FROM ships WHERE tons > 99",))
    verdict = scorer.score(nothing, format_answer({"sql": "SELECT name FROM ships WHERE tons > 98"}))
    assert verdict.correct and verdict.empty_gold
    assert not scorer.score(task, format_answer({"sql": NAMES})).empty_gold


def test_a_refusal_is_right_only_where_there_is_no_answer(task: SqlTask):
    refusal, without = format_answer({"refusal": "no such data"}), replace(task, golds=())
    assert SqlScorer().score(task, refusal).outcome == "wrong_refusal"
    assert SqlScorer().score(without, refusal).outcome == "correct_refusal"
    assert outcome(without, NAMES) == "hallucination"


def test_a_query_that_the_task_asks_for_as_a_refusal_is_one(task: SqlTask):
    without = replace(task, golds=(), refusals=("SELECT 'no idea' AS answer",))
    assert outcome(without, "SELECT 'no idea'") == "correct_refusal"
    assert outcome(without, "SELECT 'forty two'") == "hallucination"


def test_rows_that_were_given_stand_for_the_first_database_alone(task: SqlTask, tmp_path: Path):
    other = database(tmp_path / "other.sqlite", {})
    seen = replace(task, golds=(), rows=(("Ada",),), databases=(*task.databases, other))
    assert outcome(seen, "SELECT name FROM ships WHERE tons = 10") == "correct"


def test_a_task_without_databases_is_about_the_deployments(task: SqlTask):
    scorer = SqlScorer(task.databases)
    assert scorer.score(replace(task, databases=()), format_answer({"sql": NAMES})).correct


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "malformed"),
        ("SELECT name FROM ships", "malformed"),
        ('{"sql": 7}', "malformed"),
        ('{"question": "Which?"}', "malformed"),
        ('Here it is:\n```json\n{"sql": "SELECT name FROM ships"}\n```', "correct"),
        ('```\n{"sql": "SELECT 1"}\n```\n```\n{"sql": "SELECT name FROM ships"}\n```', "malformed"),
    ],
)
def test_an_answer_is_json_by_itself_or_in_one_fence(task: SqlTask, text: str, expected: Outcome):
    assert SqlScorer().score(task, text).outcome == expected
