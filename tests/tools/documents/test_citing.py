"""Quotations in an answer are looked up in the document."""

from pathlib import Path

import pytest

from tools.documents import citations
from tools.documents.ingest import ingest
from tools.documents.library import Library, UnknownDocumentError
from tools.tool import AnswerCheck


@pytest.fixture
def check(tmp_path: Path) -> AnswerCheck:
    file = tmp_path / "lease.txt"
    file.write_text("The tenant pays 900 euros.\fThe lease ends\nin May. \u201cMay\u201d means the month.")
    library = Library(tmp_path / "library")
    return citations(library, library.add(ingest(file), "acme").id, "acme")


def cited(*quotes: tuple[int, str]) -> dict[str, object]:
    return {"answer": "so", "quotes": [{"page": page, "quote": quote} for page, quote in quotes]}


def test_quotations_that_stand_on_their_pages_pass(check: AnswerCheck):
    assert check(cited((1, "tenant pays 900 euros"), (2, 'the lease ends in May. "May"'))) is None


def test_a_refusal_quotes_nothing_and_passes(check: AnswerCheck):
    assert check({"refusal": "There is no such clause."}) is None


def test_what_does_not_stand_there_is_told(check: AnswerCheck):
    assert check(cited((1, "tenant pays 800 euros"))) == (
        '"tenant pays 800 euros" does not stand in the document word by word.'
    )


def test_a_wrong_page_is_told_with_the_right_one(check: AnswerCheck):
    assert check(cited((1, "The lease ends"))) == '"The lease ends" stands on page 2, not on page 1.'


@pytest.mark.parametrize("quotes", [None, "text", [None, {"quote": 3}, {"page": 1}]])
def test_what_is_no_quotation_is_the_response_schemas_business(check: AnswerCheck, quotes: object):
    assert check({"answer": "so", "quotes": quotes}) is None


def test_another_tenants_document_is_not_there(tmp_path: Path):
    with pytest.raises(UnknownDocumentError):
        citations(Library(tmp_path), "lease", "acme")
