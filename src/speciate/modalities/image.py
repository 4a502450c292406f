"""Still images, decoded to uint8 (H, W, 3) with Pillow, upright, transparency over white.

The header is read first: an image beyond the pixel budget is refused before a byte of it is decoded, well below the
limit at which Pillow itself stops. Of several frames (animations, pages, what phones add to a JPEG) the first is the
image; the field `frames` says how many there are, and all must be in the file.

JPEGs are summarized by a scaled decode, which reads every coefficient and so fails where the whole decode fails, in
half its time. Their fingerprint is that of the compressed image instead of the pixels; a copy as PNG is found by its
sketch.

Decoders accept a file that ends early if the missing part is a later frame, a trailer, or rows that they can guess; and
for a cut header they do not name the reason. So `missing_bytes` compares the container's declarations with the bytes.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import struct
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.modalities.contract import THUMBNAIL, DecodeError, FileSummary, Header, Modality, Pixels, Vector
from speciate.modalities.hashing import GRID, IMAGE_SKETCHES

if TYPE_CHECKING:
    from PIL import Image as Pillow


MOST_PIXELS = 64_000_000
MOST_FRAMES = 10_000
_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
_MAGIC = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"P5", b"P6")
_DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
_CUT = ("truncated", "not enough", "unexpected end", "premature")
_GRAY, _COLOUR = 16, 4
_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)
_ONES = np.ones(GRID * GRID, np.float32)


class Image(Modality[Pixels]):
    name = "image"
    suffixes = (".png", ".apng", ".jpg", ".jpeg", ".mpo", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
    sketching = IMAGE_SKETCHES

    def sniff(self, head: bytes, name: str) -> bool:
        webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"  # RIFF alone may be audio or video
        dicom = head[128:132] == b"DICM"  # some of them begin as a TIFF does
        return (webp or head.startswith(_MAGIC) or name.lower().endswith(self.suffixes)) and not dicom

    def inspect(self, data: bytes) -> Header:
        with _opened(data) as image:
            return _header(image)

    def decode(self, data: bytes) -> Pixels:
        with _checked(data) as (image, _):
            return _upright(image)

    def pixels(self, image: Pillow.Image) -> Pixels:
        """The pixels of an opened image: upright, transparency over white, 16 bits as their full range."""
        return _upright(image.copy())  # which is turned in place

    def admit(self, value: Any) -> Pixels:
        """`value`: encoded bytes."""
        if not isinstance(value, bytes):
            raise DecodeError("error", "An image must be the bytes of a file.")
        return self.decode(value)

    def summarize(self, data: bytes) -> FileSummary:
        with _checked(data) as (image, header):
            if image.format in ("JPEG", "MPO"):
                seen = _decode_scaled(image, data)
            else:
                media = _upright(image)
                header.fields["height"], header.fields["width"] = media.shape[
                    :2
                ]  # a PNG may state its orientation at the end
                seen = _DecodedImage(self.fingerprint(media), _small_gray(media))
        return FileSummary(header, seen.fingerprint, _measures(seen.gray), IMAGE_SKETCHES.sketch(seen.gray))

    def fingerprint(self, media: Pixels) -> str:
        """Shape and hash of the pixels: the same image in another lossless container is the same image."""
        return f"{media.shape} {hashlib.sha256(np.ascontiguousarray(media).data).hexdigest()}"

    def measure(self, media: Pixels) -> dict[str, int | float]:
        """Mean and spread of the gray values of the image made small, between 0 and 1."""
        return _measures(_small_gray(media))

    def describe(self, media: Pixels) -> Vector:
        """(304,) between 0 and 1: 16 x 16 gray values (as good as 28 x 28 for handwriting), then 4 x 4 mean colours."""
        from PIL import Image as Pillow

        image = Pillow.fromarray(media)
        gray = image.convert("L").resize((_GRAY, _GRAY), Pillow.Resampling.BILINEAR)
        colour = image.resize((_COLOUR, _COLOUR), Pillow.Resampling.BOX)
        return np.concatenate([np.asarray(gray).ravel(), np.asarray(colour).ravel()]).astype(np.float32) / np.float32(
            255
        )

    def features(self, media: Pixels) -> Vector:
        return self.describe(media)

    def thumbnail(self, media: Pixels) -> Pixels:
        """Small images are enlarged without smoothing, so that their pixels can be seen."""
        from PIL import Image as Pillow

        scale = THUMBNAIL / max(media.shape[:2])
        size = max(1, round(media.shape[1] * scale)), max(1, round(media.shape[0] * scale))
        how = Pillow.Resampling.NEAREST if scale > 1 else Pillow.Resampling.LANCZOS
        return np.asarray(Pillow.fromarray(media).resize(size, how))

    def sketch(self, media: Pixels) -> bytes | None:
        return IMAGE_SKETCHES.sketch(_small_gray(media))


class _DecodedImage(NamedTuple):
    fingerprint: str
    gray: Pixels


@contextmanager
def _opened(data: bytes) -> Iterator[Pillow.Image]:
    """The image with its header read; whatever Pillow then raises becomes the right DecodeError."""
    from PIL import Image as Pillow

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own, looser bomb warning, and remarks on odd headers
        try:
            opened = Pillow.open(io.BytesIO(data), formats=_FORMATS)
        except Pillow.DecompressionBombError as error:
            raise DecodeError("refused", f"{error}") from error
        except Exception as error:
            reason = "Not an image in a known format, or its header is damaged." if data else "The file is empty."
            raise DecodeError("error", reason) from error
        try:
            with opened as image:
                yield image
        except DecodeError:
            raise
        except Exception as error:
            cut = any(word in str(error).lower() for word in _CUT)
            raise DecodeError("partial" if cut else "error", f"{type(error).__name__}: {error}.") from error


def _header(image: Pillow.Image) -> Header:
    width, height = image.size
    frames = getattr(image, "n_frames", 1) if width * height <= MOST_PIXELS else 1  # counting may mean reading them
    if _lies_on_its_side(image):
        width, height = height, width
    fields = {"width": width, "height": height, "mode": image.mode, "format": image.format or "", "frames": frames}
    return Header(width * height * 3, fields)


def _lies_on_its_side(image: Pillow.Image) -> bool:
    """Whether `decode` turns it by a quarter. Of a TIFF, Pillow already declares what that will give."""
    unread = image.format == "PNG" and "exif" not in image.info  # asking would decode it
    return image.format != "TIFF" and not unread and image.getexif().get(_ORIENTATION, 1) in _SIDEWAYS


@contextmanager
def _checked(data: bytes) -> Iterator[tuple[Pillow.Image, Header]]:
    """The image and its header, once it is within the budgets and the file holds what it declares."""
    if missing := missing_bytes(data):
        raise DecodeError("partial", missing)
    with _opened(data) as image:
        width, height = image.size
        if width * height > MOST_PIXELS:
            raise DecodeError("refused", f"{width} x {height} pixels, more than {MOST_PIXELS:,}.")
        if missing := incomplete_pages(image, data):
            raise DecodeError("partial", missing)
        header = _header(image)
        if int(header.fields["frames"]) > MOST_FRAMES:
            raise DecodeError("refused", f"{header.fields['frames']} frames, more than {MOST_FRAMES:,}.")
        yield image, header


def _upright(image: Pillow.Image) -> Pixels:
    from PIL import Image as Pillow
    from PIL import ImageOps

    declared = image.size
    image.load()
    if image.size != declared:
        raise DecodeError("partial", f"{image.size} pixels where the header declares {declared}.")
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode in _DEEP:
        return _from_deep_gray(np.asarray(image))
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        clear = image.convert("RGBA")
        image = Pillow.alpha_composite(Pillow.new("RGBA", clear.size, "white"), clear)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _decode_scaled(image: Pillow.Image, data: bytes) -> _DecodedImage:
    """A JPEG decoded at the smallest scale whose pixels are whole blocks, or small beside the sketch's."""
    from PIL import ImageOps

    turned = image.getexif().get(_ORIENTATION, 1)
    side = GRID if image.width % 8 == image.height % 8 == 0 else 2 * GRID
    image.draft("L", (side, side))
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    digest = hashlib.sha256(compressed_image(data)).hexdigest()
    return _DecodedImage(f"jpeg {turned} {digest}", _grid(image))


