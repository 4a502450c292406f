"""Rebuilt estimators give what scikit-learn's gave, from arrays alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speciate.errors import Code, SpeciateError
from speciate.models import estimators
from speciate.models.kernel import from_svm
from speciate.models.linear import Linear
from speciate.models.neighbours import remember
from speciate.models.trees import from_boosting

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
    np.testing.assert_allclose(_again(from_svm(machine), tmp_path).scores(inputs), expected, atol=1e-6)


def test_a_kernel_regression_keeps_its_values(tmp_path: Path) -> None:
    from sklearn.svm import SVR

    inputs, targets = _digits(10)
    machine = SVR().fit(inputs, targets)
    np.testing.assert_allclose(_again(from_svm(machine), tmp_path).scores(inputs)[:, 0], machine.predict(inputs))


@pytest.mark.parametrize("classes", [2, 4])
def test_boosted_trees_keep_their_decision_function_and_where_missing_values_go(classes: int, tmp_path: Path) -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier

    inputs, targets = _digits(classes)
    inputs = np.where(np.random.default_rng(0).random(inputs.shape) < 0.1, np.nan, inputs)
    model = HistGradientBoostingClassifier(max_iter=5, early_stopping=False).fit(inputs, targets)
    expected = model.decision_function(inputs).reshape(len(inputs), -1)
    np.testing.assert_allclose(_again(from_boosting(model), tmp_path).scores(inputs), expected, atol=1e-9)


@pytest.mark.parametrize("sparse", [False, True])
def test_neighbours_vote_as_scikit_learns_do(sparse: bool, tmp_path: Path) -> None:
    from scipy.sparse import csr_array
    from sklearn.neighbors import KNeighborsClassifier

    inputs, targets = _digits(4)
    model = KNeighborsClassifier(5, algorithm="brute").fit(inputs, targets)
    kept = csr_array(inputs) if sparse else inputs
    scores = _again(remember(kept, np.eye(4)[targets], 5, votes=True), tmp_path).scores(kept)
    shares = model.predict_proba(inputs)
    assert (scores.argmax(1) == shares.argmax(1)).mean() > 0.99  # ties may fall differently
    np.testing.assert_allclose(np.exp(scores).sum(1), 1.0)


def test_neighbours_of_numbers_are_averaged(tmp_path: Path) -> None:
    near = remember(np.array([[0.0], [1.0], [10.0]]), np.array([[2.0], [4.0], [100.0]]), 2, votes=False)
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
