"""What Prometheus reads. Labels come from short lists fixed in the code; ids are never labels."""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 1, 2.5)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The service's metrics, in a registry of their own; docs/serving.md lists them."""

    def __init__(self) -> None:
        disable_created_metrics()
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "dimerec_requests",
            "Requests answered or refused.",
            ["route", "status"],
            registry=registry,
        )
        self.seconds = Histogram(
            "dimerec_request_seconds",
            "From the request's head to its answer.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.refusals = Counter(
            "dimerec_refusals",
            "Requests refused, by the error's code.",
            ["code"],
            registry=registry,
        )
        self.answers = Counter(
            "dimerec_answers",
            "Recommendations given, by rung of the fallback ladder.",
            ["source", "degraded"],
            registry=registry,
        )
        self.events = Counter("dimerec_events", "Events taken in.", ["result"], registry=registry)
        self.store_errors = Counter(
            "dimerec_store_errors",
            "Failed calls of the history store.",
            ["operation"],
            registry=registry,
        )
        self.reloads = Counter("dimerec_reloads", "Reloads.", ["result"], registry=registry)
        # a counter that first comes as 1 has not risen, for Prometheus: these begin at 0
        for counter, values in (
            (self.events, ("stored", "duplicate")),
            (self.store_errors, ("read", "append", "erase")),
            (self.reloads, ("served", "refused")),
        ):
            for value in values:
                counter.labels(value)
        self.queued = Histogram(
            "dimerec_queue_seconds", "Waiting for the model.", buckets=SECONDS, registry=registry
        )
        self.worked = Histogram(
            "dimerec_model_seconds",
            "The model's work on a batch.",
            buckets=SECONDS,
            registry=registry,
        )
        self.batch = Histogram(
            "dimerec_batch_size",
            "Queries the model is given at once.",
            buckets=SIZES,
            registry=registry,
        )
        self._bundle = Gauge(
            "dimerec_bundle_info", "1 for what is served.", ["version", "model"], registry=registry
        )
        self._gauges = {
            name: Gauge(f"dimerec_{name}", about, registry=registry)
            for name, about in (
                ("in_flight", "Requests inside."),
                ("queue", "Queries waiting for the model."),
                ("connections", "Open connections."),
                ("ready", "1 when /ready says yes."),
            )
        }

    def gauge(self, name: str, value: Callable[[], float]) -> None:
        """Read the gauge `name` from `value` whenever Prometheus asks."""
        self._gauges[name].set_function(value)

    def serving(self, version: str, model: str) -> None:
        """Name the bundle that is served; the one before is forgotten."""
        self._bundle.clear()
        self._bundle.labels(version, model).set(1)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self._registry)
