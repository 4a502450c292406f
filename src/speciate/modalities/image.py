"""Still images, decoded to uint8 (H, W, 3) with Pillow, upright, transparency over white.

The header is read first: an image beyond the pixel budget is refused before a byte of it is decoded, well below the
limit at which Pillow itself stops. More than one frame is not an image but a video: partial.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from speciate.modalities.contract import THUMBNAIL, DecodeError, Header, Pixels, Vector

if TYPE_CHECKING:
    from PIL import Image as Pillow

MOST_PIXELS = 64_000_000
_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
_MAGIC = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"P5", b"P6")
_GRAY, _COLOUR = 16, 4


class Image:
    name = "image"
    suffixes = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
    analyzer = None
    ngrams = (1, 1)

    def sniff(self, head: bytes, name: str) -> bool:
        webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"  # RIFF alone may be sound or video
        return webp or head.startswith(_MAGIC) or name.lower().endswith(self.suffixes)

    def inspect(self, data: bytes) -> Header:
        with _open(data) as image:
            return _header(image)

    def decode(self, data: bytes) -> Pixels:
        with _open(data) as image:
            header = _header(image)
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise DecodeError("refused", f"{width} x {height} pixels, more than {MOST_PIXELS:,}.")
            if (frames := int(header.fields["frames"])) > 1:
                raise DecodeError("partial", f"{frames} frames in one image.")
            try:
                return _upright(image)
            except Exception as error:
                truncated = "truncated" in str(error).lower() or "not enough image data" in str(error).lower()
                raise DecodeError("partial" if truncated else "error", f"{type(error).__name__}: {error}.") from error

    def admit(self, value: Any) -> Pixels:
        """`value`: encoded bytes."""
        if not isinstance(value, bytes):
            raise DecodeError("error", "An image must be the bytes of a file.")
        return self.decode(value)

    def fingerprint(self, media: Pixels) -> str:
        """Of the pixels: the same picture in another lossless container is the same picture."""
        return f"{media.shape} {hashlib.sha256(media.tobytes()).hexdigest()}"

    def describe(self, media: Pixels) -> Vector:
        """(304,) between 0 and 1: 16 x 16 gray values (as good as 28 x 28 for handwriting), then 4 x 4 mean colours."""
        from PIL import Image as Pillow

        picture = Pillow.fromarray(media)
        gray = picture.convert("L").resize((_GRAY, _GRAY), Pillow.Resampling.BILINEAR)
        colour = picture.resize((_COLOUR, _COLOUR), Pillow.Resampling.BOX)
        return np.concatenate([np.asarray(gray).ravel(), np.asarray(colour).ravel()]).astype(np.float32) / np.float32(
            255
        )

    def thumbnail(self, media: Pixels) -> Pixels:
        """Small pictures are enlarged without smoothing, so that their pixels can be seen."""
        from PIL import Image as Pillow

        scale = THUMBNAIL / max(media.shape[:2])
        size = max(1, round(media.shape[1] * scale)), max(1, round(media.shape[0] * scale))
        how = Pillow.Resampling.NEAREST if scale > 1 else Pillow.Resampling.LANCZOS
        return np.asarray(Pillow.fromarray(media).resize(size, how))


def _open(data: bytes) -> Pillow.Image:
    from PIL import Image as Pillow

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own, looser bomb warning, and remarks on odd headers
        try:
            return Pillow.open(io.BytesIO(data), formats=_FORMATS)
        except Pillow.DecompressionBombError as error:
            raise DecodeError("refused", f"{error}") from error
        except Exception as error:
            reason = "The file is empty." if not data else "Not an image in a known format, or its header is damaged."
            raise DecodeError("error", reason) from error


def _header(image: Pillow.Image) -> Header:
    try:
        frames = getattr(image, "n_frames", 1)
    except Exception as error:
        raise DecodeError("error", f"The frames cannot be counted: {error}.") from error
    width, height = image.size
    fields = {"width": width, "height": height, "mode": image.mode, "format": image.format or "", "frames": frames}
    return Header(width * height * 3, fields)


def _upright(image: Pillow.Image) -> Pixels:
    from PIL import Image as Pillow
    from PIL import ImageOps

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image.load()
        turned = ImageOps.exif_transpose(image)
        if turned.mode in ("I;16", "I;16B", "I", "F"):
            return _from_deep_gray(np.asarray(turned))
        if turned.mode in ("RGBA", "LA", "PA") or "transparency" in turned.info:
            white = Pillow.new("RGBA", turned.size, "white")
            turned = Pillow.alpha_composite(white, turned.convert("RGBA"))
        return np.array(turned.convert("RGB"))


def _from_deep_gray(values: Any) -> Pixels:
    """(H, W) of 16 or 32 bits -> (H, W, 3): the full range of 16 bits; anything else is stretched to its own range."""
    gray = values.astype(np.float64)
    low, high = (0.0, 65535.0) if values.dtype == np.uint16 else (float(gray.min()), float(gray.max()))
    scaled = (gray - low) / max(high - low, 1e-12) * 255
    return np.repeat(scaled.clip(0, 255).astype(np.uint8)[..., np.newaxis], 3, axis=2)


IMAGE = Image()
