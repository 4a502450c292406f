"""A picture of what was seen and what was done: frames over time, and below them curves on the same time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from speciate.modalities.contract import LARGEST_THUMBNAIL, Pixels

_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2")
_ACROSS, _MOST_ROWS, _WORDS = 5, 2, 13
_PLOT = 64


def filmstrip(
    cameras: Sequence[tuple[str, Sequence[Pixels]]], plots: Sequence[tuple[str, npt.NDArray[np.float32]]], below: str
) -> Pixels:
    """`cameras`: name and frames in the order of time, of which at most five are shown, of the first two cameras;
    `plots`: name and values (T, K), each column on its own scale; `below`: words. At most 320 x 320."""
    from PIL import Image, ImageDraw

    cell = LARGEST_THUMBNAIL // _ACROSS
    rows = [(name, frames) for name, frames in cameras[:_MOST_ROWS] if len(frames)]
    heights = [min(cell, round(cell * frames[0].shape[0] / frames[0].shape[1])) for _, frames in rows]
    height = sum(each + _WORDS for each in heights) + len(plots) * (_PLOT + _WORDS) + _WORDS + 2
    card = Image.new("RGB", (LARGEST_THUMBNAIL, height), "white")
    draw = ImageDraw.Draw(card)
    top = 0
    for (name, frames), tall in zip(rows, heights, strict=True):
        _label(draw, top, name if len(cameras) <= _MOST_ROWS else f"{name} ({len(cameras)} cameras)")
        top += _WORDS
        places = np.linspace(0, len(frames) - 1, min(_ACROSS, len(frames))).round().astype(int)
        for column, place in enumerate(places):
            frame = Image.fromarray(frames[place])
            scale = min((cell - 2) / frame.width, tall / frame.height)
            size = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
            card.paste(frame.resize(size, Image.Resampling.BILINEAR), (column * cell, top))
        top += tall
    for name, values in plots:
        _label(draw, top, f"{name} ({values.shape[1]})")
        _curves(draw, top + _WORDS, values)
        top += _WORDS + _PLOT
    _label(draw, top + 2, below)
    return np.asarray(card)


def _curves(draw: object, top: int, values: npt.NDArray[np.float32]) -> None:
    from PIL import ImageDraw

    assert isinstance(draw, ImageDraw.ImageDraw)
    draw.rectangle((0, top, LARGEST_THUMBNAIL - 1, top + _PLOT - 1), outline="#dddddd")
    x = np.linspace(3, LARGEST_THUMBNAIL - 4, max(len(values), 2))
    for column, colour in zip(values.T[: len(_COLOURS)].astype(np.float64), _COLOURS, strict=False):
        low, high = column.min(), column.max()
        share = (column - low) / (high - low) if high > low else np.full(len(column), 0.5)
        y = top + 4 + (1 - share) * (_PLOT - 9)
        y = np.repeat(y, 2) if len(y) == 1 else y
        draw.line(list(zip(x.tolist(), y.tolist(), strict=True)), fill=colour)


def _label(draw: object, top: int, text: str) -> None:
    from PIL import ImageDraw

    assert isinstance(draw, ImageDraw.ImageDraw)
    shown = "".join(c if c.isascii() and c.isprintable() else "?" for c in text)[:52]
    draw.text((2, top + 1), shown, fill="black")
