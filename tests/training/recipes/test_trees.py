"""Trees of LightGBM and scikit-learn as plain arrays: they answer as the libraries do; the loss is the metric's."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from speciate.models.estimators import Trees
from speciate.training.recipes import boosting
from speciate.training.recipes.boosting import (
    boosted_classifier,
    boosted_regression,
    rounds_of,
    trees_from_lightgbm,
)
from speciate.training.recipes.forests import extra_trees_classifier, extra_trees_regression
from speciate.training.selection.lanes import Lanes


def _problem(classes: int, count: int = 400) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    chance = np.random.default_rng(classes)
    inputs = chance.normal(size=(count, 6))
    targets = (inputs[:, 0] * inputs[:, 1] > 0).astype(int) + (classes - 2) * (inputs[:, 2] > 0.5)
    return inputs, targets % classes


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("outputs", [1, 3])
def test_arrays_of_lightgbm_give_its_raw_scores(outputs: int, missing: bool) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    inputs, targets = _problem(max(2, outputs))
    if missing:
        inputs = np.where(np.random.default_rng(0).random(inputs.shape) < 0.2, np.nan, inputs)
    objective = {"objective": "binary"} if outputs == 1 else {"objective": "multiclass", "num_class": outputs}
    settings = {**objective, "verbose": -1, "num_threads": 1, "min_data_in_leaf": 5}
    booster = lightgbm.train(settings, lightgbm.Dataset(inputs, targets), 12)
    asked = np.vstack([inputs, np.full((1, 6), np.nan)])
    expected = booster.predict(asked, raw_score=True).reshape(len(asked), -1)
    np.testing.assert_allclose(trees_from_lightgbm(booster.dump_model(), outputs).scores(asked), expected, atol=1e-12)


@pytest.fixture(params=["lightgbm", "scikit-learn"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "lightgbm":
        pytest.importorskip("lightgbm")
    monkeypatch.setattr(boosting, "_has_lightgbm", lambda: request.param == "lightgbm")
    return str(request.param)


@pytest.mark.parametrize(
    ("library", "classes"),
    [
        ("lightgbm", 2), ("scikit-learn", 3),
        *(
            pytest.param(*more, marks=pytest.mark.slow(reason="each library and each number is in the two before"))
            for more in (("lightgbm", 3), ("scikit-learn", 2))
        ),
    ],
    indirect=["library"],
)  # fmt: skip
def test_boosting_learns_what_no_line_can(library: str, classes: int) -> None:
    inputs, targets = _problem(classes, 1200)
    scores = boosted_classifier(inputs[:900], targets[:900], 0).scores(inputs[900:])
    answers = (scores[:, 0] > 0).astype(int) if classes == 2 else scores.argmax(axis=1)
    assert scores.shape == (300, 1 if classes == 2 else 3)
    assert (answers == targets[900:]).mean() > 0.85


def test_a_fit_on_more_examples_takes_the_rounds_that_another_has_found(library: str) -> None:
    inputs, targets = _problem(2, 900)
    found = rounds_of(boosted_classifier(inputs[:600], targets[:600], 0))
    assert 20 < found["rounds"] < 400, "found on held-out examples"
    assert rounds_of(boosted_classifier(inputs, targets, 0, **found)) == found
    numbers = boosted_regression(absolute=False)(inputs, targets.astype(float), 0, rounds=7)
    assert rounds_of(numbers) == {"rounds": 7}


def test_the_loss_follows_the_metric(library: str) -> None:
    """Noise with heavy, skewed tails: what is best by absolute errors is far below the mean."""
    chance = np.random.default_rng(0)
    inputs = chance.normal(size=(1500, 3))
    targets = inputs[:, 0] + chance.exponential(size=1500) ** 3
    learn, asked = slice(0, 1000), slice(1000, None)
    errors = [
        np.abs(
            boosted_regression(absolute)(inputs[learn], targets[learn], 0).scores(inputs[asked])[:, 0] - targets[asked]
        )
        for absolute in (True, False)
    ]
    assert errors[0].mean() < 0.9 * errors[1].mean()


def test_few_examples_and_a_label_of_one_are_learned(library: str) -> None:
    inputs, targets = _problem(2, 30)
    targets = np.append(targets, 2)
    assert boosted_classifier(np.vstack([inputs, inputs[:1]]), targets, 0).scores(inputs).shape == (30, 3)


@pytest.mark.parametrize("classes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_a_forest_as_arrays_gives_its_shares(classes: int) -> None:
    from sklearn.ensemble import ExtraTreesClassifier

    inputs, targets = _problem(classes)
    inputs = inputs.astype(np.float32)
    made = extra_trees_classifier()(inputs, targets, 7)
    model = ExtraTreesClassifier(200, criterion="entropy", random_state=7).fit(inputs, targets)
    shares = model.predict_proba(inputs)
    expected = shares[:, 1:] - 0.5 if classes == 2 else shares
    assert isinstance(made, Trees)
    np.testing.assert_allclose(made.scores(inputs), expected, atol=1e-9)


def test_a_forest_of_numbers_gives_their_means() -> None:
    chance = np.random.default_rng(0)
    inputs = chance.normal(size=(300, 4)).astype(np.float32)
    targets = inputs[:, 0] * 2 + chance.normal(0, 0.1, 300)
    found = extra_trees_regression(0.5)(inputs[:200], targets[:200], 0).scores(inputs[200:])[:, 0]
    assert np.corrcoef(found, targets[200:])[0, 1] > 0.9


@pytest.mark.parametrize(("classes", "count"), [(2, 900), (3, 2400), (0, 900)])
def test_the_fit_on_all_examples_is_the_same_beside_the_one_that_finds_its_rounds(
    classes: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lightgbm")
    monkeypatch.setattr("speciate.training.selection.lanes.OWN_BLAS", True)
    inputs, labels = _problem(classes or 2, count)
    learn: Any = boosted_classifier if classes else boosted_regression(absolute=True)
    targets = labels if classes else labels + inputs[:, 0]
    with Lanes(2) as lanes:
        beside = learn(inputs, targets, 0, lanes=lanes)
    for mine, expected in zip(beside, learn(inputs, targets, 0), strict=True):
        np.testing.assert_array_equal(mine, expected)


def test_no_lane_waits_for_rounds_that_nobody_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    lightgbm = pytest.importorskip("lightgbm")

    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(lightgbm, "early_stopping", fail)
    monkeypatch.setattr("speciate.training.selection.lanes.OWN_BLAS", True)
    with Lanes(2) as lanes, pytest.raises(MemoryError):
        boosted_classifier(*_problem(2, 900), 0, lanes=lanes)
    assert lanes._pool is not None
    lanes._pool.shutdown(wait=True)  # for ever, if it waited
