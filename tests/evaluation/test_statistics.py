from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from speciate.evaluation import statistics
from speciate.evaluation.multiple_comparisons import holm
from speciate.evaluation.statistics import (
    LEAST_UNITS,
    bootstrap,
    bootstrap_difference,
    cluster_variance,
    cluster_weights,
    clustered_mean,
    degrees_of_freedom,
    jackknife_error,
    jackknife_weights,
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

RANDOM = np.random.default_rng(7)


def singletons(n: int) -> np.ndarray:
    return np.arange(n)


def test_wilson_ends_exactly_at_nought_and_at_one() -> None:
    assert wilson(0, 15, 2.1447866879)[0] == 0.0  # a t quantile, at which rounding left 1.4e-17
    assert wilson(15, 15, 2.1447866879)[1] == 1.0


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
    without = [(3 + 6) / 2, (1 + 2 + 6) / 3, (1 + 2 + 3) / 3]
    assert cluster_variance(values, clusters) == pytest.approx(2 / 3 * sum((w - 3) ** 2 for w in without))


def test_equal_clusters_are_worth_one_less_than_they_are_many_and_unequal_ones_less() -> None:
    assert degrees_of_freedom([7] * 12) == pytest.approx(11)
    assert degrees_of_freedom([5]) == degrees_of_freedom([]) == 0
    assert degrees_of_freedom([1_000_000, 1, 1, 1]) == pytest.approx(1, abs=0.01)
    assert 2 < degrees_of_freedom([20, 1, 1, 3, 5, 2, 9, 1]) < 3


def test_the_degrees_of_freedom_are_those_of_the_variance_itself() -> None:
    """2 E(v)^2 / Var(v), of the variance v as a quadratic form of independent examples, written out as a matrix."""
    sizes = np.array([1, 4, 9, 2, 2])
    codes, n = np.repeat(np.arange(5), sizes), sizes.sum()
    centre = np.eye(n) - 1 / n
    changes = np.array([(codes == g) / (n - sizes[g]) for g in range(5)]) @ centre
    form = changes.T @ changes
    assert degrees_of_freedom(sizes) == pytest.approx(np.trace(form) ** 2 / np.trace(form @ form), rel=1e-9)


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
    got = bootstrap(resample(lambda weights: weights @ values / weights.sum(1), singletons(200)))
    exact = clustered_mean(values, singletons(200))
    assert got.low == pytest.approx(exact.low, abs=0.03)
    assert got.high == pytest.approx(exact.high, abs=0.03)


def test_an_interval_of_a_rare_level_is_not_cut_off_where_no_resample_lies() -> None:
    values = np.random.default_rng(3).exponential(size=100)
    drawn = resample(lambda weights: weights @ values / weights.sum(1), singletons(100))
    ends = [bootstrap(drawn, level) for level in (0.95, 0.999, 0.99998)]
    assert ends[2].high - ends[1].high > 0.1 * (ends[1].high - ends[0].high)
    t_interval = stats.t.ppf(1 - 0.00001, 99) * values.std(ddof=1) / math.sqrt(100)
    assert ends[2].high - drawn.value > 0.95 * t_interval


def test_the_bootstrap_repeats_itself() -> None:
    (once,), (again,) = cluster_weights(20, seed=3), cluster_weights(20, seed=3)
    assert (once == again).all()
    assert (once.sum(1) == 20).all()


@pytest.mark.parametrize("kept", [True, False])
def test_many_clusters_are_drawn_in_chunks_that_together_are_the_whole_draw(
    monkeypatch: pytest.MonkeyPatch, *, kept: bool
) -> None:
    monkeypatch.setattr(statistics, "_KEPT_CELLS", 10**9 if kept else 0)
    clusters, largest = 3_000, 0

    def statistic(weights: np.ndarray) -> np.ndarray:
        nonlocal largest
        largest = max(largest, weights.nbytes)
        return weights[:, 0]

    got = resample(statistic, singletons(clusters), seed=3)
    whole = np.random.default_rng(3).multinomial(clusters, np.full(clusters, 1 / clusters), 200)[:, 0]
    assert largest <= 16_000_000
    assert got.drawn.shape == (2000,)
    assert (got.drawn[:200] == whole).all()
    assert got.left_out.tolist() == [0.0] + [1.0] * 199
    assert (resample(statistic, singletons(clusters), seed=3).drawn == got.drawn).all()


def test_a_bootstrap_difference_of_a_model_with_itself_is_nothing() -> None:
    values = RANDOM.normal(size=50)
    model = resample(lambda weights: weights @ values / weights.sum(1), singletons(50))
    got = bootstrap_difference(model, model)
    assert (got.delta, got.low, got.high, got.p_value) == (0, 0, 0, 1)


def test_a_perfect_corpus_metric_on_few_examples_is_not_certain() -> None:
    perfect = resample(lambda weights: np.ones(len(weights)), singletons(12))
    assert bootstrap(perfect).low == 1
    got = bootstrap(perfect, share=True)
    assert got.low < 0.8
    assert got.high == 1
    equal = bootstrap_difference(perfect, perfect, share=True)
    assert equal.delta == 0
    assert equal.low < -0.1
    assert equal.high > 0.1
    worse = bootstrap_difference(
        perfect, resample(lambda weights: np.full(len(weights), 0.3), singletons(12)), share=True
    )
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


# Held to other libraries, to 1e-9

CODES = RANDOM.integers(0, 12, 90)
SCORES = RANDOM.normal(size=90) + RANDOM.normal(size=12)[CODES]


def test_clusters_of_one_size_are_statsmodels_clustered_ols() -> None:
    from statsmodels.api import OLS

    codes, values = np.repeat(np.arange(18), 5), RANDOM.normal(size=90)
    fitted = OLS(values, np.ones(90)).fit(cov_type="cluster", cov_kwds={"groups": codes}, use_t=True)
    got = paired_difference(np.zeros(90), values, codes)
    assert got.standard_error == pytest.approx(fitted.bse[0], rel=1e-9)
    assert got.p_value == pytest.approx(fitted.pvalues[0], rel=1e-9)
    assert [got.low, got.high] == pytest.approx(list(fitted.conf_int()[0]), rel=1e-9)


def test_clusters_of_any_size_are_statsmodels_bias_reduced_sandwich_but_for_its_factor() -> None:
    """Mancl & DeRouen (2001) leave out the factor (C - 1) / C that makes it the jackknife."""
    from statsmodels.api import GEE, cov_struct, families

    model = GEE(SCORES, np.ones(90), groups=CODES, family=families.Gaussian(), cov_struct=cov_struct.Independence())
    fitted = model.fit(cov_type="bias_reduced")
    assert clustered_mean(SCORES, CODES).standard_error == pytest.approx(fitted.bse[0] * (11 / 12) ** 0.5, rel=1e-9)


def test_the_variance_of_a_mean_is_the_jackknife_of_it_as_a_corpus_metric() -> None:
    sums = np.stack([np.bincount(CODES, weights=SCORES), np.bincount(CODES)])
    resampled = resample(lambda weights: (weights @ sums[0]) / (weights @ sums[1]), CODES)
    assert jackknife_error(resampled) ** 2 == pytest.approx(cluster_variance(SCORES, CODES), rel=1e-9)
    assert resampled.degrees == degrees_of_freedom(np.bincount(CODES))


def test_single_examples_have_scipys_t_interval_and_p_value() -> None:
    first, second = RANDOM.normal(size=40), RANDOM.normal(0.3, size=40)
    expected, got = stats.ttest_rel(second, first), paired_difference(first, second, singletons(40))
    span = expected.confidence_interval(0.95)
    assert [got.p_value, got.low, got.high] == pytest.approx([expected.pvalue, span.low, span.high], rel=1e-9)


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (0, 7), (3, 11), (20, 20), (60, 41)])
def test_mcnemar_is_statsmodels(wins: int, losses: int) -> None:
    from statsmodels.stats.contingency_tables import mcnemar

    expected = mcnemar([[5, losses], [wins, 8]], exact=True).pvalue
    assert mcnemar_exact(wins, losses) == pytest.approx(expected, rel=1e-9)
    first = np.array([0.0] * wins + [1.0] * losses + [0.0] * 5 + [1.0] * 8)
    second = np.array([1.0] * wins + [0.0] * losses + [0.0] * 5 + [1.0] * 8)
    if wins + losses < 25:
        assert paired_difference(first, second, singletons(first.size)).p_value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("successes", "n"), [(0, 9), (1, 30), (37, 50), (50, 50)])
