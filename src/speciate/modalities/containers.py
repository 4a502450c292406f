"""Whether the file of a picture is all there: what its container declares against the bytes that there are.

Decoders accept a file that ends early where the missing part is a later frame, a trailer, or rows that they can guess,
and where its header is cut they do not say that this was the reason.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image as Pillow

_START, _END, _SCAN = b"\xff\xd8", b"\xff\xd9", b"\xff\xda"  # of a JPEG
_MARK = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
"""Of a JPEG: those that a length follows, and the end."""
_ADOBE, _COMMENT = 0xEE, 0xFE  # Adobe's data say how the colours are coded
_EXTENSION, _FRAME, _TRAILER = 0x21, 0x2C, 0x3B  # blocks of a GIF
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _SAMPLES, _PLANAR = 256, 257, 258, 259, 277, 284  # tags of a TIFF
_OFFSETS, _SIZES, _STRIP_HEIGHT = 273, 279, 278
_TILE_OFFSETS, _TILE_SIZES, _TILE_WIDTH, _TILE_HEIGHT = 324, 325, 322, 323


def incomplete(data: bytes) -> str | None:
    """What is missing, told before the file is opened; None where it is whole or cannot tell."""
    check = next((check for magic, check in _CHECKS.items() if data.startswith(magic)), None)
    return check(data) if check else None


def incomplete_pages(image: Pillow.Image, data: bytes) -> str | None:
    """The same for later pictures of the opened, not yet decoded `image`, which only its header leads to."""
    if image.format == "MPO":
        return _mpo(image, data)
    return _tiff_pages(image, data) if image.format == "TIFF" else None


def compressed_picture(data: bytes) -> bytes:
    """A JPEG file without what says nothing of its pixels: its application data and comments."""
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


def _jpeg(data: bytes) -> str | None:
    """Mark after mark up to the end mark, which occurs within no scan. What lies behind is not looked at: phones put a
    film there."""
    at = 2
    while found := _MARK.search(data, at):
        if found[0] == _END:
            return None
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    return "The file ends before the picture's end mark."


def _mpo(image: Pillow.Image, data: bytes) -> str | None:
    """Several JPEGs in one file, as phones write them. Declared sizes can be wrong; where they begin is not."""
    pictures = getattr(image, "mpinfo", {}).get(0xB002, [])
    offsets = [picture["DataOffset"] for picture in pictures if picture["DataOffset"]]  # the first is at 0
    last = data.find(b"MPF\0") + 4 + max(offsets, default=0)
    if offsets and (data[last : last + 2] != _START or data.rfind(_END) < last):
        return f"The file ends before the last of its {len(pictures)} pictures."
    return None


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


def _colours(flags: int) -> int:
    """Bytes of the colour table that these flags declare."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _riff(data: bytes) -> str | None:
    declared = 8 + int.from_bytes(data[4:8], "little")
    return f"{len(data):,} bytes where the header declares {declared:,}." if len(data) < declared else None


def _tiff(data: bytes) -> str | None:
    """The directory of the first page, often behind its pixels, lies within the file."""
    directory = int.from_bytes(data[4:8], "little" if data[0] == ord("I") else "big")
    return "The file ends before its directory." if directory + 2 > len(data) else None


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


_CHECKS: dict[bytes, Callable[[bytes], str | None]] = {
    b"\xff\xd8\xff": _jpeg, b"\x89PNG\r\n\x1a\n": _png, b"GIF8": _gif, b"RIFF": _riff, b"II*\0": _tiff, b"MM\0*": _tiff,
}  # fmt: skip
