"""A label for each place, as runs and as a cell."""

from __future__ import annotations

import base64
import json
import zlib

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from speciate.modalities.segmentation_masks import from_runs, mask_cell, mask_of, resize_labels, to_runs

SOME = arrays(np.uint8, array_shapes(min_dims=2, max_dims=3, max_side=12), elements=st.integers(0, 3))
VOLUMES = arrays(np.uint8, array_shapes(min_dims=3, max_dims=3, max_side=12), elements=st.integers(0, 3))


@settings(deadline=None)
@given(SOME)
def test_runs_of_labels_come_back(labels: npt.NDArray[np.uint8]) -> None:
    assert (from_runs(to_runs(labels), labels.shape) == labels).all()


@settings(deadline=None)
@given(VOLUMES)
def test_a_cell_says_the_same_labels_by_name(labels: npt.NDArray[np.uint8]) -> None:
    names = ["liver", "lesion", "vessel"]
    found = mask_of(mask_cell(labels, names))
    for code, name in enumerate(names, 1):
        there = labels == code
        assert (name in found.labels) == there.any()
        if there.any():
            assert ((found.pixels == found.labels.index(name) + 1) == there).all()
    assert ((found.pixels == 0) == (labels == 0)).all()


def test_a_mask_of_a_whole_scan_is_a_short_cell() -> None:
    z, y, x = np.ogrid[-1:1:150j, -1:1:256j, -1:1:256j]
    labels = (z**2 + y**2 + x**2 < 0.5).astype(np.uint8) + ((z - 0.2) ** 2 + y**2 + x**2 < 0.02)
    assert len(mask_cell(labels.astype(np.uint8), ["organ", "lesion"])) < 60_000


def test_a_label_without_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match="there are 1 names"):
        mask_cell(np.full((1, 2, 2), 2, np.uint8), ["organ"])


def runs(*pairs: int) -> str:
    return base64.b64encode(zlib.compress(np.array(pairs, "<i4").tobytes())).decode()


@pytest.mark.parametrize(
    "cell",
    [
        None,
        7,
        "",
        "[]",
        "{}",
        "[" * 100_000,
        json.dumps({"labels": ["a"], "size": [1, 1, 4], "runs": "??"}),
        json.dumps({"labels": ["a"], "size": [1, 1, 4], "runs": base64.b64encode(b"no zlib").decode()}),
        json.dumps({"labels": ["a"], "size": [1, 4], "runs": runs(1, 4)}),
        json.dumps({"labels": ["a"], "size": [1, 1, 4], "runs": runs(1, 3)}),
        json.dumps({"labels": ["a"], "size": [1, 1, 4], "runs": runs(1, 5, 1, -1)}),
        json.dumps({"labels": ["a"], "size": [1, 1, 4], "runs": runs(2, 4)}),
        json.dumps({"labels": ["a"], "size": [1, 1, 4], "runs": runs(300, 4)}),
        json.dumps({"labels": ["a"], "size": [-1, -1, 4], "runs": runs(1, 4)}),
        json.dumps({"labels": ["a"], "size": [30_000, 30_000, 30_000], "runs": runs(1, 4)}),
        json.dumps({"labels": "a", "size": [1, 1, 4], "runs": runs(1, 4)}),
    ],
)
def test_what_is_no_mask_is_refused(cell: object) -> None:
    with pytest.raises(ValueError, match=r"mask|runs|names"):
        mask_of(cell)


def test_runs_that_unpack_to_far_more_than_the_mask_has_are_refused() -> None:
    bomb = base64.b64encode(zlib.compress(bytes(2**28), 1)).decode()
    with pytest.raises(ValueError, match=r"mask|runs|names"):
        mask_of(json.dumps({"labels": ["a"], "size": [1, 1, 1], "runs": bomb}))


def test_a_volume_of_labels_is_resized_by_the_centres() -> None:
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[2:, :, 1] = 1
    assert (resize_labels(labels, (2, 2, 4)) == labels[::2, ::2]).all()
    assert (resize_labels(labels, (8, 4, 4))[4:] == np.repeat(labels, 2, axis=0)[4:]).all()
