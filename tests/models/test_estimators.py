"""Rebuilt estimators give scikit-learn's results from arrays alone: classical ones, novelty, streaming LDA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.covariance import LedoitWolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import NearestNeighbors

from speciate.errors import Code, SpeciateError
from speciate.models import estimators
from speciate.models.estimators import (
    Linear,
    StreamingLda,
    _smallest,
    fit_distance,
    fit_gaussian,
    fit_neighbours,
    kernel_from_svm,
    trees_from_boosting,
    trees_from_isolation,
)

pytest.importorskip("sklearn")


def _digits(classes: int) -> tuple[Any, Any]:
    from sklearn.datasets import load_digits

    inputs, targets = load_digits(n_class=classes, return_X_y=True)
    return inputs[:300] / 16.0, targets[:300]


def _again(estimator: Any, folder: Path) -> Any:
    estimators.save(estimator, folder / "estimator.safetensors")
    return estimators.load(folder / "estimator.safetensors")


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_a_kernel_machine_keeps_its_decision_function(classes: int, tmp_path: Path) -> None:
    from sklearn.svm import SVC

    inputs, targets = _digits(classes)
    machine = SVC().fit(inputs, targets)
    expected = machine.decision_function(inputs).reshape(len(inputs), -1)
    np.testing.assert_allclose(_again(kernel_from_svm(machine), tmp_path).scores(inputs), expected, atol=1e-6)


def test_a_kernel_regression_keeps_its_values(tmp_path: Path) -> None:
    from sklearn.svm import SVR

    inputs, targets = _digits(10)
    machine = SVR().fit(inputs, targets)
    np.testing.assert_allclose(_again(kernel_from_svm(machine), tmp_path).scores(inputs)[:, 0], machine.predict(inputs))


@pytest.mark.parametrize("classes", [2, 4])
def test_boosted_trees_keep_their_decision_function_and_where_missing_values_go(classes: int, tmp_path: Path) -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier

    inputs, targets = _digits(classes)
    inputs = np.where(np.random.default_rng(0).random(inputs.shape) < 0.1, np.nan, inputs)
    model = HistGradientBoostingClassifier(max_iter=5, early_stopping=False).fit(inputs, targets)
    expected = model.decision_function(inputs).reshape(len(inputs), -1)
    np.testing.assert_allclose(_again(trees_from_boosting(model), tmp_path).scores(inputs), expected, atol=1e-9)


@pytest.mark.parametrize("sparse", [False, True])
def test_neighbours_vote_as_scikit_learns_do(sparse: bool, tmp_path: Path) -> None:
    from scipy.sparse import csr_array
    from sklearn.neighbors import KNeighborsClassifier

    inputs, targets = _digits(4)
    model = KNeighborsClassifier(5, algorithm="brute").fit(inputs, targets)
    kept = csr_array(inputs) if sparse else inputs
    scores = _again(fit_neighbours(kept, np.eye(4)[targets], 5, votes=True), tmp_path).scores(kept)
    shares = model.predict_proba(inputs)
    assert (scores.argmax(1) == shares.argmax(1)).mean() > 0.99  # ties may fall differently
    np.testing.assert_allclose(np.exp(scores).sum(1), 1.0)


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_of_equal_distances_the_earlier_ones_are_nearest(count: int, kinds: int, seed: int) -> None:
    rows = np.random.default_rng(seed).integers(0, kinds, (4, 6)).astype(float)
    rows[0, seed % 6] = np.nan
    np.testing.assert_array_equal(_smallest(rows, count), np.argsort(rows, axis=1, kind="stable")[:, :count])


def test_neighbours_of_numbers_are_averaged(tmp_path: Path) -> None:
    near = fit_neighbours(np.array([[0.0], [1.0], [10.0]]), np.array([[2.0], [4.0], [100.0]]), 2, votes=False)
    assert _again(near, tmp_path).scores(np.array([[0.4]]))[0, 0] == 3.0


def test_a_file_of_another_form_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "estimator.safetensors"
    estimators.save_arrays({"weight": np.zeros((1, 1)), "bias": np.zeros(1)}, path, {"form": "os.system"})
    with pytest.raises(SpeciateError) as refusal:
        estimators.load(path)
    assert refusal.value.code is Code.REFUSED
    assert "os.system" in refusal.value.message


def test_a_form_with_missing_arrays_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "estimator.safetensors"
    estimators.save_arrays({"weight": np.zeros((1, 1))}, path, {"form": "linear"})
    with pytest.raises(SpeciateError):
        estimators.load(path)


def test_a_pickle_is_no_model(tmp_path: Path) -> None:
    import pickle

    path = tmp_path / "estimator.safetensors"
    path.write_bytes(pickle.dumps(Linear(np.zeros((1, 1)), np.zeros(1))))
    with pytest.raises(SpeciateError) as refusal:
        estimators.load(path)
    assert refusal.value.code is Code.REFUSED


RANDOM = np.random.default_rng(0)
LEARNED = RANDOM.normal(size=(200, 6)) @ RANDOM.normal(size=(6, 6))
ASKED = RANDOM.normal(size=(50, 6)) * 3


@pytest.mark.parametrize("form", [np.asarray, csr_array])
def test_distances_are_those_of_the_nearest(form: Any) -> None:
    wanted = NearestNeighbors(n_neighbors=3).fit(LEARNED).kneighbors(ASKED)[0].mean(1)
    assert fit_distance(form(LEARNED), 3).scores(form(ASKED))[:, 0] == pytest.approx(wanted, abs=1e-6)


def test_few_examples_are_all_neighbours() -> None:
    assert fit_distance(LEARNED[:2], 5).scores(ASKED).shape == (50, 1)


def test_mahalanobis_is_scikit_learns() -> None:
    wanted = np.sqrt(LedoitWolf().fit(LEARNED).mahalanobis(ASKED))
    assert fit_gaussian(LEARNED).scores(ASKED)[:, 0] == pytest.approx(wanted)


def test_fewer_examples_than_columns_and_columns_that_never_change() -> None:
    wide = np.hstack([RANDOM.normal(size=(5, 20)), np.ones((5, 3))])
    assert np.isfinite(fit_gaussian(wide).scores(wide)).all()
    assert np.isfinite(fit_gaussian(np.ones((4, 3))).scores(np.zeros((2, 3)))).all()


def test_an_isolation_forest_scores_as_scikit_learns() -> None:
    """Which is 2 to the power of minus the mean depth, in units of the usual depth."""
    asked = ASKED.astype(np.float32)
    forest = IsolationForest(n_estimators=50, max_features=0.5, random_state=0).fit(LEARNED.astype(np.float32))
    depth = -trees_from_isolation(forest).scores(asked)[:, 0]
    usual = 2 * (np.log(199) + np.euler_gamma) - 2 * 199 / 200
    assert 2 ** (-depth / usual) == pytest.approx(-forest.score_samples(asked))


@pytest.mark.parametrize("made", [fit_distance(LEARNED, 3), fit_distance(csr_array(LEARNED), 3), fit_gaussian(LEARNED)])
def test_what_was_saved_scores_the_same(made: Any, tmp_path: Path) -> None:
    estimators.save(made, tmp_path / "e.safetensors")
    again = estimators.load(tmp_path / "e.safetensors")
    asked = csr_array(ASKED) if len(getattr(made, "starts", ())) else ASKED
    assert (again.scores(asked) == made.scores(asked)).all()
    assert again.parameters == made.parameters


CHANCE = np.random.default_rng(0)
TARGETS = CHANCE.integers(0, 4, 200)
INPUTS = CHANCE.normal(0, 1, (4, 5))[TARGETS] + CHANCE.normal(0, 0.5, (200, 5))


@given(st.lists(st.integers(1, 199), max_size=6), st.randoms(use_true_random=False))
def test_any_order_and_any_batches_end_in_the_same(cuts: list[int], chance: object) -> None:
    order = list(range(200))
    chance.shuffle(order)  # type: ignore[attr-defined]
    found = StreamingLda.empty(4, 5, 0.01)
    for part in np.split(np.array(order), sorted(cuts)):
        found = found.learned(INPUTS[part], TARGETS[part])
    once = StreamingLda.empty(4, 5, 0.01).learned(INPUTS, TARGETS)
    for name in ("means", "counts", "scatter"):
        np.testing.assert_allclose(getattr(found, name), getattr(once, name), atol=1e-9)


def test_it_finds_what_scikit_learn_finds() -> None:
    found = StreamingLda.empty(4, 5, 1e-9).learned(INPUTS, TARGETS).scores(INPUTS)
    other = LinearDiscriminantAnalysis(solver="lsqr", priors=[0.25] * 4).fit(INPUTS, TARGETS).decision_function(INPUTS)
    np.testing.assert_array_equal(found.argmax(1), other.argmax(1))


def test_a_class_that_was_never_seen_is_never_said_and_one_without_a_label_does_not_count() -> None:
    targets = np.where(TARGETS == 3, -1, TARGETS)
    found = StreamingLda.empty(4, 5, 0.01).learned(INPUTS, targets)
    assert set(found.scores(INPUTS).argmax(1)) == {0, 1, 2}
    assert found.counts.sum() == (TARGETS != 3).sum()


def test_more_classes_take_nothing_from_the_old_ones(tmp_path: object) -> None:
    old = StreamingLda.empty(2, 5, 0.01).learned(INPUTS[TARGETS < 2], TARGETS[TARGETS < 2])
    wider = old.placed(np.array([1, 3]), 4)
    np.testing.assert_array_equal(wider.means[[1, 3]], old.means)
    np.testing.assert_allclose(wider.scores(INPUTS)[:, [1, 3]], old.scores(INPUTS))
    path = tmp_path / "estimator.safetensors"  # type: ignore[operator]
    estimators.save(wider, path)
    np.testing.assert_array_equal(estimators.load(path).scores(INPUTS), wider.scores(INPUTS))
