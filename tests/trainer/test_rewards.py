"""What an answer is worth, judged on the insurer's own two databases."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domains.insurance.questions import questions
from tools.sql import Database
from trainer.rewards import FORMED, BadReferenceError, Outcome, Score, Scorer

COUNT = {"sql": "SELECT COUNT(*) FROM claims"}
REFUSE = {"refusal": "no weather in the tables"}


@pytest.fixture(scope="module")
def databases(insurance: tuple[Path, Path]) -> list[Database]:
    return [Database(path) for path in insurance]


@pytest.fixture(scope="module")
def scorer(databases: list[Database]) -> Scorer:
    return Scorer(databases)


def outcome(scorer: Scorer, answer: object, reference: dict[str, Any]) -> Outcome:
    return scorer.score(answer if isinstance(answer, str) else json.dumps(answer), reference).outcome


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        (COUNT, COUNT, "correct"),
        ({"sql": "select count(claim_id) as n from claims"}, COUNT, "correct"),
        ({"sql": "SELECT COUNT(*) FROM policies"}, COUNT, "wrong_rows"),
        ({"sql": "SELECT COUNT(*), 1 FROM claims"}, COUNT, "wrong_rows"),
        ({"sql": "SELECT a.claim_id FROM claims a, claims b"}, COUNT, "wrong_rows"),
        ({"sql": "SELECT COUNT(*) FROM klaims"}, COUNT, "sql_error"),
        ({"sql": "DELETE FROM claims"}, COUNT, "sql_error"),
        ({"sql": "\ud800"}, COUNT, "sql_error"),
        ({"sql": ""}, COUNT, "sql_error"),
        (REFUSE, COUNT, "wrong_refusal"),
        ({**REFUSE, **COUNT}, COUNT, "wrong_refusal"),
        (REFUSE, REFUSE, "correct_refusal"),
        ({"refusal": "other words"}, REFUSE, "correct_refusal"),
        (COUNT, REFUSE, "hallucination"),
        ({"sql": "not even SQL"}, REFUSE, "hallucination"),
        ('{"sql": "SELECT COUNT(*) FROM cla', COUNT, "malformed"),
        ("SELECT COUNT(*) FROM claims", COUNT, "malformed"),
        ({"query": "SELECT 1"}, COUNT, "malformed"),
        ({"sql": 5}, COUNT, "malformed"),
        ({}, REFUSE, "malformed"),
        ("", REFUSE, "malformed"),
    ],
)
def test_every_answer_has_its_outcome(
    scorer: Scorer, answer: object, reference: dict[str, Any], expected: Outcome
):
    assert outcome(scorer, answer, reference) == expected


def test_the_gold_of_every_question_is_worth_the_most_and_its_opposite_little(scorer: Scorer):
    for split in ("train", "dev", "test"):
        for question in questions(split):
            gold = {"sql": question.sql} if question.sql is not None else {"refusal": question.refusal}
            opposite = COUNT if question.sql is None else REFUSE
            assert scorer.score(json.dumps(gold), gold).reward == 1 + FORMED
            assert scorer.score(json.dumps(opposite), gold).reward <= FORMED


def test_rows_are_judged_on_production_alone_and_sql_on_both(databases: list[Database], scorer: Scorer):
    """A constant that agrees with production by luck is found out by the shadow, if the reference is a query."""
    (row,) = databases[0].query(COUNT["sql"]).rows
    lucky = {"sql": f"SELECT {row[0]!r}"}
    assert databases[1].query(COUNT["sql"]).rows != (row,)
    assert outcome(scorer, lucky, {"rows": [list(row)]}) == "correct"
    assert outcome(scorer, lucky, COUNT) == "wrong_rows"
    assert outcome(Scorer(databases[:1]), lucky, COUNT) == "correct"
    assert outcome(scorer, COUNT, {"rows": [list(row)]}) == "correct"
    assert outcome(scorer, COUNT, {"rows": [[0]]}) == "wrong_rows"


def test_a_query_that_runs_on_production_alone_is_an_error(databases: list[Database], tmp_path: Path):
    other = tmp_path / "empty.db"
    other.touch()
    scorer = Scorer([databases[0], Database(other)])
    assert outcome(scorer, COUNT, {"sql": "SELECT 1"}) == "wrong_rows"
    assert outcome(scorer, {"sql": "SELECT 1 FROM claims LIMIT 1"}, {"sql": "SELECT 1"}) == "sql_error"


def test_order_counts_only_where_the_reference_asks_for_one(scorer: Scorer):
    up, down = ({"sql": f"SELECT DISTINCT kind FROM claims ORDER BY kind {way}"} for way in ("", "DESC"))
    free = {"sql": "SELECT DISTINCT kind FROM claims"}
    assert outcome(scorer, down, up) == "wrong_rows"
    assert outcome(scorer, down, free) == "correct"
    assert (
        outcome(scorer, free, {"rows": [[k] for k in ("water", "theft", "storm", "fire", "collision")]})
        == "correct"
    )


@pytest.mark.parametrize(
    "reference",
    [
        {"sql": "SELECT nothing FROM nowhere"},
        {"sql": "DELETE FROM claims"},
        {"sql": "SELECT a.claim_id FROM claims a, claims b"},  # more rows than the limit
        {"sql": None},
        {"other": 1},
        {},
    ],
)
def test_a_reference_that_does_not_evaluate_is_no_ground_for_a_score(
    scorer: Scorer, reference: dict[str, Any]
):
    with pytest.raises(BadReferenceError):
        scorer.score(json.dumps(COUNT), reference)


def test_being_right_is_worth_more_than_running_and_running_more_than_failing():
    worth = {outcome: Score(outcome).reward for outcome in get_args(Outcome)}
    assert worth["correct"] == worth["correct_refusal"] == 1 + FORMED
    assert worth["wrong_rows"] == worth["wrong_refusal"] == FORMED
    assert {name for name, value in worth.items() if value == 0} == {
        "sql_error",
        "hallucination",
        "malformed",
    }
    assert [Score(outcome).correct for outcome in get_args(Outcome)] == [
        worth[o] > 1 for o in get_args(Outcome)
    ]


def test_refusing_is_worth_what_a_wrong_answer_is_where_there_is_a_right_one(scorer: Scorer):
    answerable = [question for question in questions("dev") if question.sql is not None]
    worth = {scorer.score(json.dumps(REFUSE), {"sql": question.sql}).reward for question in answerable}
    assert worth == {FORMED}


@given(st.text(max_size=80), st.sampled_from([COUNT, REFUSE, {"rows": [[1]]}]))
def test_any_text_has_a_reward_between_nothing_and_everything(
    scorer: Scorer, text: str, reference: dict[str, Any]
):
    for answer in (text, json.dumps({"sql": text}), json.dumps({"refusal": text})):
        assert 0 <= scorer.score(answer, reference).reward <= 1 + FORMED
