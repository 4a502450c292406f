"""LAS 1.0 to 1.4 (ASPRS 2019) and LAZ (Isenburg 2013): the declarations of the headers, checked before laspy unpacks.

The unpacker of LAZ trusts its input: a table that declares billions of chunks is allocated at once, which ends the
process, and records are read beyond the end of a file. So headers and table are parsed here first.
"""

from __future__ import annotations

import io
import math
import struct
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.modalities.contract import DecodeError

MAGIC = b"LASF"
_MOST_BYTES = 512 << 20
_HEADER, _HEADER_1_4 = 227, 375
_RECORD, _EXTENDED_RECORD = 54, 60
"""Bytes of the header of a variable length record."""
_LASZIP = b"laszip encoded", 22204
_POINTWISE, _CHUNKED, _LAYERED = 1, 2, 3
"""Compressors of laszip. The first has no table of chunks."""


class Head(NamedTuple):
    points: int
    packed: bool
    low: tuple[float, float, float]
    """The lowest corner."""
    offset: int
    """Where the points begin."""
    length: int
    """Bytes of one point, unpacked."""


class Points(NamedTuple):
    places: npt.NDArray[np.float64]
    """(N, 3), from the lowest corner on: single precision would round the coordinates of a map."""
    colours: npt.NDArray[np.uint8] | None
    """(N, 3)"""
    intensity: npt.NDArray[np.float32] | None
    """(N,)"""


class _Record(NamedTuple):
    user: bytes
    number: int
    content: bytes


def head(data: bytes) -> Head:
    """The public header block. Raises DecodeError if it is cut, or its bounds are no numbers."""
    minor = data[25] if len(data) > 25 else 0
    if len(data) < (_HEADER_1_4 if minor >= 4 else _HEADER):
        raise DecodeError("partial", "The LAS file ends within its header.")
    points = struct.unpack_from("<I", data, 107)[0]
    if minor >= 4:
        points = max(points, struct.unpack_from("<Q", data, 247)[0])
    x, y, z = (struct.unpack_from("<d", data, place)[0] for place in (187, 203, 219))
    if not all(math.isfinite(value) for value in (x, y, z)):
        raise DecodeError("error", "The LAS header names no finite bounds.")
    offset, length = struct.unpack_from("<I", data, 96)[0], struct.unpack_from("<H", data, 105)[0]
    return Head(int(points), bool(data[104] & 0x80), (x, y, z), offset, length)


def read(data: bytes) -> Points:
    """The points that the header declares. Raises DecodeError if some are missing, or if they are beyond the budget."""
    header = head(data)
    if header.length * header.points > _MOST_BYTES:
        raise DecodeError("refused", f"{header.length * header.points:,} bytes of points, more than {_MOST_BYTES:,}.")
    if not header.packed and header.offset + header.length * header.points > len(data):
        there = max(len(data) - header.offset, 0) // max(header.length, 1)
        raise DecodeError("partial", f"{there:,} points where the header declares {header.points:,}.")
    records = list(_records(data, header))
    _check_extended(data)
    if header.packed:
        _check_chunks(data, header, records)
    points = _unpacked(data, header)
    if len(points.places) != header.points:
        raise DecodeError("partial", f"{len(points.places):,} points where the header declares {header.points:,}.")
    return points


def _records(data: bytes, header: Head) -> Iterator[_Record]:
    """The variable length records, which lie between the header and the points."""
    place, count = struct.unpack_from("<H", data, 94)[0], struct.unpack_from("<I", data, 100)[0]
    for _ in range(count):
        if place + _RECORD > min(header.offset, len(data)):
            raise DecodeError("error", f"{count:,} records do not fit between the header and the points.")
        user, number, length = struct.unpack_from("<16sHH", data, place + 2)
        yield _Record(user.rstrip(b"\0"), number, data[place + _RECORD : place + _RECORD + length])
        place += _RECORD + length


def _check_extended(data: bytes) -> None:
    """Records behind the points, which LAS 1.4 has: each within the file."""
    if data[25] < 4:
        return
    place, count = struct.unpack_from("<QI", data, 235)
    for _ in range(count):
        if place + _EXTENDED_RECORD > len(data):
            raise DecodeError("partial", f"The file ends before the last of {count:,} extended records.")
        place += _EXTENDED_RECORD + struct.unpack_from("<Q", data, place + 20)[0]


def _check_chunks(data: bytes, header: Head, records: list[_Record]) -> None:
    """Raises DecodeError unless the table of chunks lies in the file and has no more chunks than there are bytes."""
    found = next((record.content for record in records if (record.user, record.number) == _LASZIP), None)
    if found is None or len(found) < 34:
        raise DecodeError("error", "It is packed, but has no record of laszip that says how.")
    compressor, items = struct.unpack_from("<H", found)[0], struct.unpack_from("<H", found, 32)[0]
    if compressor not in (_POINTWISE, _CHUNKED, _LAYERED):
        raise DecodeError("error", f"It is packed by compressor {compressor}, which laszip does not know.")
    sizes = [struct.unpack_from("<H", found, place + 2)[0] for place in range(34, len(found) - 5, 6)]
    if len(sizes) < items or sum(sizes[:items]) != header.length:
        raise DecodeError("error", f"The packed fields have other sizes than a point of {header.length} bytes.")
    if compressor == _POINTWISE or not header.points:
        return
    table = _where(data, header.offset)
    if table == -1:  # written as a stream: then it stands at the end
        table = _where(data, len(data) - 8)
    if not header.offset + 8 <= table <= len(data) - 8:
        raise DecodeError("partial", "The table of its chunks lies beyond the end of the file.")
    version, chunks = struct.unpack_from("<II", data, table)
    if version or chunks * max(header.length, 1) > table - header.offset:  # each begins with a point that is not packed
        raise DecodeError("error", f"A table of {chunks:,} chunks, for which the file is too short.")


def _where(data: bytes, place: int) -> int:
    if not 0 <= place <= len(data) - 8:
        raise DecodeError("partial", "The file ends before its points.")
    return int(struct.unpack_from("<q", data, place)[0])


def _unpacked(data: bytes, header: Head) -> Points:
    try:
        import laspy
    except ImportError as error:
        raise DecodeError("error", "LAS and LAZ need laspy and lazrs. Run: pip install 'speciate[mesh]'") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # not the parallel one, which allocates the declared size of each chunk
            found = laspy.read(io.BytesIO(data), laz_backend=laspy.LazBackend.Lazrs)
            places = np.stack([np.asarray(found.x), np.asarray(found.y), np.asarray(found.z)], axis=1)
            names = set(found.point_format.dimension_names)
            intensity = np.asarray(found.intensity, np.float32) if "intensity" in names else None
            colours = None
            if {"red", "green", "blue"} <= names:
                deep = np.stack([np.asarray(found[name]) for name in ("red", "green", "blue")], axis=1)
                colours = (deep >> 8 if deep.max(initial=0) > 255 else deep).astype(np.uint8)
    except Exception as error:
        cut = header.packed  # then only unpacking finds its end
        raise DecodeError(
            "partial" if cut else "error", f"It cannot be read: {type(error).__name__} {str(error)[:200]}."
        ) from error
    if intensity is not None and not intensity.any():
        intensity = None
    if colours is not None and not colours.any():
        colours = None
    return Points(places - np.array(header.low), colours, intensity)