def _small_gray(media: Pixels) -> Pixels:
    """(H, W, 3) -> (GRID, GRID)."""
    from PIL import Image as Pillow

    return _grid(Pillow.fromarray(media))


def _grid(image: Pillow.Image) -> Pixels:
    """Whole boxes first if they are small beside the result's: faster, with almost the same result."""
    from PIL import Image as Pillow

    small = image.resize((GRID, GRID), Pillow.Resampling.BILINEAR, reducing_gap=2.0)
    return np.frombuffer(small.convert("L").tobytes(), np.uint8).reshape(GRID, GRID)


def _measures(gray: Pixels) -> dict[str, int | float]:
    values = gray.ravel().astype(np.float32)
    mean = float(values @ _ONES) / len(values)
    spread = math.sqrt(max(float(values @ values) / len(values) - mean**2, 0.0))
    return {"brightness": round(mean / 255, 4), "contrast": round(spread / 255, 4)}


def _from_deep_gray(values: npt.NDArray[Any]) -> Pixels:
    """(H, W) of 16 or 32 bits -> (H, W, 3): the full range of 16 bits; anything else is stretched to its own range.

    A pixel that is no number becomes the least.
    """
    gray = values.astype(np.float32)
    finite = np.isfinite(gray)
    if not finite.any():
        raise DecodeError("error", "No pixel is a finite number.")
    low, high = (0.0, 65535.0) if values.dtype.kind == "u" else (float(gray[finite].min()), float(gray[finite].max()))
    gray[~finite] = low
    gray -= low
    gray *= 255 / max(high - low, 1e-12)
    return np.repeat(gray.clip(0, 255).astype(np.uint8)[..., np.newaxis], 3, axis=2)


