"""What a chat model is shown of an example: parts of a message, text, pictures as PNG, sound as WAV."""

from __future__ import annotations

import base64
import io
import json
import math
import wave
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.modalities.biology.protein import sequence_of
from speciate.modalities.sound.mel import SAMPLE_RATE

Part = dict[str, Any]
LONGEST_SIDE = 1024
"""Pixels; larger pictures are made smaller, smaller ones stay as they are."""
SHOWN = ("text", "tabular", "protein", "image", "audio")
"""Modalities that chat models take: those that are text, or have a part of their own."""


def as_text(modality: str, media: Any) -> str | None:
    """The medium in words; None where it has a part of its own."""
    if modality == "tabular":
        return "\n".join(f"{column}: {cell_text(cell)}" for column, cell in media.items())
    if modality == "protein":
        return sequence_of(media)
    return None if modality in ("image", "audio") else str(media)


def as_part(modality: str, media: Any) -> Part:
    """A picture, uint8 (H, W, 3), or sound, float32 (T,) at 16 kHz, full scale 1."""
    if modality == "image":
        return {"type": "image_url", "image_url": {"url": "data:image/png;base64," + _base64(_png(media))}}
    return {"type": "input_audio", "input_audio": {"data": _base64(_wav(media)), "format": "wav"}}


def cell_text(cell: Any) -> str:
    """A cell on one line: text with line ends is quoted as JSON, lest a cell looks like another column."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return "(missing)"
    text = str(cell)
    return json.dumps(text, ensure_ascii=False) if len(text.splitlines()) > 1 else text


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    from PIL import Image

    picture = Image.fromarray(pixels)
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)  # keeps the shape, never enlarges
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _wav(sound: npt.NDArray[np.float32]) -> bytes:
    """16 bits: what is beyond full scale is clipped."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(SAMPLE_RATE)
        out.writeframes((np.clip(sound, -1, 1) * 32767).round().astype("<i2").tobytes())
    return file.getvalue()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
