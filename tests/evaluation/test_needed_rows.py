"""Whether the rows that a plan asks for are those by which a verdict is reached, by the intervals of evaluations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from speciate.evaluation.compare_models import estimate, score
from speciate.evaluation.metrics import label_answers
from speciate.evaluation.statistics import units_needed
from speciate.sample_size import counted_share, in_rows, is_rough, to_show_target
from speciate.vocabulary import METRICS, find_metric

EIGHT = (0.35, 0.2, 0.14, 0.11, 0.08, 0.06, 0.04, 0.02)
RARE, THREE, EVEN = (0.9, 0.1), (0.7, 0.2, 0.1), (0.25, 0.25, 0.25, 0.25)
DRAWS = 40
TARGET = 0.75


class World(NamedTuple):
    """Rows of normal distributions, and the best classifier there is; the last label is the positive one."""

    shares: tuple[float, ...]
    metric: str
    spread: float = 1.0
    """Of the labels' centres."""

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(f"label {place}" for place in range(len(self.shares)))

    def value_on(self, rows: int, seed: int) -> tuple[float, float, float]:
        """The metric on drawn test rows, the lower end of its interval, and its standard error."""
        drawn = np.random.default_rng(seed)
        centres = np.random.default_rng(2).normal(0, self.spread, (len(self.shares), 4))
        label = drawn.choice(len(self.shares), rows, p=self.shares)
        seen = centres[label] + drawn.normal(0, 1, (rows, 4))
        chances = _probabilities(seen, centres, self.shares)
        answers = label_answers(
            [self.labels[each] for each in label],
            [self.labels[each] for each in chances.argmax(axis=1)],
            [dict(zip(self.labels, row, strict=True)) for row in chances.tolist()],
            self.labels,
            self.labels[-1],
        )
        metric, units = find_metric(self.metric), np.arange(rows)
        found = estimate(metric, score(metric, (answers,), units, 0), units)
        return found.value, found.low, found.standard_error

    def needed(self) -> int:
        metric = find_metric(self.metric)
        counts = {label: round(10_000 * share) for label, share in zip(self.labels, self.shares, strict=True)}
        counted = to_show_target(metric, TARGET, counts, self.labels[-1])
        assert counted is not None
        return in_rows(counted, counted_share(metric, self.labels[-1], counts))


def _probabilities(
    seen: npt.NDArray[np.float64], centres: npt.NDArray[np.float64], shares: Sequence[float]
) -> npt.NDArray[np.float64]:
    fit = np.log(shares) - 0.5 * ((seen[:, None] - centres) ** 2).sum(axis=2)
    weight = np.exp(fit - fit.max(axis=1, keepdims=True))
    return np.asarray(weight / weight.sum(axis=1, keepdims=True))


def half_way(shares: tuple[float, ...], metric: str) -> World:
    """A world in which the classifier is half-way between the target and perfect."""
    low, high = 0.02, 15.0
    for _ in range(14):
        spread = math.sqrt(low * high)
        value, _, _ = World(shares, metric, spread).value_on(12_000, 1)
        low, high = (spread, high) if value < (1 + TARGET) / 2 else (low, spread)
    return World(shares, metric, low)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shares", "metric"),
    [
        (EIGHT, "f1_macro"), (RARE, "f1_macro"), (THREE, "f1_macro"), (EVEN, "f1_macro"), (EIGHT, "balanced_accuracy"),
        (RARE, "balanced_accuracy"), (RARE, "f1"), (RARE, "auroc"), (RARE, "recall"),
    ],
)  # fmt: skip
def test_the_planned_rows_show_the_target_in_about_four_of_five_cases(shares: tuple[float, ...], metric: str) -> None:
    world = half_way(shares, metric)
    needed = world.needed()
    shown = sum(world.value_on(needed, 100 + seed)[1] >= TARGET for seed in range(DRAWS))
    assert 0.6 <= shown / DRAWS <= 0.98, (needed, shown)
    _, _, error = world.value_on(4_000, 7)
    later = units_needed(4_000, error, (1 - TARGET) / 2)
    assert later is not None
    assert 0.5 < needed / later < 3, (needed, later)


def test_metrics_whose_spread_is_not_known_before_are_told_apart() -> None:
    counts = {"a": 90, "b": 10}
    known = [name for name in METRICS if not is_rough(METRICS[name], counts, "b") and METRICS[name].shape == "corpus"]
    assert known == ["balanced_accuracy", "f1_macro", "precision", "f1", "auroc"]
    assert is_rough(METRICS["f1_macro"]), "without the labels' shares"
    assert to_show_target(METRICS["f1_macro"], 0.75, {"a": 50, "b": 50}) == to_show_target(METRICS["accuracy"], 0.75)


def test_of_a_metric_where_less_is_better_half_way_is_towards_zero() -> None:
    assert to_show_target(METRICS["brier"], 0.1) == to_show_target(METRICS["subset_accuracy"], 0.9)
