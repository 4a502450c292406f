"""Sheets of labelled images: a caption is shown to its last word if that fits, below images of the size asked for."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from speciate.models.diffusion.contact_sheet import draw_labelled_grid

CELL, GAP, LINE = 96, 6, 13


@pytest.mark.parametrize(
    ("captions", "lines"),
    [
        (("x", "y"), 1),
        (("a handwritten nine", "y"), 2),
        (("real: a handwritten eight", "y"), 3),
        (("word " * 40, ""), 3),
    ],
)
def test_a_sheet_is_as_high_as_its_longest_caption(captions: tuple[str, ...], lines: int) -> None:
    images = [np.zeros((16, 16, 3), np.uint8), np.full((32, 16, 3), 255, np.uint8)]
    sheet = Image.open(io.BytesIO(draw_labelled_grid(images, captions, 2, CELL)))
    assert sheet.size == (2 * (CELL + GAP) + GAP, CELL + lines * LINE + 2 * GAP)
    pixels = np.asarray(sheet.convert("L"))
    last = pixels[GAP + CELL + (lines - 1) * LINE : GAP + CELL + lines * LINE, : CELL + GAP]
    assert last.min() < 100, "the last line has ink"
