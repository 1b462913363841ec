"""Retrieval: the right items, at most so many, the same every time."""

import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient

from agents.manifest import Agent
from domains.insurance.questions import Split, questions
from tools.errors import ToolError
from tools.knowledge import Item, Kind, Knowledge, KnowledgeError, read

QUOTAS: dict[Kind, int] = {"schemas": 3, "examples": 2, "heuristics": 1}
ITEMS = [
    Item("schemas", text="claims(claim_id, amount)", keywords="loss damage"),
    Item("schemas", text="vehicles(vehicle_id, make)", keywords="car cars"),
    Item("schemas", text="customers(customer_id, age)", keywords="client person"),
    Item("examples", question="How many cars are there?", answer='{"sql": "SELECT COUNT(*) FROM vehicles"}'),
    Item("heuristics", text="A loss is a claim."),
]


@pytest.fixture(scope="module")
def items(pytestconfig: pytest.Config) -> list[Item]:
    return read(pytestconfig.rootpath / "domains" / "insurance" / "knowledge.toml")


@pytest.fixture(scope="module")
def insurer(items: list[Item]) -> Knowledge:
    return Knowledge(items)


@pytest.fixture(scope="module")
def small() -> Knowledge:
    return Knowledge(ITEMS)


def test_no_kind_gives_more_than_its_quota(insurer: Knowledge):
    everything = "claims policies customers vehicles invoices payments count average per year"
    for number in (0, 1, 2, 5):
        context = insurer.search(everything, {"schemas": number, "examples": number, "heuristics": number})
        assert [len(found) for found in (context.schemas, context.examples)] == [number, number]
        assert len(context.heuristics) <= number
        for kind in ("schemas", "examples", "heuristics"):
            assert {item.kind for item in getattr(context, kind)} <= {kind}


def test_a_kind_without_a_quota_gives_nothing(small: Knowledge):
    context = small.search("cars and losses", {"schemas": 1})
    assert len(context.schemas) == 1
    assert (context.examples, context.heuristics) == ((), ())


def test_the_best_comes_first(small: Knowledge):
    def names(query: str) -> list[str]:
        return [item.text.partition("(")[0] for item in small.search(query, QUOTAS).schemas]

    assert names("loss, damage and car") == ["claims", "vehicles"]
    assert names("damage, car and make") == ["vehicles", "claims"]


def test_inflected_words_find_each_other_and_words_that_say_nothing_find_nothing(small: Knowledge):
    assert small.search("damages", QUOTAS).schemas == (ITEMS[0],)
    assert small.search("How many of them are there?", QUOTAS).examples == ()


def test_what_no_item_speaks_of_finds_nothing(small: Knowledge):
    for query in ("", "weather", "🎉 \x00 \ud800", "' OR 1=1 --"):
        context = small.search(query, QUOTAS)
        assert (context.schemas, context.examples, context.heuristics) == ((), (), ())


@given(st.text(max_size=200))
@settings(deadline=None)
def test_any_question_can_be_searched(small: Knowledge, query: str):
    context = small.search(query, QUOTAS)
    assert set(context.schemas) <= set(ITEMS)


def test_an_item_comes_back_as_it_went_in(small: Knowledge):
    assert small.search("cars", QUOTAS).examples == (ITEMS[3],)
    assert small.search("a loss", QUOTAS).heuristics == (ITEMS[4],)


@pytest.mark.parametrize("split", ["train", "dev"])
def test_the_tables_that_a_question_needs_are_found_within_the_agents_quota(
    insurer: Knowledge, root: Path, split: Split
):
    quota = Agent.load(root / "agents" / "sql_analyst").quotas.schemas
    answerable = [question for question in questions(split) if question.sql is not None]
    missed = []
    for question in answerable:
        needed = set(re.findall(r"\b(?:FROM|JOIN) (\w+)", question.sql or ""))
        assert needed
        found = {
            item.text.partition("(")[0] for item in insurer.search(question.text, {"schemas": quota}).schemas
        }
        if not needed <= found:
            missed.append((question.text, needed - found))
    assert len(answerable) > 50
    assert len(missed) <= 0.05 * len(answerable), missed


