"""The learning rate over the steps: a linear rise, then half a cosine (Loshchilov & Hutter 2017), or no change."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["cosine", "constant"]


def factor(step: int, steps: int, warmup: float, schedule: Schedule = "cosine") -> float:
    """What the highest learning rate is multiplied with in step number `step` of `steps`, from 0: above 0, at most 1.

    `warmup`: share of the steps in which it rises.
    """
    rise = math.ceil(warmup * steps)
    if step < rise:
        return (step + 1) / rise
    if schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(steps - rise, 1)))
