"""The simulated employees rate as people do: mostly right, sometimes wrong, and only through the public API."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from openai import NotFoundError

from deploy.employees import (
    CORRECTS,
    DEPARTMENTS,
    NAMES,
    SECOND_OPINION,
    WRITES_SQL,
    Visit,
    plan,
    rating,
    work,
)
from deploy.insurer import gold
from domains.insurance.questions import Question, questions
from tests.deploy.fake_gateway import FakeGateway
from tools.sql import Database, same_rows

TRAIN = questions("train")
ANSWERABLE = [question for question in TRAIN if question.sql is not None]
UNANSWERABLE = [question for question in TRAIN if question.sql is None]
WRITES, KNOWS, SHRUGS = 0.0, WRITES_SQL, CORRECTS


@pytest.fixture
def production(insurance: tuple[Path, Path]) -> Database:
    return Database(insurance[0])


def visit(question: Question, *, mistaken: bool = False, means: float = WRITES) -> Visit:
    return Visit(question, "amara", mistaken, means, other=ANSWERABLE[-1])


def right(question: Question) -> str:
    return json.dumps(gold(question))


def wrong(question: Question) -> str:
    return '{"refusal": "who knows"}' if question.sql is not None else '{"sql": "SELECT 1"}'


def test_the_seed_decides_who_asks_what_and_who_errs():
    assert plan(TRAIN, 3) == plan(TRAIN, 3)
    assert plan(TRAIN, 3) != plan(TRAIN, 4)


def test_every_question_is_asked_and_some_by_two_different_people():
    visits = plan(TRAIN, 0)
    asked = Counter(visit.question.id for visit in visits)
    assert set(asked) == {question.id for question in TRAIN}
    assert set(asked.values()) == {1, 2}
    assert len({(visit.question.id, visit.employee) for visit in visits}) == len(visits)
    assert {visit.employee for visit in visits} == set(NAMES)


def test_a_kind_of_question_is_one_departments_and_only_one_of_the_departments_writes_sql(
    production: Database,
):
    asking: dict[str, set[str]] = {}
    for asked in plan(TRAIN, 0):
        asking.setdefault(asked.question.template, set()).add(asked.employee)
    assert all(any(people <= set(department) for department in DEPARTMENTS) for people in asking.values())
    forms = {}
    for department in DEPARTMENTS:
        asked = Visit(ANSWERABLE[0], department[0], mistaken=False, means=WRITES, other=ANSWERABLE[-1])
        forms[department[0]] = list(rating(asked, wrong(asked.question), production)["correction"])
    assert list(forms.values()) == [["sql"], ["rows"]]


def test_about_one_rating_in_ten_is_mistaken_and_the_draws_are_as_often_as_they_say():
    visits = [visit for seed in range(12) for visit in plan(TRAIN, seed)]

    def share(of: list[bool]) -> float:
        return sum(of) / len(of)

    assert share([visit.mistaken for visit in visits]) == pytest.approx(0.10, abs=0.025)
    assert share([visit.means < WRITES_SQL for visit in visits]) == pytest.approx(WRITES_SQL, abs=0.03)
    assert share([visit.means >= SHRUGS for visit in visits]) == pytest.approx(1 - SHRUGS, abs=0.025)
    assert len(visits) / (12 * len(TRAIN)) == pytest.approx(1 + SECOND_OPINION, abs=0.03)


def test_a_right_answer_is_rated_up_and_by_a_mistaken_employee_down(production: Database):
    for question in TRAIN:
        assert rating(visit(question), right(question), production) == {"value": True}
    assert rating(visit(TRAIN[0], mistaken=True), right(TRAIN[0]), production) == {"value": False}


def test_a_wrong_answer_is_rated_down_however_little_the_employee_knows(production: Database):
    for question in TRAIN:
        for means in (WRITES, KNOWS, SHRUGS):
            assert rating(visit(question, means=means), wrong(question), production)["value"] is False


def test_a_correction_evaluates_to_the_golds_rows(production: Database):
    """In the form that the employee masters: SQL, or the rows of a result that is not too long to type."""
    forms: Counter[str] = Counter()
    for question in ANSWERABLE:
        assert question.sql is not None
        expected = production.query(question.sql).rows
        for means in (WRITES, KNOWS):
            correction = rating(visit(question, means=means), wrong(question), production).get("correction")
            if correction is None:
                assert means == KNOWS
                assert len(expected) > 60
                continue
            form, value = next(iter(correction.items()))
            forms[form] += 1
            assert same_rows(production.query(value).rows if form == "sql" else value, expected)
            assert json.loads(json.dumps(correction)) == correction
    assert forms["sql"] == len(ANSWERABLE)
    assert forms["rows"] > 0.9 * len(ANSWERABLE)


def test_who_only_shrugs_corrects_nothing_and_whoever_knows_more_can_say_that_there_is_no_answer(
    production: Database,
):
    question = UNANSWERABLE[0]
    for asked in (ANSWERABLE[0], question):
        assert "correction" not in rating(visit(asked, means=SHRUGS), wrong(asked), production)
    for means in (WRITES, KNOWS):
        said = rating(visit(question, means=means), wrong(question), production)
        assert said["correction"] == {"refusal": question.refusal}


def test_a_mistaken_employee_waves_a_wrong_answer_through_or_corrects_it_with_that_of_another_question(
    production: Database,
):
    question = ANSWERABLE[0]
    assert question.sql != ANSWERABLE[-1].sql
    careless = rating(visit(question, mistaken=True, means=0.49), wrong(question), production)
    assert careless == {"value": True}
    confused = rating(visit(question, mistaken=True, means=0.6), wrong(question), production)
    assert confused["value"] is False
    expected = production.query(ANSWERABLE[-1].sql or "").rows
    assert same_rows(confused["correction"]["rows"], expected)


async def test_the_employees_ask_rate_and_correct_through_the_public_api_each_with_their_own_key(
    production: Database,
):
    visits = plan(TRAIN, 0)[:25]
    answers = {visit.question.text: wrong(visit.question) for visit in visits}
    done: list[None] = []
    async with FakeGateway(answer=answers.__getitem__).served() as gateway:
        counts = await work(
            gateway.url,
            {name: f"key of {name}" for name in NAMES},
            visits,
            agent="sql-analyst",
            production=production,
            done=lambda: done.append(None),
        )
    assert len(done) == counts["asked"] == len(gateway.ratings) == 25
    assert counts["rated up"] + counts["rated down"] == 25
    assert counts["mistaken"] == sum(visit.mistaken for visit in visits)
    assert counts["corrected with sql"] + counts["corrected with rows"] + counts[
        "corrected with refusal"
    ] == sum("correction" in sent for sent in gateway.ratings)
    assert counts["corrected with rows"] > 0
    assert Counter(gateway.keys) == Counter(f"key of {visit.employee}" for visit in visits)
    assert Counter(gateway.raters) == Counter(gateway.keys)
    assert {chat["model"] for chat in gateway.chats} == {"sql-analyst"}
    assert {sent["request_id"] for sent in gateway.ratings} == {f"chatcmpl-{n}" for n in range(1, 26)}


async def test_an_error_of_the_api_ends_the_work_instead_of_being_counted(production: Database):
    sent: dict[str, Any] = {"agent": "sql-analyst", "production": production, "done": lambda: None}
    async with FakeGateway(refuse_ratings=True).served() as gateway:
        with pytest.raises(ExceptionGroup) as failed:
            await work(gateway.url, dict.fromkeys(NAMES, "k"), plan(TRAIN, 0)[:3], **sent)
    assert failed.group_contains(NotFoundError)
