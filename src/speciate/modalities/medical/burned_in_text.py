"""Text in an image's pixels, such as a patient's name: suspected from a DICOM file's header and from its pixels.

A heuristic, measured in docs/deidentification.md: it finds printed letters and digits, brighter or darker than their
surroundings, in rows of at least a few. It misses handwriting, text with little contrast, and single letters. Finding
nothing does not prove that a file is free of text.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.modalities.medical.dicom_instances import text_value

_CAPTURES = "1.2.840.10008.5.1.4.1.1.7"
"""Secondary Capture, and the multi-frame kinds of it below."""
_WORDY = ("US", "IVUS", "OT", "XC", "ES", "SC", "DOC")
"""Modalities whose machines print into the image as a rule."""
_LEVELS = (0.3, 0.45, 0.6, 0.8)
"""Shares of an image's range: above each, or in the negative above it, lie strokes."""
_LOWEST, _TALLEST = 5, 64
"""Heights of a letter in pixels."""
_MOST_PIECES = 20_000
_PIXELS_PER_PIECE = 60
"""A mask with more pieces than that, or more for its size, is noise: no letters are looked for."""
_ROW, _ROW_OF_A_CAPTURE = 5, 3
"""Letters in a row that are text; fewer are enough in files of a kind that usually carries text."""

Gray = npt.NDArray[np.float32]  # (H, W)
Boxes = npt.NDArray[np.int64]  # (N, 4): top, bottom, left, right; bottom and right excluded


class Row(NamedTuple):
    """Letters side by side."""

    letters: int
    top: int
    left: int
    """In pixels."""


def why_suspected(dataset: Any, pixels: npt.NDArray[Any] | None) -> str | None:
    """Why a file is suspected to show text, as a sentence without a full stop; None if it is not.

    `dataset`: a pydicom Dataset. `pixels`: (H, W), (H, W, 3), (F, H, W) or (F, H, W, 3), of any number type, before
    or after windowing; None if there are none, or if they were not decoded: then the header alone decides.
    """
    if _upper_text(dataset, "BurnedInAnnotation") == "YES":
        return "burned-in text suspected: the file says that there is (Burned In Annotation is YES)"
    if _upper_text(dataset, "RecognizableVisualFeatures") == "YES":
        return "a face or the like suspected: the file says so (Recognizable Visual Features is YES)"
    wordy = _is_wordy(dataset)
    if pixels is None:
        if wordy and _upper_text(dataset, "BurnedInAnnotation") != "NO":
            return "burned-in text suspected: an image of its kind usually shows text, and its pixels were not read"
        return None
    found = find_text_row(pixels, _ROW_OF_A_CAPTURE if wordy else _ROW)
    if found is None:
        return None
    return f"burned-in text suspected: {found.letters} signs in a row at line {found.top}, column {found.left}"


def find_text_row(pixels: npt.NDArray[Any], least: int = _ROW) -> Row | None:
    """The longest row of at least `least` letters in the first, middle and last frame; None if there is none."""
    best: Row | None = None
    for gray in _frames(pixels):
        for row in _rows(gray, least):
            if best is None or row.letters > best.letters:
                best = row
    return best


def _upper_text(dataset: Any, keyword: str) -> str:
    return text_value(dataset, keyword).upper()


def _is_wordy(dataset: Any) -> bool:
    kind = _upper_text(dataset, "ImageType")
    return (
        _upper_text(dataset, "SOPClassUID").startswith(_CAPTURES)
        or _upper_text(dataset, "Modality") in _WORDY
        or "SCREEN" in kind
        or "CAPTURE" in kind
    )


