"""Memory: how much this process holds, and which errors mean that there is no more."""

from __future__ import annotations

import contextlib
import math
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

from speciate.jobs.run import OutOfMemory

_CONTAINER = Path("/sys/fs/cgroup")
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
    left = []
    with contextlib.suppress(OSError, StopIteration, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        left.append(next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) / 2**10)
    with contextlib.suppress(OSError, StopIteration, ValueError):
        most = int((_CONTAINER / "memory.max").read_text())  # "max" where there is no limit
        words = (_CONTAINER / "memory.stat").read_text().split()
        anonymous = int(words[words.index("anon") + 1])  # cached files give way
        left.append((most - anonymous) / 2**20)
    return resident_mb() + min(left) if left else math.inf


def _status(field: str) -> float | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 2**10 for line in lines if line.startswith(f"{field}:")), None)
