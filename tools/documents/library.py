"""Documents on the disk, per tenant. What is in a library has been read and parted already: searching needs no parser.

    FOLDER/tenant-acme/3f2a90c1d4e5b678/about.json       name, source, when it was added
                                       /text             UTF-8, a form feed between two pages
                                       /vectors-….npz    of its passages, by one embedder

A document's folder is made under another name and renamed, so that nobody sees half of one. Its id is the hash of name
and text: what was cited by an id can be looked up by it for as long as it is there, and adding the same again changes
nothing. Another text under a known name is a new version; by its name, the version that was added last is found.
"""

import hashlib
import json
import os
import re
import shutil
import threading
import zipfile
from collections import OrderedDict
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import numpy as np

from tools.documents.document import Document
from tools.documents.index import Index
from tools.embedding import Embedder, Vectors

_ID = re.compile(r"[0-9a-f]{16}")
_ABOUT, _TEXT = "about.json", "text"


class UnknownDocumentError(Exception):
    """There is no such document, for this tenant. The message says what was asked for and how to find what is there."""


@dataclass(frozen=True)
class Entry:
    """What is known of a document without reading it. `added` is a time in UTC, ISO 8601."""

    id: str
    name: str
    source: str
    paged: bool
    pages: int
    characters: int
    digest: str
    added: str


class Library:
    """A folder of documents. Safe to be used by several threads and processes at once."""

    def __init__(self, folder: Path, embedder: Embedder | None = None, *, kept: int = 32) -> None:
        """`embedder` None: no search for meaning. `kept` documents stay in memory, ready to be searched."""
        self.folder = folder
        self.embedder = embedder
        self._kept = kept
        self._open: OrderedDict[Path, Index] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, document: Document, tenant: str, *, source: str = "") -> Entry:
        """Keep a document; its vectors as well. Returns when both are on the disk.

        Raises `OSError`, and `ToolUnavailableError` where the embedder does not answer: then nothing was added.
        """
        identity = json.dumps([document.name, document.text, document.paged])
        entry = Entry(
            id=hashlib.sha256(identity.encode()).hexdigest()[:16],
            name=document.name,
            source=source,
            paged=document.paged,
            pages=len(document.pages),
            characters=len(document.text),
            digest=document.digest,
            added=datetime.now(UTC).isoformat(),
        )
        index = Index(document)
        folder = self._home(tenant) / entry.id
        made = folder.with_name(f".{entry.id}-{uuid4().hex}")
        made.mkdir(parents=True)
        try:
            _write(made / _TEXT, document.text)
            _write(made / _ABOUT, json.dumps(asdict(entry), indent=1))
            if self.embedder is not None and self._vectors(index, folder) is None:
                vectors = self.embedder.embed(index.texts)
                np.savez(made / self._vectors_name, passages=np.array(index.passages), vectors=vectors)
            _place(made, folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
        return entry

    def entries(self, tenant: str) -> list[Entry]:
        """All documents with all their versions, by name, the newest version of each first."""
        home = self._home(tenant)
        folders = [path for path in home.iterdir() if _ID.fullmatch(path.name)] if home.is_dir() else []
        found = [entry for folder in folders if (entry := _about(folder)) is not None]
        newest_first = sorted(found, key=lambda entry: entry.added, reverse=True)
        return sorted(newest_first, key=lambda entry: entry.name)

    def find(self, document: str, tenant: str) -> Entry:
        """By id, by name, or by the name without its ending where only one has it. Raises `UnknownDocumentError`."""
        if _ID.fullmatch(document) and (entry := _about(self._home(tenant) / document)) is not None:
            return entry
        entries = self.entries(tenant)
        named = [entry for entry in entries if entry.name == document]
        named = named or [entry for entry in entries if _stem(entry.name) == document]
        names = sorted({entry.name for entry in named})
        if len(names) > 1:
            raise UnknownDocumentError(f"several documents are called {document}: {', '.join(names)}")
        if not named:
            raise UnknownDocumentError(f"there is no document {document}: see `flywheel documents list`")
        return named[0]

    def open(self, document: str, tenant: str) -> Index:
        """The document that `find` finds, ready to be searched. Raises `UnknownDocumentError`.

        For meaning only if it has vectors of this library's embedder: else add it again.
        """
        entry = self.find(document, tenant)
        folder = self._home(tenant) / entry.id
        with self._lock:
            index = self._open.get(folder)
        if index is None or (index.vectors is None and self.embedder is not None):  # they may be there by now
            index = self._read(entry, folder)
        with self._lock:
            self._open[folder] = index
            self._open.move_to_end(folder)
            while len(self._open) > self._kept:
                self._open.popitem(last=False)
        return index

    def _read(self, entry: Entry, folder: Path) -> Index:
        try:
            text = (folder / _TEXT).read_bytes().decode()
        except FileNotFoundError as error:
            raise UnknownDocumentError(f"the document {entry.name} has just been removed") from error
        index = Index(Document(entry.name, text, entry.paged))
        index.vectors = self._vectors(index, folder)
        return index

    def remove(self, document: str, tenant: str) -> Entry:
        """Delete the version that `find` finds; by name, older ones stay. Raises `UnknownDocumentError`."""
        entry = self.find(document, tenant)
        folder = self._home(tenant) / entry.id
        gone = folder.with_name(f".{entry.id}-{uuid4().hex}")
        try:
            folder.rename(gone)
        except FileNotFoundError as error:
            raise UnknownDocumentError(f"the document {document} has just been removed") from error
        with self._lock:
            self._open.pop(folder, None)
        shutil.rmtree(gone)
        return entry

    def _home(self, tenant: str) -> Path:
        return self.folder / f"tenant-{quote(tenant, safe='')}"

    def _vectors(self, index: Index, folder: Path) -> Vectors | None:
        """None where there are none of this embedder, or of passages that were cut otherwise."""
        if self.embedder is None:
            return None
        try:
            # NumPy leaves a file that is no archive open, unless the file is ours.
            with (folder / self._vectors_name).open("rb") as file, np.load(file, allow_pickle=False) as kept:
                passages, vectors = kept["passages"], kept["vectors"]
        except (FileNotFoundError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
            return None
        return vectors if np.array_equal(passages, np.array(index.passages)) else None

    @property
    def _vectors_name(self) -> str:
        assert self.embedder is not None, "only an embedder's vectors have a name"
        return f"vectors-{quote(self.embedder.name, safe='')}.npz"


def _write(path: Path, text: str) -> None:
    with path.open("wb") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def _place(made: Path, folder: Path) -> None:
    try:
        made.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        # The same document is there, added before or just now: what is new of it is when, and perhaps its vectors.
        for file in made.iterdir():
            file.replace(folder / file.name)


def _about(folder: Path) -> Entry | None:
    try:
        return Entry(**json.loads((folder / _ABOUT).read_text("utf-8")))
    except FileNotFoundError:
        return None


def _stem(name: str) -> str:
    return re.sub(r"\.[^./]*$", "", name)
