"""Outlines and run lengths, against plain loops."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from speciate.modalities.segmentation_masks import resize_labels
from speciate.tasks.families.segmentation import region_mask

points = st.lists(st.tuples(st.floats(-4, 14), st.floats(-4, 14)), min_size=3, max_size=8)


def inside(polygon: list[tuple[float, float]], x: float, y: float) -> bool:
    """Whether a ray to the left crosses the outline an odd number of times (Shimrat 1962)."""
    odd = False
    for (x0, y0), (x1, y1) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        if (y0 <= y) != (y1 <= y) and x0 + (y - y0) / (y1 - y0) * (x1 - x0) <= x:
            odd = not odd
    return odd


def run_lengths(mask: npt.NDArray[np.bool_]) -> list[int]:
    """Column by column, outside first."""
    counts, wanted = [0], False
    for pixel in mask.T.ravel().tolist():
        if pixel != wanted:
            counts.append(0)
            wanted = pixel
        counts[-1] += 1
    return counts


def compressed(counts: list[int]) -> str:
    """As pycocotools' rleToString does it."""
    text = ""
    for place, count in enumerate(counts):
        left = count - counts[place - 2] if place > 2 else count
        more = True
        while more:
            bits = left & 0x1F
            left >>= 5
            more = left != -1 if bits & 0x10 else left != 0
            text += chr((bits | (0x20 if more else 0)) + 48)
    return text


@settings(deadline=None)
@given(points)
def test_pixels_are_inside_where_their_centres_are(polygon: list[tuple[float, float]]) -> None:
    mask = region_mask([[number for point in polygon for number in point]], (10, 9), (10, 9))
    wanted = [[inside(polygon, x + 0.5, y + 0.5) for x in range(9)] for y in range(10)]
    assert mask.tolist() == wanted


@settings(deadline=None)
@given(arrays.arrays(bool, arrays.array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_run_lengths_are_read_plain_and_compressed(mask: npt.NDArray[np.bool_]) -> None:
    counts, size = run_lengths(mask), list(mask.shape)
    for form in (counts, compressed(counts)):
        assert (region_mask({"size": size, "counts": form}, mask.shape, mask.shape) == mask).all()


def test_a_polygon_is_drawn_at_another_size() -> None:
    mask = region_mask([[0, 0, 50, 0, 50, 100, 0, 100]], (100, 100), (10, 10))
    assert mask[:, :5].all()
    assert not mask[:, 5:].any()


def test_several_polygons_are_one_region() -> None:
    assert region_mask([[0, 0, 2, 0, 2, 2, 0, 2], [1, 1, 3, 1, 3, 3, 1, 3]], (4, 4), (4, 4)).sum() == 7


def test_a_map_that_is_halved_and_doubled_keeps_its_blocks() -> None:
    blocks = np.kron(np.arange(6).reshape(2, 3), np.ones((2, 2), int))
    assert (resize_labels(blocks, (2, 3)) == np.arange(6).reshape(2, 3)).all()
    assert (resize_labels(resize_labels(blocks, (2, 3)), (4, 6)) == blocks).all()
