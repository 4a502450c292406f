"""Images as answers: `{mime, data, width, height}`, the bytes of a PNG in Base64, as `predict` takes images back."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any, TypedDict, TypeGuard

import numpy as np
import numpy.typing as npt

from speciate.modalities.media_bytes import media_bytes

Pixels = npt.NDArray[np.uint8]
"""(H, W, 3)"""
MIME = "image/png"


class ImageAnswer(TypedDict):
    mime: str
    data: str
    """Base64."""
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
        with Image.open(io.BytesIO(media_bytes(answer)), formats=("PNG",)) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise ValueError(f"the image cannot be read: {type(error).__name__}") from error


def is_image_answer(output: object) -> TypeGuard[ImageAnswer]:
    """Whether an output is an image, by its form alone: nothing is decoded."""
    if not isinstance(output, dict) or set(output) != set(ImageAnswer.__annotations__):
        return False
    sizes = output["width"], output["height"]
    return output["mime"] == MIME and isinstance(output["data"], str) and all(isinstance(each, int) for each in sizes)
