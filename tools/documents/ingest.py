"""A file becomes a document: PDF, Word (.docx), HTML or plain text, told by what it holds and not by its name.

Pages are the file's own where it has any: a PDF's, form feeds in a text, page breaks in Word and HTML. Else the text is
parted by size at the ends of paragraphs. A Word or HTML page that is longer than any printed one (the break after a
cover is the only one) is parted so, too.

PDF, Word and HTML are read in a process of their own, `tools.parsing`, that has limits of memory and time, an
environment without secrets, and may write nothing but its answer.
"""

import json
import signal
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.documents.document import PAGE_END, PART_CHARACTERS, Document, cleaned, parted

_ROOT = Path(__file__).parents[2]  # where `tools` is imported from
_LONGEST_PAGE = 5 * PART_CHARACTERS
_COMPOUND_FILE = b"\xd0\xcf\x11\xe0"  # Office before 2007, and encrypted documents of later ones
_PAGED_BY_WRITER = ("docx", "html")  # whose page breaks may be few


class IngestError(Exception):
    """A file that does not become a document. The message names the file, what is wrong, and the mend where one is."""


@dataclass(frozen=True)
class Bounds:
    """What one file may cost; `seconds` of time and of processor, `memory` bytes of address space."""

    file_bytes: int = 50 * 2**20
    pages: int = 2_000
    characters: int = 10_000_000
    seconds: int = 60
    memory: int = 2 * 2**30


def ingest(path: Path, *, name: str | None = None, bounds: Bounds | None = None) -> Document:
    """Read a file; `name` None: the file's. Raises `IngestError`. Blocks, for seconds where the file is large."""
    bounds = bounds or Bounds()
    name = path.name if name is None else name
    try:
        if not path.is_file():
            raise IngestError(
                f"{path}: {'it is no ordinary file' if path.exists() else 'there is no such file'}"
            )
        size = path.stat().st_size
        if size > bounds.file_bytes:
            raise IngestError(f"{path}: it has {size:,} bytes, and {bounds.file_bytes:,} are allowed")
        kind = _kind(path)
        text, paged = _plain(path) if kind == "text" else _parsed(path, kind, bounds)
    except OSError as error:
        raise IngestError(f"{path}: it cannot be read: {error.strerror}") from error
    if not text.strip():
        raise IngestError(f"{path}: it holds no text")
    if len(text) > bounds.characters or text.count(PAGE_END) >= bounds.pages:
        allowed = f"{bounds.characters:,} characters on {bounds.pages:,} pages are allowed"
        raise IngestError(
            f"{path}: it has {len(text):,} characters on {text.count(PAGE_END) + 1:,} pages: {allowed}"
        )
    text = cleaned(text)
    if not paged:
        text = parted(text)
    elif kind in _PAGED_BY_WRITER:
        text = PAGE_END.join(
            parted(page) if len(page) > _LONGEST_PAGE else page for page in text.split(PAGE_END)
        )
    return Document(name, text, paged)


def _kind(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(1_024)
    if b"%PDF-" in head:
        return "pdf"
    if head.startswith(b"PK\x03\x04"):
        try:
            with zipfile.ZipFile(path) as parts:
                if "word/document.xml" in parts.namelist():
                    return "docx"
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise IngestError(f"{path}: it is broken: {error}") from error
        raise IngestError(f"{path}: it is an archive, but no Word document")
    if head.startswith(_COMPOUND_FILE):
        raise IngestError(
            f"{path}: it is encrypted, or older than Word 2007: save it as .docx or PDF without a password"
        )
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    is_html = path.suffix.lower() in {".html", ".htm", ".xhtml"} or start.startswith(
        (b"<!doctype html", b"<html")
    )
    return "html" if is_html else "text"


def _plain(path: Path) -> tuple[str, bool]:
    data = path.read_bytes()
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        mend = "if it is a text, save it as UTF-8"
        raise IngestError(
            f"{path}: no PDF, Word, HTML or UTF-8 text (byte {error.start:,}): {mend}"
        ) from error
    if "\0" in text:
        raise IngestError(f"{path}: no PDF, Word, HTML or text: it holds NUL characters")
    return text, PAGE_END in text


def _parsed(path: Path, kind: str, bounds: Bounds) -> tuple[str, bool]:
    limits = (bounds.file_bytes, bounds.pages, bounds.characters, bounds.seconds, bounds.memory)
    command = [sys.executable, "-P", "-m", "tools.parsing", kind, *map(str, limits)]
    with path.open("rb") as file, tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as faults:
        try:
            done = subprocess.run(
                command,
                stdin=file,
                stdout=answer,
                stderr=faults,
                env={"PYTHONPATH": str(_ROOT)},
                timeout=bounds.seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise IngestError(f"{path}: reading it takes longer than {bounds.seconds} s") from error
        answer.seek(0)
        faults.seek(0)
        if done.returncode != 0:
            raise IngestError(f"{path}: {_death(done.returncode, faults.read(100_000), bounds)}")
        said: dict[str, Any] = json.load(answer)
    if "error" in said:
        raise IngestError(f"{path}: {said['error']}")
    return said["text"], said["paged"]


def _death(code: int, faults: bytes, bounds: Bounds) -> str:
    if -code in (signal.SIGXCPU, signal.SIGKILL):  # the kernel's, at the end of its processor time
        return f"reading it takes longer than {bounds.seconds} s"
    if code < 0:
        return f"the parser crashed on it ({signal.Signals(-code).name}): it is broken"
    last = faults.decode(errors="replace").strip().splitlines()[-1:]
    return f"the parser failed on it: {last[0] if last else 'without a word'}"
