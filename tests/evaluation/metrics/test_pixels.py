"""Overlaps of regions, against scikit-learn's."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.spatial.distance import cdist, directed_hausdorff
from sklearn import metrics as oracle

from speciate.evaluation.metrics import contributions
from speciate.evaluation.metrics.metric import object_answers
from speciate.evaluation.metrics.pixels import border, gaps
from speciate.modalities.segmentation_masks import to_runs
from speciate.vocabulary import find_metric
from tests.drawn import drawn

NAMES = ("cat", "dog")
maps = arrays.arrays(np.uint8, (4, 6), elements=st.integers(0, 2))


def told(pixels: npt.NDArray[np.uint8], names: tuple[str, ...] = NAMES) -> dict[str, Any]:
    return {"labels": list(names), "size": list(pixels.shape), "rle": to_runs(pixels)}


def value(metric: str, reference: Any, given: Any) -> float:
    return float(contributions(find_metric(metric), object_answers([reference], [given]))[0])


@settings(deadline=None)
@given(maps, maps)
def test_both_are_scikit_learns_over_the_labels_that_are_shown(
    reference: npt.NDArray[np.uint8], answer: npt.NDArray[np.uint8]
) -> None:
    shown = sorted(({*reference.ravel().tolist()} | {*answer.ravel().tolist()}) - {0})
    for metric, score in (("dice", oracle.f1_score), ("mean_iou", oracle.jaccard_score)):
        wanted = score(reference.ravel(), answer.ravel(), labels=shown, average="macro") if shown else 1.0
        assert value(metric, told(reference), told(answer)) == pytest.approx(wanted)


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


masks = arrays.arrays(bool, (7, 9), elements=st.booleans()).filter(lambda mask: bool(mask.any()))


@settings(deadline=None)
@given(masks, masks)
def test_distances_of_borders_are_scipys(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> None:
    """The whole distance is `directed_hausdorff`; the 95 % that count, all pairs written out."""
    edges = [np.argwhere(border(mask)) for mask in (one, other)]
    assert gaps(border(one), border(other)).max() == pytest.approx(directed_hausdorff(*edges)[0])
    pairs = cdist(*edges)
    wanted = max(np.percentile(pairs.min(axis), 95) for axis in (0, 1))
    told_of = [told(mask.astype(np.uint8), ("cat",)) for mask in (one, other)]
    assert value("hausdorff_95", *told_of) == pytest.approx(wanted, rel=1e-9)


def test_a_border_is_what_touches_the_outside() -> None:
    mask = np.zeros((6, 6), bool)
    mask[1:5, 1:5] = True
    inside = np.zeros((6, 6), bool)
    inside[2:4, 2:4] = True
    assert (border(mask) == (mask & ~inside)).all()
    assert border(np.ones((3, 3), bool)).sum() == 8


def test_a_label_that_only_one_shows_is_a_diagonal_away_and_so_is_an_error() -> None:
    reference, nothing = np.zeros((3, 4), np.uint8), told(np.zeros((3, 4), np.uint8))
    reference[1, 1] = 1
    assert value("hausdorff_95", told(reference), nothing) == 5
    assert value("hausdorff_95", told(reference), None) == 5
    assert value("hausdorff_95", nothing, None) == 5
    assert value("hausdorff_95", nothing, nothing) == 0


@settings(deadline=None)
@given(maps, maps)
def test_right_pixels_are_scikit_learns_accuracy(
    reference: npt.NDArray[np.uint8], answer: npt.NDArray[np.uint8]
) -> None:
    wanted = oracle.accuracy_score(reference.ravel(), answer.ravel())
    assert value("pixel_accuracy", told(reference), told(answer)) == pytest.approx(wanted)
    assert value("pixel_accuracy", told(reference), None) == 0


# Volumes

volumes = arrays.arrays(bool, (4, 5, 6), elements=st.booleans()).filter(lambda mask: bool(mask.any()))
spacings = st.tuples(*[st.sampled_from([0.5, 1.0, 1.7, 3.0])] * 3)


@settings(deadline=None, max_examples=drawn(50))
@given(volumes, volumes, spacings)
def test_distances_in_volumes_are_millimetres(
    one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_], spacing: tuple[float, ...]
) -> None:
    """All pairs of voxels on the borders, written out."""
    places = [np.argwhere(border(mask)) * spacing for mask in (one, other)]
    pairs = cdist(*places)
    wanted = max(np.percentile(pairs.min(axis), 95) for axis in (0, 1))
    reference, given_ = (told(mask.astype(np.uint8), ("cat",)) for mask in (one, other))
    assert value("hausdorff_95", reference | {"spacing": list(spacing)}, given_) == pytest.approx(wanted, rel=1e-9)


def test_a_label_that_only_one_volume_shows_is_its_diagonal_away_in_millimetres() -> None:
    reference = np.zeros((3, 4, 1), np.uint8)
    reference[1, 1] = 1
    assert value("hausdorff_95", told(reference) | {"spacing": [2.0, 2.0, 0.1]}, None) == pytest.approx(10, abs=0.001)


@settings(deadline=None, max_examples=drawn(50))
@given(*[arrays.arrays(np.uint8, (3, 4, 5), elements=st.integers(0, 2))] * 2)
def test_overlaps_of_volumes_are_scikit_learns(reference: npt.NDArray[np.uint8], answer: npt.NDArray[np.uint8]) -> None:
    shown = sorted(({*reference.ravel().tolist()} | {*answer.ravel().tolist()}) - {0})
    for metric, score in (("dice", oracle.f1_score), ("mean_iou", oracle.jaccard_score)):
        wanted = score(reference.ravel(), answer.ravel(), labels=shown, average="macro") if shown else 1.0
        assert value(metric, told(reference), told(answer)) == pytest.approx(wanted)
    assert value("pixel_accuracy", told(reference), told(answer)) == pytest.approx((reference == answer).mean())


def test_an_image_is_no_answer_to_a_volume() -> None:
    reference = np.ones((2, 2, 2), np.uint8)
    assert value("dice", told(reference), told(reference[0])) == 0
