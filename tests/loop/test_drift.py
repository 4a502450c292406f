"""The detectors of a change: p-values that are uniform, evidence that keeps its bound, labels that count once."""

from __future__ import annotations

import importlib
import itertools
import math
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.isotonic import IsotonicRegression

from speciate.loop.drift import (
    change_point,
    evidence,
    kernel_features,
    label_free,
    label_quality,
    limits,
    permutation,
    shift_tests,
)
from speciate.loop.drift.dependence import LEAST_UNITS, Units, contributions, promise, units_of
from speciate.loop.drift.drawing import Trail, draw
from speciate.loop.monitor_run import SCALAR_SHARE, SHARES
from speciate.predictions.quality import AnswerOutput
from speciate.predictions.reading import StoredFeedback
from speciate.serving.hourly_tallies import HourTally

Test = Callable[[permutation.Rows, permutation.Rows, np.random.Generator], permutation.ShiftTest]


def _rowwise(old: int, new: int) -> Units:
    """Every row a unit of its own."""
    period = np.repeat([0, 1], [old, new])
    return Units(np.arange(old + new), period, np.arange(old + new) % 7, True)


def _of_units(test: Callable[..., permutation.ShiftTest], made: Callable[[permutation.Rows], object]) -> Test:
    return lambda a, b, rng: test(made(np.vstack([a, b])), _rowwise(len(a), len(b)), rng, 49)


_TESTS: dict[str, Test] = {
    "largest_distance": _of_units(shift_tests.largest_distance, lambda rows: [rows, np.cos(rows)]),
    "share_distance": _of_units(shift_tests.share_distance, lambda rows: np.clip(rows[:, 0] + 2, 0, 4).astype(int)),
    "largest_gap": _of_units(shift_tests.largest_gap, lambda rows: rows[:, 0].astype(float)),
    "higher_rank": lambda a, b, rng: permutation.higher_rank(a[:, 0].astype(float), b[:, 0].astype(float), rng, 49),
}


def _eval(name: str) -> ModuleType:
    path = Path(__file__).parents[2] / "evals"
    if str(path) not in sys.path:
        sys.path.append(str(path))
    return importlib.import_module(name)


@pytest.mark.parametrize("name", _TESTS)
@pytest.mark.parametrize("ties", [False, True])
def test_p_values_are_uniform_where_nothing_changed(name: str, ties: bool) -> None:
    found = []
    for seed in range(300):
        rng = np.random.default_rng([seed, 3])
        rows = rng.normal(size=(60, 4))
        rows = np.round(rows) if ties else rows
        found.append(_TESTS[name](rows[:36].astype(np.float32), rows[36:].astype(np.float32), rng).p)
    assert stats.kstest(found, "uniform").pvalue > 0.001
    assert min(found) > 0
    assert max(found) <= 1


@pytest.mark.parametrize("name", _TESTS)
def test_a_large_change_has_a_small_p_value_and_the_same_seed_the_same(name: str) -> None:
    rng = np.random.default_rng(0)
    before, now = rng.normal(size=(60, 4)).astype(np.float32), rng.normal(size=(40, 4)).astype(np.float32) + 2
    first, again = (_TESTS[name](before, now, np.random.default_rng(5)) for _ in range(2))
    assert first == again
    assert first.p <= 1 / 50
    assert first.statistic > _TESTS[name](before, rng.normal(size=(40, 4)).astype(np.float32), rng).statistic


def test_a_new_source_alarms_within_two_windows() -> None:
    """Where no flips of 499 reach the statistic, more say how sure it is."""
    rng = np.random.default_rng(5)
    looks = [evidence.of_p(0.5)] * 2
    for _ in range(2):
        values = np.concatenate([rng.normal(size=300), rng.normal(1.5, size=80)])
        test = shift_tests.largest_gap(values, _rowwise(300, 80), rng)
        assert test.p < 2 / (shift_tests.PATIENT[0] + 1)
        looks.append(evidence.of_p(test.p))
    assert evidence.detector(looks) >= evidence.threshold(7 * 86_400, SHARES["inputs"])
    quiet = [shift_tests.largest_gap(rng.normal(size=80), _rowwise(60, 20), rng).p for _ in range(200)]
    assert min(quiet) > 0.0
    assert np.mean(np.array(quiet) <= 0.01) <= 0.035, "no smaller p-values than chance has"


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=12), st.lists(st.integers(-3, 3), min_size=1, max_size=12))
def test_statistics_are_what_scipy_says_also_with_ties(first: list[int], second: list[int]) -> None:
    a, b = np.array(first, float), np.array(second, float)
    rng = np.random.default_rng(0)
    with warnings.catch_warnings(), np.errstate(all="ignore"):  # of a p-value that is not asked for
        warnings.simplefilter("ignore", RuntimeWarning)
        theirs = stats.ks_2samp(a, b).statistic
    alone = _rowwise(len(a), len(b))
    found = shift_tests.largest_gap(np.concatenate([a, b]), alone, rng, 5).statistic
    assert found == pytest.approx(theirs, abs=1e-6), "independent rows of one unit each: Kolmogorov and Smirnov's"
    pairs = stats.mannwhitneyu(b, a).statistic / (len(a) * len(b))
    assert permutation.higher_rank(a, b, rng, 5).statistic == pytest.approx(pairs, abs=1e-9)


