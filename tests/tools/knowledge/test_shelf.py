"""What is served: the settings' file and the active version, and a change of it without a pause."""

from pathlib import Path

import pytest

from tests.tools.knowledge.embedders import Synonyms
from tools.knowledge import Item, Kind, Knowledge, KnowledgeError, read
from tools.knowledge.library import Entry, Library
from tools.knowledge.shelf import Shelf, index

QUOTAS: dict[Kind, int] = {"schemas": 5, "examples": 5, "heuristics": 5}
LOSS = Item("heuristics", text="A loss is a claim.")
OURS = Item("heuristics", text="Our losses are claims.")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "knowledge.toml"
    path.write_text('examples = []\nheuristics = []\n[[schemas]]\ntext = "claims(claim_id)"\n')
    return path


def test_without_added_knowledge_the_files_collection_is_served_as_it_is(file: Path, tmp_path: Path):
    assert Shelf(file, library=tmp_path / "none").current.digest == Knowledge(read(file)).digest


def test_a_change_is_followed_and_who_began_before_it_goes_on_as_before(file: Path, tmp_path: Path):
    library = Library(tmp_path / "library")
    shelf = Shelf(file, library=tmp_path / "library")
    began = shelf.of("acme")
    assert not shelf.refresh()
    added = library.edit(lambda _: [Entry(LOSS, "a"), Entry(OURS, "b", "acme")], None)
    assert shelf.refresh()
    assert not shelf.refresh()
    assert began.search("loss", QUOTAS).heuristics == ()
    assert set(shelf.of("acme").search("loss", QUOTAS).heuristics) == {LOSS, OURS}
    assert shelf.of("zorg").search("loss", QUOTAS).heuristics == (LOSS,)
    assert shelf.current.search("loss", QUOTAS).heuristics == (LOSS,)
    library.edit(lambda _: [], None)
    shelf.refresh()
    assert shelf.current.search("loss", QUOTAS).heuristics == ()
    library.use(added.version)
    shelf.refresh()
    assert shelf.current.search("loss", QUOTAS).heuristics == (LOSS,)


def test_a_version_that_cannot_be_read_leaves_the_one_before_served(file: Path, tmp_path: Path):
    library = Library(tmp_path / "library")
    library.edit(lambda _: [Entry(LOSS, "a")], None)
    shelf = Shelf(file, library=tmp_path / "library")
    (tmp_path / "library" / "active").write_text("0123456789ab")
    with pytest.raises(KnowledgeError, match="no version"):
        shelf.refresh()
    assert shelf.current.search("loss", QUOTAS).heuristics == (LOSS,)


def test_what_is_there_twice_is_found_once(file: Path, tmp_path: Path):
    library = Library(tmp_path / "library")
    schema = Item("schemas", text="claims(claim_id)")
    twice = [Entry(LOSS, "a"), Entry(LOSS, "b"), Entry(LOSS, "b", "acme"), Entry(schema, "c")]
    name = library.edit(lambda _: twice, None).version
    context = index(file, library.load(name)).of("acme").search("loss claims", QUOTAS)
    assert (context.heuristics, context.schemas) == ((LOSS,), (schema,))


def test_vectors_of_a_version_are_not_made_again(file: Path, tmp_path: Path):
    library, embedder = Library(tmp_path / "library"), Synonyms()
    version = library.load(library.edit(lambda _: [Entry(LOSS, "a")], embedder).version)
    embedder.texts.clear()
    index(file, version, embedder=embedder, known=library.vectors(version, embedder))
    assert embedder.texts == ["claims(claim_id)  "]
