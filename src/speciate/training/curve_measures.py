"""Which numbers of a training's lines are curves; without what draws them, for a daemon reads this before any page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from speciate.vocabulary import METRICS

HELD_VALUE = "held_value"
_SIGNS = {"accuracy": 1, "reward": 1, "reward_mean": 1}
_OTHERS = (HELD_VALUE, "value", *_SIGNS)


def is_loss(name: str) -> bool:
    return "loss" in name


def sign_of(name: str, held: int | None) -> int | None:
    """1 where more of a measure is better, -1 where less is; None where that is not known. `held`: of `held_value`.

    >>> sign_of("held_loss", 1), sign_of("reward", None), sign_of("held_value", -1), sign_of("value", 1)
    (-1, 1, -1, None)
    """
    if is_loss(name):
        return -1
    return held if name == HELD_VALUE else _SIGNS.get(name)


def held_sign(lines: Sequence[Mapping[str, Any]], metric: str | None) -> int | None:
    """The sign of `held_value`: the metric that a training aims at, and where it measures none, its loss or reward.

    >>> held_sign([{"held_value": 2.4, "held_loss": 0.7}], "mae"), held_sign([{"held_value": 2.4}], None)
    (-1, None)
    """
    judged = [line for line in lines if is_number(line.get(HELD_VALUE))]
    for name, sign in (("held_loss", -1), ("held_reward", 1)):
        if judged and all(line.get(name) == line[HELD_VALUE] and "held_metric" not in line for line in judged):
            return sign
    return METRICS[metric].sign if metric in METRICS else None


def measures(lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What was measured and may be drawn: by its name, the newest value."""
    found: dict[str, float] = {}
    for line in lines:
        for name, value in line.items():
            if is_number(value) and (is_loss(name) or name in _OTHERS):
                found[name] = float(value)
    return found


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