_START, _END, _SCAN = b"\xff\xd8", b"\xff\xd9", b"\xff\xda"  # of a JPEG
_ADOBE, _COMMENT = 0xEE, 0xFE  # Adobe's data say how the colours are coded
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _SAMPLES, _PLANAR = 256, 257, 258, 259, 277, 284  # tags of a TIFF
_OFFSETS, _SIZES, _STRIP_HEIGHT = 273, 279, 278
_TILE_OFFSETS, _TILE_SIZES, _TILE_WIDTH, _TILE_HEIGHT = 324, 325, 322, 323
_MARK = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
"""Markers of a JPEG that a length follows, and the end marker."""
_EXTENSION, _FRAME, _TRAILER = 0x21, 0x2C, 0x3B  # blocks of a GIF


def missing_bytes(data: bytes) -> str | None:
    """What is missing, found before the file is opened; None if it is complete or cannot tell."""
    check = next((check for magic, check in _CHECKS.items() if data.startswith(magic)), None)
    return check(data) if check else None


def incomplete_pages(image: Pillow.Image, data: bytes) -> str | None:
    """What is missing in the later images of the opened, not yet decoded `image`, which only its header points to; None
    as for `missing_bytes`."""
    if image.format == "MPO":
        return _mpo(image, data)
    return _tiff_pages(image, data) if image.format == "TIFF" else None


def compressed_image(data: bytes) -> bytes:
    """A JPEG file without its application data and comments, which do not affect its pixels."""
    kept, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != _SCAN[1]:
        if data[at + 1] == 0xFF:
            at += 1  # a fill byte
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        marker = data[at + 1]
        if marker == _ADOBE or not (0xE0 <= marker <= 0xEF or marker == _COMMENT):
            kept.append(data[at:end])
        at = end
    return b"".join([*kept, data[at:]])


def _mpo(image: Pillow.Image, data: bytes) -> str | None:
    """Several JPEGs in one file, as phones write them. Declared sizes can be wrong; where they begin is not."""
    entries = getattr(image, "mpinfo", {}).get(0xB002, [])
    offsets = [entry["DataOffset"] for entry in entries if entry["DataOffset"]]  # the first is at 0
    last = data.find(b"MPF\0") + 4 + max(offsets, default=0)
    if offsets and (data[last : last + 2] != _START or data.rfind(_END) < last):
        return f"The file ends before the last of its {len(entries)} images."
    return None


