"""What the handlers work with: the resources of one gateway, made in the lifespan of the application."""

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import Request

from agents.manifest import Agent
from feedback.outbox import Outbox
from feedback.store import Store
from gateway.auth import Auth
from gateway.config import GatewayConfig
from gateway.hot_swap import HotSwap
from gateway.invocation import Invoker
from gateway.keeper import Keeper
from gateway.passthrough.hot_path import Passthrough
from gateway.pool import Pool
from gateway.recorder import Recorder
from gateway.registry import Registry
from gateway.serving import Serving


@dataclass(frozen=True)
class Gateway:
    """Everything that a handler may need."""

    config: GatewayConfig
    agents: Mapping[str, Agent]
    outbox: Outbox
    store: Store
    auth: Auth
    registry: Registry
    serving: Serving
    pool: Pool
    hot_swap: HotSwap
    keeper: Keeper
    recorder: Recorder
    invoker: Invoker
    passthrough: Passthrough
    created: int


def gateway_of(request: Request) -> Gateway:
    """The gateway that a request came to."""
    gateway = request.app.state.gateway
    assert isinstance(gateway, Gateway)
    return gateway
