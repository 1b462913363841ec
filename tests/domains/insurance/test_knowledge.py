"""What the knowledge file promises: it gives nothing away, and the right table cards can be found in it."""

import math
import re
import sqlite3
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import domains.insurance
from domains.insurance.questions import Split, load, questions

FILE = Path(domains.insurance.__file__).with_name("knowledge.toml")
KNOWLEDGE: dict[str, list[dict[str, str]]] = tomllib.loads(FILE.read_text())
Instances = tuple[sqlite3.Connection, sqlite3.Connection]


def words(text: str) -> list[str]:
    """Lower-case words without their commonest endings; cruder than a stemmer, so the test is harder."""
    return [re.sub(r"(ies|y|es|ed|s|e)$", "", word) for word in re.findall(r"[a-z]+|\d+", text.lower())]


def best(query: str, count: int) -> list[str]:
    """Names of the `count` schema cards that BM25 (k1 = 1.2, b = 0.75) puts first."""
    cards = {
        card["name"]: Counter(words(card["text"] + " " + card["keywords"])) for card in KNOWLEDGE["schemas"]
    }
    mean = sum(card.total() for card in cards.values()) / len(cards)
    scores: Counter[str] = Counter()
    for word in words(query):
        holders = sum(word in card for card in cards.values())
        rarity = math.log(1 + (len(cards) - holders + 0.5) / (holders + 0.5))
        for name, card in cards.items():
            share = card[word] + 1.2 * (0.25 + 0.75 * card.total() / mean)
            scores[name] += rarity * card[word] * 2.2 / share  # type: ignore[assignment]  # a Counter of floats
    return [name for name, _ in scores.most_common(count)]


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_the_tables_of_a_gold_are_among_the_three_best_cards(split: Split) -> None:
    missed = [
        (question.text, best(question.text, 3))
        for question in questions(split)
        if question.sql
        and not set(re.findall(r"(?:FROM|JOIN) (\w+)", question.sql)) <= set(best(question.text, 3))
    ]
    assert len(missed) <= 0.02 * len(questions(split)), missed


def test_each_table_has_one_card_that_names_its_columns(instances: Instances) -> None:
    tables = [name for (name,) in instances[0].execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    assert sorted(tables) == sorted(card["name"] for card in KNOWLEDGE["schemas"])
    for card in KNOWLEDGE["schemas"]:
        columns = ", ".join(row[1] for row in instances[0].execute(f"PRAGMA table_info({card['name']})"))
        assert card["text"].startswith(f"{card['name']}({columns})")


def test_a_card_names_exactly_the_values_of_its_enums(instances: Instances) -> None:
    for card in KNOWLEDGE["schemas"]:
        for column, values in re.findall(r"(\w+): ([\w, ]+)", card["text"]):
            stored = {value for (value,) in instances[0].execute(f"SELECT {column} FROM {card['name']}")}
            assert stored == set(values.split(", "))


def test_the_examples_come_from_train_templates_alone() -> None:
    golds: dict[str, list[re.Pattern[str]]] = {"train": [], "dev": [], "test": []}
    for template in load()[0]:
        pattern = re.sub(r"\\\{\w+\\\}", r"\\w+", re.escape(template.sql or template.refusal or ""))
        golds[template.split].append(re.compile(pattern))
    for example in KNOWLEDGE["examples"]:
        answer = example.get("sql") or example["refusal"]
        assert any(pattern.fullmatch(answer) for pattern in golds["train"]), answer
        assert not any(pattern.fullmatch(answer) for pattern in golds["dev"] + golds["test"]), answer


def test_no_example_is_a_question_of_any_split() -> None:
    asked = {question.text.lower() for split in ("train", "dev", "test") for question in questions(split)}
    assert 14 <= len(KNOWLEDGE["examples"]) <= 18
    for example in KNOWLEDGE["examples"]:
        assert example["question"].lower() not in asked
        assert ("sql" in example) != ("refusal" in example)


def test_no_unseen_refusal_is_told_by_a_heuristic() -> None:
    topics = ("satisf", "complain", "commission", "website", "visit")
    for heuristic in KNOWLEDGE["heuristics"]:
        assert not any(topic in heuristic["text"].lower() for topic in topics)


def test_the_examples_run(instances: Instances) -> None:
    for example in KNOWLEDGE["examples"]:
        if "sql" in example:
            assert instances[0].execute(example["sql"]).fetchone()[0], example


def test_the_file_holds_three_kinds_of_entry_and_their_fields() -> None:
    fields: dict[str, Any] = {
        kind: {key for entry in rows for key in entry} for kind, rows in KNOWLEDGE.items()
    }
    assert fields == {
        "schemas": {"name", "text", "keywords"},
        "examples": {"question", "sql", "refusal"},
        "heuristics": {"text"},
    }
