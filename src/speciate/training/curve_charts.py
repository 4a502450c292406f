"""What a run measured while it trained, as lines of charts: losses, and what was measured on held-out examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from speciate.evaluation.pages.inline_charts import Line
from speciate.training.curve_measures import is_loss, is_number, measures, sign_of

_HELD = ("held_value", "held_loss", "held_out")


class Chart(NamedTuple):
    title: str
    lines: list[Line]
    found: list[Found]


class Found(NamedTuple):
    """What a chart says of one measure."""

    name: str
    newest: float
    best: BestPoint | None
    """None where it is not known whether more is better."""


class BestPoint(NamedTuple):
    value: float
    step: float
    lower: bool
    """Less is better."""


def draw_curves(lines: Sequence[Mapping[str, Any]], held_sign: int | None = None) -> list[Chart]:
    """A chart of the losses, and one of what was measured on held-out examples.

    `held_sign`: 1 where a larger `held_value` is better, -1 where a smaller one is.
    """
    names = list(measures(lines))
    losses = [name for name in names if is_loss(name)]
    others = [name for name in names if not is_loss(name)]
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
            found.append(Found(name, points[-1][1], _best(points, sign_of(name, held_sign))))
            if len(points) > 60 and role == "candidate":
                drawn.append(Line(name, role, points, thin=True))
                points = _smooth(points)
            drawn.append(Line(name, role, points))
        if drawn:
            charts.append(Chart(title, drawn, found))
    return charts


def _best(points: Sequence[tuple[float, float]], sign: int | None) -> BestPoint | None:
    if sign is None:
        return None
    step, value = max(points, key=lambda point: sign * point[1])
    return BestPoint(value, step, sign < 0)


def _smooth(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """An exponential mean, which is what eyes follow in a noisy curve."""
    level, found = points[0][1], []
    for at, value in points:
        level = 0.85 * level + 0.15 * value
        found.append((at, level))
    return found
