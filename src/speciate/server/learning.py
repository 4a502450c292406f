"""How a training goes, as clients see it: a short table of its curves, and the curves as a picture."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from speciate.jobs.engine import Engine
from speciate.jobs.job import Job
from speciate.jobs.pool import Pool
from speciate.server.surface import Result

_DRAW = "speciate.training.network.curves:service"
_ROWS, _POINTS = 24, 600
_LONGEST = 16 * 1024 * 1024  # bytes of the file's end that are read
_DIGITS = 5


class LearningCurves(Result):
    """`job`: the one that learns, where a composite was asked about."""

    job: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    lines: int
    """That there are; the rows are some of them, the last one included."""


class Learning(NamedTuple):
    curves: LearningCurves
    png: bytes


def learning(engine: Engine, pool: Pool, job: Job) -> Learning | None:
    """Of the job, or of that child which learned last; None where nothing has curves."""
    for each in (job, *reversed(engine.children(job.id))):
        if lines := _lines(engine.folder(each).path):
            shown = _thinned(lines, _ROWS)
            columns = tuple(dict.fromkeys(name for line in lines for name in line))
            rows = tuple(tuple(_short(line.get(name)) for name in columns) for line in shown)
            drawn = pool.ask(_DRAW, {"lines": _thinned(lines, _POINTS)})["png"]
            curves = LearningCurves(job=each.id, columns=columns, rows=rows, lines=len(lines))
            return Learning(curves, base64.b64decode(drawn))
    return None


def _lines(folder: Path) -> list[dict[str, Any]]:
    """Of the training in this run that wrote last."""
    found = sorted(folder.glob("metrics*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    for path in reversed(found):
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LONGEST))
            text = file.read().decode(errors="replace")
        if lines := [line for each in text.splitlines() if (line := _parsed(each)) is not None]:
            return lines
    return []


def _parsed(line: str) -> dict[str, Any] | None:
    """None where it is cut off: the run may be writing it now."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _thinned(lines: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """Evenly, with the last one, and with those that judge held-out examples as far as there is room."""
    judged = [place for place, line in enumerate(lines) if "held_value" in line]
    kept = set(judged[:: max(1, -(-2 * len(judged) // most))])
    every = -(-len(lines) // max(1, most - len(kept) - 1))
    kept |= {*range(0, len(lines), every), len(lines) - 1}
    return [lines[place] for place in sorted(kept)]


def _short(value: Any) -> Any:
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
