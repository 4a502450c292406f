"""The benchmark's results as a table, mean ranks and a critical-difference plot (Demsar 2006).

    python evals/benchmarks/report.py [--budget 1] [--plot evals/benchmarks/ranks.svg]

Ranks are over the data sets on which every compared arm has a value; arms of equal value share theirs. Two arms whose
mean ranks differ by less than Nemenyi's critical difference are joined by a bar: their order is not shown.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from scipy.stats import rankdata, studentized_range

RESULTS = Path(__file__).with_name("results.jsonl")
LOWER_IS_BETTER = ("mae", "rmse")
_ALPHA = 0.05
_BEHIND_POINTS, _BEHIND_SHARE = 0.02, 0.03
"""More than that below the best arm is a loss worth a reason."""


class Ranks(NamedTuple):
    mean: dict[str, float]
    sets: int
    critical: float


def read(budget: float) -> dict[str, dict[str, dict[str, Any]]]:
    """Data set -> arm -> its line; the last one stands."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for line in map(json.loads, RESULTS.read_text().splitlines()):
        if line["budget_minutes"] == budget and line["value"] is not None:
            found.setdefault(line["data_set"], {})[line["arm"]] = line
    return found


def ranks(results: Mapping[str, Mapping[str, Mapping[str, Any]]], arms: Sequence[str]) -> Ranks:
    rows = []
    for lines in results.values():
        if all(arm in lines for arm in arms):
            sign = 1 if lines[arms[0]]["metric"] in LOWER_IS_BETTER else -1
            rows.append(rankdata([sign * round(lines[arm]["value"], 6) for arm in arms]))
    if not rows:
        return Ranks({}, 0, math.nan)
    means = {arm: float(sum(row[place] for row in rows) / len(rows)) for place, arm in enumerate(arms)}
    spread = math.sqrt(len(arms) * (len(arms) + 1) / (6 * len(rows)))
    critical = float(studentized_range.ppf(1 - _ALPHA, len(arms), 1e6)) / math.sqrt(2) * spread
    return Ranks(means, len(rows), critical)


def is_behind(lines: Mapping[str, Mapping[str, Any]], arm: str) -> bool:
    """By more than two points, or 3 % of an error, behind the best arm."""
    lower = lines[arm]["metric"] in LOWER_IS_BETTER
    best = (min if lower else max)(line["value"] for line in lines.values())
    own = lines[arm]["value"]
    return bool(own > best * (1 + _BEHIND_SHARE) if lower else own < best - _BEHIND_POINTS)


def table(results: Mapping[str, Mapping[str, Mapping[str, Any]]], arms: Sequence[str]) -> list[str]:
    head = ["data set", "metric", "test rows", *arms, "seconds"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for name, found in results.items():
        first = next(iter(found.values()))
        cells = [
            f"{found[arm]['value']:.3f} ({found[arm]['low']:.3f} to {found[arm]['high']:.3f})" if arm in found else "-"
            for arm in arms
        ]
        seconds = " / ".join(f"{found[arm]['seconds']:.0f}" if arm in found else "-" for arm in arms)
        lines.append(f"| {name} | {first['metric']} | {first['n']} | {' | '.join(cells)} | {seconds} |")
    return lines


def plot(found: Ranks) -> str:
    """Mean ranks on a line, best to the left; bars join what is not told apart."""
    ordered = sorted(found.mean.items(), key=lambda pair: pair[1])
    width, left, most = 640, 40, len(ordered)
    scale = (width - 2 * left) / max(1, most - 1)

    def x(rank: float) -> float:
        return left + (rank - 1) * scale

    bars = [
        (first, last)
        for place, (_, first) in enumerate(ordered)
        if (last := max(rank for _, rank in ordered if rank - first < found.critical)) > first
        and not any(rank < first and last - rank < found.critical for _, rank in ordered[:place])
    ]
    height = 70 + 16 * len(bars) + 22 * most
    drawn = [f'<line x1="{left}" y1="40" x2="{width - left}" y2="40" stroke="black"/>']
    for rank in range(1, most + 1):
        drawn.append(f'<text x="{x(rank)}" y="28" text-anchor="middle">{rank}</text>')
        drawn.append(f'<line x1="{x(rank)}" y1="34" x2="{x(rank)}" y2="40" stroke="black"/>')
    for place, (first, last) in enumerate(bars):
        y = 50 + 8 * place
        drawn.append(f'<line x1="{x(first)}" y1="{y}" x2="{x(last)}" y2="{y}" stroke="black" stroke-width="4"/>')
    for place, (name, rank) in enumerate(ordered):
        y = 76 + 8 * len(bars) + 22 * place
        drawn.append(
            f'<polyline points="{x(rank)},40 {x(rank)},{y - 4} {x(rank) + 6},{y - 4}" fill="none" stroke="gray"/>'
        )
        side, at = ("end", x(rank) - 6) if rank > (most + 1) / 2 else ("start", x(rank) + 10)
        drawn.append(f'<text x="{at}" y="{y}" text-anchor="{side}">{escape(name)} {rank:.2f}</text>')
    title = f"Mean ranks on {found.sets} data sets; critical difference {found.critical:.2f} (Nemenyi, 5 %)"
    drawn.append(f'<text x="{left}" y="{height - 8}">{title}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
        f'font-size="13">{"".join(drawn)}</svg>\n'
    )


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--budget", type=float, default=1.0, help="minutes")
    asked.add_argument("--plot", type=Path)
    options = asked.parse_args()
    results = read(options.budget)
    arms = [
        arm
        for arm in ("ours", "autogluon", "hive-cote", "expert", "majority")
        if any(arm in lines for lines in results.values())
    ]
    print("\n".join(table(results, arms)))
    partial = ("autogluon", "hive-cote")  # asked for some kinds of data alone
    everywhere = [arm for arm in arms if arm not in partial]
    for compared in (*(sorted([*everywhere, arm]) for arm in partial if arm in arms), everywhere):
        found = ranks(results, compared)
        shown = ", ".join(f"{arm} {rank:.2f}" for arm, rank in sorted(found.mean.items(), key=lambda pair: pair[1]))
        print(f"\nMean ranks on {found.sets} sets: {shown}; critical difference {found.critical:.2f}")
        if options.plot and "autogluon" in compared and found.mean:
            options.plot.write_text(plot(found))
    for arm in arms:
        there = {name: lines for name, lines in results.items() if arm in lines and len(lines) > 1}
        behind = [name for name, lines in there.items() if is_behind(lines, arm)]
        spent = [lines[arm]["seconds"] for lines in there.values()]
        print(
            f"{arm}: behind the best on {len(behind)} of {len(there)} ({', '.join(behind)}); "
            f"median {median(spent):.0f} s"
        )


if __name__ == "__main__":
    main()
