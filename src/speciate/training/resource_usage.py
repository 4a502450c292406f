"""What a training uses: seconds by the clock and of the processor, stage by stage, and memory; and when it has run out.

A training that was stopped and resumed costs what its attempts cost together. Each keeps its meter beside its
checkpoints; what a killed attempt spent after it last did so is lost, as the steps are."""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from speciate.environment import free_memory_mb
from speciate.jobs.folder import write_whole
from speciate.jobs.run import OutOfMemory, Run

STAGES = ("preparing", "training", "judging")
"""Stages of one run that are measured apart. What is left is start and end: imports, saving."""
_KEPT, _KEEP_SECONDS, _KEEP_SHARE = "spent.json", 1.0, 100
"""Kept each second, or after a hundred times what it took last: a busy disk made it 70 ms."""


class Usage(NamedTuple):
    seconds: float = 0.0
    """Seconds by the clock."""
    cpu: float = 0.0
    """Processor seconds of all of the process's threads."""

    def plus(self, other: Usage) -> Usage:
        return Usage(self.seconds + other.seconds, self.cpu + other.cpu)

    def minus(self, other: Usage) -> Usage:
        return Usage(self.seconds - other.seconds, self.cpu - other.cpu)

    def times(self, factor: float) -> Usage:
        return Usage(self.seconds * factor, self.cpu * factor)


def usage_now() -> Usage:
    """To be subtracted from a later one. Processes that were waited for, such as decoders, count to the processor."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Usage(time.perf_counter(), time.process_time() + children.ru_utime + children.ru_stime)


class CostMeter:
    """Begins where it is made, with what earlier attempts of `run` spent. Stages do not lie in each other."""

    def __init__(self, run: Run | None = None) -> None:
        self._began, self._before = usage_now(), Usage()
        self._budgeted, self._budget_began = 0.0, math.nan
        self._peak = 0.0
        self.start_mb = self.loaded_mb = resident_mb()
        """What the process held at the start, and when the examples had been read."""
        self.stages = dict.fromkeys(STAGES, Usage())
        self.steps = self.planned_steps = 0
        self._kept_at, self._pause = time.monotonic(), _KEEP_SECONDS
        self._kept = run.checkpoints / _KEPT if run else None
        for folder in (run.checkpoints, *(attempt.checkpoints for attempt in run.resume_from)) if run else ():
            if (path := folder / _KEPT).exists():
                self._go_on(json.loads(path.read_text()))
                break

    def _go_on(self, kept: Mapping[str, Any]) -> None:
        self._before, self._budgeted, self._peak = Usage(*kept["spent"]), kept["budgeted"], kept["peak"]
        self.stages = {name: Usage(*kept["stages"][name]) for name in STAGES}
        self.steps = kept["steps"]

    def keep(self) -> None:
        """Write down what was spent, for the attempt that resumes from here."""
        if self._kept is None:
            return
        began = time.monotonic()
        self._kept.parent.mkdir(exist_ok=True)  # no run's folder is made: one that is gone was on a disk that is away
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
        before = usage_now()
        try:
            yield
        finally:
            self.stages[name] = self.stages[name].plus(usage_now().minus(before))

    @property
    def spent(self) -> Usage:
        return self._before.plus(usage_now().minus(self._began))

    def see_peak(self) -> float:
        """MiB, the most so far. To be called before a peak is forgotten."""
        self._peak = max(self._peak, peak_mb())
        return self._peak

    def report(self) -> Mapping[str, Any]:
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


_SAID = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """torch says it in the text of a RuntimeError on a CPU, and by a subclass of it on a GPU."""
    if isinstance(error, MemoryError | OutOfMemory) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _SAID)


@contextlib.contextmanager
def retried_smaller() -> Iterator[None]:
    """Turns every way of running out of memory into `OutOfMemory`: the engine then tries again."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(str(error)) from error


def resident_mb() -> float:
    """What this process holds now; where the system does not tell, what it held at most."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def peak_mb() -> float:
    """The most that this process held, since `forget_peak` where the system allows that."""
    status = _status("VmHWM")
    if status is not None:
        return status
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def forget_peak() -> None:
    """Count peaks from here on. Linux alone can; elsewhere a peak is that of the process's whole life."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def room_mb() -> float:
    """What this process may hold in all: what it holds now, and what the machine or its container has left."""
    return resident_mb() + free_memory_mb()


def _status(field: str) -> float | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 2**10 for line in lines if line.startswith(f"{field}:")), None)