@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=30))
def test_the_detector_is_shiryaev_and_roberts_recursion(values: list[float]) -> None:
    kappas, state = np.linspace(0.05, 0.95, 19), np.zeros(19)
    for p in values:
        state = (state + 1) * kappas * p ** (kappas - 1)
    assert evidence.detector([evidence.of_p(p) for p in values]) == pytest.approx(math.log(state.mean()), abs=1e-6)


def test_e_values_have_an_expectation_of_at_most_one() -> None:
    at = (np.arange(200_000) + 0.5) / 200_000
    kappas = np.linspace(0.05, 0.95, 19)[:, None]
    assert np.all((kappas * at ** (kappas - 1)).mean(1) <= 1.0)
    assert np.exp(evidence.of_p(0.5)).mean() < 1 < np.exp(evidence.of_p(0.001)).mean()


@given(st.integers(1, 60), st.floats(0.01, 0.6), st.just(0.0) | st.floats(1e-9, 1))  # SciPy overflows below
def test_counts_of_what_is_allowed_are_no_evidence(n: int, allowed: float, part: float) -> None:
    chance = stats.binom.pmf(np.arange(n + 1), n, allowed * part)
    expected = sum(p * np.exp(evidence.of_counts(k, n, allowed)) for k, p in enumerate(chance))
    assert np.all(expected <= 1 + 1e-9)


@given(st.lists(st.floats(1e-4, 1.0), min_size=1, max_size=20))
def test_the_onset_is_the_latest_good_explanation_of_the_end(values: list[float]) -> None:
    looks = np.array([evidence.of_p(p) for p in values])
    tails = np.cumsum(looks[::-1], axis=0)[::-1]  # (W, 19): what each calibrator says of the end from a look on
    found = evidence.onset(list(looks))
    if found is None:
        assert tails.max() <= 1e-9
    else:
        ends = tails.max(1)
        assert ends[found] >= ends.max() - math.log(20) - 1e-9
        assert all(each < max(0, ends.max() - math.log(20)) for each in ends[found + 1 :])


def test_a_surprising_week_in_a_quiet_time_is_no_beginning() -> None:
    values = [0.5, 0.0003, 0.6, 0.3, 0.4, 0.001, 0.001, 0.002]
    assert evidence.onset([evidence.of_p(p) for p in values]) == 5
    assert evidence.onset([]) is None
    assert evidence.onset([evidence.of_p(1.0)] * 3) is None


@given(st.integers(0, 100), st.integers(0, 2**32 - 1))
def test_a_change_within_a_window_is_dated_by_the_rows(usual_first: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    usual = rng.normal(size=(200, 6)).astype(np.float32)
    later = rng.normal(size=(140, 6)).astype(np.float32)
    later[usual_first:] += 2
    scores = change_point.witness(usual, later, rng)
    found = change_point.begin(scores.usual, scores.later)
    assert abs(found - usual_first) <= 12
    assert 0 <= found < len(later)


def test_where_nothing_changed_no_row_looks_like_its_own_side() -> None:
    rng = np.random.default_rng(3)
    scores = [change_point.witness(*np.split(rng.normal(size=(160, 5)).astype(np.float32), 2), rng) for _ in range(60)]
    gaps = [float(each.later.mean() - each.usual.mean()) for each in scores]
    assert abs(np.mean(gaps)) <= 3 * np.std(gaps) / np.sqrt(len(gaps))


@given(st.lists(st.floats(-1e6, 1e6), max_size=30), st.lists(st.floats(-1e6, 1e6), max_size=30))
def test_a_beginning_is_a_place_whatever_the_scores(usual: list[float], later: list[float]) -> None:
    assert 0 <= change_point.begin(np.array(usual), np.array(later)) < max(1, len(later))


@pytest.mark.parametrize("wrong", [0.0, -0.1, 1.1, math.nan])
def test_what_is_no_p_value_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="p-value"):
        evidence.of_p(wrong)


