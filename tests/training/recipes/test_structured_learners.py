"""Learners of sets, ranks, tags and vectors are what their literature says, and plain arrays."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.datasets import load_diabetes, load_iris
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

from speciate.modalities.medical.volumes import Volume
from speciate.modalities.segmentation_masks import mask_cell
from speciate.models import estimators
from speciate.models.estimators import UnitRows
from speciate.tasks.families.ordinal import Ordinal
from speciate.tasks.families.segmentation import Segmentation
from speciate.tasks.predictor import TrainedPredictor, constant, load
from speciate.tasks.task import TaskExample, TaskTerms
from speciate.training.recipes.classical import logistic, ridge
from speciate.training.recipes.structured_learners import (
    cumulative,
    discriminant,
    keep_vectors,
    one_versus_rest,
    per_unit,
    segmentation_groups,
    thresholds_on_a_line,
)
from tests.modalities.nifti_samples import organ
from tests.tasks.learning import example, value


def _again(estimator: Any, folder: Path) -> Any:
    estimators.save(estimator, folder / "estimator.safetensors")
    return estimators.load(folder / "estimator.safetensors")


def test_one_versus_rest_is_scikit_learns_and_a_label_that_never_is_given_is_never_said(tmp_path: Path) -> None:
    iris = load_iris()
    wanted = np.eye(4)[iris.target]  # the fourth label never occurs
    made = _again(one_versus_rest(logistic(1.0))(iris.data, wanted, 0), tmp_path)
    oracle = OneVsRestClassifier(LogisticRegression(solver="newton-cholesky", max_iter=300)).fit(iris.data, iris.target)
    np.testing.assert_allclose(made.scores(iris.data)[:, :3], oracle.decision_function(iris.data), atol=1e-5)
    assert (made.scores(iris.data)[:, 3] < -5).all()


def test_ranks_of_diabetes_are_found_better_than_classes() -> None:
    """Five ranks of progression: both learners are nearer to the truth than a classifier that knows no order."""
    rows, progression = load_diabetes(return_X_y=True)
    rows = StandardScaler().fit_transform(rows)
    ranks = np.digitize(progression, np.quantile(progression, [0.2, 0.4, 0.6, 0.8]))
    task_head = Ordinal(labels=tuple("01234"))
    learners = {
        "line": thresholds_on_a_line(ridge(1.0), logistic, 5),
        "cumulative": cumulative(logistic(1.0), 5),
    }
    errors: dict[str, list[float]] = {name: [] for name in (*learners, "classes")}
    for learn, held in StratifiedKFold(5, shuffle=True, random_state=0).split(rows, ranks):
        for name, learner in learners.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # one bound on one line needs no convergence to many digits
                made = task_head.predictions(learner(rows[learn], ranks[learn], 0).scores(rows[held]))
            errors[name].append(np.abs([int(one.output) for one in made] - ranks[held]).mean())
        classes = LogisticRegression().fit(rows[learn], ranks[learn]).predict(rows[held])
        errors["classes"].append(np.abs(classes - ranks[held]).mean())
    found = {name: np.mean(values) for name, values in errors.items()}
    assert found["line"] < found["classes"] - 0.03
    assert found["cumulative"] < found["classes"] - 0.03


@pytest.mark.parametrize("sparse", [False, True])
def test_units_are_scored_one_by_one_and_given_back_by_example(tmp_path: Path, sparse: bool) -> None:
    random = np.random.default_rng(0)
    matrix, counts = random.normal(size=(30, 4)), np.array([10, 0, 15, 5])
    codes = (matrix[:, 0] > 0).astype(np.int64)
    codes[0] = -1  # a tag that is not known
    inputs = UnitRows(csr_array(matrix) if sparse else matrix, counts)
    learned = per_unit(logistic(10.0), 2)(inputs, np.split(codes, np.cumsum(counts)[:-1]), 0)
    scores = _again(learned, tmp_path).scores(inputs)
    assert [each.shape for each in scores] == [(10, 2), (0, 2), (15, 2), (5, 2)]
    assert (np.concatenate(list(scores)).argmax(1) == (matrix[:, 0] > 0)).mean() > 0.9


def test_the_discriminant_spans_what_scikit_learns_does(tmp_path: Path) -> None:
    iris = load_iris()
    made = _again(discriminant(iris.data, iris.target, 0), tmp_path).scores(iris.data)
    oracle = LinearDiscriminantAnalysis(solver="eigen", shrinkage=0.0).fit(iris.data, iris.target)
    wanted = oracle.transform(iris.data)
    assert made.shape == (150, 2)
    for axis in range(2):
        assert abs(np.corrcoef(made[:, axis], wanted[:, axis])[0, 1]) > 0.99


def test_the_discriminant_bears_more_columns_than_examples_and_labels_of_one() -> None:
    random = np.random.default_rng(0)
    made = discriminant(random.normal(size=(6, 40)), np.arange(6), 0)
    assert np.isfinite(made.scores(random.normal(size=(3, 40)))).all()


def test_what_is_taken_as_it_is_stays(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(3, 4))
    made = _again(keep_vectors(rows, None, 0), tmp_path)
    np.testing.assert_array_equal(made.scores(rows), rows)
    assert made.parameters == 0


# Voxels labelled one by one, without a network.


def posed(seeds: range) -> list[TaskExample]:
    found = []
    for seed in seeds:
        made = organ(seed, side=16)
        voxels, labels = (each.transpose(2, 1, 0) for each in (made.voxels, made.labels))
        volume: Volume = {"voxels": voxels.astype(np.float32), "spacing": np.array([1.5, 1, 2], np.float32)}
        cell = mask_cell(labels, ["organ", "lesion"])
        one = Segmentation.evaluation_example(example(f"{seed}", volume), cell, TaskTerms())
        assert one is not None
        found.append(one)
    return found


def test_voxels_are_told_apart_and_the_commonest_label_at_each_place_does_not(tmp_path: Path) -> None:
    learned, asked = posed(range(8)), posed(range(8, 14))
    targets, examples = [one.target for one in learned], [one.example for one in learned]
    task_head = Segmentation.fit(targets, {})
    (way,) = segmentation_groups(task_head, logistic(1.0))
    features = way.represent(examples)
    (learner,) = way.learners
    estimator = learner.learn(features.encode(examples), task_head.encode_targets(targets), 0)
    predictor = TrainedPredictor("volume-segmentation", features, estimator, task_head)
    assert value("dice", predictor, asked) > 0.8
    assert value("dice", constant("volume-segmentation", targets, TaskTerms()), asked) < 0.6
    predictor.save(tmp_path / "model")
    again = load(tmp_path / "model").predict([one.example for one in asked])
    assert [one.output for one in again] == [one.output for one in predictor.predict([one.example for one in asked])]


def test_a_label_that_is_unknown_is_not_learned_from() -> None:
    """Of two labels one: its voxels count neither as it nor as background."""
    learned = posed(range(2))
    task_head = Segmentation(labels=("organ",), side=16, axes=3)
    targets = task_head.encode_targets([one.target for one in learned])
    assert (targets == 255).any()
    (way,) = segmentation_groups(task_head, logistic(1.0))
    inputs = way.represent([]).encode([one.example for one in learned])
    before = way.learners[0].learn(inputs, targets, 0)
    inputs.matrix[targets.ravel() == 255] = 1e3
    after = way.learners[0].learn(inputs, targets, 0)
    assert np.array_equal(before.weight, after.weight)
