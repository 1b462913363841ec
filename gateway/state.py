"""What the handlers work with: the resources of one gateway, made in the lifespan of the application."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.requests import Request

from agents.manifest import Agent
from feedback.delivery import Delivery
from feedback.store import Keys, Store
from gateway.auth import Auth
from gateway.background import Background
from gateway.config import GatewayConfig
from gateway.external_chat import ExternalChat
from gateway.hot_swap import HotSwap
from gateway.idempotency import Idempotency
from gateway.ingest import Ingest
from gateway.invocation import Invoker
from gateway.keeper import Keeper
from gateway.limits.limits import Limits
from gateway.passthrough.hot_path import Passthrough
from gateway.pool import Pool
from gateway.rating import Rater
from gateway.recorder import Recorder
from gateway.records import Records
from gateway.registry import Registry
from gateway.serving import Serving
from gateway.stored_responses import StoredResponses
from gateway.telemetry import Telemetry
from gateway.telemetry.lag import Lag
from gateway.tooling import Tooling
from gateway.workers.board import Board
from gateway.workers.peers import Peers

if TYPE_CHECKING:
    from gateway.mcp import McpService  # loaded where it is switched on

_FORGET_SECONDS = 2.0  # after which nobody remembers a key anyway


@dataclass(frozen=True)
class Gateway:
    """Everything that a handler may need."""

    config: GatewayConfig
    agents: Mapping[str, Agent]
    delivery: Delivery
    store: Store
    keys: Keys
    auth: Auth
    limits: Limits
    idempotency: Idempotency
    registry: Registry
    serving: Serving
    pool: Pool
    hot_swap: HotSwap
    keeper: Keeper
    recorder: Recorder
    invoker: Invoker
    telemetry: Telemetry
    responses: StoredResponses
    background: Background
    external_chat: ExternalChat
    tooling: Tooling
    mcp: "McpService | None"
    passthrough: Passthrough
    records: Records
    rater: Rater
    ingest: Ingest
    outbox_path: Path
    lag: Lag
    peers: Peers
    board: Board
    created: int

    async def drain(self, seconds: float) -> None:
        """Let what is in progress finish; after `seconds`, end the rest with an error that says so."""
        await asyncio.gather(
            self.invoker.drain(seconds), self.external_chat.drain(seconds), self.passthrough.drain(seconds)
        )

    async def forget_keys(self) -> None:
        """A key has been changed: every worker looks it up again."""
        self.auth.forget()
        await self.peers.tell_all("/forget", seconds=_FORGET_SECONDS)


def gateway_of(request: Request) -> Gateway:
    """The gateway that a request came to."""
    gateway = request.app.state.gateway
    assert isinstance(gateway, Gateway)
    return gateway
