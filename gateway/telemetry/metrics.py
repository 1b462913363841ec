"""What Prometheus is told. Names follow OpenTelemetry's conventions for GenAI and HTTP where they have one.

Labels take known names only: of agents, models and policies that are served, of routes, of error codes. Several workers
count together when PROMETHEUS_MULTIPROC_DIR names an empty folder before they start, as their parent sees to.
"""

import os
import threading
from collections.abc import Iterable, Mapping
from functools import partial
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Summary, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from feedback.events import ModelCall, Rating
from gateway.progress import waited
from gateway.telemetry.outcome import AgentOutcome, ModelOutcome, operation
from gateway.telemetry.tally import Buckets, Count, Tally

# Boundaries, in seconds or tokens: those that the conventions recommend, where they do.
_HTTP = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
_OPERATION = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_FIRST_TOKEN = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_TOKENS = (1, 4, 16, 64, 256, 1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576)
_OVERHEAD = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1)
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class _Series(NamedTuple):
    """What one request adds to: looking labels up costs more than counting."""

    requests: Count
    duration: Tally
    first_token: Tally
    overhead: Tally
    input_tokens: Tally
    output_tokens: Tally


class Metrics:
    """The metrics of one gateway. Counting takes no lock for long and waits for nothing."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._series: dict[tuple[str, str, str, str, str], _Series] = {}
        self._http_series: dict[tuple[str, str, int], Tally] = {}
        self._in_flight_series: dict[str, Count] = {}
        self._calls_series: dict[tuple[str, str], Tally] = {}
        self._counted: list[Count | Tally] = []
        self._telling = threading.Lock()
        self._requests = Counter(
            "flywheel_requests",
            "Requests to agents and models, by how they ended.",
            ("model", "policy", "status", "error_type"),
            registry=registry,
        )
        by_model = ("gen_ai_operation_name", "gen_ai_request_model")
        self._in_flight = Gauge(
            "flywheel_requests_in_flight",
            "Requests to agents and models in progress.",
            ("model",),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._duration = Buckets(
            "gen_ai_server_request_duration_seconds",
            "From the arrival of a request until it is answered and recorded.",
            (*by_model, "error_type"),
            registry=registry,
            buckets=_OPERATION,
        )
        self._first_token = Buckets(
            "gen_ai_server_time_to_first_token_seconds",
            "From the arrival of a request until the model's first token.",
            by_model,
            registry=registry,
            buckets=_FIRST_TOKEN,
        )
        self._overhead = Buckets(
            "flywheel_gateway_overhead_seconds",
            "What a request took beyond waiting for the model server and running tools.",
            by_model,
            registry=registry,
            buckets=_OVERHEAD,
        )
        self._tokens = Buckets(
            "gen_ai_client_token_usage",
            "Tokens read and written by the model, per request.",
            (*by_model, "gen_ai_token_type"),
            registry=registry,
            buckets=_TOKENS,
        )
        self._calls = Buckets(
            "gen_ai_client_operation_duration_seconds",
            "What requests wait for: the model server, retrievals, tools.",
            by_model,
            registry=registry,
            buckets=_OPERATION,
        )
        self._http = Buckets(
            "http_server_request_duration_seconds",
            "HTTP requests of every kind, refused ones too.",
            ("http_request_method", "http_route", "http_response_status_code"),
            registry=registry,
            buckets=_HTTP,
        )
        self._ratings = Counter(
            "flywheel_ratings",
            "Ratings, by value: true, false or a declared category; `number` where the metric is one.",
            ("agent", "name", "value"),
            registry=registry,
        )
        self._scores = Summary(
            "flywheel_rating_score",
            "Sum and count of the ratings that are numbers.",
            ("agent", "name"),
            registry=registry,
        )
        self._swaps = Counter(
            "flywheel_swaps",
            "Promotions and roll-backs, by whether they were done.",
            ("agent", "kind", "outcome"),
            registry=registry,
        )

    def in_flight(self, model: str, change: int) -> None:
        """A request to an agent or model has begun (1), or is over (-1)."""
        series = self._in_flight_series.get(model)
        if series is None:
            series = self._in_flight_series[model] = self._count_of(self._in_flight.labels(model))
        series.value += change

    def model(self, outcome: ModelOutcome) -> None:
        """A request to a plain model is over."""
        series = self._of(outcome.operation, outcome.model, outcome.policy, outcome.status, outcome.error)
        self._count(series, outcome.seconds, outcome.first_token_seconds, outcome.upstream_seconds)
        self._call(outcome.operation, outcome.model).observe(outcome.upstream_seconds)
        if outcome.input_tokens or outcome.output_tokens:
            series.input_tokens.observe(outcome.input_tokens)
            series.output_tokens.observe(outcome.output_tokens)

    def agent(self, outcome: AgentOutcome) -> None:
        """A request to an agent is over."""
        event = outcome.event
        generations = [call for call in event.calls if isinstance(call, ModelCall)]
        first = None
        if generations and generations[0].started is not None:
            began = generations[0].started.timestamp() - outcome.started_ns / 1e9
            first = max(0.0, began) + generations[0].time_to_first_token
        status = "failed" if outcome.error and event.status == "completed" else event.status
        series = self._of("invoke_agent", event.agent, event.policy, status, outcome.error)
        # Of a request that was cut short, nobody knows how long it had been waiting for the model.
        elsewhere = waited(event.calls) if event.status == "completed" else None
        self._count(series, outcome.seconds, first, elsewhere)
        if generations:
            series.input_tokens.observe(sum(len(call.prompt_token_ids) for call in generations))
            series.output_tokens.observe(sum(len(call.completion_token_ids) for call in generations))
        for call in outcome.calls:
            self._call(operation(call), event.agent).observe(call.latency)

    def http(self, method: str, route: str, status: int, seconds: float) -> None:
        """An HTTP request is over; `route` is a path as it was declared, not as it was asked for."""
        key = (method if method in _METHODS else "_OTHER", route, status)
        series = self._http_series.get(key)
        if series is None:
            series = self._http_series[key] = self._tally_of(self._http.labels(*key))
        series.observe(seconds)

    def rating(self, agent: str, rating: Rating) -> None:
        """A rating has been taken, so its name and value are what the agent's manifest declares."""
        parts = rating.value if isinstance(rating.value, dict) else {"": rating.value}
        for part, value in parts.items():
            name = f"{rating.name}.{part}" if part else rating.name
            if isinstance(value, float | int) and not isinstance(value, bool):
                self._ratings.labels(agent, name, "number").inc()
                self._scores.labels(agent, name).observe(value)
            else:
                self._ratings.labels(agent, name, "withdrawn" if value is None else str(value).lower()).inc()

    def swap(self, agent: str, kind: str, *, done: bool) -> None:
        """A promotion or a roll-back was done, or was not."""
        self._swaps.labels(agent, kind, "done" if done else "failed").inc()

    def tell(self) -> None:
        """Let prometheus_client know of all that has been counted. May be called from any thread."""
        with self._telling:
            for counted in tuple(self._counted):
                counted.tell()

    def exposition(self, live: Iterable[Metric], pids: Mapping[int, int]) -> bytes:
        """Everything in Prometheus' text format, with `live`, what is looked up rather than counted. Blocks.

        `pids` are the workers' processes, by number.
        """
        self.tell()
        registry = CollectorRegistry()
        if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # its __init__ alone has no types
        else:
            registry.register(self._registry)
        registry.register(_Processes(pids))
        registry.register(_Live(live))
        return generate_latest(registry)

    def _of(self, name: str, model: str, policy: str, status: str, error: str | None) -> _Series:
        key = (name, model, policy, status, error or "")
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = _Series(
                self._count_of(self._requests.labels(model, policy, status, error or "")),
                self._tally_of(self._duration.labels(name, model, error or "")),
                self._tally_of(self._first_token.labels(name, model)),
                self._tally_of(self._overhead.labels(name, model)),
                self._tally_of(self._tokens.labels(name, model, "input")),
                self._tally_of(self._tokens.labels(name, model, "output")),
            )
        return series

    def _count(self, series: _Series, seconds: float, first: float | None, waited: float | None) -> None:
        series.requests.value += 1
        series.duration.observe(seconds)
        if first is not None:
            series.first_token.observe(first)
        if waited is not None:
            series.overhead.observe(max(0.0, seconds - waited))

    def _call(self, name: str, model: str) -> Tally:
        series = self._calls_series.get((name, model))
        if series is None:
            series = self._calls_series[name, model] = self._tally_of(self._calls.labels(name, model))
        return series

    def _tally_of(self, series: Buckets) -> Tally:
        self._counted.append(tally := Tally(series))
        return tally

    def _count_of(self, series: Counter | Gauge) -> Count:
        self._counted.append(count := Count(series))
        return count


class _Processes(Collector):
    """Memory, processor time and open files of each worker, by its number."""

    def __init__(self, pids: Mapping[int, int]) -> None:
        self._pids = pids

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for number, pid in self._pids.items():
            for metric in ProcessCollector(pid=partial(int, pid), registry=None).collect():
                own = [sample._replace(labels={"worker": str(number)}) for sample in metric.samples]
                family = families.setdefault(metric.name, metric)
                family.samples = [sample for sample in family.samples if sample.labels] + own
        return families.values()


class _Live(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> Iterable[Metric]:
        return self._metrics