def test_wilson_is_statsmodels(successes: int, n: int) -> None:
    from statsmodels.stats.proportion import proportion_confint

    got = wilson(successes, n, stats.norm.ppf(0.975))
    assert got == pytest.approx(proportion_confint(successes, n, method="wilson"), rel=1e-9, abs=1e-12)


def test_holm_is_statsmodels() -> None:
    from statsmodels.stats.multitest import multipletests

    p_values = [*RANDOM.random(30) ** 3, 0.0, 1.0, 0.02, 0.02]
    assert holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]), rel=1e-9)


@pytest.mark.parametrize(("degrees", "error"), [(9, 0.02), (30, 0.5), (6.4, 1.0), (2000, 3.0)])
def test_the_detectable_effect_is_the_sum_of_scipys_quantiles(degrees: float, error: float) -> None:
    expected = (stats.t.ppf(0.975, degrees) + stats.t.ppf(0.8, degrees)) * error
    assert minimum_detectable_effect(error, degrees) == pytest.approx(expected, rel=1e-9)


def test_the_bootstrap_is_that_of_repeating_the_examples_that_were_drawn() -> None:
    """On the same resamples, with every example of a cluster written out as often as its cluster was drawn."""
    reference, said = RANDOM.random(90) < 0.4, RANDOM.random(90) < 0.4

    def f1(places: np.ndarray) -> float:
        hits = (reference & said)[places].sum()
        return float(2 * hits / (reference[places].sum() + said[places].sum()))

    def written_out(weights: np.ndarray) -> list[float]:
        return [f1(np.repeat(np.arange(90), row[CODES].astype(int))) for row in weights]

    sums = np.stack([np.bincount(CODES, weights=part) for part in (reference & said, reference, said)])
    got = resample(lambda w: 2 * (w @ sums[0]) / (w @ sums[1] + w @ sums[2]), CODES, seed=4)
    (drawn,), (left_out,) = cluster_weights(12, seed=4), jackknife_weights(12)
    assert got.value == pytest.approx(f1(np.arange(90)), rel=1e-9)
    assert got.drawn == pytest.approx(written_out(drawn), rel=1e-9)
    assert got.left_out == pytest.approx(written_out(left_out), rel=1e-9)