def test_shares_of_false_alarms_sum_to_one_and_the_threshold_is_twenty_years() -> None:
    assert sum(SHARES.values()) + 6 * SCALAR_SHARE == pytest.approx(1.0)
    assert math.exp(evidence.threshold(7 * 86_400.0)) == pytest.approx(20 * 365.25 / 7)
    assert evidence.threshold(7 * 86_400.0, 0.5) == pytest.approx(evidence.threshold(7 * 86_400.0) + math.log(2))


def test_whitening_makes_a_weak_direction_count_and_bears_equal_rows() -> None:
    rng = np.random.default_rng(1)
    rows = (rng.normal(size=(200, 5)) * [100, 10, 1, 1, 1]).astype(np.float32)
    found = kernel_features.whiten(rows)
    assert np.allclose(found.var(0), 1, atol=1e-3)
    assert kernel_features.whiten(np.ones((30, 5), np.float32)).shape == (30, 1)
    assert np.isfinite(kernel_features.kernel_features(np.zeros((30, 1), np.float32), rng)).all()


def test_the_most_novel_are_those_that_changed() -> None:
    rng = np.random.default_rng(2)
    before = rng.normal(size=(200, 6)).astype(np.float32)
    now = rng.normal(size=(80, 6)).astype(np.float32)
    now[:20] += 3
    seen = kernel_features.kernel_features(kernel_features.whiten(np.vstack([before, now])), rng)
    found = kernel_features.novelty(seen[:200], seen[200:])
    assert set(np.argsort(-found.scores)[:10].tolist()) <= set(range(20))
    assert 0.5 < found.auc < 0.8
    assert kernel_features.novelty(seen[:4], seen[4:8]).auc == 0.5


@given(
    st.lists(st.tuples(st.integers(0, 20).map(lambda k: k / 20), st.booleans()), min_size=1, max_size=40).filter(
        lambda pairs: len(pairs) > 0
    )
)
def test_calibration_is_isotonic_regression(pairs: list[tuple[float, bool]]) -> None:
    confidence, right = np.array([c for c, _ in pairs]), np.array([r for _, r in pairs], float)
    curve = label_free.calibrate(confidence, right)
    expected = IsotonicRegression(out_of_bounds="clip").fit(confidence, right).predict(confidence)
    assert np.allclose(curve(confidence), expected, atol=1e-6)
    assert np.all(np.diff(curve(np.linspace(-0.1, 1.1, 50))) >= 0)


def test_labels_mend_an_estimate_that_is_wrong() -> None:
    rng = np.random.default_rng(4)
    right = (rng.random(2000) < 0.6).astype(float)
    boasting = np.full(2000, 0.95)
    found = label_free.prediction_powered(boasting, boasting[:60], right[:60])
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert found.low < right.mean() < found.high < 0.9
    assert label_free.confidence_based(boasting).value == pytest.approx(0.95)
    assert label_free.prediction_powered(boasting, boasting[:9], right[:9]) is None


# Labels


def _said(
    prediction: str, at: float, label: str, drawn: str | None = "random", source: str = "human"
) -> StoredFeedback:
    return StoredFeedback(prediction, at, source, label, None, "ada", drawn)


_FEEDBACK = st.lists(
    st.builds(
        _said, st.sampled_from([f"pred-{k}" for k in range(8)]), st.integers(0, 100), st.sampled_from(["a", "b"]),
        st.sampled_from(["random", "uncertain", None]), st.sampled_from(["human", "agent"]),
    ), max_size=30,
)  # fmt: skip


@given(_FEEDBACK, st.lists(st.integers(0, 100), min_size=1, max_size=5))
def test_each_answer_counts_once_whenever_and_however_often_it_is_labelled(
    said: list[StoredFeedback], cuts: list[int]
) -> None:
    answers = [AnswerOutput(f"pred-{k}", "m@v1", "a") for k in range(8)]
    edges = [0, *sorted(cuts), 101]
    found = [label_quality.arrivals(answers, said, begin, end) for begin, end in itertools.pairwise(edges)]
    counted = [name for each in found for name in each.ids]
    assert len(counted) == len(set(counted))
    drawn = {each.prediction for each in said if each.drawn == "random"}
    assert set(counted) <= {each.prediction for each in said}
    assert all(0 <= each.wrong <= each.judged for each in found)
    if not any(each.drawn == "random" for each in said):
        assert not counted
    assert len(drawn) == 0 or found


