"""Which numbers of a training's lines are curves; without what draws them, for a daemon reads this before any page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

_OTHERS = ("held_value", "value", "accuracy", "reward", "reward_mean")


def lower_is_better(name: str) -> bool:
    return "loss" in name


def measures(lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What was measured and may be drawn: by its name, the newest value."""
    found: dict[str, float] = {}
    for line in lines:
        for name, value in line.items():
            if is_number(value) and (lower_is_better(name) or name in _OTHERS):
                found[name] = float(value)
    return found


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
