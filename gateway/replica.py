"""One vLLM server, as its operator sees it: what is loaded, load, unload, and what it thinks of given tokens.

Names and paths are never reused for other weights: vLLM keys its prefix cache by both.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import aiohttp
import orjson

_PROBE_SECONDS = 2.0  # for what vLLM answers without touching the engine
_CONTROL_SECONDS = 60.0  # loading reads a file; measured: up to 0.9 s under load
_SCORE_SECONDS = 60.0  # waits its turn behind the generations in progress


class ReplicaError(Exception):
    """vLLM did not do what was asked. `status` is the HTTP status that fits: 503 when it does not answer, else 502."""

    def __init__(self, message: str, *, status: int = 502) -> None:
        super().__init__(message)
        self.status = status


class Replica:
    """A vLLM server. The caller owns `session`.

    `verified` are the adapters that it has loaded and that score as they should; `outstanding` are the requests that it
    is answering now. Both are kept by others: hot swap and the pool.
    """

    def __init__(self, session: aiohttp.ClientSession, base_url: str) -> None:
        self.verified: set[str] = set()
        self.outstanding = 0
        self._session = session
        self._url = base_url.rstrip("/")

    @property
    def url(self) -> str:
        """Where it is reached, without a slash at the end."""
        return self._url

    async def ready(self) -> bool:
        """Whether vLLM answers and its engine is alive. Never raises."""
        try:
            await self._call("GET", "/health", None, _PROBE_SECONDS)
        except ReplicaError:
            return False
        return True

    async def loaded(self) -> dict[str, str]:
        """The adapters that can be asked for: name → path. Raises `ReplicaError`."""
        answer = await self._call("GET", "/v1/models", None, _PROBE_SECONDS)
        with _expected_shape("/v1/models"):
            models = orjson.loads(answer)["data"]
            return {model["id"]: model["root"] for model in models if model.get("parent") is not None}

    async def load(self, policy: str, path: str) -> None:
        """Load the adapter in the folder `path` under the name `policy`. Raises `ReplicaError`."""
        body = {"lora_name": policy, "lora_path": path}
        await self._call("POST", "/v1/load_lora_adapter", body, _CONTROL_SECONDS)

    async def unload(self, policy: str) -> None:
        """Forget an adapter; requests that still use it fail. Raises `ReplicaError`."""
        await self._call("POST", "/v1/unload_lora_adapter", {"lora_name": policy}, _CONTROL_SECONDS)

    async def score(self, policy: str, prompt: Sequence[int], completion: Sequence[int]) -> list[float]:
        """The logprob (nats) of each completion token after the prompt (not empty). Raises `ReplicaError`."""
        body = {
            "model": policy,
            "prompt": [*prompt, *completion],
            "max_tokens": 1,  # vLLM wants to generate something; it is thrown away
            "temperature": 0,
            "prompt_logprobs": 0,  # of the prompt's own tokens, no alternatives
        }
        answer = await self._call("POST", "/v1/completions", body, _SCORE_SECONDS)
        with _expected_shape("/v1/completions"):
            scored = orjson.loads(answer)
            if scored["model"] != policy:
                raise ReplicaError(f"asked vLLM to score with {policy}, {scored['model']} answered")
            own = scored["choices"][0]["prompt_logprobs"][len(prompt) :]
            return [float(entry[str(token)]["logprob"]) for token, entry in zip(completion, own, strict=True)]

    async def _call(self, method: str, path: str, body: dict[str, Any] | None, seconds: float) -> bytes:
        data = None if body is None else orjson.dumps(body)
        headers = {"content-type": "application/json"}
        timeout = aiohttp.ClientTimeout(total=seconds)
        url = f"{self._url}{path}"
        try:
            async with self._session.request(
                method, url, data=data, headers=headers, timeout=timeout
            ) as response:
                answer = await response.read()
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            reason = str(error) or f"no answer within {seconds:g} s"
            raise ReplicaError(f"vLLM at {self._url} does not answer: {reason}", status=503) from error
        if response.status != 200:
            detail = answer[:500].decode(errors="replace")
            raise ReplicaError(f"vLLM refused {method} {path} with {response.status}: {detail}")
        return answer


@contextmanager
def _expected_shape(path: str) -> Iterator[None]:
    """What vLLM answered is read in here: another version of it may answer otherwise."""
    try:
        yield
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        message = f"vLLM's answer to {path} is not what this gateway knows ({type(error).__name__}: {error})"
        raise ReplicaError(f"{message}. Use the version that the README names.") from error
