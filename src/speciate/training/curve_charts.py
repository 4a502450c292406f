"""What a run measured while it trained, as lines of charts: losses, and what was measured on held-out examples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from speciate.evaluation.pages.inline_charts import Line

_HELD = ("held_value", "held_loss", "held_out")
_NOT_DRAWN = ("step", "epoch", "seconds", "at", "time", "examples", "tokens")


def draw_curves(lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Line], str]]:
    """A chart of the losses, and one of what was measured on held-out examples: title, lines, the newest values."""
    names = dict.fromkeys(name for line in lines for name in line if name not in _NOT_DRAWN)
    numeric = [name for name in names if any(_is_number(line.get(name)) for line in lines)]
    losses = [name for name in numeric if "loss" in name]
    others = [name for name in numeric if name in ("held_value", "value", "accuracy", "reward", "reward_mean")]
    charts = []
    for title, chosen in (("Loss", losses[:3]), ("On held-out examples", others[:2])):
        drawn, newest = list[Line](), list[str]()
        for place, name in enumerate(chosen):
            points = [
                (float(line.get("step", at)), float(line[name]))
                for at, line in enumerate(lines)
                if _is_number(line.get(name))
            ]
            if not points:
                continue
            role = "baseline" if name in _HELD or place == 1 else "candidate" if place == 0 else "other"
            best = min(points, key=lambda p: p[1]) if "loss" in name else max(points, key=lambda p: p[1])
            newest.append(f"{name.replace('_', ' ')} {points[-1][1]:.4g}, best {best[1]:.4g} at {best[0]:.0f}")
            if len(points) > 60 and role == "candidate":
                drawn.append(Line(name, role, points, thin=True))
                points = _smooth(points)
            drawn.append(Line(name, role, points))
        if drawn:
            charts.append((title, drawn, " · ".join(newest)))
    return charts


def _smooth(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """An exponential mean, which is what eyes follow in a noisy curve."""
    level, found = points[0][1], []
    for at, value in points:
        level = 0.85 * level + 0.15 * value
        found.append((at, level))
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