def _tiff_pages(image: Pillow.Image, data: bytes) -> str | None:
    """Every directory and the pixels of every page lie within the file, and cover the page."""
    page = 0
    try:
        for page in range(getattr(image, "n_frames", 1)):
            image.seek(page)
            if not _tiff_covered(image.tag_v2, len(data)):  # type: ignore[attr-defined]  # of TIFF images alone
                return f"The file holds less of page {page + 1} than it declares."
        image.seek(0)
    except Exception:  # noqa: BLE001 - whatever Pillow makes of a directory that is cut
        return f"The directory behind page {page + 1} is damaged."
    return None


def _tiff_covered(tags: Mapping[int, Any], length: int) -> bool:
    """Pillow leaves black what no strip or tile covers. Compressed sizes say nothing of how many pixels there are."""
    width, height = tags[_WIDTH], tags[_HEIGHT]
    tiled = _TILE_OFFSETS in tags
    offsets, sizes = (tags.get(tag, ()) for tag in ((_TILE_OFFSETS, _TILE_SIZES) if tiled else (_OFFSETS, _SIZES)))
    rows, columns = (tags[_TILE_HEIGHT], tags[_TILE_WIDTH]) if tiled else (tags.get(_STRIP_HEIGHT, height), width)
    planes = tags.get(_SAMPLES, 1) if tags.get(_PLANAR) == 2 else 1
    enough = len(offsets) >= -(-height // min(rows, height)) * -(-width // columns) * planes
    within = all(offset + size <= length for offset, size in zip(offsets, sizes, strict=False))
    least = -(-width * sum(tags.get(_BITS, (1,))) // 8) * height
    return enough and within and (tags.get(_COMPRESSION, 1) != 1 or not sizes or sum(sizes) >= least)


def _jpeg(data: bytes) -> str | None:
    """Marker after marker up to the end marker, which occurs within no scan. Bytes behind it are ignored: phones put a
    video there."""
    at = 2
    while found := _MARK.search(data, at):
        if found[0] == _END:
            return None
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    return "The file ends before the image's end marker."


def _png(data: bytes) -> str | None:
    """Chunk after chunk up to the end chunk; of an animation as many frames as it declares."""
    at, declared, frames = 8, None, 0
    while at + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"acTL":
            declared = int.from_bytes(data[at + 8 : at + 12], "big")
        frames += kind == b"fcTL"
        at += 12 + size
        if kind == b"IEND" and at <= len(data):
            return None if declared in (None, frames) else f"{frames} frames of {declared}."
    return "The file ends before its end chunk."


def _gif(data: bytes) -> str | None:
    """Block after block up to the trailer."""
    at = 13 + (_colours(data[10]) if len(data) > 10 else 0)
    while at < len(data):
        if data[at] == _TRAILER:
            return None
        if data[at] == _EXTENSION:
            at += 2
        elif data[at] == _FRAME and at + 10 <= len(data):
            at += 11 + _colours(data[at + 9])
        else:
            break
        while at < len(data) and data[at]:
            at += 1 + data[at]
        at += 1
    return "The file ends before its trailer."


def _riff(data: bytes) -> str | None:
    declared = 8 + int.from_bytes(data[4:8], "little")
    return f"{len(data):,} bytes where the header declares {declared:,}." if len(data) < declared else None


def _tiff(data: bytes) -> str | None:
    """The directory of the first page, often behind its pixels, lies within the file."""
    directory = int.from_bytes(data[4:8], "little" if data[0] == ord("I") else "big")
    return "The file ends before its directory." if directory + 2 > len(data) else None


_CHECKS: dict[bytes, Callable[[bytes], str | None]] = {
    b"\xff\xd8\xff": _jpeg, b"\x89PNG\r\n\x1a\n": _png, b"GIF8": _gif, b"RIFF": _riff, b"II*\0": _tiff, b"MM\0*": _tiff,
}  # fmt: skip


def _colours(flags: int) -> int:
    """Bytes of the colour table that these flags declare."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


IMAGE = Image()
