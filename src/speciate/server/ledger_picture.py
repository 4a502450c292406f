"""The ledger as a picture: a bar for each use case, of its stages. SVG by hand, so that no library is needed for it.

Colours are Okabe and Ito's, which people with any colour vision tell apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

_COLOURS = {
    "data": "#56B4E9", "queue": "#BBBBBB", "train": "#009E73", "evaluate": "#F0E442", "person": "#D55E00",
    "deploy": "#0072B2",
}  # fmt: skip
_LEFT, _BAR, _ROW, _TOP = 170, 620, 30, 64
_STATES = {"done": "", "provisional": " (its bake is not over)", "open": " (goes on)"}


def drawn(found: dict[str, Any]) -> str:
    """An SVG document; each bar is as long as its time to model beside the longest."""
    lines = found["lines"]
    height = _TOP + _ROW * max(1, len(lines)) + 12
    body = "\n".join(_parts(lines, found["stages"]))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _BAR + 210}" height="{height}" '
        f'font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


def _parts(lines: list[dict[str, Any]], stages: list[str]) -> Iterator[str]:
    yield '<text x="10" y="22" font-size="15">Time to model, and where it went</text>'
    for place, stage in enumerate(stages):
        x = _LEFT + 95 * place
        yield f'<rect x="{x}" y="36" width="12" height="12" fill="{_COLOURS[stage]}"/>'
        yield f'<text x="{x + 17}" y="46">{stage}</text>'
    longest = max((line["time_to_model"]["seconds"] for line in lines), default=0.0) or 1.0
    for row, line in enumerate(lines):
        clock, y = line["time_to_model"], _TOP + _ROW * row
        yield f'<text x="{_LEFT - 8}" y="{y + 15}" text-anchor="end">{escape(_short(line["use_case"]))}</text>'
        end = float(_LEFT)
        for stage in stages:
            seconds = clock["stages"].get(stage, 0.0)
            width = _BAR * seconds / longest
            if width:
                yield (
                    f'<rect x="{end:.2f}" y="{y}" width="{width:.2f}" height="20" fill="{_COLOURS[stage]}">'
                    f"<title>{stage}: {_short_time(seconds)}</title></rect>"
                )
            end += width
        yield f'<text x="{end + 8:.2f}" y="{y + 15}">{_short_time(clock["seconds"])}{_STATES[clock["state"]]}</text>'


def _short(name: str) -> str:
    return name if len(name) <= 24 else name[:23] + "…"


def _short_time(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"
