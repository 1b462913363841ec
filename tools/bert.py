"""Sentence embeddings by a small BERT in NumPy: no framework to load, so that a gateway stays small and starts fast.

The forward pass of Devlin et al. 2018 (arXiv 1810.04805) with the pooling of Sentence-BERT (arXiv 1908.10084), over the
files of a Hugging Face folder. Texts are not padded: those of a batch are laid end to end, and only attention, which
must not look across their borders, goes through them one by one.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tools.embedding import EmbeddingError, Vectors, unit

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_BATCH_TOKENS = 1_024  # what is computed at once: more leaves the processor's cache
_FILES = ("config.json", "tokenizer.json", "model.safetensors")

Array = NDArray[np.float32]


class BertEmbedder:
    """A folder with a BERT (MiniLM, BGE and E5 are such) as Sentence-Transformers publishes them, in 32-bit floats."""

    def __init__(self, folder: Path) -> None:
        """Load it. Raises `EmbeddingError`."""
        from safetensors import SafetensorError  # noqa: PLC0415  # only where texts are embedded
        from safetensors.numpy import load_file  # noqa: PLC0415  # the same
        from threadpoolctl import ThreadpoolController  # noqa: PLC0415  # only where texts are embedded

        if missing := [name for name in _FILES if not (folder / name).is_file()]:
            raise EmbeddingError(f"no embedding model in {folder}: {', '.join(missing)} missing")
        try:
            config = json.loads((folder / "config.json").read_text("utf-8"))
            _check(config)
            self._tokenizer = _tokenizer(folder / "tokenizer.json")
            self._weights = {
                name.removeprefix("bert."): np.asarray(array, np.float32)
                for name, array in load_file(folder / "model.safetensors").items()
            }
            self._layers = [self._layer(number) for number in range(config["num_hidden_layers"])]
            self._heads, self._epsilon = config["num_attention_heads"], config["layer_norm_eps"]
            self.dimensions = int(config["hidden_size"])
            self._first_token = _pools_first_token(folder)
            self._tokenizer.no_padding()
            self._tokenizer.enable_truncation(_most_tokens(folder, config))
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise EmbeddingError(f"{folder}: {type(error).__name__}: {error}") from error
        # The products are too small to share among cores: two threads were no faster and, waiting for each other beside
        # other work, ten times as slow. Of this process's libraries, only NumPy's own is held to one.
        ThreadpoolController().select(internal_api="openblas").limit(limits=1)
        self.name = f"bert-{_digest(folder / 'model.safetensors')}"

    def embed(self, texts: Sequence[str]) -> Vectors:
        """See `tools.embedding.Embedder.embed`; never unavailable. Beyond the model's length a text is not read."""
        encoded = [
            encoding.ids for encoding in self._tokenizer.encode_batch([_valid(text) for text in texts])
        ]
        vectors = np.zeros((len(texts), self.dimensions), np.float32)
        for batch in _batches([len(ids) for ids in encoded]):
            vectors[batch] = self._forward([encoded[number] for number in batch])
        return unit(vectors)

    def _layer(self, number: int) -> dict[str, Array]:
        """One layer's weights by short names; queries, keys and values as one matrix."""
        prefix = f"encoder.layer.{number}."
        parts = [f"{prefix}attention.self.{part}" for part in ("query", "key", "value")]
        layer = {
            "qkv.weight": np.concatenate([self._weights[f"{part}.weight"] for part in parts]),
            "qkv.bias": np.concatenate([self._weights[f"{part}.bias"] for part in parts]),
        }
        names = {
            "mixed": "attention.output.dense",
            "mixed_norm": "attention.output.LayerNorm",
            "wide": "intermediate.dense",
            "narrow": "output.dense",
            "norm": "output.LayerNorm",
        }
        for short, name in names.items():
            for kind in ("weight", "bias"):
                layer[f"{short}.{kind}"] = self._weights[f"{prefix}{name}.{kind}"]
        return layer

    def _forward(self, batch: list[list[int]]) -> Array:
        """Token ids of some texts → their vectors, (texts, dimensions)."""
        weights = self._weights
        ends = np.cumsum([len(ids) for ids in batch])
        spans = [slice(end - len(ids), end) for end, ids in zip(ends, batch, strict=True)]
        positions = np.concatenate([np.arange(len(ids)) for ids in batch])
        x = weights["embeddings.word_embeddings.weight"][np.concatenate(batch)]
        x = x + weights["embeddings.position_embeddings.weight"][positions]
        x += weights["embeddings.token_type_embeddings.weight"][0]
        x = self._norm(x, weights["embeddings.LayerNorm.weight"], weights["embeddings.LayerNorm.bias"])
        for layer in self._layers:
            x = self._norm(
                x + _linear(self._attend(_linear(x, layer, "qkv"), spans), layer, "mixed"),
                layer["mixed_norm.weight"],
                layer["mixed_norm.bias"],
            )
            wide = _gelu(_linear(x, layer, "wide"))
            x = self._norm(x + _linear(wide, layer, "narrow"), layer["norm.weight"], layer["norm.bias"])
        return np.stack([x[span][0] if self._first_token else x[span].mean(axis=0) for span in spans])

    def _attend(self, qkv: Array, spans: list[slice]) -> Array:
        """(tokens, 3 · dimensions) → (tokens, dimensions), each text looking at itself only."""
        size = self.dimensions // self._heads
        out = np.empty((len(qkv), self.dimensions), np.float32)
        for span in spans:
            q, k, v = qkv[span].reshape(-1, 3, self._heads, size).transpose(1, 2, 0, 3)
            scores = q @ k.transpose(0, 2, 1) * np.float32(size**-0.5)
            np.exp(scores - scores.max(axis=-1, keepdims=True), out=scores)
            scores /= scores.sum(axis=-1, keepdims=True)
            out[span] = (scores @ v).transpose(1, 0, 2).reshape(-1, self.dimensions)
        return out

    def _norm(self, x: Array, weight: Array, bias: Array) -> Array:
        x = x - x.mean(axis=-1, keepdims=True)
        x /= np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + np.float32(self._epsilon))
        x *= weight
        x += bias
        return x


