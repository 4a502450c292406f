"""Which of the inputs that wait are answered together, and when. Pure.

Inputs that came while the model was busy go together at once: under load batches form by themselves. Only an input
that finds the model idle waits, for `max_wait` at most, for others to come.
"""

from __future__ import annotations

from typing import NamedTuple


class Batching(NamedTuple):
    most: int
    """Inputs of one batch."""
    wait: float
    """Seconds that the oldest input waits for a full batch."""


def pause(waiting: int, oldest_age: float, batching: Batching) -> float:
    """Seconds until a batch should go, if nothing more comes; 0: now. `waiting` inputs, 1 at least."""
    if waiting >= batching.most:
        return 0.0
    return max(0.0, batching.wait - oldest_age)
