"""How far away each pixel of an image is. Published models with heads of their own do it; no head of ours does.

A target is `{size, low, high, values}` of modalities/depth_maps.py, in the caller's unit. An answer has the same form,
and `relative` where it is nearness up to an unknown scale and shift.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, NoReturn, Self

import numpy as np
from pydantic import BaseModel, ConfigDict

from speciate.datasets.loading.loader import Example
from speciate.modalities.depth_maps import Distances, depth_of, from_map, to_map
from speciate.modalities.segmentation_masks import resize_labels
from speciate.tasks.task import DirectSupervision, Prediction, TaskExample, TaskTerms

_MOST_OF_TARGET = 256
"""Pixels of the longest side of a target."""
_GRID = 32
"""Pixels a side of the answer without a model."""


class Depth(DirectSupervision, BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    family: Literal["depth"] = "depth"
    labels: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def evaluation_example(cls, example: Example, cell: Any, terms: TaskTerms) -> TaskExample | None:
        """Cell: a depth map as JSON text. ValueError for another proportion than the image's, for nothing that is known
        and for depths that are not above 0."""
        if cell is None or cell == "":
            return None
        distances = depth_of(cell)
        (height, width), (rows, columns) = example.media.shape[:2], distances.shape
        if abs(rows / columns - height / width) > 0.02 * height / width:
            raise ValueError(f"a depth map of {rows} x {columns} pixels is none of an image of {height} x {width}")
        known = distances[np.isfinite(distances)]
        if not len(known) or known.min() <= 0:
            raise ValueError("a depth map has distances above 0; leave out what is not known")
        shrunk = min(1.0, _MOST_OF_TARGET / max(rows, columns))
        size = [max(1, round(side * shrunk)) for side in (rows, columns)]
        return TaskExample(example, to_map(resize_labels(distances, size)))

    @classmethod
    def fit(cls, targets: Sequence[Any], settings: Mapping[str, Any]) -> Self:
        return cls()

    @classmethod
    def baseline(cls, targets: Sequence[Any], terms: TaskTerms, metric: str = "") -> Callable[[Example], Prediction]:
        """A baseline with, at each place, the median depth of the training images there."""
        maps = np.stack([resize_labels(from_map(target), (_GRID, _GRID)) for target in targets])
        middle = _medians(maps)
        prediction = Prediction(to_map(middle), None, None)
        return lambda example: prediction

    def encode_targets(self, targets: Sequence[Any]) -> list[Distances]:
        """(h, w) of each target's own size; NaN where nothing is known."""
        return [from_map(target) for target in targets]

    def calibrated(self, scores: Any, targets: Any) -> Self:
        return self

    def predictions(self, scores: Any) -> list[Prediction]:
        """`scores`: (h, w) of depths each."""
        return [Prediction(dict(to_map(each)), None, None) for each in scores]

    def head(self, width: int) -> NoReturn:
        raise TypeError("depth is told by a published head")

    def loss(self, head: Any, states: Any, targets: Any) -> NoReturn:
        raise TypeError("depth is told by a published head")

    def scores(self, head: Any, states: Any) -> NoReturn:
        raise TypeError("depth is told by a published head")


def _medians(maps: Distances) -> Distances:
    """Over the first axis; of a place that no map knows that of all."""
    known = np.isfinite(maps)
    whole = float(np.median(maps[known])) if known.any() else 1.0
    filled = np.where(known.any(axis=0, keepdims=True), maps, whole)
    found: Distances = np.nanmedian(filled, axis=0)
    return found


def aligned(answer: Distances, reference: Distances, *, relative: bool) -> Distances:
    """An answer as depths at the places of a reference. Of relative ones, which tell nearness (1 / depth) up to scale
    and shift, both are fitted to the reference by least squares first (Ranftl et al. 2020), and what would lie behind
    infinity is as far as the farthest that is known."""
    placed: Distances = resize_labels(answer, reference.shape)
    if not relative:
        return placed
    known = np.isfinite(reference) & np.isfinite(placed)
    if not known.any():
        return placed
    near, wanted = placed[known], 1 / reference[known]
    columns = np.stack([near, np.ones_like(near)], 1)
    (scale, shift), *_ = np.linalg.lstsq(columns, wanted, rcond=None)
    depths: Distances = 1 / np.maximum(scale * placed + shift, 1 / reference[np.isfinite(reference)].max())
    return depths
