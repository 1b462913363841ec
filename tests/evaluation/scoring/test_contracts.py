"""Answers about a contract: their words, and whether what they cite stands where they say."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.loop import format_answer
from evaluation.formats import read
from evaluation.scoring.contracts import score
from evaluation.scoring.text import words
from evaluation.scoring.verdict import Outcome, Verdict
from evaluation.tasks import ContractTask, Evidence
from tests.evaluation.files import PAGES, contract_set

NOTICE = "Either party may end this Agreement for any reason by giving ninety (90) days of written notice"


@pytest.fixture
def task(tmp_path: Path) -> ContractTask:
    (task,) = read(contract_set(tmp_path)).tasks
    assert isinstance(task, ContractTask)
    return task


@pytest.fixture
def clause(task: ContractTask) -> ContractTask:
    return replace(task, answer=NOTICE, answer_kind="span", evidence=(Evidence(NOTICE, 2, 2),))


def judged(task: ContractTask, answer: str, *quotes: tuple[str, Any]) -> Verdict:
    cited = [{"quote": text, "page": page} for text, page in quotes]
    return score(task, format_answer({"answer": answer, "quotes": cited}))


@pytest.mark.parametrize(
    ("gold", "answer", "expected"),
    [
        ("New York", "the State of New York", "correct"),
        ("New York", "New Jersey", "wrong"),
        ("3/5/14", "March 5th, 2014", "correct"),
        ("3/5/14", "2014-03-05", "correct"),
        ("3/5/14", "the 5th day of March, 2014", "correct"),
        ("3/5/14", "March 6, 2014", "wrong"),
        ("12/31/98", "December 31, 1998", "correct"),
        ("60 days", "sixty (60) days", "correct"),
        ("60 days", "30 days", "wrong"),
        ("successive 1 year", "successive terms of one year", "correct"),
        ("Acorn Mills Inc.; Birch Ltd", "Acorn Mills, Inc. and Birch Ltd.", "correct"),
        ("Acorn Mills Inc.; Birch Ltd", "Cedar Corp. and Birch Ltd.", "wrong"),
        ("New York", " ".join(PAGES), "wrong"),  # no prize for reciting the contract
        ("[***]", "[***]", "correct"),
    ],
)
def test_a_value_is_right_when_it_is_there_in_whatever_words(
    task: ContractTask, gold: str, answer: str, expected: Outcome
):
    assert judged(replace(task, answer=gold), answer).outcome == expected


def test_a_clause_is_right_by_what_is_said_or_by_what_is_quoted(clause: ContractTask):
    assert judged(clause, NOTICE).correct
    assert judged(clause, "Yes, with notice.", (NOTICE, 2)).correct
    assert judged(clause, "Either party can end this Agreement by 90 days of written notice.").correct
    assert not judged(clause, "Yes, with notice.").correct
    assert not judged(clause, PAGES[2], (PAGES[2], 3)).correct


def test_a_value_is_not_right_by_what_is_quoted(task: ContractTask):
    assert not judged(task, "It says so.", ("the State of New York", 3)).correct


@pytest.mark.parametrize(
    ("quotes", "page_correct", "exist"),
    [
        ([], False, None),
        ([("governed by the laws of the State of New York", 3)], True, True),
        ([("GOVERNED by the\n laws of the State of New  York", 3)], True, True),
        ([("governed by the laws of the State of New York", 2)], False, False),  # the wrong page
        ([("governed by the laws of the State of Texas", 3)], False, False),  # made up
        ([(NOTICE, 2)], False, True),  # true, and not the evidence
        ([("governed by the laws of the State of New York", 3), ("made up", 1)], True, False),
        ([("the", 3)], False, True),  # stands on every page
        ([("governed by the laws of the State of New York", None)], False, False),
        ([("governed by the laws of the State of New York", 99)], False, False),
    ],
)
def test_a_citation_counts_when_the_quote_stands_on_a_page_of_the_evidence(
    task: ContractTask, quotes: list[tuple[str, Any]], page_correct: bool, exist: bool | None
):
    verdict = judged(task, "New York", *quotes)
    assert verdict.correct
    assert (verdict.page_correct, verdict.quotes_exist) == (page_correct, exist)


def test_refusals_and_hallucinations_are_told_from_wrong_answers(task: ContractTask):
    without = replace(task, answer=None, evidence=())
    refusal = format_answer({"refusal": "no such clause"})
    assert score(without, refusal).outcome == "correct_refusal"
    assert score(task, refusal).outcome == "wrong_refusal"
    assert judged(without, "New York").outcome == "hallucination"
    assert score(task, "New York").outcome == "malformed"
    assert score(task, '{"answer": null}').outcome == "malformed"


def test_quotes_in_another_form_are_passed_over(task: ContractTask):
    for quotes in ("New York", ["New York"], [{"text": "New York", "page": 3}], [{"quote": " ", "page": 3}]):
        verdict = score(task, format_answer({"answer": "New York", "quotes": quotes}))
        assert verdict.correct and verdict.quotes_exist is None


def test_words_are_compared_without_case_signs_and_fillers_and_a_day_that_does_not_exist_is_no_date():
    assert (
        words("The Parties\u2019 “Effective  Date”: ten (10) days")
        == "partie effective date 10 10 day".split()
    )
    assert words("6/31/2014") == ["6", "31", "2014"]
    assert words("of the") == ["of", "the"]
