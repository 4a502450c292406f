"""Images on one sheet, each with its caption: what a training drew, or what several models drew for the same texts."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_CELL, _GAP, _LINE = 112, 6, 13
"""Pixels of an image's longer side, between images, and of a line of text."""
_CHARACTERS, _MOST_LINES = 18, 3
"""Most characters of a line below an image, and most lines."""
_PAPER, _INK = (255, 255, 255), (40, 40, 40)


def draw_labelled_grid(
    images: Sequence[npt.NDArray[np.uint8]], captions: Sequence[str], columns: int = 8, cell: int = _CELL
) -> bytes:
    """A PNG, row by row. Small images are enlarged without smoothing, so that their pixels can be seen."""
    from PIL import Image, ImageDraw

    columns = max(1, min(columns, len(images)))
    rows = -(-len(images) // columns) or 1
    below = [_lines(caption, cell) for caption in captions]
    width, height = cell + _GAP, cell + max(map(len, below), default=0) * _LINE + _GAP
    sheet = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for place, (image, lines) in enumerate(zip(images, below, strict=True)):
        left, top = _GAP + place % columns * width, _GAP + place // columns * height
        sheet.paste(_fitted(image, cell), (left, top))
        for number, line in enumerate(lines):
            pen.text((left, top + cell + number * _LINE), line, fill=_INK)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _fitted(image: npt.NDArray[np.uint8], cell: int) -> Any:
    from PIL import Image

    scale = cell / max(image.shape[:2])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    return Image.fromarray(image).resize(size, how)


def _lines(caption: str, cell: int) -> list[str]:
    """Three at most, of what the built-in font can show."""
    most = max(4, round(_CHARACTERS * cell / _CELL))
    rest = caption.encode("latin-1", "replace").decode("latin-1").strip()
    lines = list[str]()
    while len(rest) > most and len(lines) < _MOST_LINES - 1:
        line = rest[: most + 1].rpartition(" ")[0] or rest[:most]
        lines, rest = [*lines, line], rest[len(line) :].strip()
    return [*lines, rest if len(rest) <= most else rest[: most - 3] + "..."]
