"""`speciate ledger`: how long models take, what they cost and how they hold, as a table, JSON or a picture.

Standard library only: the daemon computes, this shows.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from speciate.server.ledger_picture import drawn
from speciate.server.online import control
from speciate.server.picture_file import picture_file, write

_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
_UNKNOWN = "not known yet"


def ledger(arguments: argparse.Namespace) -> int:
    picture = picture_file(arguments.picture, (".svg",)) if arguments.picture else None
    found = control(arguments, "ledger", start=True)
    _say(json.dumps(found, indent=2) if arguments.json else shown(found))
    if picture:
        wrote = write(picture, drawn(found).encode())
        if not arguments.json:  # which is for programs
            _say(f"\n{wrote}")
    return 0


def shown(found: dict[str, Any]) -> str:
    """For people. Stages that took no time anywhere are left out."""
    parts = [_typical(found), _table(found["lines"], found["stages"]), _deliveries(found["deliveries"])]
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


def _typical(found: dict[str, Any]) -> str:
    counts = found["counts"]
    total = sum(counts.values())
    if not total:
        return "No use case yet: define_use_case starts the clock."
    heading = f"Time to model over {total} use case{'s' if total > 1 else ''}: " + ", ".join(
        f"{number} {state}" for state, number in counts.items() if number
    )
    rows = [
        ["", "median", "90 % within"],
        *(
            [label, duration(found[name]["median_seconds"]), duration(found[name]["p90_seconds"])]
            for name, label in (("baked", "survived the bake"), ("answered", "answered, as if all survive"))
        ),
    ]
    return f"{heading}\n{_aligned(rows)}"


def _table(lines: Sequence[dict[str, Any]], stages: Sequence[str]) -> str:
    if not lines:
        return ""
    used = [stage for stage in stages if any(line["time_to_model"]["stages"].get(stage) for line in lines)]
    rows = [["use case", "state", "time", *used, "computing", "paid", "calls", "people", "model"]]
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
    return _aligned(rows)


def _deliveries(found: dict[str, Any]) -> str:
    deployed, baking = found["models_deployed_30d"], found["models_baking_30d"]
    said = [f"Last 30 days: {deployed} model{'s' if deployed != 1 else ''} deployed that held, {baking} still baking"]
    if found["change_failure_rate"] is not None:
        said.append(f"{found['change_failure_rate']:.0%} of the promotions failed")
        said.append(f"{found['rework_rate']:.0%} had to follow a failed one")
    if found["seconds_to_recover"] is not None:
        said.append(f"half of the failures were over within {duration(found['seconds_to_recover'])}")
    return "; ".join(said) + "."


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
