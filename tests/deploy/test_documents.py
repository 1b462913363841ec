"""`flywheel documents`: files go in, are listed, shown, searched and removed, each tenant's by themselves."""

from pathlib import Path
from typing import Any

import pytest

from deploy.settings import Settings
from tests.tools.documents.files import locked_pdf, pdf, word


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "contracts"
    (folder / "sub").mkdir(parents=True)
    (folder / "supply.pdf").write_bytes(pdf(["ARTICLE 1 TERM", "Either party may end it early."]))
    (folder / "sub" / "law.docx").write_bytes(word("The laws of Ohio govern."))
    (folder / ".hidden").write_text("no document")
    return folder


def test_a_folder_is_added_listed_shown_searched_and_removed(run: Any, settings: Settings, files: Path):
    added = run("documents", "add", str(files), "--words-only")
    assert (added.code, added.err) == (0, "")
    assert "supply.pdf  2 pages" in added.out and "sub/law.docx" in added.out and "hidden" not in added.out
    assert settings.documents.folder.is_dir()
    listed = run("documents", "list").out
    assert "supply.pdf" in listed and "sub/law.docx" in listed
    assert "ARTICLE 1 TERM" in run("documents", "show", "supply").out
    assert run("documents", "show", "supply", "--page", "2").out == "Either party may end it early.\n"
    assert "page 2 [32-38]" in run("documents", "search", "supply.pdf", "end it", "--mode", "exact").out
    assert run("documents", "remove", "supply").out.startswith("removed supply.pdf")
    assert "supply" not in run("documents", "list").out


def test_a_file_that_cannot_be_read_keeps_no_other_out(run: Any, files: Path):
    (files / "locked.pdf").write_bytes(locked_pdf())
    added = run("documents", "add", str(files), "--words-only")
    assert added.code == 1
    assert "locked.pdf: it is encrypted" in added.out and "supply.pdf" in added.out
    assert added.err == "flywheel: 1 of 3 files were not added; each reason stands above\n"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("add", "none.pdf"), "1 of 1 files were not added"),
        (("show", "supply", "--tenant", "other"), "there is no document supply"),
        (("show", "supply", "--page", "3"), "there is no page 3"),
        (("search", "supply", "(", "--mode", "regex"), "not a regular expression"),
        (("remove", "none"), "there is no document none"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(run: Any, files: Path, words: tuple[str, ...], reason: str):
    run("documents", "add", str(files), "--words-only")
    result = run("documents", *words)
    assert result.code == 1
    assert reason in result.err and result.err.count("\n") == 1
