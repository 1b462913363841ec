"""Versions: what has not changed costs nothing, nothing is half there, and going back is naming another."""

import itertools
import tempfile
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tools.knowledge.embedders import Synonyms
from tools.embedding import Vectors
from tools.errors import ToolUnavailableError
from tools.knowledge import Item, KnowledgeError
from tools.knowledge.library import Entry, Library

RULE = Entry(Item("heuristics", text="A loss is a claim."), "rules.jsonl")
CARD = Entry(Item("schemas", text="vehicles(make)"), "schema.sql")
HIS = Entry(Item("heuristics", text="A car of ours."), "rules.jsonl", "acme")

_texts = st.text(max_size=8)
_entries = st.builds(
    Entry,
    st.builds(Item, st.just("heuristics"), text=_texts, keywords=_texts),
    st.sampled_from(["a", "b"]),
    st.sampled_from(["", "acme"]),
)


def put(library: Library, *entries: Entry, embedder: Synonyms | None = None):
    return library.edit(lambda _: entries, embedder)


@given(st.lists(_entries, max_size=6, unique=True))
@settings(max_examples=25, deadline=None)
def test_to_add_the_same_again_changes_nothing_and_embeds_nothing(entries: list[Entry]):
    with tempfile.TemporaryDirectory() as folder:
        library, embedder = Library(Path(folder)), Synonyms()
        first = put(library, *entries, embedder=embedder)
        before = {path: path.stat().st_mtime_ns for path in Path(folder).glob("*/*")}
        again = put(library, *entries, embedder=embedder)
        assert (again.version, again.added, again.removed, again.embedded) == (first.version, 0, 0, 0)
        assert {path: path.stat().st_mtime_ns for path in Path(folder).glob("*/*")} == before
        assert sorted(map(repr, library.load(first.version).entries)) == sorted(map(repr, entries))


def test_only_what_changed_is_embedded_again(tmp_path: Path):
    library, embedder = Library(tmp_path), Synonyms()
    put(library, RULE, CARD, embedder=embedder)
    embedder.texts.clear()
    change = put(library, RULE, CARD, HIS, embedder=embedder)
    assert embedder.texts == [HIS.item.indexed]
    assert (change.added, change.removed, change.embedded) == (1, 0, 1)
    version = library.load(change.version)
    for text, vector in library.vectors(version, embedder).items():
        assert np.array_equal(vector, Synonyms().embed([text])[0])


def test_the_same_items_by_another_embedder_are_another_version(tmp_path: Path):
    library = Library(tmp_path)
    names = {
        put(library, RULE, embedder=embedder).version for embedder in (None, Synonyms(), Synonyms("other"))
    }
    assert len(names) == 3
    assert library.vectors(library.load(library.active() or ""), Synonyms()) == {}


def test_going_back_serves_the_old_items_again(tmp_path: Path):
    library = Library(tmp_path)
    old, new = put(library, RULE).version, put(library, RULE, CARD).version
    assert library.active() == new
    library.use(old)
    assert library.load(library.active() or "").entries == (RULE,)
    assert [version.name for version in library.versions()] == [old, new]


@pytest.mark.parametrize("name", ["0123456789ab", "..", "", "../../etc", "active"])
def test_a_version_that_is_not_there_is_refused(tmp_path: Path, name: str):
    library = Library(tmp_path / "library")
    served = put(library, RULE).version
    with pytest.raises(KnowledgeError, match="there is no version"):
        library.use(name)
    assert library.active() == served


def test_an_embedder_that_fails_midway_changes_nothing(tmp_path: Path):
    class Fails(Synonyms):
        def embed(self, texts: Sequence[str]) -> Vectors:
            raise ToolUnavailableError("away")

    library = Library(tmp_path)
    before = put(library, RULE, embedder=Synonyms()).version
    with pytest.raises(ToolUnavailableError):
        put(library, RULE, CARD, embedder=Fails())
    assert library.active() == before
    assert {path.name for path in tmp_path.iterdir()} == {before, "active", "lock"}


def test_a_broken_version_is_told_with_its_folder(tmp_path: Path):
    library, embedder = Library(tmp_path), Synonyms()
    name = put(library, RULE, embedder=embedder).version
    version = library.load(name)
    (tmp_path / name / "vectors.npz").write_bytes(b"PK nonsense")
    with pytest.raises(KnowledgeError, match=r"vectors\.npz"):
        library.vectors(version, embedder)
    (tmp_path / name / "items.jsonl").write_text("{")
    with pytest.raises(KnowledgeError, match=name):
        library.load(name)


def _add_one(folder: Path, number: int) -> None:
    added = Entry(Item("heuristics", text=f"rule {number}"), f"{number}.jsonl")
    Library(folder).edit(lambda entries: [*entries, added], None)


def test_processes_that_add_at_once_lose_nothing(tmp_path: Path):
    processes = [
        get_context("spawn").Process(target=_add_one, args=(tmp_path, number)) for number in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    library = Library(tmp_path)
    sources = {entry.source for entry in library.load(library.active() or "").entries}
    assert sources == {f"{number}.jsonl" for number in range(4)}


def test_progress_is_told_of_what_is_embedded(tmp_path: Path):
    told: list[tuple[int, int]] = []
    entries = [Entry(Item("heuristics", text=f"rule {number}"), "a") for number in range(150)]
    Library(tmp_path).edit(lambda _: entries, Synonyms(), progress=lambda *of: told.append(of))
    assert told[-1] == (150, 150)
    assert all(earlier < later for earlier, later in itertools.pairwise(told))
