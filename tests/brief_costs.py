"""Costs of answers, measured in the fewest and shortest turns that give an interval: no test asks what an answer really
costs, but for those of the measurement. In the process that tests (the fixtures `brief_costs` and `measured_costs`),
and in the forks that its daemons start (`forks.py`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from speciate.datasets.loading.loader import Example
from speciate.evaluation.predictors import timing

latencies, REFERENCE, _TIMED = timing._latencies, timing._REFERENCE, 8
COUNTS = {name: getattr(timing, name) for name in ("_TIMINGS", "_FIRST_TIMINGS", "_ALL_TIMINGS")}


def _brief_latencies(
    models: Sequence[timing.TimedModel], drawn: Sequence[Sequence[Example]], most: float | None
) -> tuple[list[list[float]], list[timing.ReferenceTime]]:
    """Eight timings of each model, ten times over: 72 are the fewest that bound a p95. The processor is free."""
    times, _ = latencies(models, drawn, most)
    return [each * 10 for each in times], [timing.ReferenceTime(0.001, 0.001)] * 80


def measure_briefly(replace: Callable[[Any, str, Any], None]) -> None:
    """From now on, in this process and its forks. `replace`: as setattr."""
    replace(timing, "_MOST_TURNS", timing.LEAST_TURNS)
    replace(timing, "_TURN_SECONDS", 0.001)
    for name in COUNTS:
        replace(timing, name, _TIMED)
    replace(timing, "_REFERENCE", 1)
    replace(timing, "_latencies", _brief_latencies)
