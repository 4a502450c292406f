"""Every figure of an interval or a test, beside the formula that it names, written out plainly here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from speciate.evaluation import statistics
from speciate.evaluation.statistics import (
    Difference,
    Estimate,
    Resampled,
    bootstrap,
    bootstrap_difference,
    cluster_variance,
    clustered_mean,
    degrees_of_freedom,
    mcnemar_exact,
    mean,
    minimum_detectable_effect,
    paired_difference,
    proportion,
    quantile_interval,
    resample,
    units_needed,
    wilson,
)

NAN = math.nan
LEVELS = [None, 0.9, 0.99]
"""None: as it is where nobody says."""


def same(found: Sequence[Any], expected: Sequence[Any]) -> None:
    """Field by field; a missing number is NaN on both sides, and a count is a whole number."""
    assert len(found) == len(expected)
    for at, (one, other) in enumerate(zip(found, expected, strict=True)):
        if isinstance(other, float):
            assert isinstance(one, float), (at, one)
            assert one == pytest.approx(other, rel=1e-9, abs=1e-12, nan_ok=True), (at, found, expected)
        else:
            assert one == other, (at, found, expected)
            assert isinstance(one, type(other) if not isinstance(other, int) else (int, np.integer))


def asked(level: float | None) -> dict[str, float]:
    return {} if level is None else {"level": level}


def critical(degrees: float, level: float | None) -> float:
    return float(stats.t.ppf((1 + (level or 0.95)) / 2, degrees))


def detectable(error: float, degrees: float, level: float | None) -> float:
    return (critical(degrees, level) + float(stats.t.ppf(0.8, degrees))) * error


def p_value(statistic: float, degrees: float) -> float:
    return 2 * float(stats.t.cdf(-abs(statistic), degrees))


def jackknife(values: np.ndarray, clusters: np.ndarray) -> float:
    names = np.unique(clusters)
    without = [values[clusters != name].mean() for name in names]
    return (len(names) - 1) / len(names) * sum((each - values.mean()) ** 2 for each in without)


def satterthwaite(clusters: np.ndarray) -> float:
    """tr(AS)^2 / tr(ASAS) of the quadratic form T'AT with Cov(T) = S."""
    shares = np.unique(clusters, return_counts=True)[1] / len(clusters)
    form = np.diag(1 / (1 - shares) ** 2) @ (np.diag(shares) - np.outer(shares, shares))
    return float(np.clip(np.trace(form) ** 2 / np.trace(form @ form), 1, len(shares) - 1))


def score_interval(share: float, n: float, quantile: float) -> tuple[float, float]:
    """Where the distance from the share is `quantile` standard errors of the proportion itself."""
    a, b, c = 1 + quantile**2 / n, -(2 * share + quantile**2 / n), share**2
    low, high = sorted(np.roots([a, b, c]).real.tolist())
    return 0.0 if share == 0 else low, 1.0 if share == 1 else high


