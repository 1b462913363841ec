"""The composition root: `create_app(config)` wires the gateway; what must be closed is opened in the lifespan."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
from fastapi import FastAPI

from agents.manifest import Agent
from feedback import outboxes
from feedback.bus.base import Bus, BusError
from feedback.bus.kafka import kafka_bus
from feedback.bus.local import LocalBus
from feedback.collector import Collector
from feedback.delivery import Delivery, delivering
from feedback.delivery_process import delivering_apart
from feedback.outbox import Outbox
from feedback.redaction import Redactor, redacting
from feedback.relay import Relay
from feedback.store import BackgroundResponses, Deletions, Keys, Ratings, Replies, Store, Usage
from feedback.store.retention import Retention
from gateway import errors, external, manifests
from gateway.auth import Auth
from gateway.background import HOLD, KEEP, Background
from gateway.config import ConfigError, GatewayConfig
from gateway.description import Described
from gateway.edge import Edge
from gateway.external import External
from gateway.external_chat import ExternalChat
from gateway.hot_swap import HotSwap
from gateway.housekeeping import Housekeeping
from gateway.idempotency import HOLD_SECONDS, Idempotency
from gateway.ingest import Ingest
from gateway.invocation import Invoker
from gateway.keeper import Keeper
from gateway.limits.limits import Limits
from gateway.passthrough.hot_path import HotPath, Passthrough
from gateway.pool import Pool
from gateway.rating import Rater
from gateway.recorder import Recorder
from gateway.records import Records
from gateway.registry import Registry
from gateway.replica import Replica
from gateway.routes import (
    chat,
    erasures,
    feedback,
    health,
    keys,
    langfuse,
    mcp,
    metrics,
    mlflow,
    models,
    otlp,
    phoenix,
    plain,
    policies,
    responses,
)
from gateway.serving import Serving
from gateway.state import Gateway
from gateway.stored_responses import StoredResponses
from gateway.telemetry import Telemetry
from gateway.telemetry.lag import watched
from gateway.tooling import tooling
from gateway.workers.board import Board
from gateway.workers.counter import LeaderCounter
from gateway.workers.forward import Forward
from gateway.workers.peers import Peers
from gateway.workers.place import Place
from gateway.workers.private import joined
from tools.embedding import EmbeddingError
from tools.errors import ToolError
from tools.knowledge import KnowledgeError
from tools.knowledge.shelf import Shelf

if TYPE_CHECKING:
    from gateway.mcp import McpService

_CHUNK_BYTES = 4 * 2**20  # one line of vLLM's stream: its first chunk holds every token id of the prompt

_log = logging.getLogger(__name__)


def create_app(config: GatewayConfig, place: Place | None = None) -> FastAPI:
    """The gateway as an ASGI application; opens nothing until it is started. Raises `ManifestError`, `ConfigError`.

    `place` None: it is the only process.
    """
    place = place or Place(started=int(time.time()))
    agents = _load_agents(config)
    external.check(config.external, {*agents, config.base_model})
    telemetry = Telemetry(config.telemetry)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with _opened(config, agents, telemetry, place) as gateway:
            app.state.gateway = gateway
            async with joined(gateway, app):
                yield

    app = Described(title="Flywheel gateway", version="1", lifespan=lifespan)
    if not place.leads:
        app.add_middleware(Forward, max_body_bytes=config.max_body_bytes)
    app.add_middleware(HotPath)  # inside the edge
    app.add_middleware(
        Edge,
        max_concurrent=place.share(config.max_concurrent),
        max_header_bytes=config.bounds.max_header_bytes,
        telemetry=telemetry,
    )
    errors.install(app)
    rating = (feedback, langfuse, mlflow, phoenix)
    for routes in (
        chat,
        responses,
        plain,
        models,
        mcp,
        *rating,
        erasures,
        policies,
        otlp,
        keys,
        health,
        metrics,
    ):
        app.include_router(routes.router)
    return app


def _load_agents(config: GatewayConfig) -> Mapping[str, Agent]:
    agents = manifests.load(config.agents, config.turns, config)
    if config.base_model in agents:
        raise ConfigError(f"{config.base_model} is the name of an agent and of the base model: rename one")
    return agents


@asynccontextmanager
async def _opened(
    config: GatewayConfig, agents: Mapping[str, Agent], telemetry: Telemetry, place: Place
) -> AsyncIterator[Gateway]:
    """All resources, in order; closed in the opposite order, when what is in progress has been finished."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(telemetry.exporting())
        store = await asyncio.to_thread(Store.open, config.store_url)
        stack.callback(store.close)
        peers = Peers(place)
        stack.push_async_callback(peers.close)
        limits = Limits(config.limits, Usage(store), None if place.leads else LeaderCounter(peers))
        stack.push_async_callback(limits.close)
        stack.push_async_callback(_stop, _start(limits.run(), "limits"))
        outbox_path = outboxes.path_of(config.outbox_path, place.number)
        redactor = await asyncio.to_thread(Redactor, config.redaction)
        delivering = _delivering(config, place, outbox_path, store)
        delivery = redacting(await stack.enter_async_context(delivering), redactor)
        lag = await stack.enter_async_context(watched(config.kafka if place.leads else None))
        if place.leads:
            stack.push_async_callback(_stop, _start(_housekeeping(config, store), "housekeeping"))
        bases = {name: config.base_policy(name) for name in agents}
        serving = Serving(bases, config.base_model)
        registry = await _registry(bases, store, delivery, serving if place.leads else None)
        knowledge = await stack.enter_async_context(_shelf(config))

        session = await stack.enter_async_context(_session())
        pool = Pool(
            [Replica(session, url) for url in config.vllm_urls], limit=place.share(config.replica_limit)
        )
        board = Board(peers, serving, pool)
        hot_swap = HotSwap(registry, serving, pool, board, tolerance=config.probe_tolerance)
        keeper = Keeper(hot_swap.restore if place.leads else board.fetch)
        records = Records(
            store, delivery, [outboxes.path_of(config.outbox_path, number) for number in place.others]
        )
        recorder = Recorder(delivery)
        tools = await stack.enter_async_context(tooling(config, agents.values(), knowledge.of))
        invoker = Invoker(
            session,
            pool,
            knowledge=knowledge,
            serving=serving,
            recorder=recorder,
            keeper=keeper,
            telemetry=telemetry,
        )
        known_keys = Keys(store)
        auth = Auth(known_keys, operator_tenant=config.operator_tenant)
        keep, hold = timedelta(hours=config.idempotency_hours), timedelta(seconds=HOLD_SECONDS)
        idempotency = Idempotency(
            Replies(store, keep=keep, hold=hold), max_bytes=config.idempotency_max_bytes
        )
        base_policy = config.base_policy(config.base_model)
        passthrough = Passthrough(
            pool,
            recorder if config.capture else None,
            auth=auth,
            idempotency=idempotency,
            limits=limits,
            telemetry=telemetry,
            policies={config.base_model: base_policy, base_policy: base_policy},
            config=config,
        )
        others = External(config.external)
        await others.open()
        stack.push_async_callback(others.close)
        external_chat = ExternalChat(others, recorder, limits, telemetry)
        unfinished = BackgroundResponses(store, hold=HOLD, keep=KEEP)
        stored = StoredResponses(records, Deletions(store), unfinished)
        background = Background(
            unfinished, stored, records, pool, most=place.share(config.max_background), redactor=redactor
        )
        stack.push_async_callback(hot_swap.close)
        for name, part in (
            ("keeper", keeper),
            ("pool", pool),
            ("hot path", passthrough),
            ("background", background),
        ):
            stack.push_async_callback(_stop, _start(part.run(), name))
        stack.push_async_callback(background.ended)
        stack.push_async_callback(invoker.drain, config.drain_seconds)
        stack.push_async_callback(external_chat.drain, config.drain_seconds)
        stack.push_async_callback(passthrough.drain, config.drain_seconds)
        yield Gateway(
            config=config,
            agents=agents,
            delivery=delivery,
            store=store,
            keys=known_keys,
            auth=auth,
            limits=limits,
            idempotency=idempotency,
            registry=registry,
            serving=serving,
            pool=pool,
            hot_swap=hot_swap,
            keeper=keeper,
            recorder=recorder,
            invoker=invoker,
            telemetry=telemetry,
            responses=stored,
            background=background,
            external_chat=external_chat,
            tooling=tools,
            mcp=await stack.enter_async_context(_mcp()) if config.mcp_server else None,
            passthrough=passthrough,
            records=records,
            rater=Rater(agents, recorder, records, Ratings(store), telemetry),
            ingest=Ingest(delivery, records, config.ingest),
            outbox_path=outbox_path,
            lag=lag,
            peers=peers,
            board=board,
            created=place.started,
        )