def _frames(pixels: npt.NDArray[Any]) -> Iterator[Gray]:
    """Up to three, each scaled to 0 .. 1."""
    coloured = pixels.ndim >= 3 and pixels.shape[-1] in (3, 4)
    stack = pixels.reshape((-1, *pixels.shape[-3:])) if coloured else pixels.reshape((-1, *pixels.shape[-2:]))
    for place in sorted({0, len(stack) // 2, len(stack) - 1} if len(stack) else set[int]()):
        frame = stack[place].astype(np.float32)
        gray = frame[..., :3].max(axis=-1) if coloured else frame
        low, high = float(gray.min()), float(gray.max())
        if high > low and min(gray.shape) >= 2 * _LOWEST:
            yield (gray - low) / (high - low)


def _rows(gray: Gray, least: int) -> Iterator[Row]:
    for image in (gray, 1.0 - gray):
        for level in _LEVELS:
            yield from _chains(_letters(image, level), least)


def _letters(gray: Gray, level: float) -> Boxes:
    """The pieces above the level that have the size, the shape and the evenness of printed letters."""
    from scipy import ndimage

    pieces, count = ndimage.label(gray > level, np.ones((3, 3), int))
    if not 0 < count <= min(_MOST_PIECES, gray.size // _PIXELS_PER_PIECE):
        return np.empty((0, 4), np.int64)
    found = ndimage.find_objects(pieces)
    boxes = np.array([(y.start, y.stop, x.start, x.stop) for y, x in found], np.int64)
    area = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    height, width = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
    fill = area / (height * width)
    tallest = max(12, min(_TALLEST, gray.shape[0] // 6))
    fits = (height >= _LOWEST) & (height <= tallest) & (width <= 1.6 * height) & (height <= 9 * width)
    fits &= (fill <= 0.85) | (width <= 0.4 * height)
    fits &= fill >= 0.2
    kept = np.flatnonzero(fits)
    return boxes[[place for place in kept if _stands_out(gray, pieces, int(place) + 1, boxes[place])]]


def _stands_out(gray: Gray, pieces: npt.NDArray[np.int32], number: int, box: npt.NDArray[np.int64]) -> bool:
    """Whether a piece has one brightness and its surroundings another: true of strokes, not of tissue."""
    top, bottom, left, right = (int(edge) for edge in box)
    window = np.s_[max(top - 2, 0) : bottom + 2, max(left - 2, 0) : right + 2]
    mine, around = pieces[window] == number, pieces[window] == 0
    if not around.any():
        return False
    ink, paper = gray[window][mine], gray[window][around]
    step = float(np.median(ink) - np.median(paper))
    return step > 0.3 and float(np.std(ink)) < 0.35 * step and float(np.std(paper)) < 0.45 * step


def _chains(boxes: Boxes, least: int) -> Iterator[Row]:
    """Rows of letters: of about one height, on one line, no further apart than blanks are wide."""
    boxes = boxes[np.lexsort((boxes[:, 0], boxes[:, 2]))]
    free = np.ones(len(boxes), bool)
    for first in range(len(boxes)):
        if not free[first]:
            continue
        chain, last = [first], first
        while (following := _next(boxes, last, free)) is not None:
            chain.append(following)
            last = following
            free[following] = False
        if len(chain) >= least and not _is_scale(boxes[chain]):
            yield Row(len(chain), int(boxes[chain, 0].min()), int(boxes[chain, 2].min()))


def _next(boxes: Boxes, last: int, free: npt.NDArray[np.bool_]) -> int | None:
    """The nearest letter to the right."""
    top, bottom, left, right = boxes[last]
    height = bottom - top
    others = boxes[:, 1] - boxes[:, 0]
    shared = np.minimum(boxes[:, 1], bottom) - np.maximum(boxes[:, 0], top)
    gap = boxes[:, 2] - right
    fits = free & (boxes[:, 2] > left) & (gap <= 1.2 * height) & (gap >= -0.2 * height)
    fits &= (shared >= 0.7 * np.minimum(others, height)) & (others <= 1.6 * height) & (height <= 1.6 * others)
    places = np.flatnonzero(fits)
    return int(places[np.argmin(gap[places])]) if len(places) else None


def _is_scale(boxes: Boxes) -> bool:
    """Whether it is a ruler or a row of dots: all pieces of one width and height, at one distance."""
    sizes = boxes[:, [1, 3]] - boxes[:, [0, 2]]
    steps = np.diff(boxes[:, 2])
    return bool((np.ptp(sizes, axis=0) <= 1).all() and np.ptp(steps) <= 1)
