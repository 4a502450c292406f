"""Small charts as inline SVG, drawn by hand: bars of intervals, a scatter with whiskers, a curve of calibration.

Each is drawn at the size at which it is shown, so that its words are never scaled; colours are the page's classes.
Every chart repeats numbers of a table beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from speciate.evaluation.pages.markup import Markup, element, format_number, join_markup
from speciate.evaluation.reports.report import Interval

_BAR_WIDTH, _BAR_HEIGHT, _EDGE = 220, 22, 14
_WIDTH, _HEIGHT = 350, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 18, 14, 46
_DOT = 5
_NEAR = 14
"""Pixels: points that lie nearer share one name."""
_LOGARITHMIC_FROM = 20


class Scale(NamedTuple):
    """From values to places between 0 and 1. `logarithmic`: both ends are positive."""

    low: float
    high: float
    logarithmic: bool = False

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Scale:
        """Over all values that there are, with room at both ends."""
        known = [value for value in values if value is not None and math.isfinite(value)]
        low, high = (min(known), max(known)) if known else (0.0, 1.0)
        room = 0.06 * (high - low) or 0.05 * abs(high) or 0.05
        return cls(low - room, high + room)

    @classmethod
    def of_costs(cls, values: Sequence[float]) -> Scale:
        """From zero on; logarithmic where positive costs span more than a factor of 20."""
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


def axis(scale: Scale, label: str) -> Markup:
    """The heading of a column of bars: their scale."""
    ticks = [
        element("text", format_number(tick), x=_across(scale, tick), y=14, text_anchor="middle", class_="tick")
        for tick in scale.ticks(3)
    ]
    return join_markup(element("span", label, class_="unseen"), _svg(_BAR_WIDTH, 18, None, *ticks))


def bar(value: float | None, interval: Interval | None, scale: Scale, role: str, *, zero: bool = False) -> Markup:
    """A dot for a value and a line for its interval. `zero`: with a mark where nothing differs."""
    parts = [_upright(scale, tick, "grid") for tick in scale.ticks(3)]
    if zero:
        parts.append(_upright(scale, 0.0, "zero"))
    middle = _BAR_HEIGHT / 2
    if interval:
        low, high = (_across(scale, end) for end in interval)
        parts.append(element("line", x1=low, x2=high, y1=middle, y2=middle, class_=f"whisker {role}"))
    if value is not None:
        parts.append(element("circle", cx=_across(scale, value), cy=middle, r=_DOT, class_=f"dot {role}"))
    return _svg(_BAR_WIDTH, _BAR_HEIGHT, None, *parts)


def _upright(scale: Scale, value: float, kind: str) -> Markup:
    at = _across(scale, value)
    return element("line", x1=at, x2=at, y1=0, y2=_BAR_HEIGHT, class_=kind)


def _across(scale: Scale, value: float) -> float:
    return _EDGE + scale.place(value) * (_BAR_WIDTH - 2 * _EDGE)


class Point(NamedTuple):
    name: str
    x: float
    y: float
    interval: Interval | None
    role: str


def scatter(points: Sequence[Point], across: str, up: str) -> Markup:
    """Values over costs, each point with its interval and its name beside it."""
    x = Scale.of_costs([point.x for point in points])
    y = Scale.of(end for point in points for end in (point.y, *(point.interval or ())))
    marks: list[Markup] = []
    names: dict[tuple[float, float], list[str]] = {}
    for point in points:
        at, level = _x(x, point.x), _y(y, point.y)
        if point.interval:
            low, high = (_y(y, end) for end in point.interval)
            marks.append(element("line", x1=at, x2=at, y1=low, y2=high, class_=f"whisker thin {point.role}"))
        marks.append(element("circle", cx=at, cy=level, r=_DOT, class_=f"dot {point.role}"))
        place = next((near for near in names if math.dist(near, (at, level)) < _NEAR), (at, level))
        names.setdefault(place, []).append(point.name)
    for (at, level), said in names.items():
        end = at > _WIDTH - _RIGHT - 40
        side = {"x": at - 8, "text_anchor": "end"} if end else {"x": at + 8}
        marks.append(element("text", ", ".join(said), y=level - 6, class_="name", **side))
    title = f"{up} over {across} of {len(points)} models"
    return _svg(_WIDTH, _HEIGHT, title, _frame(x, y, across, up), *marks)


class Curve(NamedTuple):
    """`points`: stated confidence, share of right answers, number of answers."""

    role: str
    points: tuple[tuple[float, float, int], ...]


def reliability(curves: Sequence[Curve]) -> Markup:
    """Accuracy over confidence; on the diagonal they agree. Bigger dots stand for more answers."""
    unit = Scale(0, 1)
    most = max((count for curve in curves for *_, count in curve.points), default=1)
    marks = [element("line", x1=_x(unit, 0), y1=_y(unit, 0), x2=_x(unit, 1), y2=_y(unit, 1), class_="zero")]
    for curve in curves:
        places = [(_x(unit, stated), _y(unit, right), count) for stated, right, count in curve.points]
        line = " ".join(f"{at:.1f},{level:.1f}" for at, level, _ in places)
        marks.append(element("polyline", points=line, class_=f"curve {curve.role}"))
        marks += [
            element("circle", cx=at, cy=level, r=2.5 + 5 * math.sqrt(count / most), class_=f"dot {curve.role}")
            for at, level, count in places
        ]
    frame = _frame(unit, unit, "confidence", "share of right answers")
    return _svg(_WIDTH, _HEIGHT, "Share of right answers over confidence", frame, *marks)


def _frame(x: Scale, y: Scale, across: str, up: str) -> Markup:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = []
    for tick in x.ticks(4):
        at = _x(x, tick)
        parts.append(element("line", x1=at, x2=at, y1=_TOP, y2=bottom, class_="grid"))
        parts.append(element("text", format_number(tick), x=at, y=bottom + 17, text_anchor="middle", class_="tick"))
    for tick in y.ticks(5):
        level = _y(y, tick)
        parts.append(element("line", x1=_LEFT, x2=right, y1=level, y2=level, class_="grid"))
        parts.append(element("text", format_number(tick), x=_LEFT - 6, y=level + 4, text_anchor="end", class_="tick"))
    middle = (_TOP + bottom) / 2
    below = {"x": (_LEFT + right) / 2, "y": _HEIGHT - 8.0}
    parts.append(element("text", across, **below, text_anchor="middle", class_="name"))
    turned = f"rotate(-90 14 {middle:g})"
    parts.append(element("text", up, x=14, y=middle, transform=turned, text_anchor="middle", class_="name"))
    return join_markup(*parts)


def _x(scale: Scale, value: float) -> float:
    return _LEFT + scale.place(value) * (_WIDTH - _LEFT - _RIGHT)


def _y(scale: Scale, value: float) -> float:
    bottom = _HEIGHT - _BOTTOM
    return bottom - scale.place(value) * (bottom - _TOP)


def _svg(width: int, height: int, title: str | None, *content: Markup) -> Markup:
    """Without a title, the same numbers stand beside it, and it is hidden from those who hear the page."""
    known = {"role": "img", "aria_label": title} if title else {"aria_hidden": "true"}
    return element("svg", *content, width=width, height=height, viewBox=f"0 0 {width} {height}", **known)
