from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from speciate.evaluation.holm import holm
from speciate.evaluation.statistics import (
    bootstrap,
    bootstrap_difference,
    cluster_variance,
    cluster_weights,
    clustered_mean,
    mcnemar_exact,
    mean,
    minimum_detectable_effect,
    paired_difference,
    proportion,
    quantile_interval,
    resample,
    wilson,
)

RANDOM = np.random.default_rng(7)


def singletons(n: int) -> np.ndarray:
    return np.arange(n)


def test_wilson_agrees_with_scipy() -> None:
    expected = stats.binomtest(37, 50).proportion_ci(0.95, method="wilson")
    assert wilson(37, 50, stats.norm.ppf(0.975)) == pytest.approx((expected.low, expected.high))


def test_a_mean_without_clusters_has_the_ordinary_t_interval() -> None:
    values = RANDOM.normal(size=40)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    got = clustered_mean(values, singletons(40))
    assert (got.low, got.high) == pytest.approx((expected.low, expected.high))


def test_a_paired_difference_without_clusters_is_the_paired_t_test() -> None:
    first, second = RANDOM.normal(size=40), RANDOM.normal(0.3, size=40)
    expected = stats.ttest_rel(second, first)
    got = paired_difference(first, second, singletons(40))
    assert got.method == "clustered_t"
    assert got.p_value == pytest.approx(expected.pvalue)
    assert (got.low, got.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_whole_clusters_count_as_one_observation() -> None:
    """Each example copied five times within its cluster brings no information."""
    values = RANDOM.normal(size=30)
    once = cluster_variance(values, singletons(30))
    copied = cluster_variance(np.repeat(values, 5), np.repeat(singletons(30), 5))
    assert copied == pytest.approx(once)


def test_the_cluster_variance_follows_its_formula() -> None:
    values, clusters = np.array([1.0, 2.0, 3.0, 6.0]), np.array([0, 0, 1, 2])
    totals = [(1 - 3) + (2 - 3), 0, 3]
    assert cluster_variance(values, clusters) == pytest.approx(3 / 2 * sum(t * t for t in totals) / 16)


def test_all_right_still_leaves_doubt() -> None:
    got = proportion(np.ones(30), singletons(30))
    assert got.value == 1
    assert got.high == 1
    assert 0.85 < got.low < 0.92
    assert got.standard_error > 0


def test_clusters_widen_the_interval_of_a_share() -> None:
    values = np.repeat(RANDOM.integers(0, 2, 20).astype(float), 5)
    alone = proportion(values, singletons(100))
    grouped = proportion(values, np.repeat(singletons(20), 5))
    assert grouped.high - grouped.low > 1.7 * (alone.high - alone.low)


def test_equal_answers_on_few_examples_do_not_prove_equality() -> None:
    got = paired_difference(np.ones(10), np.ones(10), singletons(10))
    assert got.delta == 0
    assert got.p_value == 1
    assert got.low < -0.15
    assert got.high > 0.15


def test_mcnemar_agrees_with_the_binomial_test() -> None:
    assert mcnemar_exact(3, 11) == pytest.approx(stats.binomtest(3, 14, 0.5).pvalue)
    assert mcnemar_exact(0, 0) == 1


def test_one_cluster_gives_no_interval() -> None:
    got = paired_difference([0.0, 1.0], [1.0, 1.0], np.array([0, 0]))
    assert got.delta == 0.5
    assert math.isnan(got.low)
    assert math.isnan(clustered_mean([1.0, 2.0], np.array([0, 0])).low)


def test_examples_that_a_metric_does_not_count_are_left_out() -> None:
    got = proportion([1.0, math.nan, 0.0, 1.0], singletons(4))
    assert got.n == 3
    assert got.value == pytest.approx(2 / 3)


def test_a_mean_gets_the_interval_that_its_scores_call_for() -> None:
    assert mean([1.0, math.nan, 0.0, 1.0], singletons(4)) == proportion([1.0, 0.0, 1.0], singletons(3))
    assert mean([1.0, 0.5, 0.0], singletons(3)) == clustered_mean([1.0, 0.5, 0.0], singletons(3))


def test_the_bootstrap_of_a_mean_is_near_the_t_interval() -> None:
    values = RANDOM.normal(size=200)
    got = bootstrap(resample(lambda weights: weights @ values / weights.sum(1), 200))
    exact = clustered_mean(values, singletons(200))
    assert got.low == pytest.approx(exact.low, abs=0.03)
    assert got.high == pytest.approx(exact.high, abs=0.03)


def test_the_bootstrap_repeats_itself() -> None:
    (once,), (again,) = cluster_weights(20, seed=3), cluster_weights(20, seed=3)
    assert (once == again).all()
    assert (once.sum(1) == 20).all()


def test_many_clusters_are_drawn_in_chunks_that_together_are_the_whole_draw() -> None:
    clusters, largest = 20_000, 0

    def statistic(weights: np.ndarray) -> np.ndarray:
        nonlocal largest
        largest = max(largest, weights.nbytes)
        return weights[:, 0]

    got = resample(statistic, clusters, seed=3)
    whole = np.random.default_rng(3).multinomial(clusters, np.full(clusters, 1 / clusters), 200)[:, 0]
    assert largest <= 16_000_000
    assert got.drawn.shape == (2000,)
    assert (got.drawn[:200] == whole).all()
    assert got.left_out.tolist() == [0.0] + [1.0] * 199


def test_a_bootstrap_difference_of_a_model_with_itself_is_nothing() -> None:
    values = RANDOM.normal(size=50)
    model = resample(lambda weights: weights @ values / weights.sum(1), 50)
    got = bootstrap_difference(model, model)
    assert (got.delta, got.low, got.high, got.p_value) == (0, 0, 0, 1)


def test_a_perfect_corpus_metric_on_few_examples_is_not_certain() -> None:
    perfect = resample(lambda weights: np.ones(len(weights)), 12)
    assert bootstrap(perfect).low == 1
    got = bootstrap(perfect, share=True)
    assert got.low < 0.8
    assert got.high == 1
    equal = bootstrap_difference(perfect, perfect, share=True)
    assert equal.delta == 0
    assert equal.low < -0.1
    assert equal.high > 0.1
    worse = bootstrap_difference(perfect, resample(lambda weights: np.full(len(weights), 0.3), 12), share=True)
    assert worse.low < worse.delta == pytest.approx(-0.7)
    assert worse.high < 0
    assert worse.p_value < 0.01


def test_holm_agrees_with_a_hand_computation() -> None:
    assert holm([0.01, 0.04, 0.03, math.nan]) == pytest.approx([0.03, 0.06, 0.06, math.nan], nan_ok=True)


def test_the_detectable_effect_is_found_four_times_in_five() -> None:
    """The power of a paired t test at the effect that is promised, from scipy's noncentral t."""
    n, error = 60, 0.05
    effect = minimum_detectable_effect(error, n)
    critical = stats.t.ppf(0.975, n - 1)
    assert stats.nct.sf(critical, n - 1, effect / error) == pytest.approx(0.8, abs=0.01)


def test_a_quantile_needs_enough_samples_to_be_bounded() -> None:
    assert quantile_interval(np.arange(20.0), 0.95).high == math.inf
    got = quantile_interval(np.arange(200.0), 0.95)
    assert got.low < 189.05 < got.high <= 199


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 9)), min_size=2, max_size=80),
)
def test_swapping_the_models_turns_the_comparison_around(rows: list[tuple[int, int, int]]) -> None:
    first, second, clusters = (np.array(column, float) for column in zip(*rows, strict=True))
    codes = clusters.astype(np.int64)
    one, other = paired_difference(first, second, codes), paired_difference(second, first, codes)
    assert one.delta == pytest.approx(-other.delta)
    assert one.low == pytest.approx(-other.high, nan_ok=True)
    assert (one.wins, one.losses) == (other.losses, other.wins)
    if not math.isnan(one.low):
        assert one.low <= one.delta + 1e-12
        assert one.delta <= one.high + 1e-12


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_makes_a_p_value_smaller_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(a >= p for a, p in zip(adjusted, p_values, strict=True))
    assert [a for _, a in sorted(zip(p_values, adjusted, strict=True))] == sorted(adjusted)


@given(st.integers(1, 500), st.data())
def test_wilson_holds_the_share_and_stays_within_bounds(n: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, n))
    low, high = wilson(successes, n, 1.96)
    assert 0 <= low <= successes / n + 1e-12
    assert successes / n - 1e-12 <= high <= 1


@pytest.mark.parametrize("binary", [True, False])
def test_the_false_alarms_of_a_clustered_comparison_are_near_five_percent(binary: bool) -> None:
    """20 clusters of 5 with half of the variance shared: 600 repetitions, so 5 % within 3 standard errors (2.7 %)."""
    random, alarms, repetitions = np.random.default_rng(1), 0, 600
    codes = np.repeat(np.arange(20), 5)
    for _ in range(repetitions):
        shared = random.normal(size=(20, 2)).repeat(5, axis=0) + random.normal(size=(100, 2))
        scores = (shared > -0.5).astype(float) if binary else shared
        got = paired_difference(scores[:, 0], scores[:, 1], codes)
        alarms += got.low > 0 or got.high < 0
    assert alarms / repetitions < 0.05 + 0.027
