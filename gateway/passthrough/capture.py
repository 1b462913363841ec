"""What vLLM generates, read once: collected for the record, and put into the client's form on the way.

The client is shown the request's own id, the name that it asked for, and no token ids or logprobs unless it asked. A
stream's last chunk (the one by which every choice is finished) and all behind it are held back until the record is on
the disk.
"""

import time
from collections.abc import Sequence
from typing import Any

import orjson

from agents.model import ModelError
from gateway.errors import ApiError
from gateway.metering import Used
from gateway.passthrough.request import Asked
from gateway.sse import frame

_EVENT = b"data: "
_DONE = b"data: [DONE]"
_LINES = b"\n\n"


class Choice:
    """One of the answers, so far."""

    __slots__ = (
        "finish_reason",
        "logprobs",
        "prompt",
        "reasoning",
        "spelled",
        "text",
        "tokens",
        "tool_calls",
    )

    def __init__(self) -> None:
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.tool_calls: dict[int, dict[str, Any]] = {}
        self.prompt: list[int] = []
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.spelled: list[str] = []  # how the server spells each token, where that is recorded
        self.finish_reason: str | None = None

    def add_delta(self, delta: dict[str, Any]) -> None:
        """A piece of a chat message, or the whole of one."""
        if text := delta.get("content"):
            self.text.append(text)
            if len(delta) == 1:  # most pieces of most streams
                return
        if reasoning := delta.get("reasoning") or delta.get("reasoning_content"):
            self.reasoning.append(reasoning)
        for position, piece in enumerate(delta.get("tool_calls") or ()):
            call = self.tool_calls.setdefault(
                piece.get("index", position),
                {"id": None, "type": "function", "function": {"name": "", "arguments": ""}},
            )
            call["id"] = piece.get("id") or call["id"]
            function = piece.get("function") or {}
            call["function"]["name"] += function.get("name") or ""
            call["function"]["arguments"] += function.get("arguments") or ""


