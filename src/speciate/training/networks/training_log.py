"""`metrics.jsonl`: a line about every half second and one for each evaluation; and the curves drawn from it.

{step, epoch, loss, learning_rate, grad_norm, examples_per_second, rss_mb, held_loss, held_value}: loss is the mean
since the line before; the last two are there where held-out examples were evaluated. When a run resumes from a
checkpoint, the lines that it holds are put back, so that the file has each step once."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from speciate.training.networks.training_loop import Evaluation, Step
from speciate.training.resource_usage import resident_mb

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw


_LINE_SECONDS = 0.5
_STEPS, _MANY = 10, 100
"""The first hundred lines come every ten steps at the latest: short trainings have curves, too."""


MetricsLine = dict[str, Any]
"""A line of `metrics.jsonl`: the keys above, and those that a method has beside them; values are numbers or None."""


class CurvesRequest(TypedDict):
    lines: Sequence[MetricsLine]


class MetricsLog:
    def __init__(self, path: Path, before: bytes = b"") -> None:
        """`before`: the file's lines up to where the training resumes."""
        self.path = path
        path.write_bytes(before)
        self.lines = before.count(b"\n")
        self._begin()

    def see(self, step: Step, seconds: float) -> None:
        self._steps += 1
        self._loss += step.loss
        self._examples += step.examples
        self._seconds += seconds

    @property
    def due(self) -> bool:
        return self._seconds >= _LINE_SECONDS or (self._steps >= _STEPS and self.lines < _MANY)

    @property
    def pending(self) -> bool:
        """Steps that no line tells of."""
        return self._steps > 0

    def write(
        self, step: Step, epoch: float, evaluation: Evaluation | None = None, more: Mapping[str, float] | None = None
    ) -> MetricsLine:
        """The line that was written. `step`: the newest; `more`: what a method has beside these."""
        line: MetricsLine = {
            "step": step.number,
            "epoch": round(epoch, 4),
            "loss": self._loss / self._steps if self._steps else step.loss,
            "learning_rate": step.learning_rate,
            "grad_norm": step.grad_norm,
            "examples_per_second": round(self._examples / self._seconds, 1) if self._steps else None,
            "rss_mb": round(resident_mb(), 1),
        }
        line |= {name: _finite_or_none(value) for name, value in (more or {}).items() if name not in line}
        if evaluation:
            line |= {"held_loss": _finite_or_none(evaluation.loss), "held_value": _finite_or_none(evaluation.value)}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self.lines += 1
        self._begin()
        return line

    def _begin(self) -> None:
        self._steps = self._examples = 0
        self._loss = self._seconds = 0.0


def _finite_or_none(value: float) -> float | None:
    """JSON has no other numbers."""
    return value if math.isfinite(value) else None


def read_metrics(path: Path) -> list[MetricsLine]:
    return [json.loads(line) for line in path.read_text().splitlines()]


_WIDTH, _HEIGHT = 480, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 34, 30
_GRID, _TEXT = "#dddddd", "black"
_ACROSS = 3
"""Panels side by side."""
_BLUE, _RED, _GREEN = "#1f77b4", "#d62728", "#2ca02c"
_OF_REWARDS = (
    ("reward", (("training", "reward", _BLUE), ("held out", "held_reward", _RED))),
    (
        "tokens of an answer",
        (
            ("mean", "completions/mean_length", _BLUE),
            ("95 of 100", "completions/p95_length", _RED),
            ("held out", "held_length", _GREEN),
        ),
    ),
    ("KL to the base model, nats a token", (("", "kl", _BLUE),)),
    ("entropy, nats a token", (("", "entropy", _BLUE),)),
    (
        "shares of answers",
        (
            ("cut", "completions/clipped_ratio", _RED),
            ("distinct", "completions/distinct", _GREEN),
            ("no signal", "rewards/no_spread", _BLUE),
        ),
    ),
)  # fmt: skip
"""Charts of a training by rewards: a panel, and its lines as (label, key in the log, colour)."""

Points = list[tuple[float, float]]


class Line(NamedTuple):
    name: str
    colour: str
    points: Points


