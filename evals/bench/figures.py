"""Figures of a bench, written where `table.py` reads them. Without it a bench only prints.

    note("where id", ours, theirs, peer="DuckDB", unit="ms", goal=1.5)

`ours` and `theirs`: what each round took, in pairs. A ratio is the median of those of the rounds, its interval the
least and the most of them: with few rounds a narrower one would be a guess.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

FILE = "BENCH_FIGURES"
"""Environment variable: the file that figures are added to."""


class Figure(NamedTuple):
    bench: str
    what: str
    unit: str
    ours: float
    peer: str
    """Empty: nobody else does it; then the goal is for `ours`."""
    theirs: float | None
    ratio: float | None
    """ours / theirs."""
    low: float | None
    high: float | None
    goal: float | None
    more: bool
    """Whether more is better."""

    @property
    def reached(self) -> bool | None:
        """Whether the whole interval keeps the goal; None where it lies on both sides, or there is none."""
        if self.goal is None:
            return None
        least, most = (self.ours, self.ours) if self.low is None or self.high is None else (self.low, self.high)
        if self.more:
            least, most = -most, -least
        goal = -self.goal if self.more else self.goal
        return True if most <= goal else False if least > goal else None


def note(
    what: str,
    ours: Sequence[float],
    theirs: Sequence[float] | None = None,
    *,
    unit: str,
    peer: str = "",
    goal: float | None = None,
    more: bool = False,
) -> Figure:
    ratios = sorted(mine / max(other, 1e-12) for mine, other in zip(ours, theirs, strict=True)) if theirs else []
    figure = Figure(
        Path(sys.argv[0]).stem, what, unit, statistics.median(ours), peer,
        statistics.median(theirs) if theirs else None, statistics.median(ratios) if ratios else None,
        ratios[0] if ratios else None, ratios[-1] if ratios else None, goal, more,
    )  # fmt: skip
    if path := os.environ.get(FILE):
        with Path(path).open("a") as file:
            file.write(json.dumps(figure._asdict()) + "\n")
    return figure
