"""What compressed pictures declare of their size: JPEG (ITU T.81), JPEG-LS (T.87), JPEG 2000 (T.800), as it stands.

A decoder believes them, whatever the DICOM header around them says, and allocates before it looks further.
"""

from __future__ import annotations

import struct

_JPEG, _J2K = b"\xff\xd8", b"\xff\x4f\xff\x51"
_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
"""Markers that begin a frame; F7 is that of JPEG-LS."""
_ALONE = {0x01, *range(0xD0, 0xD9)}
"""Markers without a length."""
_SCAN, _END = 0xDA, 0xD9


def size_of(stream: bytes) -> tuple[int, int] | None:
    """(rows, columns); None where the bytes are no such stream, or do not say."""
    if stream.startswith(_JPEG):
        return _of_jpeg(stream)
    if stream.startswith(_J2K):
        return _of_j2k(stream, 0)
    place = stream.find(b"jp2c", 0, 4096)  # in the boxes of JP2
    return None if place < 0 else _of_j2k(stream, place + 4)


def _of_jpeg(stream: bytes) -> tuple[int, int] | None:
    place = 2
    while place + 9 <= len(stream) and stream[place] == 0xFF:
        marker = stream[place + 1]
        if marker in _FRAMES:
            rows, columns = struct.unpack_from(">HH", stream, place + 5)
            return (rows, columns) if rows and columns else None
        if marker in (_SCAN, _END):
            return None
        if marker == 0xFF:  # filling
            place += 1
        elif marker in _ALONE:
            place += 2
        else:
            place += 2 + struct.unpack_from(">H", stream, place + 2)[0]
    return None


def _of_j2k(stream: bytes, place: int) -> tuple[int, int] | None:
    if not stream.startswith(_J2K, place) or len(stream) < place + 24:
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", stream, place + 8)
    return bottom - top, right - left
