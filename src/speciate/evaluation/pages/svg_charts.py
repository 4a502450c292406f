"""Small charts as shapes of inline SVG: bars of intervals, a scatter with whiskers, a calibration curve.

The macro `svg` (macros.html) writes them. Each is drawn at the size at which it is shown, so that its text is
never scaled; colours are the page's classes. Every chart repeats numbers of a table beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from speciate.evaluation.pages.formatting import format_number
from speciate.evaluation.reports.report import Interval

_BAR_WIDTH, _BAR_HEIGHT, _EDGE = 220, 22, 14
_WIDTH, _HEIGHT = 350, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 18, 14, 46
_DOT = 5
_NEAR = 14
"""Pixels: points that lie nearer share one name."""
_LOGARITHMIC_FROM = 20


class Scale(NamedTuple):
    """Maps values to places between 0 and 1. `logarithmic`: both ends are positive."""

    low: float
    high: float
    logarithmic: bool = False

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Scale:
        """Over all values, with room at both ends."""
        known = [value for value in values if value is not None and math.isfinite(value)]
        low, high = (min(known), max(known)) if known else (0.0, 1.0)
        room = 0.06 * (high - low) or 0.05 * abs(high) or 0.05
        return cls(low - room, high + room)

    @classmethod
    def of_costs(cls, values: Sequence[float]) -> Scale:
        """A scale of costs from zero on; logarithmic where positive costs span more than a factor of 20."""
        low, high = min(values), max(values)
        if low > 0 and high > _LOGARITHMIC_FROM * low:
            return cls(low / 1.6, high * 1.6, True)
        return cls(0.0, 1.08 * high or 1.0)

    def place(self, value: float) -> float:
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(max(value, low))
        return min(1.0, max(0.0, (value - low) / (high - low)))

    def ticks(self, most: int) -> list[float]:
        """Round numbers inside it, about `most` of them."""
        if self.logarithmic:
            decades = range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
            return [10.0**power for power in decades][:: -(-len(decades) // most) or 1]
        raw = (self.high - self.low) / most
        size = 10.0 ** math.floor(math.log10(raw))
        step = next(times * size for times in (1, 2, 5, 10) if times * size >= raw)
        return [place * step for place in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


class Shape(NamedTuple):
    """An SVG element. `text`: its content."""

    tag: str
    attributes: Mapping[str, str]
    text: str = ""


class Svg(NamedTuple):
    width: int
    height: int
    shapes: Sequence[Shape]
    title: str | None = None
    """What a screen reader says; None hides the chart from it."""


def axis(scale: Scale) -> Svg:
    """The ticks above a column of bars."""
    ticks = [_text(format_number(tick), _across(scale, tick), 14, "tick", "middle") for tick in scale.ticks(3)]
    return Svg(_BAR_WIDTH, 18, ticks)


def bar(value: float | None, interval: Interval | None, scale: Scale, role: str, *, zero: bool = False) -> Svg:
    """A dot for a value and a line for its interval. `zero`: with a line at zero."""
    shapes = [_upright(scale, tick, "grid") for tick in scale.ticks(3)]
    if zero:
        shapes.append(_upright(scale, 0.0, "zero"))
    middle = _BAR_HEIGHT / 2
    if interval:
        low, high = (_across(scale, end) for end in interval)
        shapes.append(_line(low, high, middle, middle, f"whisker {role}"))
    if value is not None:
        shapes.append(_circle(_across(scale, value), middle, _DOT, role))
    return Svg(_BAR_WIDTH, _BAR_HEIGHT, shapes)


def _upright(scale: Scale, value: float, kind: str) -> Shape:
    at = _across(scale, value)
    return _line(at, at, 0, _BAR_HEIGHT, kind)


def _across(scale: Scale, value: float) -> float:
    return _EDGE + scale.place(value) * (_BAR_WIDTH - 2 * _EDGE)


class Point(NamedTuple):
    name: str
    x: float
    y: float
    interval: Interval | None
    role: str


def scatter(points: Sequence[Point], across: str, up: str) -> Svg:
    """Values over costs, each point with its interval and its name beside it."""
    x = Scale.of_costs([point.x for point in points])
    y = Scale.of(end for point in points for end in (point.y, *(point.interval or ())))
    shapes = _frame(x, y, across, up)
    names: dict[tuple[float, float], list[str]] = {}
    for point in points:
        at, level = _x(x, point.x), _y(y, point.y)
        if point.interval:
            low, high = (_y(y, end) for end in point.interval)
            shapes.append(_line(at, at, low, high, f"whisker thin {point.role}"))
        shapes.append(_circle(at, level, _DOT, point.role))
        place = next((near for near in names if math.dist(near, (at, level)) < _NEAR), (at, level))
        names.setdefault(place, []).append(point.name)
    for (at, level), shared in names.items():
        end = at > _WIDTH - _RIGHT - 40
        shapes.append(_text(", ".join(shared), at - 8 if end else at + 8, level - 6, "name", "end" if end else None))
    return Svg(_WIDTH, _HEIGHT, shapes, f"{up} over {across} of {len(points)} models")


class Curve(NamedTuple):
    """`points`: stated confidence, share of right answers, number of answers."""

    role: str
    points: tuple[tuple[float, float, int], ...]


def reliability(curves: Sequence[Curve]) -> Svg:
    """Accuracy over confidence; on the diagonal they agree. Bigger dots stand for more answers."""
    unit = Scale(0, 1)
    most = max((count for curve in curves for *_, count in curve.points), default=1)
    shapes = _frame(unit, unit, "confidence", "share of right answers")
    shapes.append(_line(_x(unit, 0), _x(unit, 1), _y(unit, 0), _y(unit, 1), "zero"))
    for curve in curves:
        places = [(_x(unit, stated), _y(unit, right), count) for stated, right, count in curve.points]
        line = " ".join(f"{at:.1f},{level:.1f}" for at, level, _ in places)
        shapes.append(Shape("polyline", {"points": line, "class": f"curve {curve.role}"}))
        shapes += [_circle(at, level, 2.5 + 5 * math.sqrt(count / most), curve.role) for at, level, count in places]
    return Svg(_WIDTH, _HEIGHT, shapes, "Share of right answers over confidence")


def _frame(x: Scale, y: Scale, across: str, up: str) -> list[Shape]:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    shapes = []
    for tick in x.ticks(4):
        at = _x(x, tick)
        shapes.append(_line(at, at, _TOP, bottom, "grid"))
        shapes.append(_text(format_number(tick), at, bottom + 17, "tick", "middle"))
    for tick in y.ticks(5):
        level = _y(y, tick)
        shapes.append(_line(_LEFT, right, level, level, "grid"))
        shapes.append(_text(format_number(tick), _LEFT - 6, level + 4, "tick", "end"))
    middle = (_TOP + bottom) / 2
    shapes.append(_text(across, (_LEFT + right) / 2, _HEIGHT - 8.0, "name", "middle"))
    shapes.append(_text(up, 14, middle, "name", "middle", transform=f"rotate(-90 14 {middle:g})"))
    return shapes


def _line(x1: float, x2: float, y1: float, y2: float, kind: str) -> Shape:
    return Shape("line", {"x1": f"{x1:.6g}", "x2": f"{x2:.6g}", "y1": f"{y1:.6g}", "y2": f"{y2:.6g}", "class": kind})


def _circle(x: float, y: float, radius: float, role: str) -> Shape:
    return Shape("circle", {"cx": f"{x:.6g}", "cy": f"{y:.6g}", "r": f"{radius:.6g}", "class": f"dot {role}"})


def _text(text: str, x: float, y: float, kind: str, anchor: str | None = None, **attributes: str) -> Shape:
    anchored = {"text-anchor": anchor} if anchor else {}
    return Shape("text", {"x": f"{x:.6g}", "y": f"{y:.6g}", **attributes, **anchored, "class": kind}, text)


def _x(scale: Scale, value: float) -> float:
    return _LEFT + scale.place(value) * (_WIDTH - _LEFT - _RIGHT)


def _y(scale: Scale, value: float) -> float:
    bottom = _HEIGHT - _BOTTOM
    return bottom - scale.place(value) * (bottom - _TOP)
