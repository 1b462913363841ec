"""`flywheel knowledge`: add, look, remove, go back; and whatever is wrong is one line."""

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from typer.testing import CliRunner

from deploy.cli import app
from deploy.errors import FlywheelError
from deploy.settings import Settings
from tools.knowledge import KnowledgeError
from tools.knowledge.library import Library


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`flywheel knowledge WORDS…` with these settings, in this process: what it prints."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: str | Path) -> str:
        command = ["--config", str(settings.root / "flywheel.toml"), "knowledge", *map(str, words)]
        result = CliRunner().invoke(app, command)
        if result.exception is not None:
            raise result.exception
        return result.output

    return run


@pytest.fixture
def rules(settings: Settings) -> Path:
    folder = settings.root / "rules"
    folder.mkdir()
    (folder / "a.jsonl").write_text(
        '{"kind": "heuristics", "text": "one"}\n{"kind": "heuristics", "text": "two"}\n'
    )
    (folder / "b.csv").write_text("question,sql\nHow many?,SELECT 1\n")
    (folder / "notes.txt").write_text("mine")
    return folder


def served(settings: Settings) -> list[tuple[str, str, str]]:
    library = Library(settings.knowledge.library)
    entries = library.load(library.active() or "").entries
    return [(entry.tenant, entry.source, entry.item.text or entry.item.question) for entry in entries]


def test_a_folder_is_added_once_and_then_followed(run: Any, settings: Settings, rules: Path):
    said = run("add", rules)
    assert "3 items added, 0 removed, 0 texts embedded" in said
    assert "passed over" in said
    assert "notes.txt" in said
    assert "nothing changed" in run("add", rules)
    (rules / "b.csv").unlink()
    (rules / "a.jsonl").write_text('{"kind": "heuristics", "text": "two"}\n')
    assert "0 items added, 2 removed" in run("add", rules)
    assert served(settings) == [("", "rules/a.jsonl", "two")]


def test_a_tenants_own_lies_beside_the_common_ones_and_goes_without_them(
    run: Any, settings: Settings, rules: Path
):
    run("add", rules / "a.jsonl")
    run("add", rules / "a.jsonl", "--tenant", "acme")
    assert {tenant for tenant, _, _ in served(settings)} == {"", "acme"}
    assert "acme" in run("list")
    assert "everybody" not in run("list", "--tenant", "acme")
    run("remove", "rules", "--tenant", "acme")
    assert {tenant for tenant, _, _ in served(settings)} == {""}


def test_one_command_goes_back(run: Any, settings: Settings, rules: Path):
    run("add", rules / "a.jsonl")
    before, first = served(settings), Library(settings.knowledge.library).active()
    run("add", rules / "b.csv")
    run("use", first or "")
    assert served(settings) == before
    assert run("versions").count("served") == 1


def test_by_meaning_the_installed_model_embeds_only_what_is_new(
    run: Any, rules: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FLYWHEEL_KNOWLEDGE__DENSE", "true")
    assert "2 texts embedded" in run("add", rules / "a.jsonl")
    assert "1 texts embedded" in run("add", rules)


def test_files_that_are_wrong_are_all_told_and_nothing_is_added(run: Any, settings: Settings, rules: Path):
    (rules / "c.jsonl").write_text("{")
    (rules / "d.csv").write_text("question,sql\nq\n")
    with pytest.raises(FlywheelError, match=r"(?s)c\.jsonl: line 1.*d\.csv: line 2.*nothing was added"):
        run("add", rules)
    assert Library(settings.knowledge.library).active() is None


def test_a_databases_tables_become_cards_of_what_agents_may_read(run: Any, settings: Settings):
    path = settings.root / "shop.db"
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE people (id INTEGER, salary INTEGER)"))
    engine.dispose()
    file = settings.root / "flywheel.toml"
    file.write_text(
        file.read_text() + '\n[databases.shop]\nurl = "sqlite:///shop.db"\nhidden_columns = ["salary"]\n'
    )
    run("add", "--database", "shop")
    assert served(settings) == [("", "database:shop", "people(id integer)")]


def test_what_cannot_be_done_is_told_in_a_line(run: Any):
    for words, fault in (
        (("add",), "say what to add"),
        (("add", "--database", "none"), r"no \[databases.none\]"),
        (("remove", "none"), "nothing came from none"),
        (("use", "0123456789ab"), "there is no version"),
    ):
        with pytest.raises(FlywheelError, match=fault):
            run(*words)


def test_a_library_that_cannot_be_written_is_told_in_a_line(run: Any, settings: Settings, rules: Path):
    settings.knowledge.library.parent.mkdir(parents=True, exist_ok=True)
    settings.knowledge.library.write_text("a file, where a folder belongs")
    with pytest.raises(FlywheelError, match="knowledge: "):
        run("add", rules)
    with pytest.raises(KnowledgeError):
        Library(settings.knowledge.library).active()
