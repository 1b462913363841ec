"""Real contracts with evidence marked by lawyers (CUAD): our pages and offsets are theirs, and evidence is found.

The data is no part of the repository: the folder with `text/` and `questions_dev.jsonl` is named by CONTRACTS, or lies
beside the checkout.
"""

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tools.documents import quotes
from tools.documents.document import Span
from tools.documents.index import Index
from tools.documents.ingest import ingest

FOLDER = Path(os.environ.get("CONTRACTS") or ROOT.parent / "shared" / "data" / "contracts")

pytestmark = pytest.mark.skipif(
    not (FOLDER / "text").is_dir(), reason="no contracts: put the path of the folder with them into CONTRACTS"
)


@pytest.fixture(scope="module")
def questions() -> dict[str, list[dict[str, Any]]]:
    """The answerable development questions by contract."""
    found = defaultdict(list)
    for line in (FOLDER / "questions_dev.jsonl").read_text("utf-8").splitlines():
        question = json.loads(line)
        if question["answerable"]:
            found[question["contract"]].append(question)
    return found


@pytest.fixture(scope="module")
def contracts(questions: dict[str, list[dict[str, Any]]]) -> dict[str, Index]:
    return {name: Index(ingest(FOLDER / "text" / f"{name}.txt")) for name in questions}


def test_pages_and_offsets_agree_with_the_marked_evidence(contracts: Any, questions: Any):
    checked = 0
    for name, index in contracts.items():
        document = index.document
        for evidence in (evidence for question in questions[name] for evidence in question["evidence"]):
            start, end = evidence["start"], evidence["end"]
            assert document.text[start:end] == evidence["text"]
            assert document.pages_of(Span(start, end)) == (evidence["page"], evidence["page_end"])
            checked += 1
    assert checked > 1_000


def test_the_marked_evidence_passes_as_a_quotation_from_its_page(contracts: Any, questions: Any):
    checked = 0
    for name, index in contracts.items():
        text = index.document.text
        for evidence in (evidence for question in questions[name] for evidence in question["evidence"]):
            first, last = text[evidence["start"] - 1 :][:2], text[evidence["end"] - 1 :][:2]
            if first.isalnum() or last.isalnum() or len(evidence["text"]) < 30:
                continue  # marked from or to the middle of a word, or too short to be told from others
            found = quotes.check(index, " ".join(evidence["text"].split()), evidence["page"])
            assert found is not None and found.on_page
            checked += 1
    assert checked > 800


def test_a_contracts_pages_are_as_many_as_its_pdf_had(contracts: Any):
    known = map(json.loads, (FOLDER / "contracts.jsonl").read_text("utf-8").splitlines())
    pages = {contract["contract"]: contract["pages"] for contract in known}
    assert {name: len(index.document.pages) for name, index in contracts.items()} == {
        name: pages[name] for name in contracts
    }


def test_the_question_alone_brings_up_a_page_with_evidence_among_six_for_two_questions_in_three(
    contracts: Any, questions: Any
):
    hits = total = 0
    for name, index in contracts.items():
        for question in questions[name]:
            gold = {page for e in question["evidence"] for page in range(e["page"], e["page_end"] + 1)}
            found = {index.document.page_of(span.start) for span in index.words(question["question"], 6)}
            hits += bool(found & gold)
            total += 1
    assert hits / total > 0.66
