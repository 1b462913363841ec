"""A model of another provider as the loop calls it, through LiteLLM as a library.

LiteLLM is not imported before the first call: importing takes seconds, and whoever asks nobody else needs none of it.
"""

import asyncio
import logging
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from typing import Any

from agents.model import Delta, ModelError, ModelRequest
from feedback.events import ModelCall, Usage, new_id
from tools.tool import ToolSpec


class ExternalModel:
    """One model, by the name that LiteLLM has for it (`openai/gpt-5`; with `api_base` any server that speaks OpenAI's).

    Its record is whole but for the tokens: providers give neither ids nor, reliably, log-probabilities, so there are
    none in it, and `usage` says how many they counted. An answer comes in one piece: its first token is as late as its
    last.
    """

    def __init__(
        self,
        name: str,
        *,
        model: str,
        api_base: str | None = None,
        key: str | None = None,
        seconds: float = 60.0,
        retries: int = 2,
    ) -> None:
        """`key` None: none is needed. `seconds` is the longest wait for one of the 1 + `retries` attempts."""
        self.policy = name
        self._seconds = seconds
        self._options = {
            "model": model,
            "api_base": api_base,
            "api_key": key or "none",
            "timeout": seconds,
            "num_retries": retries,
            "max_retries": 0,  # of the provider's own client
        }

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta | ModelCall]:
        """See `agents.model.Model.stream`. Cancelling ends the request to the provider."""
        litellm = await asyncio.to_thread(load)
        began, started = datetime.now(UTC), time.perf_counter()
        try:
            answer = await litellm.acompletion(**self._options, **_body(request))
        except Exception as error:  # LiteLLM's own share no base; what is unknown is raised again
            raise self._refusal(litellm, error) from error
        latency = time.perf_counter() - started
        choice, usage = answer.choices[0], answer.usage
        text = choice.message.content or ""
        if text:
            yield Delta(text)
        yield ModelCall(
            policy=self.policy,
            messages=request.messages,
            response_schema=request.response_schema,
            sampling=request.sampling,
            text=text,
            reasoning=getattr(choice.message, "reasoning_content", None),
            tool_calls=_told_apart(choice.message.tool_calls or ()),
            prompt_token_ids=(),
            completion_token_ids=(),
            logprobs=(),
            usage=Usage(prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens),
            finish_reason=choice.finish_reason,
            started=began,
            time_to_first_token=latency,
            latency=latency,
        )

    def _refusal(self, litellm: Any, error: Exception) -> ModelError:
        """LiteLLM's error as the loop knows it. Raises `error` itself when it is none of LiteLLM's."""
        kinds, status = litellm.exceptions, getattr(error, "status_code", None)
        if status is None:
            raise error
        words = f"{self.policy}: {said(error)}"
        if isinstance(error, kinds.ContextWindowExceededError):
            return ModelError(words, status=400, code="context_length_exceeded")
        if isinstance(error, kinds.ContentPolicyViolationError):
            return ModelError(words, status=400, code="content_policy_violation")
        if isinstance(error, kinds.BadRequestError):
            return ModelError(words, status=400, code="invalid_value")
        if isinstance(error, kinds.RateLimitError):
            return ModelError(words, status=429, code="rate_limit_exceeded")
        if isinstance(error, kinds.Timeout):
            return ModelError(
                f"{self.policy} did not answer within {self._seconds:g} s", status=504, code="timeout"
            )
        if 400 <= status < 500:
            return ModelError(words, status=502, code="upstream_refused")
        return ModelError(words, status=503)


def _body(request: ModelRequest) -> dict[str, Any]:
    sampling = request.sampling
    body: dict[str, Any] = {
        "messages": [message.model_dump(mode="json", exclude={"reasoning"}) for message in request.messages],
        "temperature": sampling.temperature,
        "max_tokens": sampling.max_tokens,
    }
    if sampling.top_p != 1:
        body["top_p"] = sampling.top_p
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if request.response_schema is not None:
        schema = {"name": "answer", "strict": True, "schema": request.response_schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if request.tools:
        body["tools"] = [_tool(spec) for spec in request.tools]
        body["tool_choice"] = request.tool_choice
    return body


def _told_apart(made: Iterable[Any]) -> tuple[dict[str, Any], ...]:
    """Tool calls, each with an id of its own, which not every provider gives them."""
    calls: dict[str, dict[str, Any]] = {}
    for call in made:
        name = call.id if call.id and call.id not in calls else new_id("call_")
        calls[name] = {**call.model_dump(exclude_none=True), "id": name}
    return tuple(calls.values())


def _tool(spec: ToolSpec) -> dict[str, Any]:
    function = {"name": spec.name, "description": spec.description, "parameters": dict(spec.parameters)}
    return {"type": "function", "function": function}


def load() -> Any:
    """LiteLLM, imported so that it asks nobody for anything. Takes seconds the first time."""
    # Else importing asks public hosts for lists of prices and of headers, and tokenizers are downloaded.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    os.environ["LITELLM_OFFLINE_MODE"] = "true"
    import litellm  # noqa: PLC0415  # takes 3 s: only where it is needed

    litellm.suppress_debug_info = True
    # What fails is told to the client, and recorded; what people write is not logged.
    for name in ("LiteLLM", "LiteLLM Router"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return litellm


async def close() -> None:
    """Close the connections that LiteLLM has open for this event loop; nothing where it was never imported."""
    if (litellm := sys.modules.get("litellm")) is not None:
        await litellm.close_litellm_async_clients()


def window_of(model: str) -> int | None:
    """How many tokens a model reads, as LiteLLM's list has it; None where it is not on it. Takes seconds."""
    litellm = load()
    try:
        window = litellm.get_model_info(model).get("max_input_tokens")
    except Exception:  # noqa: BLE001  # a bare Exception is what it raises for a model that it does not know
        return None
    return int(window) if window else None


def said(error: Exception) -> str:
    """The provider's own words, without the names of LiteLLM's classes before and its advice behind them."""
    text = re.split(r"\n\nLiteLLM:|\nmodel=", str(getattr(error, "message", error)))[0]
    return text.rpartition("Exception - ")[2].strip()[:500] or type(error).__name__
