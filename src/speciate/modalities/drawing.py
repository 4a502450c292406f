"""Small pictures of what is not a picture: a card with text, a plot of lines. Pillow's built-in font."""

from __future__ import annotations

import textwrap

import numpy as np
import numpy.typing as npt

from speciate.modalities.contract import THUMBNAIL, Pixels

_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf")
_COLUMNS, _LINES, _LINE_HEIGHT = 26, 12, 12


def text_card(text: str) -> Pixels:
    """(160, 160, 3): the beginning of `text`, wrapped."""
    from PIL import Image, ImageDraw

    shown = " ".join("".join(c if c.isprintable() or c == "\n" else " " for c in text[:2000]).split(" "))
    lines = [part for line in shown.split("\n") for part in textwrap.wrap(line, _COLUMNS)]
    card = Image.new("RGB", (THUMBNAIL, THUMBNAIL), "white")
    draw = ImageDraw.Draw(card)
    for i, line in enumerate(lines[:_LINES]):
        draw.text((4, 4 + i * _LINE_HEIGHT), line, fill="black")
    return np.asarray(card)


def line_plot(series: npt.NDArray[np.float32]) -> Pixels:
    """series: (C, T) -> (160, 160, 3): the first six channels over time, each on its own scale."""
    from PIL import Image, ImageDraw

    card = Image.new("RGB", (THUMBNAIL, THUMBNAIL), "white")
    draw = ImageDraw.Draw(card)
    x = np.linspace(4, THUMBNAIL - 5, series.shape[1])
    for channel, colour in zip(series, _COLOURS, strict=False):
        low, high = float(channel.min()), float(channel.max())
        y = THUMBNAIL - 5 - (channel - low) / max(high - low, 1e-12) * (THUMBNAIL - 10)
        draw.line(list(zip(x.tolist(), y.tolist(), strict=True)), fill=colour)
    return np.asarray(card)
