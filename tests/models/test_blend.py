"""A mean of estimators: its probabilities are its members', weighted, and it comes back from a file as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.errors import Code, SpeciateError
from speciate.models import blend, estimators
from speciate.models.blend import Averaged, Blend, Member, answers_of, as_scores, choose_members
from speciate.models.estimators import Linear, fit_neighbours
from speciate.tasks.families.classification import softmax


def _linear(classes: int, seed: int, width: int = 3) -> Linear:
    generator = np.random.default_rng(seed)
    return Linear(generator.normal(size=(classes, width)), generator.normal(size=classes))


@pytest.mark.parametrize("classes", [1, 3])
def test_probabilities_are_the_weighted_mean_of_the_members(classes: int) -> None:
    first, second = _linear(classes, 0), _linear(classes, 1, width=2)
    inputs = [np.random.default_rng(2).normal(size=(5, 3)), np.random.default_rng(3).normal(size=(5, 2))]
    mean = Blend((Member(first, 0, 0.25, 2.0), Member(second, 1, 0.75)), "classes")
    wanted = 0.25 * softmax(first.scores(inputs[0]), 2.0) + 0.75 * softmax(second.scores(inputs[1]))
    found = mean.scores(inputs)
    assert found.shape == (5, classes)
    np.testing.assert_allclose(softmax(found), wanted, atol=1e-9)


@given(st.sampled_from(["classes", "labels", "numbers"]), st.integers(1, 4), st.integers(0, 99))
def test_the_scores_of_answers_have_the_same_answers(averaged: Averaged, columns: int, seed: int) -> None:
    scores = np.random.default_rng(seed).normal(size=(4, columns))
    answers = answers_of(scores, averaged, 1.0)
    np.testing.assert_allclose(answers_of(as_scores(answers, averaged), averaged, 1.0), answers, atol=1e-9)


def test_a_mean_comes_back_from_its_file(tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(6, 3))
    near = fit_neighbours(points, np.eye(2)[[0, 1] * 3], 2, votes=True)
    made = Blend((Member(_linear(1, 0), 0, 0.5), Member(near, 0, 0.5, 1.5)), "classes")
    blend.save(made, tmp_path / "estimator.safetensors")
    again = blend.load(tmp_path / "estimator.safetensors")
    np.testing.assert_array_equal(again.scores([points]), made.scores([points]))
    assert again.parameters == made.parameters


def test_a_damaged_mean_is_refused(tmp_path: Path) -> None:
    arrays = Blend((Member(_linear(1, 0), 0, 1.0),), "classes").arrays()
    del arrays["0.linear.bias"]
    estimators.save_arrays(arrays, tmp_path / "estimator.safetensors", {"form": blend.FORM})
    with pytest.raises(SpeciateError) as refused:
        blend.load(tmp_path / "estimator.safetensors")
    assert refused.value.code == Code.REFUSED


def test_members_that_err_differently_are_chosen_and_useless_ones_are_not() -> None:
    wanted = np.linspace(0, 1, 9)[:, None]
    up, down, noise = wanted + 0.1, wanted - 0.1, 5 - wanted
    found = choose_members([noise, up, down], lambda mean: float(((mean - wanted) ** 2).mean()), most=3)
    assert found == {1: 0.5, 2: 0.5}


def test_no_more_members_than_allowed() -> None:
    generator = np.random.default_rng(0)
    wanted = generator.normal(size=(50, 1))
    noisy = [wanted + generator.normal(size=wanted.shape) for _ in range(9)]
    found = choose_members(noisy, lambda mean: float(((mean - wanted) ** 2).mean()), most=3)
    assert len(found) == 3
    assert sum(found.values()) == pytest.approx(1)
