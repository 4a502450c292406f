"""What an answer costs: latency one example at a time on a warm model, and processor time in a batch.

Latency is wall time, so it says which device it was measured on and is never compared across devices. Cost is
processor time times a price per core-hour: other load on the machine slows the clock on the wall, but not this one.
Nothing is read from the feature cache here: production has not seen its examples before either.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from speciate.datasets.loading.loader import Example
from speciate.environment import cores
from speciate.evaluation.compare_models import Cost
from speciate.evaluation.endpoints.pricing import usd_for
from speciate.evaluation.predictors.answering import AskModel
from speciate.evaluation.statistics import quantile_interval

_WARM_UP, _TIMINGS, _SECONDS, _BATCH = 3, 120, 10.0, 64


def measure(
    ask: AskModel, examples: Sequence[Example], usd_per_core_hour: float | None, *, latency: bool, seed: int = 0
) -> Cost:
    """Costs of a loaded model, on examples drawn from those that it answers without an error.

    `usd_per_core_hour` None: it runs in another process, whose processor time is not known. At most 120 timings or 10
    seconds; 72 are the fewest that bound a p95 from above.
    """
    drawn = [examples[i] for i in np.random.default_rng(seed).permutation(len(examples))[: max(_TIMINGS, _BATCH)]]
    for example in drawn[:_WARM_UP]:
        ask([example])
    usd = None if usd_per_core_hour is None else _usd_per_1k(ask, drawn[:_BATCH], usd_per_core_hour)
    if not latency:
        return Cost(usd, device=device())
    times = _latencies(ask, drawn[:_TIMINGS])
    return Cost(usd, float(np.median(times)), quantile_interval(times, 0.95), device())


def device() -> str:
    """The processor's name and the number of its cores that this process may use."""
    return f"{_processor()}, {cores()} cores"


def _usd_per_1k(ask: AskModel, batch: Sequence[Example], usd_per_core_hour: float) -> float:
    """Repeats the batch until the processor clock has moved by enough to be read."""
    begin, answered = time.process_time(), 0
    while answered == 0 or (time.process_time() - begin < 0.05 and answered < 100 * len(batch)):
        ask(batch)
        answered += len(batch)
    return 1000 * usd_for((time.process_time() - begin) / answered, usd_per_core_hour)


def _latencies(ask: AskModel, examples: Sequence[Example]) -> list[float]:
    """Milliseconds per example. Few examples are asked again, so that small test sets have a p95, too."""
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < _TIMINGS and (not times or time.perf_counter() - begin < _SECONDS):
        example = examples[len(times) % len(examples)]
        start = time.perf_counter()
        ask([example])
        times.append(1000 * (time.perf_counter() - start))
    return times


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