def draw_curves(metrics: Path, path: Path) -> None:
    """Write a PNG of the lines of `metrics`."""
    path.write_bytes(curve_image(read_metrics(metrics)))


def serve_curves(payload: CurvesRequest) -> dict[str, str]:
    """{lines} -> {png}, base64: for whoever must not draw."""
    return {"png": base64.b64encode(curve_image(payload["lines"])).decode()}


def curve_image(lines: Sequence[MetricsLine]) -> bytes:
    """A PNG: one panel, two where held-out examples were judged by a metric, more of a training by reward."""
    from PIL import Image, ImageDraw

    panels = _group_panels(lines)
    across = min(len(panels), _ACROSS)
    canvas = Image.new("RGB", (_WIDTH * across, _HEIGHT * -(-len(panels) // across)), "white")
    pen = ImageDraw.Draw(canvas)
    for number, (title, shown) in enumerate(panels):
        row, column = divmod(number, across)
        _draw_panel(pen, column * _WIDTH, row * _HEIGHT, title, [line for line in shown if line.points])
    drawn = io.BytesIO()
    canvas.save(drawn, "PNG")
    return drawn.getvalue()


def _group_panels(lines: Sequence[MetricsLine]) -> list[tuple[str, list[Line]]]:
    loss = Line("training", "#1f77b4", _points(lines, "loss"))
    held = Line("held out", "#d62728", _points(lines, "held_loss"))
    value = Line("held out", "#2ca02c", _points(lines, "held_value"))
    panels = [("loss", [loss, held])]
    if value.points and value.points != held.points:
        panels.append(("metric", [value]))
    for title, shown in _OF_REWARDS if any("reward" in line for line in lines) else ():
        drawn = [Line(name, colour, _points(lines, own)) for name, own, colour in shown]
        panels += [(title, drawn)] if any(line.points for line in drawn) else []
    return panels


def _points(lines: Sequence[MetricsLine], name: str) -> Points:
    """What is of held-out examples may be of a step before the line's."""
    at = "held_step" if name.startswith("held_") else "step"
    found = [line for line in lines if line.get(name) is not None]
    return [(line[at] if at in line else line["step"], line[name]) for line in found]


def _draw_panel(pen: ImageDraw, x: int, y: int, title: str, lines: Sequence[Line]) -> None:
    pen.text((x + _LEFT, y + 8), title, fill=_TEXT, font_size=14)
    left, right, top, bottom = x + _LEFT, x + _WIDTH - _RIGHT, y + _TOP, y + _HEIGHT - _BOTTOM
    every = [point for line in lines for point in line.points]
    if not every:
        pen.text((left, (top + bottom) // 2), "nothing yet", fill=_TEXT, font_size=12)
        return
    first, last = min(step for step, _ in every), max(step for step, _ in every)
    low, high = min(value for _, value in every), max(value for _, value in every)

    def spot(step: float, value: float) -> tuple[float, float]:
        along = (step - first) / (last - first) if last > first else 0.5
        up = (value - low) / (high - low) if high > low else 0.5
        return left + along * (right - left), bottom - up * (bottom - top)

    for value in sorted({low, (low + high) / 2, high}):
        height = spot(first, value)[1]
        pen.line((left, height, right, height), fill=_GRID)
        pen.text((left - 6, height), f"{value:.4g}", fill=_TEXT, font_size=12, anchor="rm")
    pen.text((left, bottom + 8), f"step {first:,.0f}", fill=_TEXT, font_size=12)
    pen.text((right, bottom + 8), f"{last:,.0f}", fill=_TEXT, font_size=12, anchor="ra")
    for number, line in enumerate(lines):
        spots = [spot(*point) for point in line.points]
        if len(spots) > 1:
            pen.line(spots, fill=line.colour, width=2)
        for h, v in spots if len(spots) <= 30 else ():
            pen.ellipse((h - 2, v - 2, h + 2, v + 2), fill=line.colour)
        pen.text((right - 70 * number, y + 10), line.name, fill=line.colour, font_size=12, anchor="ra")