def _mcp() -> AbstractAsyncContextManager["McpService"]:
    from gateway import mcp as service  # noqa: PLC0415  # half a second and 20 MB, for who has switched it on

    return service.serving()


@asynccontextmanager
async def _delivering(
    config: GatewayConfig, place: Place, path: Path, store: Store
) -> AsyncIterator[Delivery]:
    """The way of events into the store; what the last run has left behind is on it when it begins."""
    most = None if config.outbox_max_bytes is None else place.share(config.outbox_max_bytes)
    async with _bus(config, store) as bus:
        if config.delivery_process:
            opened: AbstractAsyncContextManager[Delivery] = delivering_apart(
                path, most, config.store_url, config.kafka
            )
        else:
            opened = delivering(path, most, bus)
        async with opened as delivery:
            if place.leads:
                await _empty_left_over(config.outbox_path, place.count, bus)
            yield delivery


@asynccontextmanager
async def _bus(config: GatewayConfig, store: Store) -> AsyncIterator[Bus]:
    """For what is published from this process itself."""
    if config.kafka is None:
        yield LocalBus(Collector(store))
        return
    bus = kafka_bus(config.kafka, config.store_url)
    try:
        yield bus
    finally:
        await bus.close()


def _housekeeping(config: GatewayConfig, store: Store) -> Coroutine[Any, Any, None]:
    replies_for = timedelta(hours=config.idempotency_hours)
    return Housekeeping(store, Retention(store, config.retention, replies_for=replies_for)).run()


