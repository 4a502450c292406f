"""What a training costs: seconds by the clock and of the processor, stage by stage, and the most memory it held.

A training that was stopped and goes on costs what its attempts cost together. Each keeps its tally beside its
checkpoints; what one that was killed spent after it last did so is lost, as the steps are.
"""

from __future__ import annotations

import contextlib
import json
import math
import resource
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from speciate.jobs.folder import write_whole
from speciate.jobs.run import Run
from speciate.training.network.memory import peak_mb, resident_mb

STAGES = ("preparing", "training", "judging")
"""Of one run. What is left is start and end: imports, saving."""
_KEPT, _KEEP_SECONDS, _KEEP_SHARE = "spent.json", 1.0, 100
"""Kept each second, or after a hundred times what it took last: a busy disk made it 70 ms."""


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
    """Begins where it is made, with what earlier attempts of `run` spent. Stages do not lie in each other."""

    def __init__(self, run: Run | None = None) -> None:
        self._began, self._before = now(), Spent()
        self._budgeted, self._budget_began = 0.0, math.nan
        self._peak = 0.0
        self.start_mb = self.loaded_mb = resident_mb()
        """What the process held at the start, and when the examples had been read."""
        self.stages = dict.fromkeys(STAGES, Spent())
        self.steps = self.planned_steps = 0
        self._kept_at, self._pause = time.monotonic(), _KEEP_SECONDS
        self._kept = run.checkpoints / _KEPT if run else None
        for folder in (run.checkpoints, *(attempt.checkpoints for attempt in run.resume_from)) if run else ():
            if (path := folder / _KEPT).exists():
                self._go_on(json.loads(path.read_text()))
                break

    def _go_on(self, kept: dict[str, Any]) -> None:
        self._before, self._budgeted, self._peak = Spent(*kept["spent"]), kept["budgeted"], kept["peak"]
        self.stages = {name: Spent(*kept["stages"][name]) for name in STAGES}
        self.steps = kept["steps"]

    def keep(self) -> None:
        """For the attempt that goes on from here."""
        if self._kept is None:
            return
        began = time.monotonic()
        self._kept.parent.mkdir(parents=True, exist_ok=True)
        kept = {
            "spent": self.spent, "budgeted": self.budgeted, "peak": self.see_peak(), "stages": self.stages,
            "steps": self.steps,
        }  # fmt: skip
        write_whole(self._kept, json.dumps(kept))
        self._kept_at = time.monotonic()
        self._pause = max(_KEEP_SECONDS, _KEEP_SHARE * (self._kept_at - began))

    def keep_if_due(self) -> None:
        if time.monotonic() - self._kept_at >= self._pause:
            self.keep()

    def begin_budget(self) -> None:
        """From here on seconds count to the budget: reading the examples does not."""
        self._budget_began = time.monotonic()

    @property
    def budgeted(self) -> float:
        """Seconds that count to the budget, those of earlier attempts included."""
        begun = not math.isnan(self._budget_began)
        return self._budgeted + (time.monotonic() - self._budget_began if begun else 0.0)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        before = now()
        try:
            yield
        finally:
            self.stages[name] = self.stages[name].plus(now().minus(before))

    @property
    def spent(self) -> Spent:
        return self._before.plus(now().minus(self._began))

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
