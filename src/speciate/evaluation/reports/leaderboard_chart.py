"""The leaderboard as a chart: one line per model, a dot for its value, a bar for its interval."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

from speciate.evaluation.reports.report import Report, Row, learning_split_words

_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 1000, 370, 250, 64, 56
_LINE, _TIGHT, _HIGHEST = 46, 38, 1024
_INK, _FAINT, _BASELINE, _CANDIDATE = (32, 33, 36), (218, 220, 224), (168, 80, 10), (21, 89, 183)
_DOT = 7
_LONGEST_NAME, _LONGEST_TITLE = 34, 90


class _Sketch(NamedTuple):
    pen: Any
    font: Any
    small: Any


def draw_leaderboard(report: Report, baseline: str, candidate: str) -> bytes:
    """A PNG, at most 1,000 by 1,024 pixels. Dots of dominated models are hollow; what does not fit is counted."""
    from PIL import Image, ImageDraw, ImageFont

    report = report.model_copy(update={"baseline": baseline, "candidate": candidate})
    room = _HIGHEST - _TOP - _BOTTOM
    line = _LINE if _LINE * len(report.leaderboard) <= room else _TIGHT
    rows = _fitting(report, room // line)
    height = _TOP + _BOTTOM + line * len(rows)
    image = Image.new("RGB", (_WIDTH, height), "white")
    sketch = _Sketch(ImageDraw.Draw(image), ImageFont.load_default(19), ImageFont.load_default(14))
    low, high = _range(rows)

    def across(value: float) -> float:
        return _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    title = f"{report.metric} on {report.dataset} ({report.n} examples, {report.better} is better)"
    sketch.pen.text((20, 18), _ascii(title, _LONGEST_TITLE), fill=_INK, font=sketch.font)
    if told := learning_split_words(report.judged_split):
        sketch.pen.text((20, 42), _ascii(told, _LONGEST_TITLE), fill=_BASELINE, font=sketch.small)
    left_out = len(report.leaderboard) - len(rows)
    if left_out:
        words = f"{left_out} more models are not drawn"
        sketch.pen.text((20, height - _BOTTOM + 16), words, fill=_INK, font=sketch.small)
    for tick in (low, (low + high) / 2, high):
        sketch.pen.line([across(tick), _TOP, across(tick), height - _BOTTOM + 6], fill=_FAINT)
        sketch.pen.text((across(tick), height - _BOTTOM + 12), f"{tick:.3g}", fill=_INK, font=sketch.small, anchor="ma")
    for place, row in enumerate(rows):
        _draw_row(sketch, report, row, _TOP + line * place + line // 2, across)
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def _fitting(report: Report, most: int) -> Sequence[Row]:
    """The best, and always the two that the question is about."""
    rows = report.leaderboard
    if len(rows) <= most:
        return rows
    asked = (report.baseline, report.candidate)
    others = [row.model for row in rows if row.model not in asked]
    kept = {*asked, *others[: most - len(set(asked))]}
    return [row for row in rows if row.model in kept]


def _draw_row(sketch: _Sketch, report: Report, row: Row, middle: int, across: Any) -> None:
    colour = _CANDIDATE if row.model == report.candidate else _BASELINE if row.model == report.baseline else _INK
    role = "candidate" if row.model == report.candidate else "baseline" if row.model == report.baseline else ""
    told = ", ".join(word for word in (role, "dominated" if row.dominated else "") if word)
    sketch.pen.text((20, middle - 16), _ascii(row.model, _LONGEST_NAME), fill=colour, font=sketch.font)
    sketch.pen.text((20, middle + 4), told, fill=colour, font=sketch.small)
    if row.interval:
        sketch.pen.line([across(row.interval[0]), middle, across(row.interval[1]), middle], fill=colour, width=4)
    if row.value is not None:
        at = across(row.value)
        inside = "white" if row.dominated else colour
        dot = (at - _DOT, middle - _DOT, at + _DOT, middle + _DOT)
        sketch.pen.ellipse(dot, fill=inside, outline=colour, width=2)
    sketch.pen.text((_WIDTH - _RIGHT + 20, middle - 9), _numbers(row), fill=colour, font=sketch.small)


def _range(rows: Sequence[Row]) -> tuple[float, float]:
    ends = [end for row in rows for end in (row.interval or ())] + [row.value for row in rows if row.value is not None]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    room = 0.05 * (high - low) or 0.05
    return low - room, high + room


def _numbers(row: Row) -> str:
    if row.value is None:
        return "no value"
    span = f" ({row.interval[0]:.3g} to {row.interval[1]:.3g})" if row.interval else ""
    latency = f", p95 {row.p95_ms:.3g} ms" if row.p95_ms is not None else ""
    return f"{row.value:.3g}{span}{latency}"


def _ascii(text: str, longest: int) -> str:
    """Text as the font has it: Latin letters alone."""
    shown = text if len(text) <= longest else f"{text[: longest - 3]}..."
    return shown.encode("latin-1", "replace").decode("latin-1")
