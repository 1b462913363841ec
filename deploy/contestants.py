"""Any model by name, as the loop calls it: served by vLLM, of another provider, at a URL, or scripted."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from agents.external import ExternalModel, window_of
from agents.model import Model
from agents.vllm import VllmModel
from deploy.client import Client
from deploy.errors import FlywheelError
from deploy.settings import Settings
from evaluation import experts
from evaluation.tasks import Task
from feedback.policies import is_base

_SCRIPTED_WINDOW = 10**9  # a script reads whatever it is given


@dataclass(frozen=True)
class Contestant:
    """What answers. `of` makes the model for one task among all; `window` is what it can read, if that is known."""

    of: Callable[[Task, Sequence[Task]], Model]
    window: int | None


async def contestant(
    settings: Settings,
    name: str,
    session: aiohttp.ClientSession,
    *,
    url: str | None,
    key_variable: str | None,
) -> Contestant:
    """The model `name`. Raises `FlywheelError`, which says what there is.

    With `url` it is that of any server that speaks OpenAI's API; else it is `gold` or `wrong` (`evaluation.experts`),
    one of [[external]], or what vLLM serves: the base, a policy that is loaded, or an agent's active one.
    """
    if url is not None:
        key = _key(key_variable) if key_variable else None
        return _always(ExternalModel(name, model=f"openai/{name}", api_base=url, key=key), None)
    if key_variable is not None:
        raise FlywheelError(
            "--key-variable belongs to --url; an [[external]] model has its own in flywheel.toml"
        )
    if name == "gold":
        return Contestant(lambda task, _: experts.gold(task), _SCRIPTED_WINDOW)
    if name == "wrong":
        return Contestant(experts.wrong, _SCRIPTED_WINDOW)
    found = next((model for model in settings.external if model.name == name), None)
    if found is None:
        return await _served(settings, name, session)
    model = ExternalModel(
        name,
        model=found.model,
        api_base=found.api_base,
        key=_key(found.key_variable) if found.key_variable else None,
        seconds=found.timeout_seconds,
        retries=found.retries,
    )
    return _always(model, window_of(found.model))


async def _served(settings: Settings, name: str, session: aiohttp.ClientSession) -> Contestant:
    url = settings.vllm.base_url
    try:
        async with session.get(f"{url}/v1/models") as response:
            listed = {model["id"]: model for model in (await response.json(content_type=None))["data"]}
    except (aiohttp.ClientError, OSError, ValueError, LookupError, TypeError) as error:
        raise FlywheelError(
            f"{name} is not one of [[external]], and no vLLM answers at {url}: start it with `flywheel up`, "
            "or say --url"
        ) from error
    policy = name
    if name not in listed and "@" not in name:
        policy = await _active(settings, name)
    served = settings.vllm.served_name if is_base(policy) else policy
    if served not in listed:
        own = ", ".join(model.name for model in settings.external) or "no models"
        raise FlywheelError(
            f"vLLM does not serve {served}: it has {', '.join(listed)}; [[external]] has {own}"
        )
    model = VllmModel(session, url, name=served, policy=policy)
    return _always(model, listed[served].get("max_model_len") or settings.vllm.max_model_len)


async def _active(settings: Settings, agent: str) -> str:
    """The policy that answers for an agent now; the name itself where there is no such agent."""
    async with Client(settings).opened() as gateway:
        agents: dict[str, Any] = (await gateway.get("/v1/status"))["agents"]
    return str(agents[agent]["active"]) if agent in agents else agent


def _always(model: Model, window: int | None) -> Contestant:
    return Contestant(lambda *_: model, window)


def _key(variable: str) -> str:
    if not (key := os.environ.get(variable)):
        raise FlywheelError(f"the environment variable {variable} is not set")
    return key
