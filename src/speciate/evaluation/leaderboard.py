"""The leaderboard as a picture: one line per model, a dot for its value, a bar for its interval."""

from __future__ import annotations

import io

from speciate.evaluation.report import Report, Row

_WIDTH, _LINE, _LEFT, _RIGHT, _TOP = 1000, 46, 330, 230, 64
_INK, _FAINT, _BASELINE, _CANDIDATE = (32, 33, 36), (218, 220, 224), (120, 120, 120), (26, 115, 232)


def draw(report: Report) -> bytes:
    """A PNG, at most 1,000 by 1,024 pixels."""
    from PIL import Image, ImageDraw, ImageFont

    rows = report.leaderboard[: (1024 - 2 * _TOP) // _LINE]
    height = 2 * _TOP + _LINE * len(rows)
    image = Image.new("RGB", (_WIDTH, height), "white")
    pen = ImageDraw.Draw(image)
    font, small = ImageFont.load_default(20), ImageFont.load_default(15)
    low, high = _range(rows)

    def across(value: float) -> float:
        return _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    title = f"{report.metric} on {report.dataset} ({report.n} examples, {report.better} is better)"
    pen.text((20, 18), title[:90], fill=_INK, font=font)
    for tick in (low, (low + high) / 2, high):
        pen.line([across(tick), _TOP, across(tick), height - _TOP + 6], fill=_FAINT)
        pen.text((across(tick) - 18, height - _TOP + 12), f"{tick:.3g}", fill=_INK, font=small)
    for place, row in enumerate(rows):
        middle = _TOP + _LINE * place + _LINE // 2
        colour = _CANDIDATE if row.model == report.candidate else _BASELINE if row.model == report.baseline else _INK
        pen.text((20, middle - 12), _name(row, report), fill=colour, font=font)
        if row.interval:
            pen.line([across(row.interval[0]), middle, across(row.interval[1]), middle], fill=colour, width=4)
        if row.value is not None:
            pen.ellipse([across(row.value) - 7, middle - 7, across(row.value) + 7, middle + 7], fill=colour)
        pen.text((_WIDTH - _RIGHT + 20, middle - 9), _numbers(row), fill=colour, font=small)
    data = io.BytesIO()
    image.save(data, "PNG", optimize=True)
    return data.getvalue()


def _range(rows: tuple[Row, ...]) -> tuple[float, float]:
    ends = [end for row in rows for end in (row.interval or ())] + [row.value for row in rows if row.value is not None]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    room = 0.05 * (high - low) or 0.05
    return low - room, high + room


def _name(row: Row, report: Report) -> str:
    role = " (incumbent)" if row.model == report.baseline else " (candidate)" if row.model == report.candidate else ""
    name = row.model if len(row.model) <= 18 else row.model[:17] + "…"
    return name + role


def _numbers(row: Row) -> str:
    if row.value is None:
        return "no value"
    span = f" ({row.interval[0]:.3g}-{row.interval[1]:.3g})" if row.interval else ""
    latency = f", p95 {row.p95_ms:.3g} ms" if row.p95_ms is not None else ""
    return f"{row.value:.3g}{span}{latency}"
