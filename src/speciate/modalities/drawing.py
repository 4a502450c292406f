"""Thumbnails of media other than images: a card with text, a line plot, a spectrogram. Pillow's own font."""

from __future__ import annotations

import textwrap
import unicodedata
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from speciate.modalities.contract import THUMBNAIL, Pixels

if TYPE_CHECKING:
    from PIL import Image as Pillow

_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf")
_MAGMA = ("000004", "1d1147", "51127c", "822681", "b63679", "e65164", "fb8861", "fec287", "fcfdbf")
_DYNAMICS = 6.0  # bels below the loudest that can be seen
_LINES, _LINE_HEIGHT = 12, 12
_PLAIN = {
    "ß": "ss",
    "æ": "ae",
    "ø": "o",
    "ł": "l",
    "đ": "d",
    "’": "'",
    "‘": "'",
    "“": '"',
    "”": '"',
    "–": "-",
    "—": "-",
    "…": "...",
}
_AXIS = 14  # pixels below an image for the words on its axes


def text_card(text: str) -> Pixels:
    """(160, 160, 3): the beginning of `text`, wrapped."""
    from PIL import Image, ImageDraw

    card = Image.new("RGB", (THUMBNAIL, THUMBNAIL), "white")
    draw = ImageDraw.Draw(card)
    shown = "".join(_drawable(c) for c in text[:2000])
    width = draw.textlength(shown.replace("\n", " ")) / max(len(shown), 1)  # capitals are wide
    lines = [part for line in shown.split("\n") for part in textwrap.wrap(line, int((THUMBNAIL - 20) / max(width, 1)))]
    if len(lines) > _LINES:
        lines = [*lines[: _LINES - 1], lines[_LINES - 1][:-4] + " ..."]
    for i, line in enumerate(lines):
        draw.text((4, 4 + i * _LINE_HEIGHT), line, fill="black")
    return np.asarray(card)


def draw_boxes(image: Pixels, size: tuple[int, int], boxes: Sequence[tuple[str, Sequence[float]]]) -> Pixels:
    """The thumbnail of an image of this width and height with boxes [x, y, width, height] in its pixels.

    A category has one colour in every image; its name stands above the box unless the box is tiny.
    """
    from PIL import Image, ImageDraw

    canvas = Image.fromarray(np.ascontiguousarray(image))
    draw = ImageDraw.Draw(canvas)
    across, down = canvas.width / size[0], canvas.height / size[1]
    for name, (x, y, width, height) in boxes:
        colour = _COLOURS[zlib.crc32(name.encode("utf-8", "replace")) % len(_COLOURS)]
        left, top = max(0.0, x * across), max(0.0, y * down)
        right, bottom = min(canvas.width - 1.0, (x + width) * across), min(canvas.height - 1.0, (y + height) * down)
        if right < left or bottom < top:
            continue
        draw.rectangle((left, top, right, bottom), outline=colour, width=2)
        shown = "".join(map(_drawable, name))[:20]
        if shown.strip() and right - left >= _LINE_HEIGHT:
            above, wide = max(0.0, top - _LINE_HEIGHT), draw.textlength(shown) + 5
            draw.rectangle((left, above, left + wide, above + _LINE_HEIGHT), fill=colour)
            draw.text((left + 3, above), shown, fill="white")
    return np.asarray(canvas)


def _drawable(character: str) -> str:
    """The font has ASCII alone: letters lose their accents, other characters become a box."""
    if character.isascii():
        return character if character.isprintable() or character == "\n" else " "
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return plain or _PLAIN.get(character, " " if character.isspace() else "\u25af")


def line_plot(series: npt.NDArray[np.float32]) -> Pixels:
    """series: (C, T) -> (160, 160, 3): the first six channels over time, below each other, each on its own scale."""
    from PIL import Image, ImageDraw

    card = Image.new("RGB", (THUMBNAIL, THUMBNAIL), "white")
    draw = ImageDraw.Draw(card)
    shown = series[: len(_COLOURS)]
    height = (THUMBNAIL - _AXIS) / len(shown)
    for place, (channel, colour) in enumerate(zip(shown, _COLOURS, strict=False)):
        low, high = float(channel.min()), float(channel.max())
        top, bottom = place * height + 3, (place + 1) * height - 4
        draw.line((0, bottom + 3, THUMBNAIL, bottom + 3), fill="#dddddd")
        x, values = _extremes(channel, THUMBNAIL - 8)
        share = (values - low) / (high - low) if high > low else np.full(len(values), 0.5)
        points = list(zip((x + 4).tolist(), (bottom - share * (bottom - top)).tolist(), strict=True))
        draw.line(points if len(points) > 1 else [(4, points[0][1]), (THUMBNAIL - 5, points[0][1])], fill=colour)
    _words(card, f"{series.shape[1]:,} steps", f"{len(shown)} of {len(series)} channels")
    return np.asarray(card)


def spectrogram(bands: npt.NDArray[np.float32], seconds: float, hertz: int) -> Pixels:
    """bands: (B, F), log10 of power -> (160, 160, 3): time to the right, pitch upwards to `hertz`, bright is loud."""
    from PIL import Image

    loud = np.clip((bands[::-1] - bands.max()) / _DYNAMICS + 1, 0, 1)
    size = THUMBNAIL, THUMBNAIL - _AXIS
    image = Image.fromarray((loud * 255).astype(np.uint8)).resize(size, Image.Resampling.BOX)
    anchors = np.array([list(bytes.fromhex(colour)) for colour in _MAGMA])
    places = np.linspace(0, 255, len(anchors))
    colours = np.stack([np.interp(np.arange(256), places, channel) for channel in anchors.T], axis=1).astype(np.uint8)
    card = Image.new("RGB", (THUMBNAIL, THUMBNAIL), "white")
    card.paste(Image.fromarray(colours[np.asarray(image)]))
    _words(card, f"{seconds:.3g} s", f"to {hertz / 1000:g} kHz")
    return np.asarray(card)


def _extremes(channel: npt.NDArray[np.float32], width: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """x and y to draw: every step, or the least and the largest of each pixel's steps, so that no spike is lost."""
    if len(channel) <= 2 * width:
        return np.linspace(0, width - 1, len(channel)), channel.astype(np.float64)
    pixels = np.array_split(channel.astype(np.float64), width)
    values = np.array([(steps.min(), steps.max()) for steps in pixels]).ravel()
    return np.repeat(np.arange(width, dtype=np.float64), 2), values


def _words(card: Pillow.Image, left: str, right: str) -> None:
    """Write the axes' ranges below the image."""
    from PIL import ImageDraw

    draw = ImageDraw.Draw(card)
    draw.text((3, THUMBNAIL - 1), left, fill="black", anchor="ls")
    draw.text((THUMBNAIL - 3, THUMBNAIL - 1), right, fill="black", anchor="rs")
