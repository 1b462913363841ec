"""Real files become documents; what cannot be read is refused in a line."""

import io
import zipfile
from pathlib import Path

import docx
import pytest

from tests.tools.documents.files import locked_pdf, pdf, saved, word
from tools.documents import ingest as ingesting
from tools.documents.document import PART_CHARACTERS
from tools.documents.ingest import Bounds, IngestError, ingest

CLAUSE = "The Supplier shall deliver the Products in accordance with Schedule {}."


def at(folder: Path, name: str, data: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def test_a_pdf_keeps_its_pages(tmp_path: Path):
    document = ingest(at(tmp_path, "a.pdf", pdf(["First (page) “quoted”\nline two", "", "Third"])))
    assert (document.name, document.paged, len(document.pages)) == ("a.pdf", True, 3)
    assert document.page(1) == "First (page) “quoted”\nline two"
    assert [document.page(2), document.page(3)] == ["", "Third"]


def test_a_pdf_of_hundreds_of_pages_is_read_whole(tmp_path: Path):
    pages = [
        "\n".join(f"{page}.{line} {CLAUSE.format(line)}" for line in range(60)) for page in range(1, 301)
    ]
    document = ingest(at(tmp_path, "long.pdf", pdf(pages)))
    assert [document.page(number) for number in range(1, 301)] == pages


def test_a_word_document_keeps_its_page_breaks(tmp_path: Path):
    document = ingest(at(tmp_path, "a.docx", word("One", "Two\fThree", "Four")))
    assert document.paged
    assert [document.page(n).split() for n in (1, 2)] == [["One", "Two"], ["Three", "Four"]]


def test_html_keeps_the_page_breaks_of_its_style(tmp_path: Path):
    html = "<html><body><p>One</p><p style='page-break-before: always'>Two</p></body></html>"
    document = ingest(at(tmp_path, "a.htm", html))
    assert [document.page(n) for n in (1, 2)] == ["One", "Two"]


def test_a_text_is_taken_as_it_is_form_feeds_as_page_breaks(tmp_path: Path):
    document = ingest(at(tmp_path, "a.txt", "\ufeffOne\r\nmore\fTwo é\f"))
    assert document.text == "One \nmore\fTwo é"
    assert ingest(at(tmp_path, "b.txt", "Zwei é".encode("utf-16"))).text == "Zwei é"


@pytest.mark.parametrize("name", ["a.txt", "a.docx", "a.html"])
def test_what_has_no_pages_is_parted_by_size_at_the_ends_of_paragraphs(tmp_path: Path, name: str):
    paragraphs = [" ".join(CLAUSE.format(number) for _ in range(8)) for number in range(40)]
    html = "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs)
    data = {"a.txt": "\n\n".join(paragraphs), "a.docx": word(*paragraphs), "a.html": f"<html>{html}</html>"}[
        name
    ]
    document = ingest(at(tmp_path, name, data))
    assert not document.paged
    assert len(document.pages) > 5
    for number, (start, end) in enumerate(document.pages, start=1):
        assert end - start <= PART_CHARACTERS
        assert document.page(number).rstrip().endswith(".")
        assert document.page(number).startswith("The Supplier")


def test_a_page_longer_than_any_printed_one_is_parted_too(tmp_path: Path):
    body = [" ".join(CLAUSE.format(number) for _ in range(8)) for number in range(40)]
    document = ingest(at(tmp_path, "a.docx", word("Cover\f", *body)))
    assert document.paged and document.page(1).strip() == "Cover"
    assert max(end - start for start, end in document.pages) <= PART_CHARACTERS


def test_a_file_is_told_by_what_it_holds_and_not_by_its_name(tmp_path: Path):
    assert ingest(at(tmp_path, "a.txt", pdf(["A page"]))).text == "A page"
    assert ingest(at(tmp_path, "a.pdf", word("A paragraph"))).text.strip() == "A paragraph"
    assert ingest(at(tmp_path, "page", "<!DOCTYPE html><p>Some <b>text")).text == "Some text"
    assert ingest(at(tmp_path, "b.pdf", "plain"), name="other").name == "other"


def bomb() -> bytes:
    """A Word document of a few hundred KB that says of itself that it unpacks to 300 MiB, and does."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(word("x"))) as parts,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as bombed,
    ):
        for name in parts.namelist():
            if name != "word/document.xml":
                bombed.writestr(name, parts.read(name))
        with bombed.open("word/document.xml", "w") as part:
            for _ in range(300):
                part.write(b" " * 2**20)
    return out.getvalue()


def entities() -> bytes:
    """A Word document whose XML multiplies itself ("billion laughs")."""
    out = io.BytesIO()
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10 if n else "ha"}">' for n in range(12))
    xml = f'<?xml version="1.0"?><!DOCTYPE d [{laughs}]><d>&l11;</d>'
    with zipfile.ZipFile(io.BytesIO(word("x"))) as parts, zipfile.ZipFile(out, "w") as bombed:
        for name in parts.namelist():
            bombed.writestr(name, xml if name == "word/document.xml" else parts.read(name))
    return out.getvalue()


def empty_archive() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as parts:
        parts.writestr("a.txt", "a")
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "holds no text"),
        (b" \n\f\n", "holds no text"),
        (b"caf\xe9", "UTF-8"),
        (b"a\0b", "NUL"),
        (b"%PDF-1.7 and nothing of one", "broken, or no PDF"),
        (locked_pdf(), "encrypted"),
        (pdf(["", ""]), "OCR"),
        (b"PK\x03\x04 no archive", "broken"),
        (empty_archive(), "no Word document"),
        (word("x")[:-200], "broken"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1 old", "Word 2007"),
        (saved(docx.Document()), "holds no text"),
        (b"<html><script>1</script></html>", "holds no text"),
        (bomb(), "unpacks to more than"),
        (entities(), "broken|no text"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_file_and_the_reason(
    tmp_path: Path, data: bytes, reason: str
):
    path = at(tmp_path, "given", data)
    with pytest.raises(IngestError, match=reason) as refused:
        ingest(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value)


def test_what_is_no_file_is_refused(tmp_path: Path):
    with pytest.raises(IngestError, match="no such file"):
        ingest(tmp_path / "none")
    with pytest.raises(IngestError, match="no ordinary file"):
        ingest(tmp_path)


@pytest.mark.parametrize(
    ("data", "bounds", "reason"),
    [
        (b"x" * 101, Bounds(file_bytes=100), "101 bytes, and 100 are allowed"),
        (b"a\fb\fc", Bounds(pages=2), "3 pages"),
        (b"x" * 101, Bounds(characters=100), "101 characters"),
        (pdf(["a", "b", "c"]), Bounds(pages=2), "3 pages, and 2 are allowed"),
        (pdf(["a" * 200]), Bounds(characters=100), "200 characters"),
        (word("a" * 200), Bounds(characters=100), "200 characters"),
        (word("a\fb\fc"), Bounds(pages=2), "3 pages"),
    ],
)
def test_what_passes_a_bound_is_refused_with_the_bound(
    tmp_path: Path, data: bytes, bounds: Bounds, reason: str
):
    with pytest.raises(IngestError, match=reason):
        ingest(at(tmp_path, "given", data), bounds=bounds)


def stub(folder: Path, body: str) -> None:
    """A `tools.parsing` that does something else, in place of a parser that a file has broken."""
    package = folder / "tools" / "parsing"
    package.mkdir(parents=True)
    for init in (package.parent, package):
        (init / "__init__.py").touch()
    (package / "__main__.py").write_text(body)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashed on it .SIGSEGV."),
        ("raise ValueError('what it says')", "failed on it: ValueError: what it says"),
        ("import time; time.sleep(60)", "longer than 1 s"),
    ],
)
def test_a_parser_that_crashes_hangs_or_fails_ends_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, reason: str
):
    stub(tmp_path, body)
    monkeypatch.setattr(ingesting, "_ROOT", tmp_path)
    with pytest.raises(IngestError, match=reason):
        ingest(at(tmp_path, "a.pdf", pdf(["a"])), bounds=Bounds(seconds=1))


def test_a_parser_sees_no_secrets_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    stub(
        tmp_path, "import json, os, sys; json.dump({'text': ' '.join(os.environ), 'paged': True}, sys.stdout)"
    )
    monkeypatch.setattr(ingesting, "_ROOT", tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert "OPENAI" not in ingest(at(tmp_path, "a.pdf", pdf(["a"]))).text


def test_memory_is_limited(tmp_path: Path):
    with pytest.raises(IngestError, match=r"memory|failed|crashed"):
        ingest(at(tmp_path, "a.docx", word("a")), bounds=Bounds(memory=48 * 2**20))
