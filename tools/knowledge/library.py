"""The versions of what has been added, in a folder: one of them is served, and going back is naming another.

    VERSION/items.jsonl    each item with its source and its tenant ("" is everybody's)
    VERSION/vectors.npz    the vectors of their texts, where an embedder is set
    VERSION/about.json     when and by which embedder
    active                 the name of the version that is served

A version is named by the digest of its items and its embedder, is never changed, and is there whole or not at all. No
Qdrant folder lies here: Qdrant locks its own for one process, and this is read by many while it is written.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from tools.embedding import Embedder
from tools.knowledge.index import Known
from tools.knowledge.items import Item, KnowledgeError

_BATCH = 64  # texts that are embedded between two reports of progress
_NAME = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True)
class Entry:
    """An item, what it was read from, and whose it is; "" is everybody's."""

    item: Item
    source: str
    tenant: str = ""


@dataclass(frozen=True)
class Version:
    """What one version holds."""

    name: str
    created: datetime
    embedder: str | None
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Change:
    """What an edit did; `version` is served now, `embedded` the number of texts that got a vector."""

    version: str
    added: int
    removed: int
    embedded: int


class Library:
    """A folder of versions. One process writes at a time; any number read meanwhile."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def active(self) -> str | None:
        """The version that is served; None before the first. Raises `KnowledgeError`."""
        try:
            name = (self._folder / "active").read_text("ascii").strip()
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise KnowledgeError(f"{self._folder / 'active'}: {error}") from error
        return name

    def versions(self) -> list[Version]:
        """All of them, the oldest first. Raises `KnowledgeError`."""
        names = [path.name for path in self._folder.glob("*") if _NAME.fullmatch(path.name)]
        return sorted((self.load(name) for name in names), key=lambda version: version.created)

    def load(self, name: str) -> Version:
        """Raises `KnowledgeError` where there is no such version, or it cannot be read."""
        folder = self._folder / name
        if not _NAME.fullmatch(name) or not folder.is_dir():
            raise KnowledgeError(f"there is no version {name}: see `flywheel knowledge versions`")
        try:
            about = json.loads((folder / "about.json").read_text("utf-8"))
            entries = tuple(
                Entry(Item(**line["item"]), line["source"], line["tenant"])
                for line in map(json.loads, (folder / "items.jsonl").read_text("utf-8").splitlines())
            )
            return Version(name, datetime.fromisoformat(about["created"]), about["embedder"], entries)
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise KnowledgeError(f"{folder}: {type(error).__name__}: {error}") from error

    def vectors(self, version: Version, embedder: Embedder | None) -> Known:
        """The vectors of a version's texts, if they are this embedder's. Raises `KnowledgeError`."""
        if embedder is None or version.embedder != embedder.name:
            return {}
        path = self._folder / version.name / "vectors.npz"
        try:
            with np.load(path, allow_pickle=False) as file:
                rows = file["vectors"]
            return dict(zip(_texts(version.entries), rows, strict=True))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise KnowledgeError(f"{path}: {type(error).__name__}: {error}") from error

    def use(self, name: str) -> None:
        """Serve this version from now on. Raises `KnowledgeError`."""
        self.load(name)
        with self._alone():
            self._activate(name)

    def edit(
        self,
        change: Callable[[Sequence[Entry]], Iterable[Entry]],
        embedder: Embedder | None,
        *,
        progress: Callable[[int, int], None] = lambda *_: None,
        before: Callable[[Version, Known], None] = lambda *_: None,
    ) -> Change:
        """Make a version of what `change` makes of the active one's entries, and serve it.

        Only texts without a vector are embedded; `progress` is told how many of how many are. `before` is called with
        the new version before it is served. Raises `KnowledgeError` and `ToolUnavailableError`, with nothing changed.
        """
        with self._alone():
            name = self.active()
            old = None if name is None else self.load(name)
            had = () if old is None else old.entries
            entries = tuple(sorted(change(had), key=lambda entry: (entry.tenant, entry.source)))
            new = Version(
                _digest(entries, embedder), datetime.now(UTC), embedder.name if embedder else None, entries
            )
            known = {} if old is None else dict(self.vectors(old, embedder))
            embedded = _embed(known, _texts(entries), embedder, progress)
            before(new, known)
            if not (self._folder / new.name).is_dir():
                self._write(new, known)
            self._activate(new.name)
        counts, counts_before = Counter(entries), Counter(had)
        added, removed = (counts - counts_before).total(), (counts_before - counts).total()
        return Change(new.name, added, removed, embedded)

    def _write(self, version: Version, known: Known) -> None:
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=self._folder))
        try:
            lines = (json.dumps(asdict(entry), ensure_ascii=True) + "\n" for entry in version.entries)
            (draft / "items.jsonl").write_text("".join(lines), "utf-8")
            about = {"created": version.created.isoformat(), "embedder": version.embedder}
            (draft / "about.json").write_text(json.dumps(about), "utf-8")
            if version.embedder is not None:
                texts = _texts(version.entries)
                np.savez(draft / "vectors.npz", vectors=np.array([known[text] for text in texts], np.float32))
            draft.chmod(0o755)
            draft.rename(self._folder / version.name)
        finally:
            shutil.rmtree(draft, ignore_errors=True)  # still there where writing failed

    def _activate(self, name: str) -> None:
        draft = self._folder / ".active"
        draft.write_text(f"{name}\n", "ascii")
        draft.replace(self._folder / "active")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / "lock").open("w") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise KnowledgeError(f"{self._folder}: {os.strerror(error.errno or 0)}") from error


def _texts(entries: Iterable[Entry]) -> list[str]:
    """The texts to embed, each once, in the order in which their vectors lie in the file."""
    return sorted({entry.item.indexed for entry in entries})


def _embed(
    known: dict[str, np.ndarray],
    texts: list[str],
    embedder: Embedder | None,
    progress: Callable[[int, int], None],
) -> int:
    """Add to `known` what it lacks; how many that were."""
    if embedder is None:
        return 0
    missing = [text for text in texts if text not in known]
    for start in range(0, len(missing), _BATCH):
        batch = missing[start : start + _BATCH]
        known.update(zip(batch, embedder.embed(batch), strict=True))
        progress(start + len(batch), len(missing))
    return len(missing)


def _digest(entries: Sequence[Entry], embedder: Embedder | None) -> str:
    content = repr([asdict(entry) for entry in entries]) + (embedder.name if embedder else "")
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:12]
