"""The evidence of each detector over windows, as an SVG that a person reads: an alarm is where a line meets the top."""

from __future__ import annotations

import datetime
import html
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

_WIDTH, _HEIGHT = 760, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 150, 46, 40
_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f")
_MOST = 1.25
"""Upper edge of the plot, as a multiple of the threshold; evidence beyond it is drawn at the edge."""
_NAMED = 14
"""Pixels between two names."""


class Trail(NamedTuple):
    name: str
    points: Sequence[tuple[float, float, bool]]
    """End of a window, share of the threshold (both in logarithms), and whether it is an alarm; oldest first."""
    onset: float | None


def draw(trails: Sequence[Trail], windows: Sequence[tuple[float, float]], title: str) -> str:
    """`windows`: [begin, end) of all, in seconds since the epoch; at least one. `title` is escaped."""
    first, last = windows[0][0], windows[-1][1]
    span = max(last - first, 1.0)

    def x(at: float) -> float:
        return _LEFT + (at - first) / span * (_WIDTH - _LEFT - _RIGHT)

    def y(share: float) -> float:
        return _TOP + (1 - min(share, _MOST) / _MOST) * (_HEIGHT - _TOP - _BOTTOM)

    shapes = [_frame(title), _threshold(y(1.0)), *_dates(windows, x), *_shares(y)]
    levels = _apart([y(trail.points[-1][1]) for trail in trails], y(_MOST), y(0.0))
    for place, trail in enumerate(trails):
        colour = _COLOURS[place % len(_COLOURS)]
        line = " ".join(f"{x(at):.1f},{y(share):.1f}" for at, share, _ in trail.points)
        shapes.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for at, share, alarm in trail.points:
            size = 6 if alarm else 2.5
            shapes.append(f'<circle cx="{x(at):.1f}" cy="{y(share):.1f}" r="{size}" fill="{colour}"/>')
        if trail.onset is not None:
            at = x(min(max(trail.onset, first), last))
            shapes.append(
                f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" stroke="{colour}" '
                'stroke-dasharray="3 4"/>'
            )
        told = f"{trail.name}: alarm" if any(alarm for *_, alarm in trail.points) else trail.name
        shapes.append(_text(_WIDTH - _RIGHT + 10, levels[place] + 4, told, colour))
    body = "\n".join(shapes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="12" role="img">\n{body}\n</svg>\n'
    )


def _apart(levels: Sequence[float], top: float, bottom: float) -> list[float]:
    """Where names stand beside these levels, in pixels, without lying over each other; near the bottom they move up."""
    found, free = list(levels), top
    order = sorted(range(len(levels)), key=lambda place: levels[place])
    for place in order:
        found[place] = free = max(free, levels[place])
        free += _NAMED
    most = bottom
    for place in reversed(order):
        found[place] = min(found[place], most)
        most = found[place] - _NAMED
    return found


def _frame(title: str) -> str:
    return (
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>\n'
        + _text(_LEFT, 18, f"{title}: evidence that something changed", "#111", size=14)
        + "\n"
        + _text(_LEFT, 34, "share of what an alarm needs (logarithms); dashed: since when, most likely", "#555")
    )


def _threshold(level: float) -> str:
    line = f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{level:.1f}" y2="{level:.1f}" stroke="#111"/>'
    return line + "\n" + _text(_LEFT + 4, level - 4, "alarm", "#111")


def _shares(y: Callable[[float], float]) -> list[str]:
    return [_text(_LEFT - 8, y(share) + 4, f"{100 * share:.0f} %", "#555", "end") for share in (0.0, 0.5, 1.0)]


def _dates(windows: Sequence[tuple[float, float]], x: Callable[[float], float]) -> list[str]:
    step = math.ceil(len(windows) / 7)
    shown = [windows[0][0], *(end for _, end in windows[step - 1 :: step])]
    return [
        _text(
            x(at),
            _HEIGHT - _BOTTOM + 18,
            f"{datetime.datetime.fromtimestamp(at, datetime.UTC):%d %b}",
            "#555",
            "middle",
        )
        for at in shown
    ]


def _text(x: float, y: float, text: str, colour: str, anchor: str = "start", size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}" font-size="{size}">'
        f"{html.escape(text)}</text>"
    )
