"""How often tests of two equal models give a false alarm, at a nominal 5 %: 20,000 repetitions each.

By chance alone such a share has a standard error of 0.15 %. Clusters share half of the variance (ICC 0.5). Every
alarm of an interval, or of a p-value, that a verdict may rest on is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from speciate.evaluation.statistics import (
    RESAMPLES,
    Difference,
    Resampled,
    bootstrap_difference,
    cluster_weights,
    degrees_of_freedom,
    jackknife_weights,
    paired_difference,
    resample,
)

REPETITIONS = 20_000
DRAWS = 400
"""Of the bootstrap, where its usual 2,000 would only take longer."""
MOST = 0.056
Draw = Callable[[np.random.Generator, int], np.ndarray]

SIZES: dict[str, Draw] = {
    "single": lambda random, count: np.ones(count, int),
    "of five": lambda random, count: np.full(count, 5),
    "unequal": lambda random, count: 1 + random.geometric(0.15, count),  # 2 to about 40
    "very unequal": lambda random, count: np.maximum(1, random.lognormal(1.2, 1, count).round()).astype(int),
}


def pairs(random: np.random.Generator, codes: np.ndarray, binary: float | None) -> np.ndarray:
    """(2, n) scores of two equal models. `binary`: the share of ones; the two agree on most examples."""
    count, n = codes.max() + 1, codes.size
    scores = (random.normal(size=(2, count))[:, codes] + random.normal(size=(2, n))) * 0.5**0.5
    if binary is None:
        return scores
    scores += random.normal(size=n)  # what makes an example hard for both
    return (scores > np.quantile(scores, 1 - binary)).astype(float)


def worlds(sizes: str, count: int) -> Iterator[tuple[np.random.Generator, np.ndarray]]:
    random = np.random.default_rng(count)
    for _ in range(REPETITIONS):
        yield random, np.repeat(np.arange(count), SIZES[sizes](random, count))


def alarms(found: Iterator[Difference]) -> float:
    """The larger share of the two: intervals without 0, p-values below 5 %."""
    got = np.array([(not one.low <= 0 <= one.high, one.p_value < 0.05) for one in found])
    assert len(got) == REPETITIONS
    return float(got.mean(0).max())


@pytest.mark.slow
@pytest.mark.parametrize("count", [30, 40, 100])
@pytest.mark.parametrize("sizes", SIZES)
def test_a_comparison_of_means_errs_in_five_percent(sizes: str, count: int) -> None:
    def found() -> Iterator[Difference]:
        for random, codes in worlds(sizes, count):
            yield paired_difference(*pairs(random, codes, None), codes)

    share = alarms(found())
    assert share < MOST
    assert share > 0.04


@pytest.mark.slow
@pytest.mark.parametrize("count", [30, 40, 100])
@pytest.mark.parametrize("sizes", ["single", "unequal", "very unequal"])
@pytest.mark.parametrize("ones", [0.5, 0.05])
def test_a_comparison_of_right_answers_errs_in_no_more(ones: float, sizes: str, count: int) -> None:
    """Less often where few answers differ: what is counted comes in steps."""

    def found() -> Iterator[Difference]:
        for random, codes in worlds(sizes, count):
            yield paired_difference(*pairs(random, codes, ones), codes)

    assert alarms(found()) < MOST


class Drawn:
    """`resample` for ratios of sums, with the draws made once for all repetitions."""

    def __init__(self, count: int, draws: int = RESAMPLES) -> None:
        self.drawn = np.concatenate([*cluster_weights(count, draws)])
        self.left_out = np.concatenate([*jackknife_weights(count)])

    def of(self, statistic: Callable[[np.ndarray], np.ndarray], codes: np.ndarray) -> Resampled:
        whole = np.ones((1, self.drawn.shape[1]))
        value, drawn, left_out = (statistic(weights) for weights in (whole, self.drawn, self.left_out))
        return Resampled(float(value[0]), drawn, left_out, whole.size, degrees_of_freedom(np.bincount(codes)))


def f1(sums: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """`sums`: (C, 3), of hits, alarms and positives."""

    def value(weights: np.ndarray) -> np.ndarray:
        hits, given, true = (weights @ sums).T
        with np.errstate(invalid="ignore"):
            return 2 * hits / (given + true)

    return value


def root(sums: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """`sums`: (C, 2), of squared errors and examples."""
    return lambda weights: np.sqrt((weights @ sums[:, 0]) / (weights @ sums[:, 1]))


def totals(codes: np.ndarray, *parts: np.ndarray) -> np.ndarray:
    return np.stack([np.bincount(codes, weights=part) for part in parts], 1)


def test_the_draws_that_are_made_once_are_those_of_every_resample() -> None:
    random, codes = np.random.default_rng(0), np.repeat(np.arange(30), 3)
    statistic = root(totals(codes, random.random(90), np.ones(90)))
    got, expected = Drawn(30).of(statistic, codes), resample(statistic, codes)
    assert got.drawn == pytest.approx(expected.drawn, rel=1e-12)
    assert got.left_out == pytest.approx(expected.left_out, rel=1e-12)
    assert got._replace(drawn=0, left_out=0) == expected._replace(drawn=0, left_out=0)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize(("metric", "count"), [("f1", 30), ("f1", 100), ("rmse", 30)])
@pytest.mark.parametrize("sizes", SIZES)
def test_a_comparison_by_resampling_errs_in_five_percent(metric: str, sizes: str, count: int) -> None:
    made = Drawn(count, DRAWS)

    def resampled(random: np.random.Generator, codes: np.ndarray) -> Iterator[Resampled]:
        if metric == "rmse":
            for errors in pairs(random, codes, None):
                yield made.of(root(totals(codes, errors**2, np.ones(codes.size))), codes)
            return
        given = pairs(random, codes, 0.4)
        reference = (random.random(codes.size) < 0.4).astype(float)
        for said in given:
            yield made.of(f1(totals(codes, said * reference, said, reference)), codes)

    def found() -> Iterator[Difference]:
        for random, codes in worlds(sizes, count):
            yield bootstrap_difference(*resampled(random, codes), share=metric == "f1")

    assert alarms(found()) < MOST
