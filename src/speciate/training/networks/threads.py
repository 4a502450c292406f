"""How many threads a network's steps take: one for a small network, whose threads would wait for each other.

Each operation of a step ends when the slowest thread does. On a busy machine that is the one that has no core, so a
small network with two threads takes up to three times as long, and as much more of the processor's time
(evals/bench/threads.py). The work of a step is counted and not timed, so the same training has as many threads each
time it is repeated, whatever else the machine does. What was settled is kept with the checkpoints, since sums with
another number of threads end in other bits."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speciate.jobs.folder import write_whole
from speciate.jobs.run import Run

TWO_THREADS_FLOPS = 2e9
"""Floating-point operations of a step, forward and backward, below which it takes one thread."""
_FILE = "threads.json"


class Work:
    flops = 0.0


@contextlib.contextmanager
def count_flops() -> Iterator[Work]:
    """Count the operations of products, convolutions and attention in here, as torch does."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

    found = Work()

    class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types for it
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            if (formula := flop_registry.get(func._overloadpacket)) is not None:
                found.flops += formula(*args, **(kwargs or {}), out_val=out)
            return out

    with Counter():  # type: ignore[no-untyped-call]
        yield found


def choose_threads(flops: float, most: int) -> int:
    """
    >>> choose_threads(1e9, 2), choose_threads(1e10, 2), choose_threads(1e10, 1)
    (1, 2, 1)
    """
    return 1 if flops < TWO_THREADS_FLOPS else most


def kept_threads(run: Run) -> int | None:
    """What this attempt or one before it settled; None where it settled nothing."""
    for folder in (run.checkpoints, *(attempt.checkpoints for attempt in run.resume_from)):
        if (path := Path(folder) / _FILE).exists():
            return int(json.loads(path.read_text()))
    return None


def keep_threads(run: Run, threads: int) -> None:
    write_whole(run.checkpoints / _FILE, json.dumps(threads))