rng = np.random.default_rng(4)
ALONE, PAIRS, UNEVEN = np.arange(40), np.arange(40) // 2, np.sort(rng.integers(0, 9, 40))
CLUSTERS = {"alone": ALONE, "pairs": PAIRS, "uneven": UNEVEN, "two": np.arange(40) // 30}
NUMBERS, OTHERS = rng.normal(2, 1, 40), rng.normal(2.5, 1, 40)
ONES, MORE = (rng.random(40) < 0.6).astype(float), (rng.random(40) < 0.8).astype(float)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", CLUSTERS)
def test_a_mean_has_the_t_interval_of_its_clusters(name: str, level: float | None) -> None:
    clusters = CLUSTERS[name]
    degrees, error = satterthwaite(clusters), math.sqrt(jackknife(NUMBERS, clusters))
    half, centre, count = critical(degrees, level) * error, float(NUMBERS.mean()), len(set(clusters.tolist()))
    expected = Estimate(centre, centre - half, centre + half, error, 40, count, "clustered_t")
    same(clustered_mean(NUMBERS, clusters, **asked(level)), expected)
    same(mean(NUMBERS.tolist(), clusters, **asked(level)), expected)
    assert degrees_of_freedom(np.bincount(clusters)) == pytest.approx(degrees)
    assert cluster_variance(NUMBERS, clusters) == pytest.approx(error**2)


def test_a_mean_of_one_cluster_or_of_nothing_or_of_equals_says_so() -> None:
    same(clustered_mean(NUMBERS, np.zeros(40, int)), (float(NUMBERS.mean()), NAN, NAN, NAN, 40, 1, "too_few_clusters"))
    same(clustered_mean([NAN, NAN], np.arange(2)), (NAN, NAN, NAN, NAN, 0, 0, "none"))
    same(clustered_mean([3.0, 3.0], np.arange(2)), (3.0, 3.0, 3.0, 0.0, 2, 2, "no_spread"))
    tiny = [8.0, 8.0 + 2**-27]  # 9e-10 of it
    assert clustered_mean(tiny, np.arange(2)).method == "no_spread"
    assert clustered_mean([8.0, 8.0 + 2**-25], np.arange(2)).method == "clustered_t"
    assert clustered_mean([-8.0, -8.0 - 2**-27], np.arange(2)).method == "no_spread"
    assert clustered_mean([-8.0, -8.0 - 2**-25], np.arange(2)).method == "clustered_t"
    same(mean([None, 2.0, 4.0], np.arange(3)), clustered_mean([2.0, 4.0], np.arange(2)))  # type: ignore[list-item]
    assert math.isnan(cluster_variance(NUMBERS, np.zeros(40, int)))
    assert cluster_variance(NUMBERS, np.arange(40) // 20 * 3) == pytest.approx(jackknife(NUMBERS, np.arange(40) // 20))


@pytest.mark.parametrize(
    ("sizes", "degrees"),
    [([], 0.0), ([7], 0.0), ([7, 0], 0.0), ([5, 5], 1.0), ([5, 0, 5, 5], 2.0), ([3, 3, 3, 3], 3.0), ([1000, 1], 1.0)],
)
def test_equal_clusters_have_one_degree_of_freedom_less_than_there_are(sizes: list[int], degrees: float) -> None:
    assert degrees_of_freedom(sizes) == pytest.approx(degrees)
    assert type(degrees_of_freedom(sizes)) is float


def effective(n: int, count: int, spread: float, variance: float) -> float:
    if n == count:
        return float(n)
    return float(count) if spread == 0 else min(float(n), spread / variance) if variance > 0 else float(n)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", CLUSTERS)
@pytest.mark.parametrize(
    "values", [ONES, np.zeros(40), np.ones(40), np.arange(40) % 2.0], ids=["some", "none", "all", "half"]
)
def test_a_share_has_wilsons_interval_of_its_effective_size(values: np.ndarray, name: str, level: float | None) -> None:
    clusters = CLUSTERS[name]
    count, share = len(set(clusters.tolist())), float(values.mean())
    size = effective(40, count, share * (1 - share), jackknife(values, clusters))
    quantile = critical(satterthwaite(clusters), level)
    low, high = score_interval(share, size, quantile)
    error = max(math.sqrt(share * (1 - share) / size), (high - low) / (2 * quantile))
    expected = Estimate(share, low, high, error, 40, count, "wilson")
    same(proportion(values, clusters, **asked(level)), expected)
    same(mean(values, clusters, **asked(level)), expected)


@pytest.mark.parametrize("level", LEVELS)
def test_a_share_of_one_cluster_has_no_interval_and_of_two_it_has(level: float | None) -> None:
    same(
        proportion(ONES, np.zeros(40, int), **asked(level)),
        (float(ONES.mean()), NAN, NAN, NAN, 40, 1, "too_few_clusters"),
    )
    assert proportion([1.0, 0.0], np.arange(2), **asked(level)).method == "wilson"


@pytest.mark.parametrize("share", [0.0, 1e-9, 0.3, 0.5, 1 - 1e-9, 1.0])
@pytest.mark.parametrize("n", [0.7, 3.0, 57.0, 1e6])
def test_a_score_interval_ends_where_the_share_is_so_many_errors_away(share: float, n: float) -> None:
    low, high = wilson(share * n, n, 1.7)
    assert (low, high) == pytest.approx(score_interval(share, n, 1.7), abs=1e-6)
    assert 0.0 <= low <= high <= 1.0
    assert (low == 0.0) or share > 0
    assert (high == 1.0) or share < 1


def test_all_right_and_all_wrong_have_exact_ends_of_any_size() -> None:
    for n in range(1, 300):
        assert wilson(n, n, 1.96)[1] == 1.0
        assert wilson(0, n, 1.96)[0] == 0.0


# Differences


def test_what_either_does_not_count_is_left_out_of_a_difference() -> None:
    first: Any = [None, 1.0, 2.0, 0.5, 0.0]
    second: Any = [1.0, 3.0, 2.5, None, 0.25]
    expected = paired_difference([1.0, 2.0, 0.0], [3.0, 2.5, 0.25], np.arange(3))
    same(paired_difference(first, second, np.arange(5)), expected)
    same(
        paired_difference(second, first, np.arange(5)),
        paired_difference([3.0, 2.5, 0.25], [1.0, 2.0, 0.0], np.arange(3)),
    )


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", CLUSTERS)
def test_a_difference_of_scores_has_a_t_interval(name: str, level: float | None) -> None:
    clusters, differences = CLUSTERS[name], OTHERS - NUMBERS
    degrees, error = satterthwaite(clusters), math.sqrt(jackknife(differences, clusters))
    delta, half, count = float(differences.mean()), critical(degrees, level) * error, len(set(clusters.tolist()))
    wins = int((differences > 0).sum())
    expected = Difference(
        delta, delta - half, delta + half, p_value(delta / error, degrees), error, detectable(error, degrees, level),
        40, count, "clustered_t", wins, 0, 40 - wins,
    )  # fmt: skip
    same(paired_difference(NUMBERS, OTHERS, clusters, **asked(level)), expected)
    same(paired_difference(NUMBERS.tolist(), OTHERS.tolist(), clusters, **asked(level)), expected)


def binary(first: np.ndarray, second: np.ndarray, clusters: np.ndarray, level: float | None) -> Difference:
    """Bonett & Price, with an effective size."""
    n, count, differences = len(first), len(set(clusters.tolist())), second - first
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    delta = float(differences.mean())
    spread = (wins + losses) / n - delta**2
    size = effective(n, count, spread, jackknife(differences, clusters))
    won, lost = (wins * size / n + 1) / (size + 2), (losses * size / n + 1) / (size + 2)
    error = math.sqrt((won + lost - (won - lost) ** 2) / (size + 2))
    degrees = satterthwaite(clusters)
    half = critical(degrees, level) * error
    if count == n and (n < 200 or wins + losses < 25):
        p, method = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0, "bonett_price, mcnemar_exact"
    else:
        plain = math.sqrt(spread / size) if spread > 0 else error
        p, method = p_value(delta / plain, degrees), "bonett_price, clustered_t"
    return Difference(
        delta, max(-1.0, won - lost - half), min(1.0, won - lost + half), float(p), error,
        detectable(error, degrees, level), n, count, method, wins, n - wins - losses, losses,
    )  # fmt: skip


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", CLUSTERS)
@pytest.mark.parametrize(
    ("first", "second"),
    [(ONES, MORE), (ONES, ONES), (np.zeros(40), np.ones(40)), (np.ones(40), np.zeros(40)), (MORE, np.zeros(40))],
    ids=["some", "equal", "better", "worse", "mostly worse"],
)
def test_a_difference_of_shares_has_the_interval_of_bonett_and_price(
    first: np.ndarray, second: np.ndarray, name: str, level: float | None
) -> None:
    clusters = CLUSTERS[name]
    expected = binary(first, second, clusters, level)
    same(paired_difference(first, second, clusters, **asked(level)), expected)
    same(paired_difference(first.astype(bool), second.astype(bool), clusters, **asked(level)), expected)


@pytest.mark.parametrize(
    ("n", "wins", "losses", "exact"),
    [(199, 20, 20, True), (200, 20, 20, False), (200, 12, 12, True), (200, 13, 12, False), (400, 30, 0, False)],
)
def test_few_discordant_pairs_have_mcnemars_exact_test(n: int, wins: int, losses: int, exact: bool) -> None:
    first, second = np.zeros(n), np.zeros(n)
    second[:wins] = 1
    first[wins : wins + losses] = 1
    found = paired_difference(first, second, np.arange(n))
    same(found, binary(first, second, np.arange(n), None))
    assert found.method.endswith("mcnemar_exact") == exact
    grouped = paired_difference(first, second, np.arange(n) // 2)
    same(grouped, binary(first, second, np.arange(n) // 2, None))
    assert grouped.method.endswith("clustered_t")


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (0, 3), (5, 5), (12, 3)])
def test_mcnemars_exact_p_value_is_the_binomials(wins: int, losses: int) -> None:
    expected = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert mcnemar_exact(wins, losses) == pytest.approx(expected)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("delta", "clusters"), [(0.5, 5), (0.5, 6), (-0.5, 40), (0.5, 2), (-0.25, 3)])
def test_what_differs_by_the_same_everywhere_does_so_by_chance_as_coins_fall(
    delta: float, clusters: int, level: float | None
) -> None:
    codes = np.arange(40) % clusters
    chance = 0.5 ** (clusters - 1)
    half = abs(delta) if chance > 1 - (level or 0.95) else 0.0
    wins, losses = (40, 0) if delta > 0 else (0, 40)
    expected = (delta, delta - half, delta + half, chance, 0.0, half, 40, clusters, "no_spread", wins, 0, losses)
    same(paired_difference(np.zeros(40), np.full(40, delta), codes, **asked(level)), expected)


def test_a_difference_of_one_cluster_or_of_nothing_has_no_interval() -> None:
    one = paired_difference(NUMBERS, OTHERS, np.zeros(40, int))
    delta = float((OTHERS - NUMBERS).mean())
    same(one, (delta, NAN, NAN, NAN, NAN, NAN, 40, 1, "too_few_clusters", None, None, None))
    same(paired_difference([NAN], [1.0], np.zeros(1, int)), (NAN,) * 6 + (0, 0, "too_few_clusters", None, None, None))
    assert paired_difference(NUMBERS[:2], OTHERS[:2], np.arange(2)).method == "clustered_t"
    equal = [0.5, 0.5, 0.25]
    same(paired_difference(equal, equal, np.arange(3)), binary(np.zeros(3), np.zeros(3), np.arange(3), None))
    assert paired_difference([1.0, 1.0], [9.0, 9.0 + 2**-27], np.arange(2)).method == "no_spread"
    assert paired_difference([1.0, 1.0], [9.0, 9.0 + 2**-25], np.arange(2)).method == "clustered_t"


# Planning


@pytest.mark.parametrize("level", LEVELS)
def test_what_a_test_can_find_is_two_quantiles_of_its_error(level: float | None) -> None:
    assert minimum_detectable_effect(0.1, 7, **asked(level)) == pytest.approx(detectable(0.1, 7, level))
    assert minimum_detectable_effect(0.1, 1, **asked(level)) == pytest.approx(detectable(0.1, 1, level))
    assert math.isnan(minimum_detectable_effect(0.1, 0))
    assert minimum_detectable_effect(0.1, 7, power=0.5) == pytest.approx(0.1 * critical(7, None))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("units", "error"), [(1, 0.3), (2, 0.5), (5, 0.24), (30, 0.09), (100, 0.5), (40, 0.0)])
def test_units_needed_are_the_fewest_that_tell(units: int, error: float, level: float | None) -> None:
    counts = np.arange(20, 10_000)
    quantiles = sum(stats.t.ppf(share, counts - 1) for share in ((1 + (level or 0.95)) / 2, 0.8))
    exact = int(counts[quantiles * error * np.sqrt(units / counts) <= 0.2][0])
    found = units_needed(units, error, 0.2, **asked(level))
    assert found is not None
    assert abs(found - exact) <= (1 if exact > 60 else 0)


def test_units_needed_are_the_fewest_of_any_error() -> None:
    counts = np.arange(20, 2000)
    quantiles = stats.t.ppf(0.975, counts - 1) + stats.t.ppf(0.8, counts - 1)
    for units in (5, 20):
        for error in np.linspace(0.05, 0.2, 60).tolist():
            exact = int(counts[quantiles * error * np.sqrt(units / counts) <= 0.1][0])
            assert units_needed(units, error, 0.1) == exact


@pytest.mark.parametrize(
    ("units", "error", "distance"),
    [(0, 0.1, 0.1), (5, -0.1, 0.1), (5, NAN, 0.1), (5, math.inf, 0.1), (5, 0.1, 0.0), (5, 0.1, -1.0),
     (5, 0.1, math.inf), (5, 100.0, 1e-6)],
)  # fmt: skip
def test_some_questions_no_number_of_units_settles(units: int, error: float, distance: float) -> None:
    assert units_needed(units, error, distance) is None


# Quantiles


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("n", [1, 2, 5, 20, 59, 200])
@pytest.mark.parametrize("probability", [0.05, 0.5, 0.95])
def test_a_quantile_lies_between_order_statistics(n: int, probability: float, level: float | None) -> None:
    """The ends are the narrowest pair that the binomial distribution allows."""
    samples = np.random.default_rng(n).normal(size=n)
    ordered, tail = np.sort(samples).tolist(), (1 - (level or 0.95)) / 2
    below = [k for k in range(1, n + 1) if stats.binom.cdf(k - 1, n, probability) <= tail]
    above = [k for k in range(1, n + 1) if stats.binom.cdf(k - 1, n, probability) >= 1 - tail]
    low = ordered[max(below) - 1] if below else -math.inf
    high = ordered[min(above) - 1] if above else math.inf
    expected = (float(np.quantile(samples, probability)), low, high, NAN, n, n, "order_statistics")
    same(quantile_interval(samples.tolist(), probability, **asked(level)), expected)


def test_a_quantile_of_nothing_is_nothing() -> None:
    same(quantile_interval([], 0.5), (NAN, NAN, NAN, NAN, 0, 0, "none"))


# Resampling


def of_means(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    return lambda weights: np.asarray(weights @ values / weights.sum(1))


def resampled(
    value: float, drawn: Sequence[float], left_out: Sequence[float], clusters: int, degrees: float
) -> Resampled:
    return Resampled(value, np.array(drawn, float), np.array(left_out, float), clusters, degrees)


@pytest.mark.parametrize("sizes", [[1] * 30, [4, 4, 4, 1, 1], [2] * 450])
def test_a_statistic_is_taken_on_all_on_draws_and_without_each_group(sizes: list[int]) -> None:
    count = len(sizes)
    values = np.random.default_rng(8).normal(size=count)
    codes = np.repeat(np.arange(count), sizes)
    found = resample(of_means(values), codes, seed=5)
    assert found.value == pytest.approx(values.mean())
    groups = min(count, 200)
    expected = [values[np.arange(count) % groups != group].mean() for group in range(groups)]
    assert found.left_out == pytest.approx(np.array(expected))
    weights = np.random.default_rng(5).multinomial(count, [1 / count] * count, statistics.RESAMPLES)
    assert found.drawn == pytest.approx(weights @ values / count)
    assert (found.clusters, found.degrees) == (count, pytest.approx(degrees_of_freedom(sizes)))
    assert statistics.RESAMPLES == 2000


def bca(given: Resampled, level: float | None, *, share: bool) -> Estimate:
    """Efron 1987 with t quantiles for few clusters, beside Wilson's and t's where those say more."""
    drawn, clusters, value = given.drawn[np.isfinite(given.drawn)], given.clusters, given.value
    t = critical(given.degrees, level)
    wide = t * math.sqrt(clusters / (clusters - 1))
    below = float(np.mean(drawn < value) + np.mean(drawn == value) / 2)
    left_out = given.left_out[np.isfinite(given.left_out)]
    levels = [float(stats.norm.cdf(sign * wide)) for sign in (-1, 1)]
    if len(left_out) > 1 and 0 < below < 1:
        pulls = left_out.mean() - left_out
        scale = float((pulls**2).sum())
        acceleration = float((pulls**3).sum()) / (6 * scale**1.5) if scale > 0 else 0.0
        bias = float(stats.norm.ppf(below))
        levels = []
        for sign in (-1, 1):
            z = bias + sign * wide
            rest = 1 - acceleration * z
            levels.append(float(stats.norm.cdf(bias + (z / rest if rest > 0 else math.copysign(math.inf, z)))))
    low, high = (float(np.quantile(drawn, each)) for each in levels)
    error, method = float(drawn.std(ddof=1)), "bootstrap_bca"
    if (1 - (level or 0.95)) / 2 * len(drawn) < 10:
        low, high = min(low, value - t * error), max(high, value + t * error)
        if share:
            low, high = max(0.0, low), min(1.0, high)
    if share and min(value, 1 - value) * clusters < 5:
        ends = score_interval(min(1.0, max(0.0, value)), clusters, t)
        low, high, method = min(low, ends[0]), max(high, ends[1]), "bootstrap_bca, wilson"
        error = max(error, (high - low) / (2 * t))
    return Estimate(value, low, high, error, clusters, clusters, method)


@pytest.mark.parametrize("level", [*LEVELS, 0.999])
@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize(
    ("count", "centre", "skewed"),
    [
        (30, 0.5, False),
        (30, 0.5, True),
        (4, 0.5, True),
        (30, 0.04, False),
        (30, 0.96, True),
        (10, 0.5, False),
        (3, 0.2, True),
    ],
)
def test_a_resampled_metric_has_the_bca_interval(
    count: int, centre: float, skewed: bool, share: bool, level: float | None
) -> None:
    random = np.random.default_rng(count)
    noise = random.exponential(0.1, count) - 0.1 if skewed else random.normal(0, 0.1, count)
    given = resample(of_means(centre + noise), np.arange(count), seed=1)
    same(bootstrap(given, share=share, **asked(level)), bca(given, level, share=share))


def _draws(count: int, value: float = 0.5) -> np.ndarray:
    return value + np.random.default_rng(3).normal(0, 0.05, count)


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize(
    "given",
    [
        resampled(0.5, _draws(400).tolist(), [0.5], 20, 19),  # one group left out tells no skewness
        resampled(0.5, _draws(400).tolist(), [0.4, 0.6], 2, 1),
        resampled(0.9, _draws(400).tolist(), [0.88, 0.91, 0.9], 3, 2),  # above all draws
        resampled(0.1, _draws(400).tolist(), [0.12, 0.09, 0.1], 3, 2),
        resampled(0.5, [0.5] * 100 + [0.4] * 80 + [0.6] * 20, [0.5, 0.5, 0.5], 3, 2),
        resampled(0.5, _draws(400).tolist(), [0.5, 0.5, 0.5, 0.9], 4, 1.2),  # beyond the pole
        resampled(0.5, _draws(399).tolist(), [0.45, 0.5, 0.56], 3, 2),  # fewer than ten beyond either end
        resampled(-0.2, (_draws(400) - 0.7).tolist(), [-0.25, -0.2, -0.14], 3, 2),
        resampled(1.2, (_draws(400) + 0.7).tolist(), [1.25, 1.2, 1.14], 3, 2),
        resampled(0.25, _draws(400, 0.25).tolist(), [0.24, 0.25, 0.26], 20, 19),  # five clusters from the end
        resampled(0.24, _draws(400, 0.24).tolist(), [0.24, 0.25, 0.26], 20, 19),
    ],
)  # fmt: skip
@pytest.mark.parametrize("level", LEVELS)
def test_odd_resamples_have_an_interval_of_the_same_formula(given: Resampled, share: bool, level: float | None) -> None:
    same(bootstrap(given, share=share, **asked(level)), bca(given, level, share=share))


@pytest.mark.parametrize(
    ("given", "method"),
    [
        (resampled(0.5, [0.5], [0.5], 1, 0), "too_few_clusters"),
        (resampled(NAN, [0.5, 0.6], [0.5, 0.4], 2, 1), "undefined"),
        (resampled(0.5, [0.5, NAN, NAN], [0.5, 0.4], 2, 1), "undefined"),
    ],
)
def test_where_a_metric_is_undefined_there_is_no_interval(given: Resampled, method: str) -> None:
    count = given.clusters
    same(bootstrap(given), (given.value, NAN, NAN, NAN, count, count, method))
    nothing = given._replace(value=0.0, drawn=given.drawn * 0, left_out=given.left_out * 0)
    delta = given.value
    same(bootstrap_difference(nothing, given), (delta, NAN, NAN, NAN, NAN, NAN, count, count, method, None, None, None))


@pytest.mark.parametrize(
    ("missing", "said"),
    [(0, ""), (19, ""), (21, ", undefined on 5% of resamples"), (200, ", undefined on 50% of resamples")],
)
def test_resamples_without_a_value_are_told_beyond_one_in_twenty(missing: int, said: str) -> None:
    drawn = _draws(400).tolist()
    given = resampled(0.5, [*drawn[missing:], *[NAN] * missing], [0.45, 0.5, 0.56], 30, 29)
    plain = bca(given, None, share=False)
    same(bootstrap(given), plain._replace(method=f"bootstrap_bca{said}"))
    none = given._replace(value=0.0, drawn=np.zeros(400), left_out=np.zeros(3))
    assert bootstrap_difference(none, given).method == f"jackknife_t{said}"


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize(
    ("delta", "spread", "left_out"),
    [
        (0.3, 0.05, [0.28, 0.3, 0.33, 0.29]), (0.3, 0.05, [-0.5, 0.3, 0.33, 0.9]), (0.95, 0.2, [0.9, 0.95, 1.0]),
        (-0.95, 0.2, [-0.9, -0.95, -1.0]), (0.3, 0.05, [0.28, NAN, 0.33]), (0.0, 0.05, [0.0, 0.01, 0.02]),
    ],
)  # fmt: skip
def test_a_difference_of_metrics_has_a_t_interval_of_the_larger_error(
    delta: float, spread: float, left_out: list[float], share: bool, level: float | None
) -> None:
    drawn = delta + np.random.default_rng(6).normal(0, spread, 500)
    count, degrees = 9, 6.5
    baseline = resampled(0.25, [0.25] * 500, [0.25] * len(left_out), count, degrees)
    candidate = resampled(0.25 + delta, (0.25 + drawn).tolist(), [0.25 + each for each in left_out], count, degrees)
    changes = np.array(left_out) - delta
    m = len(left_out)
    by_leaving = math.sqrt((m - 1) / m * float((changes**2).sum())) if np.isfinite(changes).all() else 0.0
    error = max(float(drawn.std(ddof=1)) * math.sqrt(count / (count - 1)), by_leaving)
    half, bound = critical(degrees, level) * error, 1.0 if share else math.inf
    expected = Difference(
        delta, max(-bound, delta - half), min(bound, delta + half), p_value(delta / error, degrees), error,
        detectable(error, degrees, level), count, count, "jackknife_t",
    )  # fmt: skip
    same(bootstrap_difference(baseline, candidate, share=share, **asked(level)), expected)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("delta", [0.0, 0.25, -0.95, 0.95])
def test_a_difference_that_no_resample_changes_has_the_doubt_of_as_many_pairs(
    delta: float, level: float | None
) -> None:
    count = 12
    baseline = resampled(0.0, [0.0] * 50, [0.0] * count, count, count - 1)
    candidate = resampled(delta, [delta] * 50, [delta] * count, count, count - 1)
    doubt = binary(np.zeros(count), np.zeros(count), np.arange(count), level)
    expected = doubt._replace(
        delta=delta, low=max(-1.0, delta + doubt.low), high=min(1.0, delta + doubt.high),
        p_value=p_value(delta / doubt.standard_error, count - 1), method="bonett_price", wins=None, ties=None,
        losses=None,
    )  # fmt: skip
    same(bootstrap_difference(baseline, candidate, share=True, **asked(level)), expected)
    chance = 0.5 ** (count - 1) if delta else 1.0
    half = abs(delta) if chance > 1 - (level or 0.95) else 0.0
    plain = (delta, delta - half, delta + half, chance, 0.0, half, count, count, "no_spread", None, None, None)
    same(bootstrap_difference(baseline, candidate, **asked(level)), plain)
