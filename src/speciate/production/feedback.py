"""How good each version is by what was said of its answers: estimates with intervals. Pure.

What people happen to complain about is no fair draw of the answers. So an estimate says whether it stands on answers
that the label queue drew at random (`random`), which tell of all of them without bias, or on whatever there is (`any`).
To those drawn at random belong the ones that were judged for another reason before their turn came (`fair`).
Shares have Wilson's interval (Wilson 1927); means of scores and errors Student's, with the quantile of Abramowitz and
Stegun (1964), 26.7.5.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from speciate.predictions.feedback import SOURCES, BySource, Judged, judged
from speciate.predictions.queue import place


class Said(NamedTuple):
    """An answer with what is needed of it."""

    id: str
    model: str
    output: Any


class Quality(NamedTuple):
    """Of one version, by one measure."""

    model: str
    measure: Literal["right", "score", "absolute_error"]
    """`right`: share of the labelled answers that were as the label says; `score`: mean of scores, 0 to 1;
    `absolute_error`: of numbers, in their own unit, less is better."""
    drawn: Literal["random", "any"]
    n: int
    mean: float
    low: float | None
    high: float | None
    """Of 95 %; None where one value alone says nothing of how they vary."""


def qualities(answers: Iterable[Said], given: Mapping[str, BySource], *, level: float = 0.95) -> list[Quality]:
    """Every estimate that the feedback allows, by model. `given`: of `feedback.latest`."""
    found: dict[tuple[str, str], list[tuple[str, Judged]]] = {}
    for each in answers:
        if each.id in given and (verdict := judged(each.output, given[each.id])) is not None:
            found.setdefault((each.model, verdict.measure), []).append((each.id, verdict))
    by_chance, made = fair(given), list[Quality]()
    for (model, _), verdicts in sorted(found.items()):
        drawn = [verdict for name, verdict in verdicts if name in by_chance]
        made += [_quality(model, "random", drawn, level)] if drawn else []
        any_ = [verdict for _, verdict in verdicts]
        made += [_quality(model, "any", any_, level)] if len(drawn) < len(any_) else []
    return made


def fair(given: Mapping[str, BySource]) -> set[str]:
    """Which answers are a fair draw of all: those that the queue drew at random, and those that it would have drawn,
    had the same source not judged them before (for their doubt, say). Without the latter the random ones were drawn
    from what was left once the doubtful ones were gone, and would make a model look better than it is.

    An answer would have been drawn where one behind it in the random order was, at a later time.
    """
    found = set[str]()
    for source in SOURCES:
        own = [(place(name), said[source], name) for name, said in given.items() if source in said]
        last_drawn = -math.inf
        for _, each, name in sorted(own, key=lambda one: one[0], reverse=True):
            if each.drawn == "random" or each.at < last_drawn:
                found.add(name)
            if each.drawn == "random":
                last_drawn = max(last_drawn, each.at)
    return found


def _quality(model: str, drawn: Literal["random", "any"], verdicts: list[Judged], level: float) -> Quality:
    values, measure = [each.value for each in verdicts], verdicts[0].measure
    mean = statistics.fmean(values)
    low, high = wilson(mean, len(values), level) if measure == "right" else student(values, level)
    if measure == "score" and low is not None and high is not None:
        low, high = max(0.0, low), min(1.0, high)
    return Quality(model, measure, drawn, len(values), mean, low, high)


def wilson(share: float, n: int, level: float) -> tuple[float, float]:
    """Score interval of a proportion."""
    z = statistics.NormalDist().inv_cdf(0.5 + level / 2)
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return 0.0 if share <= 0 else low, 1.0 if share >= 1 else high  # exact, where rounding leaves 1e-17


def student(values: list[float], level: float) -> tuple[float | None, float | None]:
    """Of a mean; (None, None) for a single value."""
    n = len(values)
    if n < 2:
        return None, None
    mean, half = statistics.fmean(values), _t(0.5 + level / 2, n - 1) * statistics.stdev(values) / math.sqrt(n)
    return mean - half, mean + half


def _t(p: float, degrees: int) -> float:
    """Quantile of Student's t: exact for 1 and 2 degrees of freedom, an expansion from 3 on (within 2 % there)."""
    if degrees == 1:
        return math.tan(math.pi * (p - 0.5))
    if degrees == 2:
        return (2 * p - 1) * math.sqrt(2 / (4 * p * (1 - p)))
    z, v = statistics.NormalDist().inv_cdf(p), degrees
    g1 = (z**3 + z) / 4
    g2 = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    g3 = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    g4 = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160
    return z + g1 / v + g2 / v**2 + g3 / v**3 + g4 / v**4