def test_two_instances_find_the_same_in_the_same_order(items: list[Item]):
    first, second = Knowledge(items), Knowledge(items)
    for question in questions("dev"):
        assert first.search(question.text, QUOTAS) == second.search(question.text, QUOTAS)


def test_threads_that_search_at_once_find_what_one_alone_finds(items: list[Item], insurer: Knowledge):
    """A stemmer holds the word that it works on: shared by threads, it failed, or searched for another word."""
    asked = [question.text for question in questions("train")]
    alone = [insurer.search(question, QUOTAS) for question in asked]
    shared = Knowledge(items)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as threads:
            together = list(threads.map(lambda question: shared.search(question, QUOTAS), asked))
    finally:
        sys.setswitchinterval(interval)
    assert together == alone


def test_the_digest_names_the_content():
    digest = Knowledge(ITEMS).digest
    assert digest == Knowledge(list(ITEMS)).digest
    changed = [replace(ITEMS[0], keywords="loss"), *ITEMS[1:]]
    assert (
        len({digest, Knowledge(changed).digest, Knowledge(ITEMS[:-1]).digest, Knowledge(ITEMS[::-1]).digest})
        == 4
    )


def test_a_collection_that_is_there_already_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two processes on one server: the second finds the first one's collection, and a new version gets its own."""
    shared = QdrantClient(":memory:")
    monkeypatch.setattr("tools.knowledge.index.QdrantClient", lambda *_, **__: shared)
    first, second = Knowledge(ITEMS, url="http://qdrant"), Knowledge(ITEMS, url="http://qdrant")
    other = Knowledge(ITEMS[:1], url="http://qdrant")
    assert len(shared.get_collections().collections) == 2
    assert second.search("cars", QUOTAS) == first.search("cars", QUOTAS)
    assert other.search("cars", QUOTAS).schemas == ()


def test_a_server_that_is_away_is_a_tool_error(small: Knowledge, monkeypatch: pytest.MonkeyPatch):
    away = Knowledge(ITEMS)
    monkeypatch.setattr(away, "_client", QdrantClient(url="http://127.0.0.1:9", check_compatibility=False))
    with pytest.raises(ToolError, match="knowledge base does not answer"):
        away.search("cars", QUOTAS)


def test_a_file_is_read_whole(tmp_path: Path):
    path = tmp_path / "knowledge.toml"
    path.write_text(
        "heuristics = []\n"
        '[[schemas]]\ntext = "claims(claim_id)"\nkeywords = "loss"\n'
        '[[examples]]\nquestion = "How many?"\nsql = "SELECT 1"\n'
        '[[examples]]\nquestion = "Weather?"\nrefusal = "no weather"\n'
    )
    assert read(path) == [
        Item("schemas", text="claims(claim_id)", keywords="loss"),
        Item("examples", question="How many?", answer='{"sql":"SELECT 1"}'),
        Item("examples", question="Weather?", answer='{"refusal":"no weather"}'),
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not toml",
        b"\xff\xfe",
        b"schemas = []\nexamples = []",
        b"schemas = 1\nexamples = []\nheuristics = []",
        b"schemas = ['claims']\nexamples = []\nheuristics = []",
        b"schemas = [{text = 5}]\nexamples = []\nheuristics = []",
    ],
)
def test_a_broken_file_is_named_in_the_error(tmp_path: Path, content: bytes):
    path = tmp_path / "knowledge.toml"
    path.write_bytes(content)
    with pytest.raises(KnowledgeError, match=re.escape(str(path))):
        read(path)


def test_a_file_that_cannot_be_read_is_named_in_the_error(tmp_path: Path):
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(KnowledgeError, match=re.escape(str(path))):
            read(path)