def test_bca_follows_its_formula_on_the_same_resamples() -> None:
    """Efron (1987), at a level so much lower that the widening for few clusters takes it to normal quantiles."""
    values = RANDOM.exponential(size=60)

    def root(weights: np.ndarray) -> np.ndarray:
        return np.sqrt(weights @ values**2 / weights.sum(1))

    ours = resample(root, singletons(60))
    wide = (60 / 59) ** 0.5
    level = 1 - 2 * stats.norm.sf(stats.norm.ppf(0.975) / wide)
    got = bootstrap(ours._replace(degrees=1e12), level)
    places = [np.repeat(np.arange(60), row.astype(int)) for rows in cluster_weights(60) for row in rows]
    drawn = np.array([np.sqrt(np.mean(values[place] ** 2)) for place in places])
    left = np.array([np.sqrt(np.mean(np.delete(values, i) ** 2)) for i in range(60)])
    bias = stats.norm.ppf((drawn < ours.value).mean())
    pulls = left.mean() - left
    bend = (pulls**3).sum() / (6 * (pulls**2).sum() ** 1.5)
    ends = [stats.norm.cdf(bias + z / (1 - bend * z)) for z in (bias - 1.959963984540054, bias + 1.959963984540054)]
    assert [got.low, got.high] == pytest.approx(list(np.quantile(drawn, ends)), rel=1e-9)


