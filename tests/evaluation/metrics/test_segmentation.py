"""Overlaps of regions, against scikit-learn's."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn import metrics as oracle

from speciate.evaluation.metrics import contributions
from speciate.evaluation.metrics.answers import object_answers
from speciate.tasks.masks import to_runs
from speciate.vocabulary import find_metric

NAMES = ("cat", "dog")
maps = arrays.arrays(np.uint8, (4, 6), elements=st.integers(0, 2))


def told(pixels: npt.NDArray[np.uint8], names: tuple[str, ...] = NAMES) -> dict[str, Any]:
    return {"labels": list(names), "size": list(pixels.shape), "rle": to_runs(pixels)}


def value(metric: str, truth: Any, given: Any) -> float:
    return float(contributions(find_metric(metric), object_answers([truth], [given]))[0])


@settings(deadline=None)
@given(maps, maps)
def test_both_are_scikit_learns_over_the_labels_that_are_shown(
    truth: npt.NDArray[np.uint8], answer: npt.NDArray[np.uint8]
) -> None:
    shown = sorted(({*truth.ravel().tolist()} | {*answer.ravel().tolist()}) - {0})
    for metric, score in (("dice", oracle.f1_score), ("mean_iou", oracle.jaccard_score)):
        wanted = score(truth.ravel(), answer.ravel(), labels=shown, average="macro") if shown else 1.0
        assert value(metric, told(truth), told(answer)) == pytest.approx(wanted)


def test_labels_are_compared_by_name() -> None:
    pixels = np.array([[0, 1], [2, 2]], np.uint8)
    swapped = np.array([[0, 2], [1, 1]], np.uint8)
    assert value("dice", told(pixels), told(swapped, ("dog", "cat"))) == 1


def test_an_answer_of_another_size_is_stretched() -> None:
    small = np.array([[0, 1], [2, 2]], np.uint8)
    assert value("mean_iou", told(np.kron(small, np.ones((3, 5), np.uint8))), told(small)) == 1


@pytest.mark.parametrize("lost", [None, "cat", {"labels": ["cat"]}, {"labels": ["cat"], "size": [2, 2], "rle": [1, 3]}])
def test_an_error_is_worth_nothing(lost: Any) -> None:
    nothing = np.zeros((2, 2), np.uint8)
    assert value("dice", told(nothing), told(nothing)) == 1
    assert value("dice", told(nothing), lost) == 0
    assert value("dice", told(nothing + 1), lost) == 0
