"""Inputs as people have them, as the media that a model reads."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speciate.datasets.loading.loader import Example
from speciate.modalities import find


def columns_of(folder: Path, modality: str) -> tuple[str, ...]:
    """What each row of a table must have, by the folder's own facts; empty for other media."""
    facts = folder / "model.json"
    if modality != "tabular" or not facts.is_file():
        return ()
    return tuple(json.loads(facts.read_text(encoding="utf-8")).get("inputs", ()))


def as_examples(inputs: Sequence[Any], modality: str, columns: Sequence[str] = ()) -> list[Example]:
    """Raises ValueError for a row without one of `columns`: a misspelt name is not a cell that is missing."""
    for place, each in enumerate(inputs):
        if isinstance(each, Mapping) and (absent := [name for name in columns if name not in each]):
            raise ValueError(f"Input {place} has no {absent}. The model reads {list(columns)}; None is a missing cell.")
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
