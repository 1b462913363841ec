"""What is served: the items of the settings' file and those of the library's active version, in one collection."""

import asyncio
import logging
from pathlib import Path

from tools.embedding import Embedder, EmbeddingOptions, open_embedder
from tools.errors import ToolError
from tools.knowledge.files import read
from tools.knowledge.index import Knowledge, Known
from tools.knowledge.items import Item, KnowledgeError
from tools.knowledge.library import Library, Version

_LOOK_SECONDS = 2.0

_log = logging.getLogger(__name__)


class Shelf:
    """The collection that is served now. A change of the active version is followed; searches go on meanwhile."""

    def __init__(
        self,
        file: Path,
        *,
        library: Path | None = None,
        embedding: EmbeddingOptions | None = None,
        url: str | None = None,
    ) -> None:
        """`file` is the settings' own, `library` a folder of versions, `url` a Qdrant server's. `embedding` None: items
        are found by words alone. Blocking; raises `KnowledgeError`, `ToolError`, `tools.embedding.EmbeddingError`.
        """
        self._file = file
        self._library = None if library is None else Library(library)
        self._embedder = None if embedding is None else open_embedder(embedding)
        self._url = url
        self._version: str | None = None
        self._knowledge = self._indexed(self._active())

    @property
    def current(self) -> Knowledge:
        """What everybody may see. Whoever holds on to it goes on with one version, whatever is served meanwhile."""
        return self._knowledge

    def of(self, tenant: str) -> Knowledge:
        """What a tenant may see: `current`, and its own items."""
        return self._knowledge.of(tenant)

    def refresh(self) -> bool:
        """Serve the active version; whether it is another than before. Blocking; raises as `__init__` does."""
        name = self._active()
        if name == self._version:
            return False
        self._knowledge = self._indexed(name)
        return True

    async def follow(self) -> None:
        """Refresh every two seconds. What cannot be read is logged, and what was served before is served on."""
        said = None
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                if await asyncio.to_thread(self.refresh):
                    _log.info("knowledge version %s is served", self._version)
                said = None
            except (KnowledgeError, ToolError) as error:
                if str(error) != said:
                    _log.error("the active version of the knowledge is not served: %s", error)
                said = str(error)

    def _active(self) -> str | None:
        return None if self._library is None else self._library.active()

    def _indexed(self, name: str | None) -> Knowledge:
        version, known = None, None
        if name is not None and self._library is not None:
            version = self._library.load(name)
            known = self._library.vectors(version, self._embedder)
        knowledge = index(self._file, version, embedder=self._embedder, known=known, url=self._url)
        self._version = name
        return knowledge


def index(
    file: Path,
    version: Version | None,
    *,
    embedder: Embedder | None = None,
    known: Known | None = None,
    url: str | None = None,
) -> Knowledge:
    """The items of the file and of the version, indexed together; what is there twice, once.

    Raises `KnowledgeError` and `ToolError`.
    """
    common = read(file)
    own: dict[str, dict[Item, None]] = {}
    for entry in () if version is None else version.entries:
        own.setdefault(entry.tenant, {})[entry.item] = None
    seen = set(common)
    common += [item for item in own.pop("", {}) if item not in seen]
    seen.update(common)
    owned = {tenant: [item for item in items if item not in seen] for tenant, items in own.items()}
    return Knowledge(common, own=owned, embedder=embedder, known=known, url=url)