# Where there is little to judge by, the result says so by name


def test_one_cluster_has_a_value_and_no_interval() -> None:
    alone = np.zeros(5, np.int64)
    resampled = resample(lambda weights: weights[:, 0], alone)
    named = [
        clustered_mean(np.arange(5.0), alone), proportion(np.ones(5), alone), bootstrap(resampled),
        paired_difference(np.zeros(5), np.ones(5), alone), bootstrap_difference(resampled, resampled),
    ]  # fmt: skip
    assert {one.method for one in named} == {"too_few_clusters"}
    assert all(math.isnan(one.low) and math.isnan(one.high) for one in named)


def test_scores_without_spread_are_named() -> None:
    codes = singletons(12)
    assert clustered_mean(np.full(12, 0.3), codes).method == "no_spread"
    same = paired_difference(np.full(12, 0.3), np.full(12, 0.3), codes)
    assert (same.delta, same.p_value, same.method) == (0, 1, "bonett_price, mcnemar_exact")
    shifted = paired_difference(np.arange(12.0), np.arange(12.0) + 3, codes)
    assert (shifted.method, shifted.p_value, shifted.low) == ("no_spread", 0.5**11, 3)


def test_three_equal_differences_prove_nothing() -> None:
    """Either sign would be as likely: a chance of 1 in 4, and the interval holds 0."""
    got = paired_difference(np.zeros(3), np.full(3, 0.7), singletons(3))
    assert (got.p_value, got.low, got.high) == (0.25, 0, pytest.approx(1.4))


def test_a_corpus_metric_without_spread_is_named() -> None:
    flat = resample(lambda weights: np.full(len(weights), 4.0), singletons(9))
    other = resample(lambda weights: np.full(len(weights), 6.0), singletons(9))
    assert bootstrap_difference(flat, flat)[:4] == (0, 0, 0, 1)
    got = bootstrap_difference(flat, other)
    assert (got.method, got.p_value, got.low, got.high) == ("no_spread", 0.5**8, 2, 2)


def test_scores_that_are_all_nan_have_no_value() -> None:
    nothing = np.full(6, math.nan)
    assert clustered_mean(nothing, singletons(6)).method == "none"
    assert paired_difference(nothing, np.ones(6), singletons(6)).method == "too_few_clusters"
    undefined = resample(lambda weights: np.full(len(weights), math.nan), singletons(6))
    assert bootstrap(undefined).method == bootstrap_difference(undefined, undefined).method == "undefined"


def test_a_statistic_that_most_resamples_leave_undefined_has_no_interval() -> None:
    rare = resample(lambda weights: np.where(weights[:, 0] > 0, 1.0, math.nan) * weights.sum(1), singletons(6))
    assert bootstrap(rare).method.startswith("bootstrap_bca, undefined on 3")  # 67 % of resamples hold the first
    hardly = resample(lambda weights: np.where(weights[:, :2].min(1) > 0, weights[:, 0], math.nan), singletons(6))
    assert bootstrap(hardly).method == "undefined"


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


def test_the_units_that_are_needed_show_the_difference_with_the_power_that_was_asked_for() -> None:
    total = units_needed(100, 0.03, 0.05)
    assert total is not None
    assert minimum_detectable_effect(0.03 * (100 / total) ** 0.5, total - 1) == pytest.approx(0.05, rel=0.01)
    assert total < (units_needed(100, 0.03, 0.02) or 0)
    assert units_needed(2, 0.06, 0.2) == LEAST_UNITS
    for nothing in (units_needed(100, 0.03, 0.0), units_needed(100, 0.03, -0.1), units_needed(100, math.nan, 0.1)):
        assert nothing is None
    assert units_needed(100, 0.03, 1e-9) is None
