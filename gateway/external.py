"""Models of other providers, through LiteLLM as a library: its router retries, falls back and cools down.

Nothing here is used, and LiteLLM is not even imported, unless the configuration names such a model: importing takes
seconds, and what is asked of these models leaves the operator's network.
"""

import asyncio
import math
import os
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from agents.external import load, said
from gateway.config import ConfigError, ExternalModel
from gateway.errors import ApiError

_PER_MILLION = 1_000_000
_MESSAGE = (
    "role",
    "content",
    "refusal",
    "tool_calls",
    "function_call",
    "annotations",
    "audio",
    "reasoning_content",
)
_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
_DETAILS = {
    "prompt_tokens_details": ("cached_tokens", "audio_tokens"),
    "completion_tokens_details": (
        "reasoning_tokens",
        "audio_tokens",
        "accepted_prediction_tokens",
        "rejected_prediction_tokens",
    ),
}


@dataclass(frozen=True)
class Reply:
    """A whole answer: OpenAI's `choices` and `usage`, who gave it, and what it cost in US dollars (None: not known)."""

    model: str
    provider_model: str
    choices: list[dict[str, Any]]
    usage: dict[str, Any]
    cost: float | None


@dataclass(frozen=True)
class Piece:
    """OpenAI's `choices` of one chunk, and who gives it: the configured model, and what the provider calls it."""

    model: str
    provider_model: str
    choices: list[dict[str, Any]]


def check(models: Sequence[ExternalModel], taken: Collection[str]) -> None:
    """Raises `ConfigError` where a name is `taken` already, or a key is not in the environment."""
    for model in models:
        if model.name in taken:
            raise ConfigError(
                f"external model {model.name}: an agent or the served model is called so; choose another name"
            )
        if model.key_variable is not None and not os.environ.get(model.key_variable):
            raise ConfigError(
                f"external model {model.name}: the environment variable {model.key_variable} is not set"
            )


class External:
    """The configured models, by their public names; without any, it knows no name and does nothing."""

    def __init__(self, models: Sequence[ExternalModel] = ()) -> None:
        self._models = {model.name: model for model in models}
        self._litellm: Any = None
        self._router: Any = None

    async def open(self) -> None:
        """Import LiteLLM, in a thread, if there is anything to ask. Call once, before the first request."""
        if self._models:
            self._litellm = await asyncio.to_thread(load)
            self._router = await asyncio.to_thread(self._make_router, self._litellm)

    async def close(self) -> None:
        """Close the connections to the providers."""
        if self._litellm is not None:
            await self._litellm.close_litellm_async_clients()

    @property
    def names(self) -> tuple[str, ...]:
        """What clients may send as their model."""
        return tuple(self._models)

    def describe(self) -> dict[str, dict[str, Any]]:
        """What is on, for operators: where requests go, and who is asked next."""
        return {
            name: {"model": model.model, "api_base": model.api_base, "fallbacks": list(model.fallbacks)}
            for name, model in self._models.items()
        }

    def configured(self, name: str) -> str:
        """What LiteLLM calls a model of ours."""
        return self._models[name].model

    async def ask(
        self, name: str, body: Mapping[str, Any], *, stream: bool
    ) -> AsyncGenerator[Piece | Reply, None]:
        """Ask the model `name`, with OpenAI's fields in `body`. Yields pieces, if it is a stream, then the whole.

        Raises `ApiError`. Closing the iterator early, or cancelling, ends the request to the provider.
        """
        options = {"stream_options": {"include_usage": True}} if stream else {}
        retries = self._models[name].retries
        try:
            answer = await self._router.acompletion(
                model=name, num_retries=retries, stream=stream, **options, **body
            )
            if not stream:
                yield self._reply(name, answer)
                return
            async with aclosing(answer):
                chunks = []
                async for chunk in answer:
                    chunks.append(chunk)
                    if chunk.choices:
                        yield Piece(*_who(name, chunk), [_chunk_choice(choice) for choice in chunk.choices])
        except Exception as error:  # LiteLLM's own share no base; what is unknown is raised again
            raise self._refusal(name, error) from error
        yield self._reply(name, self._joined(name, chunks))

    def _joined(self, name: str, chunks: list[Any]) -> Any:
        """A whole answer out of its chunks. Raises `ApiError` where the end is missing."""
        if not any(choice.finish_reason for chunk in chunks for choice in chunk.choices):
            raise ApiError(
                502, f"{name} ended its answer before it was complete.", code="upstream_unavailable"
            )
        whole = self._litellm.stream_chunk_builder(chunks)
        whole._hidden_params = {**chunks[0]._hidden_params, **chunks[-1]._hidden_params}  # noqa: SLF001  # as in `_who`
        return whole

    def _reply(self, name: str, answer: Any) -> Reply:
        hidden = answer._hidden_params  # noqa: SLF001  # the only place where LiteLLM says so
        cost = hidden.get("response_cost")
        usage = answer.usage.model_dump(exclude_none=True)
        return Reply(
            *_who(name, answer),
            [_choice(choice) for choice in answer.choices],
            {
                **{key: usage.get(key, 0) for key in _COUNTS},
                **{
                    key: {part: usage[key][part] for part in parts if part in usage[key]}
                    for key, parts in _DETAILS.items()
                    if key in usage
                },
            },
            float(cost) if cost else self._free(hidden.get("model_id", name)),
        )

    def _free(self, name: str) -> float | None:
        """LiteLLM says 0 both for what is free and for what it has no price of; only ours can say that it is free."""
        model = self._models.get(name)
        return 0.0 if model is not None and model.input_price == model.output_price == 0 else None

    def _make_router(self, litellm: Any) -> Any:
        return litellm.Router(
            model_list=[_deployment(model) for model in self._models.values()],
            fallbacks=[
                {name: list(model.fallbacks)} for name, model in self._models.items() if model.fallbacks
            ],
            num_retries=0,  # each request says its own
        )

    def _refusal(self, name: str, error: Exception) -> ApiError:
        """LiteLLM's error as one that a client can act on. Raises `error` itself when it is none of LiteLLM's."""
        kinds = self._litellm.exceptions
        status = getattr(error, "status_code", None)
        if status is None:
            raise error
        words = said(error)
        if (wait := getattr(error, "cooldown_time", None)) is not None:
            message = (
                f"{name} has failed too often and is left alone for a while. Retry after the given time."
            )
            return ApiError(503, message, code="upstream_unavailable", retry_after=max(1, math.ceil(wait)))
        if isinstance(error, kinds.ContextWindowExceededError):
            return ApiError(400, words, code="context_length_exceeded", param="messages")
        if isinstance(error, kinds.ContentPolicyViolationError):
            return ApiError(400, words, code="content_policy_violation", param="messages")
        if isinstance(error, kinds.BadRequestError):
            return ApiError(400, f"{name} refused the request: {words}", code="invalid_value")
        if isinstance(error, kinds.RateLimitError):
            return ApiError(
                429,
                f"{name} is asked too much: {words}",
                code="rate_limit_exceeded",
                retry_after=_wait(error),
            )
        if isinstance(error, kinds.Timeout):
            seconds = self._models[name].timeout_seconds
            return ApiError(504, f"{name} did not answer within {seconds:g} s.", code="timeout")
        if 400 <= status < 500:
            # Our key, our account or our name of the model: nothing that the client could mend, or may see.
            message = (
                f"The provider of {name} refuses this gateway ({status}). An operator must look into it."
            )
            return ApiError(502, message, code="upstream_refused")
        return ApiError(503, f"{name} does not answer: {words}", code="upstream_unavailable", retry_after=5)