async def _registry(
    bases: Mapping[str, str], store: Store, delivery: Delivery, serving: Serving | None
) -> Registry:
    """The policies, and their aliases in `serving`. None: another worker leads, and nobody asks this one for them."""
    history = {name: await asyncio.to_thread(store.policy_changes, name) for name in bases}
    registry = Registry(delivery, bases, history)
    if serving is not None:
        await registry.ensure_active()
        for name in bases:
            previous = registry.previous(name)
            serving.flip(name, registry.active(name).policy, previous.policy if previous else None)
    return registry


def _session() -> aiohttp.ClientSession:
    """For all that is asked of vLLM."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),  # the agent's limit ends a generation
        read_bufsize=_CHUNK_BYTES,
        headers={"content-type": "application/json"},
        skip_auto_headers=("accept", "accept-encoding", "user-agent"),  # on loopback nothing is compressed
        cookie_jar=aiohttp.DummyCookieJar(),
    )


async def _empty_left_over(path: Path, count: int, bus: Bus) -> None:
    """What was acknowledged when there were more workers has no process of its own any more. Raises as a relay does.

    The files stay: a worker of a parent that was killed may still be finishing its requests. So do, for the
    next start, the events that are not taken by a bus which the gateway can start without.
    """
    for file in outboxes.left_over(path, count):
        outbox = await asyncio.to_thread(Outbox, file)
        try:
            await Relay(outbox, bus).drain()
        except BusError as error:
            if bus.start_seconds is None:
                raise
            _log.warning("events wait in %s for the next start: %s", file, error)
        finally:
            await asyncio.to_thread(outbox.close)


@asynccontextmanager
async def _shelf(config: GatewayConfig) -> AsyncIterator[Shelf]:
    """What is retrieved from; it follows what is added. Raises `ConfigError`."""
    embedding = config.embedding if config.knowledge_dense else None
    try:
        shelf = await asyncio.to_thread(
            Shelf,
            config.knowledge,
            library=config.knowledge_library,
            embedding=embedding,
            url=config.qdrant_url,
        )
    except (KnowledgeError, EmbeddingError, ToolError) as error:
        raise ConfigError(str(error)) from error
    following = _start(shelf.follow(), "knowledge")
    try:
        yield shelf
    finally:
        await _stop(following)


def _start(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Run for as long as the gateway does. An end before that is a defect, and is logged when it happens."""

    def tell(task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            _log.critical("the %s has stopped: restart the gateway", name, exc_info=task.exception())

    task = asyncio.create_task(work, name=name)
    task.add_done_callback(tell)
    return task


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})
