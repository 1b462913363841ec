"""A searchable collection in Qdrant: in this process, or on a server.

Each item is a point with a sparse BM25 vector and, where there is an embedder, a dense one; a hybrid search asks for
both and fuses their ranks (reciprocal rank fusion, Cormack et al. 2009; Qdrant's own). Within this process Qdrant keeps
all in memory and scans it, which does for some thousand items; beyond, a server is the way.
"""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ApiException

from tools.embedding import Embedder
from tools.errors import ToolError, ToolUnavailableError
from tools.knowledge import bm25
from tools.knowledge.items import Context, Item, Kind
from tools.words import words

Known = Mapping[str, NDArray[np.float32]]  # vectors that need not be made again, by the text that they are of

_BATCH = 256  # points that go to a server at once
_CANDIDATES = 20  # of either ranking, where fewer are asked for


class Knowledge:
    """A collection that does not change, as one tenant sees it. Searching is safe from several threads, and blocks."""

    def __init__(
        self,
        items: Sequence[Item],
        *,
        own: Mapping[str, Sequence[Item]] | None = None,
        embedder: Embedder | None = None,
        known: Known | None = None,
        url: str | None = None,
        collection: str = "knowledge",
    ) -> None:
        """Index `items`, which every tenant sees, and each tenant's `own`, in the process (`url` None) or on the Qdrant
        server at `url`, under a name that holds their digest, so that two versions never mix.

        `embedder` None: found by words alone. Raises `ToolError` when the server or the embedder is away.
        """
        own = own or {}
        self.digest = _digest(items, own, embedder)
        self.tenant = ""
        self._own = frozenset(own)
        self._embedder = embedder
        self._name = f"{collection}-{self.digest}"
        self._search = lru_cache(maxsize=4_096)(self._find)  # the collection of a digest never changes
        owned = [(tenant, item) for tenant in sorted(own) for item in own[tenant]]
        try:
            # Its check of versions is a thread that only warns, and may outlive its client.
            self._client = (
                QdrantClient(url=url, check_compatibility=False) if url else QdrantClient(":memory:")
            )
            if self._lacks(len(items) + len(owned)):
                self._index([("", item) for item in items] + owned, known or {}, on_server=url is not None)
        except (OSError, ApiException, ToolUnavailableError) as error:
            raise _away(error) from error

    def of(self, tenant: str) -> "Knowledge":
        """The same collection as `tenant` sees it: the common items and its own."""
        view = copy.copy(self)
        view.tenant = (
            tenant if tenant in self._own else ""
        )  # who has no own items shares what was found before
        return view

    def search(self, query: str, quotas: Mapping[Kind, int]) -> Context:
        """The best items of each kind, at most `quotas[kind]` of it.

        Raises `ToolError` when the server or the embedder is away.
        """
        wanted = tuple((kind, quotas.get(kind, 0)) for kind in get_args(Kind))
        try:
            return self._search(query, wanted, self.tenant)
        except (OSError, ApiException, ToolUnavailableError) as error:
            raise _away(error) from error

    def _find(self, query: str, quotas: tuple[tuple[Kind, int], ...], tenant: str) -> Context:
        sparse = bm25.query(query)
        dense = None if self._embedder is None else self._embedder.embed([query])[0].tolist()
        return Context(**{kind: self._best(kind, tenant, sparse, dense, limit) for kind, limit in quotas})

    def _best(
        self, kind: Kind, tenant: str, sparse: models.SparseVector, dense: list[float] | None, limit: int
    ) -> tuple[Item, ...]:
        if limit == 0:
            return ()
        of_kind = _is("kind", kind)
        visible = [_is("tenant", "", tenant)] if self._own else []
        filter_ = models.Filter(must=[of_kind, *visible])
        # Else what is rare would depend on the texts of other tenants.
        idf = models.IdfCorpusParams(corpus=models.Filter(must=visible)) if self._own else None
        params = models.SearchParams(idf=idf) if idf else None
        if dense is None:
            answer = self._client.query_points(
                self._name,
                query=sparse,
                using="bm25",
                query_filter=filter_,
                search_params=params,
                limit=limit,
            )
        else:
            most = max(_CANDIDATES, 4 * limit)
            answer = self._client.query_points(
                self._name,
                prefetch=[
                    models.Prefetch(query=sparse, using="bm25", filter=filter_, params=params, limit=most),
                    models.Prefetch(query=dense, using="dense", filter=filter_, limit=most),
                ],
                query=models.FusionQuery(fusion=models.Fusion.RRF),
                limit=limit,
            )
        return tuple(_item(point.payload) for point in answer.points)

    def _lacks(self, number: int) -> bool:
        """Whether the collection is not there, or was left half written."""
        return (
            not self._client.collection_exists(self._name)
            or self._client.count(self._name, exact=True).count != number
        )

    def _index(self, owned: list[tuple[str, Item]], known: Known, *, on_server: bool) -> None:
        """Write all points; by whom else the same is written at the same time does not matter."""
        average = _average([item for tenant, item in owned if not tenant])
        averages = {
            tenant: _average([item for t, item in owned if t in ("", tenant)]) for tenant in self._own
        }
        dense = _dense([item.indexed for _, item in owned], self._embedder, known)
        self._create(dense, on_server=on_server)
        points = []
        for number, (tenant, item) in enumerate(owned):
            vectors: dict[str, Any] = {"bm25": bm25.document(item.indexed, averages.get(tenant, average))}
            if dense is not None:
                vectors["dense"] = dense[number].tolist()
            payload = asdict(item) | ({"tenant": tenant} if self._own else {})
            points.append(models.PointStruct(id=number, vector=vectors, payload=payload))
        for start in range(0, len(points), _BATCH):
            self._client.upsert(self._name, points[start : start + _BATCH])

    def _create(self, dense: NDArray[np.float32] | None, *, on_server: bool) -> None:
        try:
            self._client.create_collection(
                self._name,
                vectors_config={}
                if dense is None
                else {"dense": models.VectorParams(size=dense.shape[1], distance=models.Distance.DOT)},
                sparse_vectors_config={"bm25": models.SparseVectorParams(modifier=models.Modifier.IDF)},
            )
        except (ApiException, ValueError):
            if not self._client.collection_exists(self._name):
                raise
            return  # another process was faster, or was killed before all was written
        if on_server:  # what is filtered by; in the process there are no indexes
            tenants = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
            self._client.create_payload_index(self._name, "kind", models.PayloadSchemaType.KEYWORD)
            self._client.create_payload_index(self._name, "tenant", tenants)