class Capture:
    """Everything that one request generates. `first` is when the first token came, by `time.perf_counter`.

    What `whole` and `feed` take in, `end` completes for the client, and `failed` breaks off: once it is recorded, if it
    could be. `order`: see `feedback.events.Turn.output`.
    """

    order: Sequence[str] = ()

    def __init__(self, asked: Asked, *, request_id: str, model: str, policy: str) -> None:
        self.choices = [Choice() for _ in range(asked.choices)]
        self.first: float | None = None
        self._held = b""
        self._asked = asked
        self._served = asked.upstream["model"]
        self._chat = asked.endpoint.operation == "chat"
        self._named = {"id": request_id, "model": model, "system_fingerprint": policy}
        self._unfinished = asked.choices
        self._head = b""
        self._end = b'}],"usage":null}\n\n' if asked.include_usage else b"}]}\n\n"
        self._said = b"delta" if self._chat else b"text"
        self._buffer = b""

    def whole(self, data: bytes) -> None:
        """Take in an answer that came in one piece. Raises `ModelError`."""
        try:
            answer = orjson.loads(data)
            self._check_model(answer)
            prompt = answer.get("prompt_token_ids") or []
            choices = [self._whole_choice(choice, prompt) for choice in answer["choices"]]
            shown = {
                **self._named,
                "object": answer["object"],
                "created": answer["created"],
                "choices": choices,
                "usage": {name: value for name, value in answer["usage"].items() if value is not None},
            }
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ModelError("the model server sent a malformed answer", status=502) from error
        if self._asked.token_ids:
            shown["prompt_token_ids"] = prompt
        self.first = time.perf_counter()
        self.check_complete()
        self._held = orjson.dumps(shown)

    def _whole_choice(self, choice: dict[str, Any], prompt: list[int]) -> dict[str, Any]:
        kept = self.choices[choice["index"]]
        kept.prompt = prompt or choice.get("prompt_token_ids") or []
        shown: dict[str, Any] = {"index": choice["index"]}
        if self._chat:
            message = choice["message"]
            kept.add_delta(message)
            shown["message"] = {
                "role": "assistant",
                "content": message.get("content"),
                "refusal": message.get("refusal"),
                **{name: message[name] for name in ("tool_calls", "reasoning") if message.get(name)},
            }
        else:
            kept.text.append(choice["text"])
            shown["text"] = choice["text"]
        shown["logprobs"] = self._take(kept, choice)
        shown["finish_reason"] = kept.finish_reason = choice["finish_reason"]
        if self._asked.token_ids:
            shown["token_ids"] = choice.get("token_ids")
        return shown

    def _take(self, kept: Choice, choice: dict[str, Any]) -> dict[str, Any] | None:
        """Token ids and logprobs of a choice or a chunk; what the client is shown of the latter."""
        if tokens := choice.get("token_ids"):
            kept.tokens += tokens
        logprobs: dict[str, Any] | None = choice.get("logprobs")
        if not logprobs:
            return None
        if self._chat:
            entries = logprobs["content"] or []
            if len(entries) == 1:  # most chunks of most streams
                kept.logprobs.append(entries[0]["logprob"])
            else:
                kept.logprobs += [entry["logprob"] for entry in entries]
            return {**logprobs, "refusal": None} if self._asked.logprobs else None
        kept.logprobs += logprobs["token_logprobs"]
        return logprobs if self._asked.logprobs else None

    def feed(self, data: bytes) -> bytes:
        """Take in a piece of a stream; return what the client may have now. Raises `ModelError`."""
        data = self._buffer + data if self._buffer else data
        end = data.rfind(_LINES)
        if end < 0:
            self._buffer = data
            return b""
        self._buffer = data[end + 2 :]
        try:
            return b"".join([self._chunk(chunk) for chunk in _chunks(data[:end])])
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ModelError("the model server sent a malformed chunk", status=502) from error

    def end(self, _event: bytes | None) -> bytes:
        """What is left to send of a complete answer. `_event` is its record, encoded."""
        return self._held + b"data: [DONE]\n\n" if self._asked.stream else self._held

    def failed(self, error: ApiError, _event: bytes | None) -> bytes:
        """What ends a stream that has begun and cannot be completed. `_event` is None where it was not recorded."""
        return frame(error.body())

    def _chunk(self, chunk: dict[str, Any]) -> bytes:
        """One chunk in the client's form; empty when it is held back, or when it says nothing to the client."""
        choices = chunk.get("choices")
        if not choices:
            return self._last_words(chunk)
        if not self._head:
            self._begin(chunk)
        prompt = chunk.get("prompt_token_ids")
        shown = b""
        for choice in choices:
            index = choice["index"]
            kept = self.choices[index]
            if prompt or "prompt_token_ids" in choice:
                kept.prompt = prompt or choice["prompt_token_ids"] or kept.prompt
            finish_reason = choice.get("finish_reason")
            if self._chat:
                delta = choice["delta"]
                kept.add_delta(delta)
            else:
                delta = choice["text"]
                kept.text.append(delta)
            logprobs = self._take(kept, choice)
            if not delta and finish_reason is None and logprobs is None and not self._asked.token_ids:
                continue  # vLLM sends it for the token ids alone
            shown += b'%b%d,"%b":%b,"logprobs":%b,"finish_reason":%b%b' % (
                self._head,
                index,
                self._said,
                orjson.dumps(delta),
                b"null" if logprobs is None else orjson.dumps(logprobs),
                b"null" if finish_reason is None else orjson.dumps(finish_reason),
                self._ids(prompt, choice) if self._asked.token_ids else self._end,
            )
            if finish_reason is not None and kept.finish_reason is None:
                kept.finish_reason = finish_reason
                self._unfinished -= 1
        if self._unfinished:
            return shown
        self._held += shown
        return b""

    def _begin(self, chunk: dict[str, Any]) -> None:
        self._check_model(chunk)
        self.first = time.perf_counter()
        head = {**self._named, "object": chunk["object"], "created": chunk["created"]}
        self._head = _EVENT + orjson.dumps(head)[:-1] + b',"choices":[{"index":'

    def _last_words(self, chunk: dict[str, Any]) -> bytes:
        if "error" in chunk:
            raise ModelError(
                f"the model server failed: {chunk['error'].get('message', 'no reason given')}", status=502
            )
        if self._asked.include_usage and chunk.get("usage"):
            usage = {name: value for name, value in chunk["usage"].items() if value is not None}
            head = {**self._named, "object": chunk["object"], "created": chunk["created"]}
            self._held += _EVENT + orjson.dumps({**head, "choices": [], "usage": usage}) + _LINES
        return b""

    def _ids(self, prompt: list[int] | None, choice: dict[str, Any]) -> bytes:
        """The end of a chunk for a client that asked for token ids: vLLM gives a chat's prompt beside the choices."""
        within = {
            name: choice[name] for name in ("token_ids", "prompt_token_ids") if choice.get(name) is not None
        }
        beside = {"prompt_token_ids": prompt} if prompt else {}
        end = [b"," + orjson.dumps(one)[1:-1] if one else b"" for one in (within, beside)]
        return end[0] + b"}]" + end[1] + self._end.removeprefix(b"}]")

    def _check_model(self, answer: dict[str, Any]) -> None:
        if "error" in answer:
            raise ModelError(
                f"the model server failed: {answer['error'].get('message', 'no reason given')}", status=502
            )
        if answer.get("model") != self._served:
            raise ModelError(f"asked {self._served}, answered by {answer.get('model')}", status=502)

    def used(self) -> Used:
        """Tokens so far. Several choices share one prompt, which is read once."""
        each = self._asked.upstream.get("n", 1)
        prompts = range(0, len(self.choices), each)
        read = sum(max(len(choice.prompt) for choice in self.choices[at : at + each]) for at in prompts)
        return Used(read, sum(len(choice.tokens) for choice in self.choices))

    def check_complete(self) -> None:
        """Raises `ModelError` unless every choice is whole and exact: what cannot be recorded is not given."""
        for choice in self.choices:
            if choice.finish_reason is None:
                raise ModelError("the model server ended the answer before it was complete", status=502)
            if len(choice.tokens) != len(choice.logprobs):
                said = f"{len(choice.tokens)} tokens and {len(choice.logprobs)} logprobs"
                raise ModelError(f"the model server sent {said}: its answer cannot be recorded", status=502)


def _chunks(data: bytes) -> list[dict[str, Any]]:
    """The JSON of complete server-sent events. JSON's strings hold no line feed: what a model says forges no event."""
    if data.endswith(_DONE):
        data = data[: -len(_DONE)].removesuffix(_LINES)
    if not data:
        return []
    try:
        if data.find(_LINES) < 0:
            return [orjson.loads(data.removeprefix(_EVENT))]
        chunks: list[dict[str, Any]] = orjson.loads(
            b"[%b]" % data.removeprefix(_EVENT).replace(b"\n\ndata: ", b",")
        )
    except (
        orjson.JSONDecodeError
    ):  # comments, other line ends, data without the blank: allowed, but vLLM sends none
        lines = [line[5:].strip() for line in data.splitlines() if line.startswith(b"data:")]
        chunks = [orjson.loads(line) for line in lines if line != b"[DONE]"]
    return chunks
