"""A library keeps each tenant's documents apart, whole and in versions."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tools.documents.document import Document
from tools.documents.library import Library, UnknownDocumentError
from tools.embedding import Vectors
from tools.errors import ToolUnavailableError


class Letters:
    """An embedder that counts letters, and how often it is asked."""

    def __init__(self, name: str = "letters") -> None:
        self.name = name
        self.dimensions = 26
        self.asked = 0

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.asked += 1
        counts = np.array(
            [[text.lower().count(chr(97 + n)) for n in range(26)] for text in texts], np.float32
        )
        return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)


class Away(Letters):
    def embed(self, texts: Sequence[str]) -> Vectors:
        raise ToolUnavailableError("the embedding endpoint does not answer")


def of(text: str = "one\ftwo", name: str = "a.pdf") -> Document:
    return Document(name, text, paged=True)


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "documents")


def test_what_is_added_is_found_by_id_by_name_and_without_the_ending(library: Library):
    entry = library.add(of(), "acme", source="/in/a.pdf")
    assert (entry.pages, entry.characters, entry.digest) == (2, 7, of().digest)
    for key in (entry.id, "a.pdf", "a"):
        assert library.find(key, "acme") == entry
        assert library.open(key, "acme").document == of()
    assert Library(library.folder).entries("acme") == [entry]


def test_another_tenants_document_is_not_there(library: Library):
    entry = library.add(of(), "acme")
    for tenant in ("other", "acm", "acme/..", "../tenant-acme", ".", "..", ""):
        assert library.entries(tenant) == []
        for key in (entry.id, "a.pdf"):
            for use in (library.find, library.open, library.remove):
                with pytest.raises(UnknownDocumentError, match="there is no document"):
                    use(key, tenant)
    assert library.entries("acme") == [entry]


@pytest.mark.parametrize("tenant", ["..", ".", "a/b", "a%2Fb", "ä b", "", "A"])
def test_any_tenant_has_a_folder_of_its_own_in_the_library(library: Library, tenant: str):
    entry = library.add(of(), tenant)
    assert library.find(entry.id, tenant) == entry
    assert [path.parent for path in library.folder.rglob(entry.id)] == [
        path for path in library.folder.iterdir() if path.is_dir()
    ]


@pytest.mark.parametrize("key", ["", ".", "..", "../a", "0" * 16, "b.pdf", "/etc/passwd", "a.pd"])
def test_what_is_not_there_is_not_found(library: Library, key: str):
    library.add(of(), "acme")
    with pytest.raises(UnknownDocumentError):
        library.open(key, "acme")


def test_a_name_without_its_ending_must_mean_one_document(library: Library):
    library.add(of(), "acme")
    library.add(of(name="a.docx"), "acme")
    with pytest.raises(UnknownDocumentError, match=r"several documents are called a: a\.docx, a\.pdf"):
        library.find("a", "acme")


def test_another_text_is_a_new_version_and_what_was_cited_stays(library: Library):
    first, second = library.add(of("one"), "acme"), library.add(of("two"), "acme")
    assert [entry.id for entry in library.entries("acme")] == [second.id, first.id]
    assert library.open("a.pdf", "acme").document.text == "two"
    assert library.open(first.id, "acme").document.text == "one"
    again = library.add(of("one"), "acme")
    assert again.id == first.id
    assert library.open("a.pdf", "acme").document.text == "one"
    assert len(library.entries("acme")) == 2


def test_removing_by_name_brings_back_the_version_before(library: Library):
    first, second = library.add(of("one"), "acme"), library.add(of("two"), "acme")
    library.open("a.pdf", "acme")
    assert library.remove("a.pdf", "acme").id == second.id
    assert library.find("a.pdf", "acme") == first
    with pytest.raises(UnknownDocumentError):
        library.open(second.id, "acme")
    library.remove(first.id, "acme")
    assert library.entries("acme") == []
    assert list((library.folder / "tenant-acme").iterdir()) == []


def test_vectors_are_kept_beside_the_document_under_the_embedders_name(tmp_path: Path):
    letters = Letters("model/of letters")
    library = Library(tmp_path, letters)
    entry = library.add(of("aaa\fbbb"), "acme")
    library.add(of("aaa\fbbb"), "acme")
    assert letters.asked == 1
    kept = Library(tmp_path, letters).open(entry.id, "acme").vectors
    assert kept is not None and kept.shape == (2, 26) and kept[0, 0] == kept[1, 1] == 1
    assert Library(tmp_path).open(entry.id, "acme").vectors is None


def test_vectors_of_another_embedder_or_of_other_passages_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    entry = Library(tmp_path, Letters()).add(of("word " * 200), "acme")
    other = Library(tmp_path, Letters("other"))
    assert other.open(entry.id, "acme").vectors is None
    other.add(of("word " * 200), "acme")
    assert other.open(entry.id, "acme").vectors is not None
    assert Library(tmp_path, Letters()).open(entry.id, "acme").vectors is not None
    monkeypatch.setattr("tools.documents.passages.PASSAGE_CHARACTERS", 100)
    assert Library(tmp_path, Letters()).open(entry.id, "acme").vectors is None


def test_broken_vectors_are_none_and_are_made_anew(tmp_path: Path):
    entry = Library(tmp_path, Letters()).add(of(), "acme")
    (file,) = tmp_path.rglob("*.npz")
    for data in (b"", b"PK\x03\x04", file.read_bytes()[:-100]):
        file.write_bytes(data)
        assert Library(tmp_path, Letters()).open(entry.id, "acme").vectors is None
    Library(tmp_path, Letters()).add(of(), "acme")
    assert Library(tmp_path, Letters()).open(entry.id, "acme").vectors is not None


def test_where_the_embedder_is_away_nothing_is_added(tmp_path: Path):
    library = Library(tmp_path, Away())
    with pytest.raises(ToolUnavailableError):
        library.add(of(), "acme")
    assert library.entries("acme") == []
    assert list((tmp_path / "tenant-acme").iterdir()) == []


def test_what_is_being_written_is_not_seen(tmp_path: Path):
    began, goes_on = threading.Event(), threading.Event()

    class Slow(Letters):
        def embed(self, texts: Sequence[str]) -> Vectors:
            began.set()
            goes_on.wait(10)
            return super().embed(texts)

    with ThreadPoolExecutor(1) as thread:
        adding = thread.submit(Library(tmp_path, Slow()).add, of(), "acme")
        assert began.wait(10)
        assert Library(tmp_path).entries("acme") == []
        goes_on.set()
        entry = adding.result()
    assert Library(tmp_path).entries("acme") == [entry]


def test_many_may_add_the_same_at_once(tmp_path: Path):
    with ThreadPoolExecutor(8) as threads:
        added = list(threads.map(lambda _: Library(tmp_path, Letters()).add(of(), "acme"), range(16)))
    assert len({entry.id for entry in added}) == 1
    (entry,) = Library(tmp_path).entries("acme")
    assert entry in added
    assert [path.name for path in (tmp_path / "tenant-acme").iterdir()] == [entry.id]


def test_only_so_many_documents_stay_in_memory(tmp_path: Path):
    library = Library(tmp_path, kept=2)
    entries = [library.add(of(str(number)), "acme") for number in range(4)]
    opened = [library.open(entry.id, "acme") for entry in entries]
    assert library.open(entries[3].id, "acme") is opened[3]
    assert library.open(entries[0].id, "acme") is not opened[0]
