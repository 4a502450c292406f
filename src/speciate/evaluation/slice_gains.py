"""How much better or worse a candidate is within each value of a column: what the gate `no_slice_worse` looks at.

Works for metrics of every shape, since it has all answers; `slices.py` cuts stored scores for readers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from speciate.evaluation.metrics import Answers, averaged, corpus_mean
from speciate.evaluation.statistics import Codes, Difference, bootstrap_difference, paired_difference, resample
from speciate.sample_size import LEVEL
from speciate.vocabulary import Metric

LEAST = 20
"""Independent examples that a value needs to be judged by itself; rarer values are judged together."""
OTHERS = "all rarer values together"


class SliceGain(NamedTuple):
    """Candidate minus baseline, signed so that better is positive; ends are NaN where nothing can be told."""

    value: str
    n: int
    gain: float
    low: float
    high: float
    highest: float
    """The upper end at the level with which all values together keep the asked one (Bonferroni)."""
    standard_error: float


def gains(
    metric: Metric,
    baseline: Sequence[Answers],
    candidate: Sequence[Answers],
    clusters: Codes,
    values: Sequence[str],
    level: float = LEVEL,
    seed: int = 0,
) -> list[SliceGain]:
    """`values` (n,): what each example has in the column. Baseline and candidate: their answers, per repeat."""
    found = []
    cells = np.array(_pooled(values, clusters))
    kinds = sorted(set(cells.tolist()))
    levels = level, 1 - (1 - level) / len(kinds)
    for value in kinds:
        places = np.flatnonzero(cells == value)
        codes = np.unique(clusters[places], return_inverse=True)[1].astype(np.int64)
        sides = [[_only(answers, places) for answers in side] for side in (baseline, candidate)]
        usual, strict = _differences(metric, sides[0], sides[1], codes, levels, seed)
        low, high = sorted((metric.sign * usual.low, metric.sign * usual.high))
        highest = max(metric.sign * strict.low, metric.sign * strict.high)
        gain = metric.sign * usual.delta
        found.append(SliceGain(value, len(places), gain, low, high, highest, usual.standard_error))
    return found


def _differences(
    metric: Metric,
    baseline: Sequence[Answers],
    candidate: Sequence[Answers],
    clusters: Codes,
    levels: Sequence[float],
    seed: int,
) -> list[Difference]:
    """At each of the levels."""
    if metric.shape == "mean":
        first, second = averaged(metric, baseline), averaged(metric, candidate)
        return [paired_difference(first, second, clusters, level) for level in levels]
    mine, theirs = (resample(corpus_mean(metric, side, clusters), clusters, seed) for side in (baseline, candidate))
    return [bootstrap_difference(mine, theirs, level, share=metric.is_share) for level in levels]


def _only(answers: Answers, places: Codes) -> Answers:
    table = None if answers.probabilities is None else answers.probabilities[places]
    marks = {name: scores[places] for name, scores in answers.marks.items()}
    return answers._replace(
        truth=answers.truth[places], given=answers.given[places], probabilities=table, marks=marks
    )  # fmt: skip


def _pooled(values: Sequence[str], clusters: Codes) -> list[str]:
    independent = Counter(value for value, _ in {*zip(values, clusters.tolist(), strict=True)})
    return [value if independent[value] >= LEAST else OTHERS for value in values]
