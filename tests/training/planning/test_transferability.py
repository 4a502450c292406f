"""LogME and the H-score against other ways to the same numbers, and whatever comes they are numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import optimize, stats
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LinearRegression

from speciate.training.planning.transferability import (
    BaseModelStanding,
    Scores,
    comparable,
    evidence,
    h_score,
    indicators,
    kept_base_models,
    logme,
    prune,
    rank_places,
    scaled,
)
from tests.drawn import drawn

Numbers = npt.NDArray[np.float64]
SHAPES = ((60, 5), (30, 30), (20, 50))


def _problem(count: int, width: int, classes: int = 3, signal: float = 1.0, seed: int = 0) -> tuple[Numbers, Any]:
    """Vectors whose first directions tell the class as well as `signal` says."""
    chance = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    vectors = chance.normal(size=(count, width)) + 0.3
    vectors[:, : min(classes, width)] += signal * indicators(labels)[:, :width]
    return vectors, labels


def _likelihood(vectors: Numbers, column: Numbers, alpha: float, beta: float) -> float:
    """The same evidence without any algebra: weights integrated out, the column is normal with this covariance."""
    covariance = vectors @ vectors.T / alpha + np.eye(len(column)) / beta
    return float(stats.multivariate_normal(cov=covariance).logpdf(column)) / len(column)


def _mean_square_1(vectors: Numbers) -> Numbers:
    return np.asarray(vectors / np.sqrt(np.mean(np.square(vectors))))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_evidence_is_the_density_of_the_targets_with_the_weights_integrated_out(shape: tuple[int, int]) -> None:
    vectors, labels = _problem(*shape)
    for column in indicators(labels).T:
        found = evidence(vectors, column)
        expected = _likelihood(_mean_square_1(vectors), column, found.alpha, found.beta)
        assert found.per_example == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("signal", [pytest.param(0.0, marks=pytest.mark.slow(reason="4.0 has every shape")), 4.0])
def test_no_other_precisions_have_more_evidence(shape: tuple[int, int], signal: float) -> None:
    vectors, labels = _problem(*shape, signal=signal)
    whole = _mean_square_1(vectors)
    for column in indicators(labels).T:
        best = max(
            -optimize.minimize(
                lambda logs, column=column: -_likelihood(whole, column, *np.exp(np.clip(logs, -12, 12))),
                start, method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-8},
            ).fun
            for start in ((0.0, 0.0), (3.0, 1.0))
        )  # fmt: skip
        assert evidence(vectors, column).per_example == pytest.approx(best, abs=2e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_h_score_is_the_trace_that_defines_it(shape: tuple[int, int]) -> None:
    vectors, labels = _problem(*shape)
    covariance = np.cov(vectors, rowvar=False, bias=True)
    means = np.stack([vectors[labels == label].mean(0) for label in labels])
    between = np.cov(means, rowvar=False, bias=True)
    plain = float(np.trace(np.linalg.pinv(covariance, rcond=1e-10) @ between))
    assert h_score(vectors, indicators(labels), 0.0) == pytest.approx(plain)
    fitted = LedoitWolf().fit(vectors)
    shrunk = float(np.trace(np.linalg.inv(fitted.covariance_) @ between)) * (1 - fitted.shrinkage_)
    assert h_score(vectors, indicators(labels)) == pytest.approx(shrunk)


def test_of_one_number_the_plain_h_score_is_the_share_of_variance_that_a_line_explains() -> None:
    vectors, _ = _problem(80, 6)
    numbers = vectors[:, 0] - 2 * vectors[:, 3] + np.random.default_rng(1).normal(size=80)
    explained = LinearRegression().fit(vectors, numbers).score(vectors, numbers)
    assert h_score(vectors, scaled(numbers), 0.0) == pytest.approx(explained)


def test_with_more_directions_than_examples_noise_looks_perfect_without_shrinkage_and_less_so_with_it() -> None:
    noise, labels = _problem(20, 400, signal=0.0)
    telling, _ = _problem(20, 400, signal=9.0)
    columns = indicators(labels)
    assert h_score(noise, columns, 0.0) == pytest.approx(2.0)
    assert h_score(telling, columns, 0.0) == pytest.approx(2.0)
    assert h_score(noise, columns) < 1.4 < h_score(telling, columns)


@pytest.mark.parametrize("shape", SHAPES)
def test_vectors_that_tell_more_have_higher_scores(shape: tuple[int, int]) -> None:
    scores = [
        (logme(vectors, indicators(labels)), h_score(vectors, indicators(labels)))
        for vectors, labels in (_problem(*shape, signal=signal) for signal in (0.0, 2.0, 6.0))
    ]
    assert scores == sorted(scores)
    assert len(set(scores)) == 3


@given(st.data())
@settings(max_examples=drawn(60, 15), deadline=None)
def test_turning_stretching_and_reordering_change_nothing(data: st.DataObject) -> None:
    count, width = data.draw(st.integers(4, 30)), data.draw(st.integers(1, 40))
    seed, factor = data.draw(st.integers(0, 99)), data.draw(st.floats(1e-6, 1e6))
    vectors, labels = _problem(count, width, seed=seed)
    chance = np.random.default_rng(seed)
    turned = factor * vectors @ np.linalg.qr(chance.normal(size=(width, width)))[0]
    order = chance.permutation(count)
    columns = indicators(labels)
    assert logme(turned[order], columns[order]) == pytest.approx(logme(vectors, columns), abs=1e-4)
    assert h_score(turned[order], columns[order]) == pytest.approx(h_score(vectors, columns), abs=1e-6)


_FINITE = st.floats(-(2.0**100), 2.0**100, width=32) | st.sampled_from([0.0, 1.0, 2.0**-100])


@given(st.data())
@settings(max_examples=drawn(150, 15), deadline=None)
def test_whatever_comes_both_are_numbers_and_the_h_score_within_its_bounds(data: st.DataObject) -> None:
    count, width = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12))
    vectors = data.draw(arrays.arrays(np.float32, (count, width), elements=_FINITE))
    if data.draw(st.booleans()):
        labels = data.draw(arrays.arrays(np.int64, count, elements=st.integers(0, 3)))
        columns = indicators(labels)
        bound = columns.shape[1] - 1
    else:
        columns = scaled(data.draw(arrays.arrays(np.float64, count, elements=st.floats(-1e300, 1e300))))
        bound = 1
    assert np.isfinite(logme(vectors, columns))
    for shrinkage in (None, 0.0, 1.0):
        assert -1e-9 <= h_score(vectors, columns, shrinkage) <= bound + 1e-6


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e30])
def test_vectors_that_are_all_alike_tell_nothing(constant: float) -> None:
    labels = np.arange(40) % 4
    alike = np.full((40, 8), constant, np.float32)
    telling, _ = _problem(40, 8, classes=4, signal=4.0)
    assert h_score(alike, indicators(labels)) == 0.0
    assert logme(alike, indicators(labels)) < logme(telling, indicators(labels))


def test_one_class_has_nothing_to_tell_apart() -> None:
    vectors, _ = _problem(20, 5)
    only = indicators(np.zeros(20, np.int64))
    assert h_score(vectors, only) == 0.0
    assert np.isfinite(logme(vectors, only))


def test_numbers_are_brought_to_mean_0_and_spread_1_whatever_their_unit() -> None:
    numbers = np.random.default_rng(0).normal(size=(50, 2))
    assert scaled(numbers * [1e200, 1e-3] + [0, 7]) == pytest.approx(scaled(numbers))
    assert not scaled(np.full(9, 0.1)).any()


# Which base models stay: a table for the rules, and what holds whatever the scores are.


_SIZES = {"tiny": 1, "small": 10, "medium": 100, "large": 1000, "huge": 5000}


def _kept(standings: list[BaseModelStanding]) -> list[str]:
    return [one.base_model for one in standings if one.kept]


def _scores(*best_first: str) -> dict[str, Scores]:
    return {name: Scores(-float(place), -float(place)) for place, name in enumerate(best_first)}


def test_the_best_stay_whatever_their_size() -> None:
    found = prune(list(_SIZES), _scores("medium", "small", "large", "tiny", "huge"), _SIZES)
    best, others = "among the best scores", "others promise more"
    assert [(one.base_model, one.place, one.kept, one.why) for one in found] == [
        ("medium", 1, True, best), ("small", 2, True, best), ("large", 3, True, best),
        ("tiny", 4, False, others), ("huge", 5, False, others),
    ]  # fmt: skip


def test_of_models_of_one_size_the_best_stay() -> None:
    found = prune(list(_SIZES), _scores("large", "huge", "tiny", "small", "medium"), dict.fromkeys(_SIZES, 7))
    assert _kept(found) == ["large", "huge", "tiny"]


def test_what_could_not_be_measured_stays_beside_those_that_were() -> None:
    measured = _scores("medium", "small", "large", "huge")
    found = prune(["tiny", "medium", "small", "large", "huge"], measured, _SIZES)
    assert _kept(found) == ["medium", "small", "large", "tiny"]
    assert found[-1] == BaseModelStanding("tiny", None, True, "not measured")


def test_few_all_stay() -> None:
    found = prune(["tiny", "huge", "small"], _scores("small", "tiny", "huge"), _SIZES)
    assert _kept(found) == ["small", "tiny", "huge"]


def test_places_come_from_the_mean_rank_in_both_scores_and_the_smaller_model_is_first_of_equals() -> None:
    scores = [Scores(-1.0, 2.0), Scores(-2.0, 3.0), Scores(-3.0, 1.0)]
    assert rank_places(scores, [50, 40, 1]) == [2, 1, 3]
    assert rank_places(scores, [40, 50, 1]) == [1, 2, 3]
    assert rank_places([Scores(1.0, 1.0)] * 3, [3, 1, 2]) == [3, 1, 2]


@given(st.data())
@settings(deadline=None)
def test_whatever_the_scores_the_best_stay_and_no_more_than_asked(data: st.DataObject) -> None:
    names = [f"m{number}" for number in range(data.draw(st.integers(1, 9)))]
    value = st.floats(-5, 5) | st.sampled_from([0.0, 1.0])
    scores = {name: Scores(data.draw(value), data.draw(value)) for name in names if data.draw(st.integers(0, 4))}
    sizes = {name: data.draw(st.integers(1, 4)) for name in names}
    keep = data.draw(st.integers(1, 5))
    found = prune(names, scores, sizes, keep)
    stay = _kept(found)
    assert sorted(one.base_model for one in found) == names
    assert len([name for name in stay if name in scores]) == min(len(scores), max(keep, 3))
    assert set(names) - set(scores) <= set(stay)
    kept = [one.kept for one in found if one.place is not None]
    assert kept == sorted(kept, reverse=True)


@pytest.mark.parametrize(
    ("base_model", "is_it"),
    [("pkg:minilm", True), ("net@v2", True), ("path:/x", True), ("new:vit", False), ("timm:vit_tiny", False)],
)
def test_fresh_weights_are_not_compared(base_model: str, is_it: bool) -> None:
    assert comparable(base_model) is is_it


def test_a_report_tells_what_stays_best_first() -> None:
    assert kept_base_models(
        {"candidates": [{"base_model": "b", "kept": True}, {"base_model": "a", "kept": False}]}
    ) == ["b"]
