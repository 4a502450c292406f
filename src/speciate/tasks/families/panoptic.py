"""A mask with a label for each thing in an image. Published models with heads of their own do it.

Targets and answers are maps of labels as those of families/segmentation.py, but each segment has an entry of its own in
`labels`: two cats are two entries. What has no entry is background.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, NoReturn, Self

import numpy as np
from pydantic import BaseModel, ConfigDict

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.modalities.segmentation_masks import MOST_LABELS, to_runs
from speciate.tasks.families.segmentation import Segmentation, outlines, region_mask
from speciate.tasks.task import DirectSupervision, Prediction, TaskExample, TaskTerms

_MOST_OF_TARGET = 256
"""Pixels of the longest side of a target."""


class Panoptic(DirectSupervision, BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    whole_batch: ClassVar[Literal[True]] = True
    family: Literal["panoptic"] = "panoptic"
    labels: tuple[str, ...]

    @classmethod
    def evaluation_example(cls, example: Example, cell: Any, terms: TaskTerms) -> TaskExample | None:
        """Cell: `[{category, segmentation}]` as the COCO reader makes it, a segment each. Larger segments lie below
        smaller ones."""
        if cell is None or cell == "":
            return None
        image_size = example.media.shape[:2]
        shrunk = min(1.0, _MOST_OF_TARGET / max(image_size))
        size = max(1, round(image_size[0] * shrunk)), max(1, round(image_size[1] * shrunk))
        regions = [(label, region_mask(outline, image_size, size)) for label, outline in outlines(cell)]
        ordered = sorted(regions, key=lambda each: -int(each[1].sum()))
        if len(ordered) > MOST_LABELS:
            raise ValueError(f"{len(ordered)} segments in one image are more than {MOST_LABELS}")
        pixels, names = np.zeros(size, np.uint8), []
        for label, mask in ordered:
            names.append(label)
            pixels[mask] = len(names)
        shown = [code for code in range(1, len(names) + 1) if (pixels == code).any()]
        places = np.zeros(len(names) + 1, np.uint8)
        places[shown] = np.arange(1, len(shown) + 1)
        labels = [names[code - 1] for code in shown]
        return TaskExample(example, {"labels": labels, "size": list(size), "rle": to_runs(places[pixels])})

    @classmethod
    def fit(cls, targets: Sequence[Any], settings: Mapping[str, Any]) -> Self:
        labels = sorted({label for target in targets for label in target["labels"]})
        if not labels:
            raise SpeciateError(
                Code.INVALID,
                "The training examples show no segment.",
                "Name the column that has the outlines with target, such as target='objects'.",
            )
        return cls(labels=tuple(labels))

    @classmethod
    def baseline(cls, targets: Sequence[Any], terms: TaskTerms, metric: str = "") -> Callable[[Example], Prediction]:
        """At each place the label that is commonest there, a segment for each label."""
        merged = [_one_segment_a_label(target) for target in targets]
        return Segmentation.baseline(merged, terms, metric)

    def encode_targets(self, targets: Sequence[Any]) -> list[Any]:
        return list(targets)

    def calibrated(self, scores: Any, targets: Any) -> Self:
        return self

    def predictions(self, scores: Any) -> list[Prediction]:
        """`scores`: maps of labels."""
        return [Prediction(each, None, None) for each in scores]

    def head(self, width: int) -> NoReturn:
        raise TypeError("segments are found by a published head")

    def loss(self, head: Any, states: Any, targets: Any) -> NoReturn:
        raise TypeError("segments are found by a published head")

    def scores(self, head: Any, states: Any) -> NoReturn:
        raise TypeError("segments are found by a published head")


def _one_segment_a_label(target: Mapping[str, Any]) -> dict[str, Any]:
    names = sorted(set(target["labels"]))
    codes = [0, *(names.index(label) + 1 for label in target["labels"])]
    runs = list(target["rle"])
    runs[::2] = [codes[code] for code in runs[::2]]
    return {**target, "labels": names, "rle": runs}
