"""What the questions promise: fair golds, splits without leaks, a fixed mix of levels."""

import hashlib
import re
import sqlite3
from collections import Counter
from itertools import chain
from typing import get_args

import pytest

from domains.insurance.questions import Question, Split, load, questions

SPLITS: tuple[Split, ...] = get_args(Split)
Instances = tuple[sqlite3.Connection, sqlite3.Connection]
Result = list[tuple[object, ...]]


def answerable(split: Split) -> list[tuple[Question, str]]:
    return [(question, question.sql) for question in questions(split) if question.sql is not None]


def run(connection: sqlite3.Connection, sql: str) -> Result:
    rows = [
        tuple(round(value, 4) if isinstance(value, float) else value for value in row)
        for row in connection.execute(sql)
    ]
    return sorted(rows, key=repr)


@pytest.mark.parametrize("split", SPLITS)
def test_every_gold_gives_rows_without_null_or_zero(instances: Instances, split: Split) -> None:
    for question, sql in answerable(split):
        for connection in instances:
            rows = run(connection, sql)
            assert 0 < len(rows) < 400, question.id
            assert not {None, 0} & set(chain.from_iterable(rows)), question.id


@pytest.mark.parametrize("split", SPLITS)
def test_at_least_95_percent_of_golds_answer_differently_on_the_two_instances(
    instances: Instances, split: Split
) -> None:
    golds = answerable(split)
    differing = sum(run(instances[0], sql) != run(instances[1], sql) for _, sql in golds)
    assert differing >= 0.95 * len(golds)


@pytest.mark.parametrize("split", SPLITS)
def test_two_golds_of_a_split_never_agree_on_both_instances(instances: Instances, split: Split) -> None:
    """Otherwise the answer to one question would score as right on the other."""
    seen: dict[str, str] = {}
    for _, sql in answerable(split):
        result = repr([run(connection, sql) for connection in instances])
        assert seen.setdefault(result, sql) == sql


@pytest.mark.parametrize("split", SPLITS)
def test_a_top_n_has_no_tie_at_its_border(instances: Instances, split: Split) -> None:
    for _, sql in answerable(split):
        if match := re.fullmatch(r"SELECT \w+ FROM (\w+) ORDER BY (\w+) DESC LIMIT (\d+)", sql):
            table, column, limit = match.groups()
            query = f"SELECT {column} FROM {table} ORDER BY {column} DESC LIMIT {int(limit) + 1}"
            for connection in instances:
                values = run(connection, query)
                assert len(set(values)) == len(values)
        else:
            assert "LIMIT" not in sql
            assert "ORDER BY" not in sql


def test_no_text_and_no_id_occurs_twice() -> None:
    everything = [question for split in SPLITS for question in questions(split)]
    assert max(Counter(question.text.lower() for question in everything).values()) == 1
    assert max(Counter(question.id for question in everything).values()) == 1


def test_no_wording_serves_two_splits() -> None:
    """Not even with other slot values: a phrasing is unseen or it is not."""
    for template in load()[0]:
        assert len(set(template.phrasings)) == len(template.phrasings)
        assert len(template.phrasings) == (11 if template.split == "train" else 3), template.name
    phrasings = Counter(phrasing for template in load()[0] for phrasing in template.phrasings)
    assert max(phrasings.values()) == 1


def test_an_unseen_template_asks_for_no_query_of_a_train_template() -> None:
    def shapes(split: str) -> set[str]:  # a slot of another name may hold the same values
        return {re.sub(r"\{\w+\}", "{}", row.sql) for row in load()[0] if row.split == split and row.sql}

    seen = shapes("train")
    for split in ("dev", "test"):
        unseen = shapes(split)
        assert unseen
        assert not unseen & seen
    golds = {sql for _, sql in answerable("train")}
    for question, sql in [*answerable("dev"), *answerable("test")]:
        assert question.novelty == "phrasing" or sql not in golds


# Scores on dev and test can be compared with older ones as long as these hold, whatever is added to train.
@pytest.mark.parametrize(
    ("split", "digest"),
    [
        ("dev", "c5122669cd888c50afde80fe6a7a576dd5d2d0b92139b48de9a89e41dfd9179c"),
        ("test", "4d9b71506920f83821f20ec447ee4e1c5e776a4edfaf27f1293d97bef7bf4573"),
    ],
)
def test_the_held_out_questions_are_those_they_always_were(split: Split, digest: str) -> None:
    lines = "\n".join(f"{question.id}\t{question.text}" for question in questions(split))
    assert hashlib.sha256(lines.encode()).hexdigest() == digest


def test_the_splits_of_a_template_are_those_of_its_novelty() -> None:
    for split in SPLITS:
        own = {template.name: template.split for template in load()[0]}
        for question in questions(split):
            expected = "phrasing" if own[question.template] == "train" else "template"
            assert question.novelty == expected
            assert own[question.template] in ("train", split)


@pytest.mark.parametrize(("split", "low", "high"), [("train", 410, 460), ("dev", 50, 70), ("test", 180, 230)])
def test_the_mix_of_levels_is_that_of_the_brief(split: Split, low: int, high: int) -> None:
    levels = Counter(question.level for question in questions(split))
    total = sum(levels.values())
    assert low <= total <= high
    assert 0.5 <= levels["simple"] / total <= 0.67
    for level in ("grouped", "dated", "joined", "unanswerable"):
        assert 0.07 <= levels[level] / total <= 0.14, level


def test_half_of_the_test_split_is_unseen_by_template() -> None:
    counts = Counter(question.novelty for question in questions("test"))
    assert 0.4 <= counts["template"] / counts.total() <= 0.6


def test_a_question_has_a_query_or_a_reason_and_never_both() -> None:
    for split in SPLITS:
        for question in questions(split):
            refused = question.level == "unanswerable"
            assert (question.sql is None, question.refusal is not None) == (refused, refused), question.id
            if question.refusal:
                assert re.fullmatch(r"The tables hold no [a-z ]+\.", question.refusal)


def test_golds_are_short_and_in_one_style() -> None:
    for split in SPLITS:
        for question, sql in answerable(split):
            assert re.fullmatch(r"SELECT .*[^;]", sql), question.id
            assert not re.search(r'["\n]|  | AS | ON ', sql), question.id
            assert len(sql) <= 125, question.id
            assert sql.count("JOIN") == sql.count("USING"), question.id


def test_every_slot_is_filled_and_every_phrasing_uses_all_slots_of_its_template() -> None:
    templates, values, _ = load()
    for template in templates:
        for phrasing in template.phrasings:
            used = {slot for slot in values if f"{{{slot}}}" in phrasing}
            assert used == set(template.slots(values)), phrasing
    for split in SPLITS:
        assert not any(set("{}") & set(q.text + (q.sql or "")) for q in questions(split))


def test_the_order_is_fixed_and_a_caller_may_change_its_list() -> None:
    first = questions("train")
    again = questions("train")
    again.clear()
    assert first == questions("train")
