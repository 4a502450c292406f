"""What a deployment counts: for Prometheus (text format 0.0.4), and for the bake in a file of its folder."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from speciate.finite import NOT_FINITE
from speciate.jobs.folder import write_whole
from speciate.promotion.request_counters import RequestCounters
from speciate.serving.deployment_folder import DeploymentFolder
from speciate.serving.items import ItemPrediction
from speciate.serving.replica import Overloaded

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_KEPT = 8
"""Counters in the file: those of the versions that were counted last."""
_WRITE_SECONDS = 1.0


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
            "Since the deployment began; the disk or the log was full.",
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


Key = tuple[str, int, str]
"""As `RequestCounters.key`: alias, generation, model."""


class Outcome(NamedTuple):
    """What became of one request."""

    seconds: float
    failed: bool
    not_finite: bool
    unusable: bool
    overloaded: bool = False
    """Too many waited, and nothing else was wrong: it says nothing of the version."""


OVERLOADED = Outcome(0.0, failed=False, not_finite=False, unusable=False, overloaded=True)
"""Outcome of a request for which the queue had no room."""


FAILED = Outcome(0.0, failed=True, not_finite=False, unusable=False)
"""Outcome of a request whose process ended."""


def outcome_of(answers: Sequence[ItemPrediction | BaseException], seconds: float, *, gave_up: bool = False) -> Outcome:
    """What became of a request whose inputs were answered so, in `seconds`.

    `gave_up`: its client was told before that there is no answer in time. An answer that came all the same came within
    the model's own time, so it waited too long before.
    """
    errors = [answer["error"] for answer in answers if isinstance(answer, dict) and answer["error"]]
    waited = [isinstance(answer, Overloaded | asyncio.CancelledError) for answer in answers]
    failed = any(
        isinstance(answer, BaseException) and not late for answer, late in zip(answers, waited, strict=True)
    )  # fmt: skip
    return Outcome(
        seconds,
        failed=failed,
        not_finite=NOT_FINITE in errors,
        unusable=any(error != NOT_FINITE for error in errors),
        overloaded=(gave_up or any(waited)) and not failed and not errors,
    )


class CounterFile:
    """The counters of each version under each alias, in a file of the deployment's folder, for the bake. Thread-safe.

    The file is written whole, once a second if something changed, and at the end. A kill loses one second of counts.
    The daemon reads the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._found = {counters.key: counters for counters in read_counters(path)}
        self._changed, self._written_at = False, 0.0

    def add(self, key: Key, at: float, outcome: Outcome) -> None:
        """Count one request."""
        with self._lock:
            self._of(key).add(at, **outcome._asdict())
            self._changed = True

    def time(self, key: Key, at: float, slow: bool) -> None:
        """Count one timed input."""
        with self._lock:
            self._of(key).slow.add(at, slow)
            self._changed = True

    def write(self, *, now: bool = False) -> None:
        """Writes the counters, where it is time or `now`. Raises OSError, as a full disk does."""
        with self._lock:
            if not self._changed or not (now or time.monotonic() - self._written_at >= _WRITE_SECONDS):
                return
            text = json.dumps([counters.document() for counters in self._found.values()])
            self._changed, self._written_at = False, time.monotonic()
        write_whole(self._path, text, 0o600)

    def _of(self, key: Key) -> RequestCounters:
        own = self._found.pop(key) if key in self._found else RequestCounters(*key)
        self._found[key] = own  # to the end: what serves is not dropped
        for old in list(self._found)[:-_KEPT] if len(self._found) > _KEPT else ():
            del self._found[old]
        return own


def read_all_counters(folder: DeploymentFolder) -> list[RequestCounters]:
    """What all replicas of a deployment counted, as `read_counters`."""
    found: dict[tuple[str, int, str], RequestCounters] = {}
    for each in (one for replica in folder.replicas() for one in read_counters(replica.counters)):
        before = found.pop(each.key, None)
        found[each.key] = each if before is None else before + each
    return sorted(found.values(), key=lambda one: one.last or 0.0) if len(folder.replicas()) > 1 else [*found.values()]


def read_counters(path: Path) -> list[RequestCounters]:
    """What was counted last comes last; none where the file is not there, or is of another version of this package."""
    try:
        return [RequestCounters.of(document) for document in json.loads(path.read_bytes())]
    except (OSError, ValueError, TypeError, KeyError):
        return []
