"""How much better or worse a candidate is within each value of a column, for the gate `no_slice_worse`. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from speciate.evaluation.metrics import Answers, averaged, corpus_mean
from speciate.evaluation.statistics import Codes, Difference, bootstrap_difference, paired_difference, resample
from speciate.sample_size import LEVEL
from speciate.vocabulary import Metric

LEAST_EXAMPLES = 20
"""Independent examples that a value needs to be judged by itself; rarer values are judged together."""
RARE_VALUES = "all rarer values together"


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
    clusters: int = 0


def slice_gains(
    metric: Metric,
    baseline: Sequence[Answers],
    candidate: Sequence[Answers],
    clusters: Codes,
    values: Sequence[str],
    level: float = LEVEL,
    seed: int = 0,
) -> list[SliceGain]:
    """The gains within each value, the rarer ones together.

    Works for metrics of every shape, since it has all answers (reports/slice_metrics.py reads stored scores).
    `values` (n,): each example's value of the column. `baseline`, `candidate`: their answers, per repeat.
    """
    found = []
    cells = np.array(_pool_rare_values(values, clusters))
    kinds = sorted(set(cells.tolist()))
    levels = level, 1 - (1 - level) / len(kinds)
    for value in kinds:
        places = np.flatnonzero(cells == value)
        codes = np.unique(clusters[places], return_inverse=True)[1].astype(np.int64)
        sides = [[_select_answers(answers, places) for answers in side] for side in (baseline, candidate)]
        usual, strict = _differences(metric, sides[0], sides[1], codes, levels, seed)
        low, high = sorted((metric.sign * usual.low, metric.sign * usual.high))
        highest = max(metric.sign * strict.low, metric.sign * strict.high)
        gain = metric.sign * usual.delta
        found.append(SliceGain(value, len(places), gain, low, high, highest, usual.standard_error, usual.clusters))
    return found


def _differences(
    metric: Metric,
    baseline: Sequence[Answers],
    candidate: Sequence[Answers],
    clusters: Codes,
    levels: Sequence[float],
    seed: int,
) -> list[Difference]:
    """The differences with an interval at each of the levels."""
    if metric.shape == "mean":
        first, second = averaged(metric, baseline), averaged(metric, candidate)
        return [paired_difference(first, second, clusters, level) for level in levels]
    mine, theirs = (resample(corpus_mean(metric, side, clusters), clusters, seed) for side in (baseline, candidate))
    return [bootstrap_difference(mine, theirs, level, share=metric.is_share) for level in levels]


def _select_answers(answers: Answers, places: Codes) -> Answers:
    table = None if answers.probabilities is None else answers.probabilities[places]
    scores = {name: scores[places] for name, scores in answers.scores.items()}
    return answers._replace(
        references=answers.references[places], given=answers.given[places], probabilities=table, scores=scores
    )  # fmt: skip


def _pool_rare_values(values: Sequence[str], clusters: Codes) -> list[str]:
    independent = Counter(value for value, _ in {*zip(values, clusters.tolist(), strict=True)})
    return [value if independent[value] >= LEAST_EXAMPLES else RARE_VALUES for value in values]
