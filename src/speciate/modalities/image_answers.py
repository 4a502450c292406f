"""Images as answers: `{mime, data, width, height}`, the bytes of a PNG in Base64, as `predict` takes images back."""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Mapping
from typing import Any, TypedDict, TypeGuard

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
"""(H, W, 3)"""
MIME = "image/png"
_BEGINNING = f'{{"mime": "{MIME}", "data": "'


class ImageAnswer(TypedDict):
    mime: str
    data: str
    """Base64."""
    width: int
    height: int


class StoredImage(TypedDict):
    """An image answer whose bytes are a file of their own."""

    mime: str
    sha256: str
    bytes: int
    width: int
    height: int


def encode_image(pixels: Pixels) -> ImageAnswer:
    """The image answer of pixels (h, w, 3), as PNG: the same pixels give the same bytes."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=6)
    height, width = pixels.shape[:2]
    return {"mime": MIME, "data": base64.b64encode(buffer.getvalue()).decode(), "width": width, "height": height}


def decode_image(answer: Mapping[str, Any]) -> Pixels:
    """Raises ValueError for what is no image answer."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(image_bytes(answer)), formats=("PNG",)) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise ValueError(f"the image cannot be read: {type(error).__name__}") from error


def image_bytes(answer: Mapping[str, Any]) -> bytes:
    """The file of an image answer. Raises ValueError."""
    try:
        return base64.b64decode(answer["data"], validate=True)
    except (KeyError, TypeError, binascii.Error) as error:
        raise ValueError("the answer holds no image") from error


def is_image_answer(output: object) -> TypeGuard[ImageAnswer]:
    """Whether an output is an image, by its form alone: nothing is decoded."""
    if not isinstance(output, dict) or set(output) != set(ImageAnswer.__annotations__):
        return False
    sizes = output["width"], output["height"]
    return output["mime"] == MIME and isinstance(output["data"], str) and all(isinstance(each, int) for each in sizes)


def stored_image(answer: ImageAnswer, sha256: str, size: int) -> StoredImage:
    """What is kept or shown where the bytes lie elsewhere."""
    return {
        "mime": answer["mime"], "sha256": sha256, "bytes": size, "width": answer["width"], "height": answer["height"],
    }  # fmt: skip


def is_stored_image(output: object) -> bool:
    return isinstance(output, dict) and output.get("mime") == MIME and isinstance(output.get("sha256"), str)


def shorten_cell(cell: str) -> str:
    """A stored answer or reference for display: an image as its size, any other text as it is.

    >>> shorten_cell('{"mime": "image/png", "data": "iVBO", "width": 64, "height": 48}')
    'image of 64 x 48 pixels'
    """
    if not cell.startswith(_BEGINNING):
        return cell
    try:
        found = json.loads(cell)
    except ValueError:
        return cell
    return f"image of {found['width']} x {found['height']} pixels" if is_image_answer(found) else cell