def _batches(lengths: list[int]) -> list[list[int]]:
    """Texts by their numbers, the shortest first, so many at once as have `_BATCH_TOKENS` or one that has more."""
    batches: list[list[int]] = []
    tokens = _BATCH_TOKENS
    for number in sorted(range(len(lengths)), key=lengths.__getitem__):
        tokens += lengths[number]
        if tokens > _BATCH_TOKENS:
            batches.append([])
            tokens = lengths[number]
        batches[-1].append(number)
    return batches


def _linear(x: Array, layer: dict[str, Array], name: str) -> Array:
    y: Array = x @ layer[f"{name}.weight"].T
    y += layer[f"{name}.bias"]
    return y


def _gelu(x: Array) -> Array:
    """By tanh (Hendrycks & Gimpel 2016, arXiv 1606.08415): NumPy has no error function; vectors turn by 0.1 degrees."""
    y = x * x
    y *= np.float32(0.044715)
    y += np.float32(1)
    y *= x
    y *= np.float32((2 / np.pi) ** 0.5)
    np.tanh(y, out=y)
    y += np.float32(1)
    y *= x
    y *= np.float32(0.5)
    return y


def _tokenizer(path: Path) -> "Tokenizer":
    from tokenizers import Tokenizer  # noqa: PLC0415  # only where texts are embedded

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"tokenizer.json: {error}") from error


def _check(config: dict[str, Any]) -> None:
    wanted = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
    for name, value in wanted.items():
        if config.get(name, value if name != "model_type" else None) != value:
            raise ValueError(f"{name} must be {value}, not {config.get(name)}")


def _pools_first_token(folder: Path) -> bool:
    file = folder / "1_Pooling" / "config.json"
    pooling = json.loads(file.read_text("utf-8")) if file.is_file() else {"pooling_mode_mean_tokens": True}
    if pooling.get("pooling_mode_cls_token"):
        return True
    if not pooling.get("pooling_mode_mean_tokens"):
        raise ValueError("pooling must be that of mean tokens or of the first one")
    return False


def _most_tokens(folder: Path, config: dict[str, Any]) -> int:
    file = folder / "sentence_bert_config.json"
    own = json.loads(file.read_text("utf-8")).get("max_seq_length") if file.is_file() else None
    return int(own or config["max_position_embeddings"])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def _valid(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair comes out of JSON
