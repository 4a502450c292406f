"""What a run measured while it trained, as lines of charts: losses, and what was measured on held-out examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from speciate.evaluation.pages.inline_charts import Line
from speciate.training.curve_measures import is_number, lower_is_better, measures

_HELD = ("held_value", "held_loss", "held_out")


class Chart(NamedTuple):
    title: str
    lines: list[Line]
    found: list[Found]


class Found(NamedTuple):
    """What a chart says of one measure."""

    name: str
    newest: float
    best: float
    best_step: float


def draw_curves(lines: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """A chart of the losses, and one of what was measured on held-out examples."""
    names = list(measures(lines))
    losses = [name for name in names if lower_is_better(name)]
    others = [name for name in names if not lower_is_better(name)]
    charts = []
    for title, chosen in (("Loss", losses[:3]), ("On held-out examples", others[:2])):
        drawn, found = list[Line](), list[Found]()
        for place, name in enumerate(chosen):
            points = [
                (float(line.get("step", at)), float(line[name]))
                for at, line in enumerate(lines)
                if is_number(line.get(name))
            ]
            role = "baseline" if name in _HELD or place == 1 else "candidate" if place == 0 else "other"
            best = (min if lower_is_better(name) else max)(points, key=lambda p: p[1])
            found.append(Found(name, points[-1][1], best[1], best[0]))
            if len(points) > 60 and role == "candidate":
                drawn.append(Line(name, role, points, thin=True))
                points = _smooth(points)
            drawn.append(Line(name, role, points))
        if drawn:
            charts.append(Chart(title, drawn, found))
    return charts


def _smooth(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """An exponential mean, which is what eyes follow in a noisy curve."""
    level, found = points[0][1], []
    for at, value in points:
        level = 0.85 * level + 0.15 * value
        found.append((at, level))
    return found
