"""An image in answer to a text. Examples are images with a caption: the caption is what a model sees, the image its
target. What is learned is a pipeline's own (models/diffusion/), so there is no head of ours.

Images are those of modalities/image_answers.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NoReturn, Self

import numpy as np
from pydantic import BaseModel, ConfigDict

from speciate.datasets.loading.loader import Example
from speciate.modalities.image_answers import Pixels, decode_image, encode_image
from speciate.tasks.task import DirectSupervision, Prediction, TaskExample, TaskTerms

_LONGEST_SIDE = 1024
"""Pixels of a target: larger images are made smaller."""
_LONGEST_PROMPT = 4000
"""Characters."""
_MEAN_SIDE = 64


class ImageGeneration(DirectSupervision, BaseModel):
    """Knows nothing of the training targets."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    family: Literal["image-generation"] = "image-generation"

    @property
    def labels(self) -> tuple[str, ...]:
        return ()

    @classmethod
    def evaluation_example(cls, example: Example, cell: Any, terms: TaskTerms) -> TaskExample | None:
        """Cell: the caption."""
        if isinstance(cell, bytes | list | dict | float):
            raise ValueError(f"{str(cell)[:40]!r} is no caption")
        caption = " ".join(str("" if cell is None else cell).split())
        if not caption or not isinstance(example.media, np.ndarray):
            return None
        return TaskExample(example._replace(media=caption), encode_image(_shrunk(example.media)))

    @classmethod
    def fit(cls, targets: Sequence[Any], settings: Mapping[str, Any]) -> Self:
        return cls()

    @classmethod
    def baseline(cls, targets: Sequence[Any], terms: TaskTerms, metric: str = "") -> Callable[[Example], Prediction]:
        """The mean of the training images, at 64 pixels a side."""
        total = np.zeros((_MEAN_SIDE, _MEAN_SIDE, 3))
        for target in targets:
            total += resized(decode_image(target), _MEAN_SIDE)
        prediction = Prediction(encode_image((total / max(len(targets), 1)).round().astype(np.uint8)), None, None)
        return lambda example: prediction

    def encode_targets(self, targets: Sequence[Any]) -> list[Pixels]:
        return [decode_image(target) for target in targets]

    def calibrated(self, scores: Any, targets: Any) -> Self:
        return self

    def predictions(self, scores: Any) -> list[Prediction]:
        """`scores`: (N, 1), how far a denoiser is off on each held-out example: the output is that number, by which a
        training chooses. Images are drawn by tasks/image_generator.py."""
        return [Prediction(float(row[0]), None, None) for row in scores]

    def head(self, width: int) -> NoReturn:
        raise TypeError("a pipeline has its own head")

    def loss(self, head: Any, states: Any, targets: Any) -> NoReturn:
        raise TypeError("a pipeline has its own loss")

    def scores(self, head: Any, states: Any) -> NoReturn:
        raise TypeError("a pipeline has its own scores")


def prompt_of(example: Example) -> str:
    """The caption that an image is drawn from. Raises ValueError for no text, or one that is too long."""
    medium = example.media
    if not isinstance(medium, str) or not medium.strip():
        raise ValueError("an image is drawn from a text, and the example has none")
    if len(medium) > _LONGEST_PROMPT:
        raise ValueError(f"the text has {len(medium):,} characters, more than {_LONGEST_PROMPT:,}")
    return " ".join(medium.split())


def resized(pixels: Pixels, side: int) -> Pixels:
    """The image as a square of `side` pixels."""
    from PIL import Image

    if pixels.shape[:2] == (side, side):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS))


def _shrunk(pixels: Pixels) -> Pixels:
    from PIL import Image

    scale = _LONGEST_SIDE / max(pixels.shape[:2])
    if scale >= 1:
        return pixels
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