def test_labels_late_twice_and_contradicting_change_nothing_that_was_counted() -> None:
    answers = [AnswerOutput("pred-1", "m@v1", "a"), AnswerOutput("pred-2", "m@v1", "a")]
    said = [_said("pred-1", 5, "a"), _said("pred-1", 15, "b"), _said("pred-1", 16, "b"), _said("pred-2", 17, "b", None),
            _said("other", 6, "b")]  # fmt: skip
    first, second = (label_quality.arrivals(answers, said, begin, begin + 10) for begin in (0.0, 10.0))
    assert (first.judged, first.wrong, first.ids) == (1, 0.0, ("pred-1",))
    assert (second.judged, second.contradicted) == (0, 1)


def test_errors_of_numbers_are_kept_apart() -> None:
    answers = [AnswerOutput(f"pred-{k}", "m@v1", 1.0) for k in range(4)]
    said = [StoredFeedback(f"pred-{k}", float(k), "human", 3.0, None, "", "random") for k in range(4)]
    found = label_quality.arrivals(answers, said, 2, 9)
    assert (found.errors, found.judged) == ((2.0, 2.0), 0)
    assert label_quality.errors_before(answers, said, 2) == (2.0, 2.0)


# Limits


def _hour(hour: int, requests: int, failed: int) -> HourTally:
    return HourTally(hour=hour, alias="production", generation=1, model="m@v1", requests=requests, failed=failed)


def test_one_bad_hour_is_no_broken_limit() -> None:
    tallies = [_hour(1, 100, 0), _hour(2, 100, 90), _hour(3, 100, 2)]
    failed = next(each for each in limits.of_hours(tallies, 0.02) if each.name == "failed")
    assert failed.seen == (200, 2)
    assert limits.of_hours([_hour(1, 100, 50)], 0.02) == []  # the worst hour is all that there is
    assert limits.of_log([False] * 5, [1.0] * 5, 10.0, 0.02) == []
    counts = {each.name: each.seen for each in limits.of_log([True] + [False] * 39, [9.0] * 30 + [11.0] * 10, 10, 0.02)}
    assert counts == {"failed": (40, 1), "slow": (40, 10)}


# Simulated years; `make drift` runs two hundred


def test_a_change_is_found_and_a_quiet_year_is_quiet() -> None:
    drift = _eval("drift")
    for seed in range(1):
        assert not any(drift.quiet_year(seed, weeks=10)[name] is not None for name in ("inputs", "quality", "failed"))
    found = [drift.shift_year(seed, lambda week: 1.0 * (week >= 4), 10).first for seed in range(2)]
    assert all(first is not None and 4 <= first <= 8 for first in found)
    falls = [drift.count_year(seed, "quality", 30, 0.1, drift.stepped(0.25, 0.07)).first for seed in range(5)]
    assert all(first is not None and first >= drift.CHANGE for first in falls)


# Rows that hang together; `make drift` runs two hundred streams of each regime


@pytest.mark.parametrize("regime", ["entity .5", "falling volume", "burst", "near-repeats", "a day's topic"])
def test_a_quiet_stream_of_few_who_ask_much_is_quiet(regime: str) -> None:
    """Rows that are taken for independent alarm on the same streams."""
    traffic = _eval("drift_traffic")
    weeks = traffic.stream(traffic.REGIMES[regime], 3, 7)
    found = traffic.windows(weeks, "entity", 3)
    assert found == dict.fromkeys(traffic.SIGNALS)
    old, new = np.vstack([each.embedding for each in weeks[:-1]])[-600:], weeks[-1].embedding
    assert traffic.by_rows(old, new, np.random.default_rng(1)) < 0.05


def test_a_change_is_seen_as_soon_although_each_has_one_vote() -> None:
    traffic = _eval("drift_traffic")
    weeks = traffic.stream(traffic.REGIMES["entity .2"], 4, 8, traffic.CHANGES["1 sd"], 4)
    first = traffic.windows(weeks, "entity", 4)["inputs"]
    assert first is not None
    assert 4 <= first <= 7


def _asked(
    rng: np.random.Generator, entities: int, each: int, periods: int
) -> tuple[list[str], permutation.Values, Any]:
    names = [f"e{k % entities}" for k in range(entities * each)] * periods
    period = np.repeat(np.arange(periods), entities * each)
    return names, (period + rng.random(len(period))) * 7 * 86_400.0, period


