"""Inputs as people have them, as the media that a model reads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speciate.datasets.loading.loader import Example
from speciate.modalities import find


def as_examples(inputs: Sequence[Any], modality: str) -> list[Example]:
    return [Example(str(place), _medium(each, modality), None, str(place), "", {}) for place, each in enumerate(inputs)]


def _medium(given: Any, modality: str) -> Any:
    """A path or bytes are a file of the modality; an image of Pillow is as its file; all else is the medium."""
    if isinstance(given, os.PathLike):
        given = Path(given).read_bytes()
    if isinstance(given, bytes):
        return find(modality).decode(given)
    if hasattr(given, "convert"):
        images: Any = find(modality)
        return images.pixels(given) if modality == "image" else np.asarray(given.convert("RGB"))
    if isinstance(given, str) and modality == "image":
        raise TypeError("An image is a path (pathlib.Path), bytes of a file, an image of Pillow or an array of pixels.")
    return given


def as_answer(made: Any) -> dict[str, Any]:
    """A prediction as plain data: `answer`, and `confidence` and `probabilities` where the task has them."""
    return {"answer": made.output, "confidence": made.confidence, "probabilities": made.probabilities}
