"""Costs of answers, measured in the fewest and shortest turns that give an interval: no test asks what an answer really
costs, but for those of the measurement. In the process that tests (the fixtures `brief_costs` and `measured_costs`),
and in the forks that its daemons start (`forks.py`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from speciate.datasets.loading.loader import Example
from speciate.evaluation.predictors import timing

latencies, REFERENCE = timing._latencies, timing._REFERENCE


def _brief_latencies(
    models: Sequence[timing.TimedModel], drawn: Sequence[Sequence[Example]], timings: int
) -> tuple[list[list[float]], list[timing.ReferenceTime]]:
    """Eight timings of each model, ten times over: 72 are the fewest that bound a p95. The processor is free."""
    times, _ = latencies(models, drawn, timings)
    return [each * 10 for each in times], [timing.ReferenceTime(0.001, 0.001)] * 80


def measure_briefly(replace: Callable[[Any, str, Any], None]) -> None:
    """From now on, in this process and its forks. `replace`: as setattr."""
    replace(timing, "_MOST_TURNS", timing._LEAST_TURNS)
    replace(timing, "_TURN_SECONDS", 0.001)
    replace(timing, "_TIMINGS", 8)
    replace(timing, "_REFERENCE", 1)
    replace(timing, "_latencies", _brief_latencies)
