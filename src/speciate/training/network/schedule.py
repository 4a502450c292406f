"""The learning rate over the steps: a linear rise, then half a cosine (Loshchilov & Hutter 2017)."""

from __future__ import annotations

import math


def factor(step: int, steps: int, warmup: float) -> float:
    """What the highest learning rate is multiplied with in step number `step` of `steps`, from 0: above 0, at most 1.

    `warmup`: share of the steps in which it rises.
    """
    rise = math.ceil(warmup * steps)
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(steps - rise, 1)))
