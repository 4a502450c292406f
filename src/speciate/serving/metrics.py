"""What a slot counts, as Prometheus reads it (text format 0.0.4). One registry for each slot, nothing global."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    def __init__(self, use_case: str) -> None:
        self._registry = own = CollectorRegistry()
        self._use_case = use_case
        by = ["use_case", "model"]
        self._requests = Counter("speciate_requests", "Requests, by status.", [*by, "status"], registry=own)
        self._took = Histogram(
            "speciate_request_seconds", "From a request's head to its answer.", by, buckets=_SECONDS, registry=own
        )
        self._inputs = Histogram(
            "speciate_batch_inputs", "Inputs that were answered together.", by, buckets=_SIZES, registry=own
        )
        self._batches = Histogram(
            "speciate_batch_seconds", "What the model took for a batch.", by, buckets=_SECONDS, registry=own
        )
        self._serving = Gauge("speciate_serving", "1 for the version that serves.", by, registry=own)
        self._canary = Gauge("speciate_canary_percent", "Of the requests, for a canary.", by, registry=own)
        self._load = Gauge("speciate_load_seconds", "To load and try a version.", by, registry=own)
        self._refused = Counter("speciate_refused", "Versions that got no traffic.", by, registry=own)
        self._restarted = Counter("speciate_process_restarts", "Processes that died.", by, registry=own)
        self._overloaded = Counter(
            "speciate_overloaded",
            "Requests for which the queue had no room, or whose turn came too late.",
            by,
            registry=own,
        )
        self._not_logged = Gauge(
            "speciate_answers_not_logged",
            "Since the slot began; the disk or the log was full.",
            ["use_case"],
            registry=own,
        )
        self._open = Gauge("speciate_inputs_open", "Inputs that wait or are asked.", ["use_case"], registry=own)

    def request(self, model: str, status: int, seconds: float) -> None:
        """`model` is empty where none was asked."""
        self._requests.labels(self._use_case, model, str(status)).inc()
        if model:
            self._took.labels(self._use_case, model).observe(seconds)

    def batch(self, model: str, inputs: int, seconds: float) -> None:
        self._inputs.labels(self._use_case, model).observe(inputs)
        self._batches.labels(self._use_case, model).observe(seconds)

    def serving(self, model: str, before: str | None, load_seconds: float) -> None:
        if before is not None:
            self._serving.labels(self._use_case, before).set(0)
        self._serving.labels(self._use_case, model).set(1)
        self._load.labels(self._use_case, model).set(load_seconds)

    def canary(self, model: str, percent: float) -> None:
        """0 once it is none any more."""
        self._canary.labels(self._use_case, model).set(percent)

    def refused(self, model: str) -> None:
        self._refused.labels(self._use_case, model).inc()

    def restarted(self, model: str) -> None:
        self._restarted.labels(self._use_case, model).inc()

    def overloaded(self, model: str, whether: bool) -> None:
        """Counted with the model, so that a series of zeros says that none were."""
        self._overloaded.labels(self._use_case, model).inc(whether)

    def text(self, open_inputs: int, not_logged: int = 0) -> bytes:
        self._not_logged.labels(self._use_case).set(not_logged)
        self._open.labels(self._use_case).set(open_inputs)
        return generate_latest(self._registry)
