"""What a training costs: seconds by the clock and of the processor, stage by stage, and the most memory it held."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from speciate.training.network.memory import peak_mb, resident_mb

STAGES = ("preparing", "training", "judging")
"""Of one run. What is left is start and end: imports, saving."""


class Spent(NamedTuple):
    seconds: float = 0.0
    """By the clock."""
    cpu: float = 0.0
    """Of all of the process's threads."""

    def plus(self, other: Spent) -> Spent:
        return Spent(self.seconds + other.seconds, self.cpu + other.cpu)

    def minus(self, other: Spent) -> Spent:
        return Spent(self.seconds - other.seconds, self.cpu - other.cpu)

    def times(self, factor: float) -> Spent:
        return Spent(self.seconds * factor, self.cpu * factor)


def now() -> Spent:
    """To be subtracted from a later one. Processes that were waited for, such as decoders, count to the processor."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Spent(time.perf_counter(), time.process_time() + children.ru_utime + children.ru_stime)


class Tally:
    """Begins where it is made. Stages do not lie in each other."""

    def __init__(self) -> None:
        self._began = now()
        self._peak = 0.0
        self.start_mb = self.loaded_mb = resident_mb()
        """What the process held at the start, and when the examples had been read."""
        self.stages = dict.fromkeys(STAGES, Spent())
        self.steps = self.planned_steps = 0

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        before = now()
        try:
            yield
        finally:
            self.stages[name] = self.stages[name].plus(now().minus(before))

    @property
    def spent(self) -> Spent:
        return now().minus(self._began)

    def see_peak(self) -> float:
        """MiB, the most so far. To be called before a peak is forgotten."""
        self._peak = max(self._peak, peak_mb())
        return self._peak

    def report(self) -> dict[str, Any]:
        spent = self.spent
        return {
            "seconds": round(spent.seconds, 3),
            "cpu_seconds": round(spent.cpu, 3),
            "stages": {name: [round(each.seconds, 3), round(each.cpu, 3)] for name, each in self.stages.items()},
            "steps": self.steps,
            "planned_steps": self.planned_steps,
            "start_memory_mb": round(self.start_mb, 1),
            "loaded_memory_mb": round(self.loaded_mb, 1),
            "peak_memory_mb": round(self.see_peak(), 1),
        }
