"""Decoded media as bytes: how they leave a cage, and how they come out of what the cage wrote, which is checked.

A medium is an array, a JSON value, or a dict of media. What is written is the arrays' raw values and the JSON texts,
one after another, beside a description: [dtype, shape] of an array, [null, [bytes]] of JSON, {name: description} of a
dict.
"""

from __future__ import annotations

import json
import math
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

_ALIGNED = 64
"""Bytes: every array begins at a multiple of it, so that its values can be used where they lie."""
_TYPES = ("uint8", "int32", "float32")
_DEEPEST = 8

Description = Any


def write(media: Any, file: BinaryIO) -> Description:
    """Appends a medium; its description is JSON."""
    if isinstance(media, dict) and any(isinstance(part, np.ndarray | dict) for part in media.values()):
        return {name: write(part, file) for name, part in media.items()}
    file.write(bytes(-file.tell() % _ALIGNED))
    if isinstance(media, np.ndarray):
        file.write(np.ascontiguousarray(media).data)
        return str(media.dtype), list(media.shape)
    text = json.dumps(media).encode()
    file.write(text)
    return None, [len(text)]


class Reader:
    """Takes media from `data` (N,) uint8 in the order in which they were written. ValueError where they do not fit.

    The arrays share the one buffer: who keeps one of them for long should copy it.
    """

    def __init__(self, data: npt.NDArray[np.uint8]) -> None:
        self._data, self.offset = data, 0

    def read(self, description: Description, depth: int = 0) -> Any:
        if depth > _DEEPEST:
            raise ValueError("parts within parts")
        if isinstance(description, dict):
            return {str(name): self.read(part, depth + 1) for name, part in description.items()}
        dtype, shape = description
        if dtype not in (*_TYPES, None) or not all(isinstance(side, int) and side >= 0 for side in shape):
            raise ValueError("neither an array nor JSON")
        self.offset += -self.offset % _ALIGNED
        size = math.prod(shape) * (np.dtype(dtype).itemsize if dtype else 1)
        if self.offset + size > len(self._data):
            raise ValueError("longer than what was written")
        piece = self._data[self.offset : self.offset + size]
        self.offset += size
        return piece.view(dtype).reshape(shape) if dtype else json.loads(piece.tobytes())
