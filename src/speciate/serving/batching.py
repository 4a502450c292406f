"""Which of the inputs that wait are answered together, and when. Pure.

Inputs that came while the model was busy go together at once: under load batches form by themselves. Only an input
that finds the model idle waits for others to come, and only where there were others the last time: a client that asks
alone, one request after another, is never held up.
"""

from __future__ import annotations

from typing import NamedTuple


class Batching(NamedTuple):
    most: int
    """Inputs of one batch."""
    wait: float
    """Seconds that the oldest input waits for a full batch."""


def pause(waiting: int, oldest_age: float, batching: Batching, last: int) -> float:
    """Seconds until a batch should go, if nothing more comes; 0: now. `waiting` inputs, 1 at least; `last`: how many
    the batch before had."""
    if waiting >= batching.most or (waiting == last == 1):
        return 0.0
    return max(0.0, batching.wait - oldest_age)
