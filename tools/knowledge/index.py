"""Retrieve what a question needs to be answered: schemas, example queries and heuristics, each with a quota.

The items of a knowledge file live in a Qdrant collection (embedded in the process, or a server by URL) as sparse BM25
vectors: term weights are computed here (Robertson & Zaragoza 2009, k1 = 1.2, b = 0.75), the inverse document frequency
by Qdrant (`Modifier.IDF`).
"""

import hashlib
import json
import re
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import snowballstemmer
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ApiException

from tools.errors import ToolError

Kind = Literal["schemas", "examples", "heuristics"]

_K1, _B = 1.2, 0.75
_WORD = re.compile(r"[a-z0-9]+")
_STOP_WORDS = frozenset(
    "a an and are as at be been by did do does for from give had has have how i in is it its many me much of on or our "
    "please show tell that the their them there these they this to was we were what when which who with you".split()
)


class KnowledgeError(Exception):
    """A knowledge file that cannot be read. The message names the file and the fault."""


@dataclass(frozen=True)
class Item:
    """One piece of knowledge: what goes into the prompt, and further words under which it is found."""

    kind: Kind
    text: str = ""
    question: str = ""
    answer: str = ""
    keywords: str = ""

    @property
    def indexed(self) -> str:
        """The words under which the item is found."""
        return f"{self.text} {self.question} {self.keywords}"


@dataclass(frozen=True)
class Context:
    """What was retrieved for one question, best first."""

    schemas: tuple[Item, ...]
    examples: tuple[Item, ...]
    heuristics: tuple[Item, ...]


def read(path: Path) -> list[Item]:
    """The items of a knowledge file (TOML tables `schemas`, `examples`, `heuristics`). Raises `KnowledgeError`."""
    try:
        data = tomllib.loads(path.read_text("utf-8"))
        return [
            Item(
                kind=kind,
                text=_text(entry, "text"),
                question=_text(entry, "question"),
                answer=_answer(entry),
                keywords=_text(entry, "keywords"),
            )
            for kind in get_args(Kind)
            for entry in data[kind]
        ]
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise KnowledgeError(f"{path}: {type(error).__name__}: {error}") from error


def _text(entry: dict[str, Any], name: str) -> str:
    value = entry.get(name, "")
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text, not {value!r}")
    return value


def _answer(entry: dict[str, str]) -> str:
    """An example's answer in the form in which a model gives it."""
    answer = {key: entry[key] for key in ("sql", "refusal") if key in entry}
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":")) if answer else ""


class Knowledge:
    """A searchable collection. Searching is safe from several threads; one instance per process."""

    def __init__(self, items: list[Item], *, url: str | None = None, collection: str = "knowledge") -> None:
        """Index `items` in the process (`url` None) or on the Qdrant server at `url`, under a name that holds their
        digest, so that two versions never mix.
        """
        content = repr([asdict(item) for item in items]).encode()
        self.digest = hashlib.sha256(content).hexdigest()[:12]
        self._name = f"{collection}-{self.digest}"
        self._search = lru_cache(maxsize=4_096)(self._find)  # the collection of a digest never changes
        self._client = QdrantClient(url=url) if url else QdrantClient(":memory:")
        if not self._client.collection_exists(self._name):
            self._index(items)

    def _index(self, items: list[Item]) -> None:
        lengths = [len(_words(item.indexed)) for item in items]
        average = sum(lengths) / max(len(lengths), 1)
        self._client.create_collection(
            self._name,
            vectors_config={},
            sparse_vectors_config={"bm25": models.SparseVectorParams(modifier=models.Modifier.IDF)},
        )
        points = []
        for number, (item, length) in enumerate(zip(items, lengths, strict=True)):
            norm = _K1 * (1 - _B + _B * length / average)
            counts = Counter(_words(item.indexed))
            vector = _sparse({word: n * (_K1 + 1) / (n + norm) for word, n in counts.items()})
            points.append(models.PointStruct(id=number, vector={"bm25": vector}, payload=asdict(item)))
        if points:
            self._client.upsert(self._name, points)

    def search(self, query: str, quotas: Mapping[Kind, int]) -> Context:
        """The best items of each kind, at most `quotas[kind]` of it. Raises `ToolError` when the server is away."""
        return self._search(query, tuple((kind, quotas.get(kind, 0)) for kind in get_args(Kind)))

    def _find(self, query: str, quotas: tuple[tuple[Kind, int], ...]) -> Context:
        vector = _sparse(Counter(_words(query)))
        return Context(**{kind: self._best(kind, vector, limit) for kind, limit in quotas})

    def _best(self, kind: Kind, vector: models.SparseVector, limit: int) -> tuple[Item, ...]:
        if limit == 0:
            return ()
        condition = models.FieldCondition(key="kind", match=models.MatchValue(value=kind))
        try:
            answer = self._client.query_points(
                self._name,
                query=vector,
                using="bm25",
                query_filter=models.Filter(must=[condition]),
                limit=limit,
            )
        except (OSError, ApiException) as error:
            raise ToolError(f"the knowledge base does not answer: {error}") from error
        return tuple(Item(**_payload(point.payload)) for point in answer.points)


def _words(text: str) -> list[str]:
    # It holds the word that it works on: threads that share one search for one another's words.
    stemmer = snowballstemmer.stemmer("english")
    return [stemmer.stemWord(word) for word in _WORD.findall(text.lower()) if word not in _STOP_WORDS]


def _payload(payload: dict[str, Any] | None) -> dict[str, Any]:
    assert payload is not None, "every point is written with its item"
    return payload


def _sparse(weights: Mapping[str, float]) -> models.SparseVector:
    """Words as 32-bit indices: a collision only blurs a score, and no vocabulary has to be kept."""
    indices = {
        int.from_bytes(hashlib.blake2s(word.encode(), digest_size=4).digest()): w
        for word, w in weights.items()
    }
    return models.SparseVector(indices=list(indices), values=list(indices.values()))