def _digest(items: Sequence[Item], own: Mapping[str, Sequence[Item]], embedder: Embedder | None) -> str:
    content = repr([asdict(item) for item in items])
    if own:
        content += repr([(tenant, [asdict(item) for item in own[tenant]]) for tenant in sorted(own)])
    if embedder is not None:
        content += embedder.name
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def _away(error: Exception) -> ToolError:
    return ToolError(f"the knowledge base does not answer: {error}")


def _average(items: Sequence[Item]) -> float:
    return sum(len(words(item.indexed)) for item in items) / max(len(items), 1)


def _dense(texts: list[str], embedder: Embedder | None, known: Known) -> NDArray[np.float32] | None:
    if embedder is None:
        return None
    missing = sorted({text for text in texts if text not in known})
    vectors = dict(known) | dict(zip(missing, embedder.embed(missing), strict=True))
    return (
        np.stack([vectors[text] for text in texts])
        if texts
        else np.zeros((0, embedder.dimensions), np.float32)
    )


def _is(key: str, *values: str) -> models.FieldCondition:
    return models.FieldCondition(key=key, match=models.MatchAny(any=list(values)))


def _item(payload: dict[str, Any] | None) -> Item:
    assert payload is not None, "every point is written with its item"
    return Item(**{name: value for name, value in payload.items() if name != "tenant"})