def test_one_entity_that_asks_much_is_never_a_change_by_itself() -> None:
    rng = np.random.default_rng(6)
    names, at, period = _asked(rng, 30, 2, 3)
    names += ["loud"] * 300
    at, period = np.append(at, np.full(300, 2.5 * 7 * 86_400.0)), np.append(period, np.full(300, 2))
    rows = rng.normal(size=(len(names), 4)).astype(np.float32)
    rows[-300:] += 4
    found = shift_tests.largest_distance([rows], units_of(names, at, period), rng)
    assert found.p > 0.02


@given(st.integers(0, 2**32 - 1), st.integers(8, 20), st.integers(1, 4), st.integers(2, 5))
def test_contributions_sum_to_a_difference_that_neither_order_nor_a_constant_changes(
    seed: int, entities: int, each: int, periods: int
) -> None:
    rng = np.random.default_rng(seed)
    names, at, period = _asked(rng, entities, each, periods)
    rows = rng.normal(size=(len(names), 3))
    order = rng.permutation(len(names))
    found = contributions(rows, units_of(names, at, period)).sum(0)
    again = contributions(rows[order] + 7, units_of([names[k] for k in order], at[order], period[order])).sum(0)
    assert np.allclose(found, again, atol=1e-6)
    rows[period == period.max()] += 2
    moved = contributions(rows, units_of(names, at, period)).sum(0)
    assert np.allclose(moved, found + 2, atol=1e-6), "a shift of all is found as it is"


_CLOCKS: dict[str, Callable[[Any, Any], permutation.Values]] = {
    "backwards": lambda at, period: at[::-1].copy(),
    "years ahead": lambda at, period: np.where(np.arange(len(at)) % 5 == 0, at + 4e11, at),
    "beyond all": lambda at, period: np.where(period == 0, 1e300, -1e300),
    "unknown": lambda at, period: np.full(len(at), math.nan),
    "one moment": lambda at, period: np.full(len(at), 1e9),
}


@pytest.mark.parametrize("clock", _CLOCKS)
@pytest.mark.parametrize("named", [True, False])
def test_a_clock_that_jumps_is_no_change_and_hides_none(clock: str, named: bool) -> None:
    rng = np.random.default_rng(7)
    names, at, period = _asked(rng, 30, 3, 4)
    units = units_of(names if named else [""] * len(names), _CLOCKS[clock](at, period), period)
    values = rng.normal(size=len(names))
    assert shift_tests.largest_gap(values, units, rng).p > 0.01
    values[period == 3] += 2
    assert shift_tests.largest_gap(values, units, rng).p < 0.001
    assert math.isfinite(contributions(values[:, None], units).sum())


def test_what_can_be_promised_is_told_by_the_data() -> None:
    rng = np.random.default_rng(8)
    names, at, period = _asked(rng, 20, 3, 3)
    kept = promise(names, at, period)
    assert kept.kept
    assert "20 entities" in kept.because
    some = [name if place % 2 else "" for place, name in enumerate(names)]
    for said, why in (
        ([""] * len(names), "no answer names an entity"),
        (["app"] * len(names), "1 entity is too few"),
        ([f"request-{place}" for place in range(len(names))], "nearly every answer names another entity"),
        (some, "50 % of the answers name no entity"),
    ):
        found = promise(said, at, period)
        assert not found.kept
        assert why in found.because
        assert "entity=" in found.because
    assert LEAST_UNITS > 1


@pytest.mark.parametrize("said", ["app", "request"])
def test_a_key_that_tells_nobody_apart_is_none(said: str) -> None:
    """One entity, or a new one a row: a shift is found, and quiet rows are quiet."""
    rng = np.random.default_rng(9)
    names, at, period = _asked(rng, 30, 3, 3)
    names = ["app" if said == "app" else f"request-{place}" for place in range(len(names))]
    units = units_of(names, at, period)
    assert not units.keyed
    values = rng.normal(size=len(names))
    assert shift_tests.largest_gap(values, units, rng).p > 0.01
    values[period == 2] += 1.5
    assert shift_tests.largest_gap(values, units, rng).p < 0.001


# The drawing


def test_the_plot_names_what_alarmed_and_escapes_its_title() -> None:
    trails = [
        Trail("inputs", [(1e9, 0.2, False), (1.001e9, 1.4, True)], 1e9),
        Trail("quality", [(1e9, 0.0, False)], None),
    ]
    text = draw(trails, [(0.999e9, 1e9), (1e9, 1.001e9)], "<model>")
    assert "inputs: alarm" in text
    assert "quality: alarm" not in text
    assert "&lt;model&gt;" in text
    assert "<model>" not in text