def _deployment(model: ExternalModel) -> dict[str, Any]:
    key = os.environ[model.key_variable] if model.key_variable else "none"
    parameters: dict[str, Any] = {
        "model": model.model,
        "api_key": key,
        "timeout": model.timeout_seconds,
        "max_retries": 0,  # of the provider's own client: the router counts its attempts
    }
    if model.api_base is not None:
        parameters["api_base"] = model.api_base
    if model.input_price is not None and model.output_price is not None:
        parameters["input_cost_per_token"] = model.input_price / _PER_MILLION
        parameters["output_cost_per_token"] = model.output_price / _PER_MILLION
    limits = {"allowed_fails": model.cooldown_after, "cooldown_time": model.cooldown_seconds}
    return {
        "model_name": model.name,
        "litellm_params": parameters,
        "model_info": {"id": model.name, **limits},
    }


def _who(name: str, answer: Any) -> tuple[str, str]:
    hidden = answer._hidden_params  # noqa: SLF001  # the only place where LiteLLM says so
    return hidden.get("model_id") or name, hidden.get("provider_response_model") or str(answer.model)


def _choice(choice: Any) -> dict[str, Any]:
    """As OpenAI shapes it: what must be there is there, and nothing of LiteLLM's own."""
    said = choice.message.model_dump(exclude_none=True)
    message = {"content": None, "refusal": None, **{key: said[key] for key in _MESSAGE if key in said}}
    return {"index": choice.index, "message": message, **_end(choice)}


def _chunk_choice(choice: Any) -> dict[str, Any]:
    said = choice.delta.model_dump(exclude_none=True)
    delta = {key: said[key] for key in _MESSAGE if key in said}
    return {"index": choice.index, "delta": delta, **_end(choice)}


def _end(choice: Any) -> dict[str, Any]:
    logprobs: Any = getattr(choice, "logprobs", None)
    shown = logprobs.model_dump() if isinstance(logprobs, BaseModel) else logprobs
    return {"logprobs": shown, "finish_reason": choice.finish_reason}


def _wait(error: Exception) -> int:
    """Seconds, by the provider's `Retry-After` where it sent one."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    given = str(headers.get("retry-after", ""))
    return int(given) if given.isdigit() else 5
