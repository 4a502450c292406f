"""`speciate ledger`: how long models take, what they cost and how they hold, as a table, JSON or a chart.

The daemon computes it; this shows it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, cast

from speciate.cli.daemon_commands import ask_daemon
from speciate.cli.output import check_image_path, format_table, say, write_image

if TYPE_CHECKING:
    from speciate.loop.ledger import DeploymentsDocument, LedgerDocument, LineDocument

_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
_UNKNOWN = "not known yet"


def ledger(arguments: argparse.Namespace) -> int:
    image = check_image_path(arguments.image, (".svg",)) if arguments.image else None
    found = cast("LedgerDocument", ask_daemon(arguments, "ledger", start=True))
    say(json.dumps(found, indent=2) if arguments.json else format_ledger(found))
    if image:
        wrote = write_image(image, ledger_svg(found).encode())
        if not arguments.json:  # which is for programs
            say(f"\n{wrote}")
    return 0


def format_ledger(found: LedgerDocument) -> str:
    """For people. Stages that took no time anywhere are left out."""
    parts = [
        _format_totals(found), _table(found["lines"], found["stages"]), _format_deployments(found["deliveries"]),
        _format_loop(found),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part)


def duration(seconds: float | None) -> str:
    """Two units at most: 3 h 12 min."""
    if seconds is None:
        return _UNKNOWN
    if seconds < 10:
        return f"{seconds:.1f} s"
    left, parts = round(seconds), list[str]()
    for unit, length in _UNITS:
        if left >= length and len(parts) < 2:
            parts.append(f"{left // length} {unit}")
            left %= length
        elif parts:
            break
    return " ".join(parts)


def _format_totals(found: LedgerDocument) -> str:
    counts = found["counts"]
    total = sum(counts.values())
    if not total:
        return "No use case yet: define_use_case starts the clock."
    heading = f"Time to model over {total} use case{'s' if total > 1 else ''}: " + ", ".join(
        f"{number} {state}" for state, number in counts.items() if number
    )
    rows = [
        [label, duration(times["median_seconds"]), duration(times["p90_seconds"])]
        for times, label in (
            (found["baked"], "survived the bake"),
            (found["answered"], "answered, as if all survive"),
        )
    ]
    return f"{heading}\n{format_table(rows, ['', 'median', '90 % within'])}"


def _table(lines: Sequence[LineDocument], stages: Sequence[str]) -> str:
    if not lines:
        return ""
    used = [stage for stage in stages if any(line["time_to_model"]["stages"].get(stage) for line in lines)]
    header, rows = ["use case", "state", "time", *used, "computing", "paid", "calls", "people", "model"], []
    for line in lines:
        clock, spent = line["time_to_model"], line["until_model"]
        rows.append(
            [
                line["use_case"], clock["state"], duration(clock["seconds"]),
                *(duration(clock["stages"][stage]) if stage in clock["stages"] else "-" for stage in used),
                duration(60 * spent["compute_minutes"]), f"${spent['usd']:.2f}", str(spent["tool_calls"]),
                str(spent["people_asked"]), clock["model"] or "-",
            ]
        )  # fmt: skip
    return format_table(rows, header)


def _format_deployments(found: DeploymentsDocument) -> str:
    deployed, baking = found["models_deployed_30d"], found["models_baking_30d"]
    sentences = [
        f"Last 30 days: {deployed} model{'s' if deployed != 1 else ''} deployed that held, {baking} still baking"
    ]
    if found["change_failure_rate"] is not None:
        sentences.append(f"{found['change_failure_rate']:.0%} of the promotions failed")
        sentences.append(f"{found['rework_rate']:.0%} had to follow a failed one")
    if found["seconds_to_recover"] is not None:
        sentences.append(f"half of the failures were over within {duration(found['seconds_to_recover'])}")
    return "; ".join(sentences) + "."


def _format_loop(found: LedgerDocument) -> str:
    """What watches did; empty where there is none."""
    if not found["remodelled"]:
        return ""
    rows = [
        [
            each["cause"],
            str(each["episodes"]),
            str(each["promoted"]),
            duration(each["median_seconds"]),
            duration(60 * each["minutes"]),
            f"${each['usd']:.2f}",
        ]
        for each in found["remodelled"]
    ]
    by = f"Last 30 days: {found['promoted_by_loop_30d']} promoted by watches, {found['promoted_by_hand_30d']} by hand."
    watching = f"Monitoring took {duration(60 * found['monitoring_minutes'])} of computing."
    header = ["cause", "episodes", "promoted", "median time to it", "computing", "paid"]
    return f"{format_table(rows, header)}\n{watching}\n{by}"


_COLOURS = {
    "data": "#56B4E9", "queue": "#BBBBBB", "train": "#009E73", "evaluate": "#F0E442", "person": "#D55E00",
    "deploy": "#0072B2", "idle": "#E6E6E6",
}  # fmt: skip
"""Okabe and Ito's colours, which people with any colour vision tell apart."""
_LEFT, _BAR, _ROW, _TOP = 170, 620, 30, 64
_STATES = {"done": "", "provisional": " (its bake is not over)", "open": " (still open)"}


def ledger_svg(found: LedgerDocument) -> str:
    """An SVG document: one bar for each use case, made of its stages, as long as its time to model."""
    lines = found["lines"]
    height = _TOP + _ROW * max(1, len(lines)) + 12
    body = "\n".join(_svg_parts(lines, found["stages"]))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _BAR + 210}" height="{height}" '
        f'font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


def _svg_parts(lines: Sequence[LineDocument], stages: list[str]) -> Iterator[str]:
    yield '<text x="10" y="22" font-size="15">Time to model, and where it went</text>'
    for place, stage in enumerate(stages):
        x = _LEFT + 95 * place
        yield f'<rect x="{x}" y="36" width="12" height="12" fill="{_COLOURS[stage]}"/>'
        yield f'<text x="{x + 17}" y="46">{stage}</text>'
    longest = max((line["time_to_model"]["seconds"] for line in lines), default=0.0) or 1.0
    for row, line in enumerate(lines):
        clock, y = line["time_to_model"], _TOP + _ROW * row
        yield f'<text x="{_LEFT - 8}" y="{y + 15}" text-anchor="end">{escape(_shorten(line["use_case"]))}</text>'
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


def _shorten(name: str) -> str:
    return name if len(name) <= 24 else name[:23] + "…"


def _short_time(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"
