"""Headers of video containers, read before any library opens the file: whether the file is complete, and its rotation.
MP4 and MOV (ISO 14496-12), Matroska and WebM (RFC 9559), AVI.

Decoders take a file that ends early for a shorter one. Two such files cannot be recognised: an MP4 in fragments that
ends between two of them, and a Matroska file written to a pipe, which declares no length."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import Literal, NamedTuple

Container = Literal["mp4", "matroska", "avi"]
"""Formats of video files, named as libavformat calls its readers."""

_STILL = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1", b"avif", b"avis", b"crx ")
AUDIO_BRANDS = (b"M4A ", b"M4B ", b"M4P ", b"F4A ")
"""Brands of MP4 files that hold audio alone."""
_BEGIN = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")  # of a MOV without ftyp
_EBML, _SEGMENT = 0x1A45DFA3, 0x18538067
_TRACKS, _TRACK, _VIDEO, _PROJECTION, _ROLL = 0x1654AE6B, 0xAE, 0xE0, 0x7670, 0x7675
_IDENTITY = 1 << 16
_DEEPEST_TRACKS = 1 << 20  # bytes from the segment's beginning in which its tracks are looked for


def container_of(data: bytes) -> Container | None:
    """Kind of container that the first bytes tell; None for another file."""
    if data[4:8] == b"ftyp":
        return None if data[8:12] in _STILL else "mp4"
    if data[4:8] in _BEGIN:
        return "mp4"
    if data[:4] == _EBML.to_bytes(4, "big"):
        return "matroska"
    return "avi" if data[:4] == b"RIFF" and data[8:12] == b"AVI " else None


class Missing(NamedTuple):
    why: str
    of_index: bool = False
    """Whether it is the index, without which nothing of the file can be read."""


def missing(data: bytes, container: Container) -> Missing | None:
    """Declared parts of the container that are missing."""
    match container:
        case "mp4":
            return _missing_of_mp4(data)
        case "matroska":
            return _missing_of_matroska(data)
        case "avi":
            return _missing_of_avi(data)


def rotation(data: bytes, container: Container) -> int:
    """Degrees by which the image is turned counterclockwise to be shown: 0, 90, 180 or 270. AVI knows none."""
    degrees = 0.0
    if container == "mp4":
        degrees = _rotation_of_mp4(data)
    elif container == "matroska":
        degrees = _rotation_of_matroska(data)
    return round(degrees / 90) % 4 * 90


class _Box(NamedTuple):
    """A box of an MP4 file."""

    kind: bytes
    start: int
    """Byte at which its contents begin."""
    stop: int


def _boxes(data: bytes, start: int, stop: int) -> Iterator[_Box]:
    """One after another; the last may end behind `stop`. Ends where no box can begin."""
    while start + 8 <= stop:
        size, kind = struct.unpack_from(">I4s", data, start)
        head = 8
        if size == 1 and start + 16 <= stop:
            size, head = int.from_bytes(data[start + 8 : start + 16], "big"), 16
        elif size == 0:
            size = stop - start
        if size < head:
            return
        yield _Box(kind, start + head, start + size)
        start += size


def _missing_of_mp4(data: bytes) -> Missing | None:
    last, there = 0, set[bytes]()
    for box in _boxes(data, 0, len(data)):
        last = box.stop
        if last <= len(data):
            there.add(box.kind)
    if b"moov" not in there:
        return Missing(
            "Its index (moov) is missing or cut: the recording was not finished, or the file ends early.", True
        )
    if last != len(data):
        return Missing(f"{len(data):,} bytes where its boxes end at {last:,}.")
    return None


def _rotation_of_mp4(data: bytes) -> float:
    for moov in _boxes(data, 0, len(data)):
        if moov.kind != b"moov":
            continue
        for track in _boxes(data, moov.start, min(moov.stop, len(data))):
            parts = {box.kind: box for box in _boxes(data, track.start, min(track.stop, len(data)))}
            if track.kind == b"trak" and b"tkhd" in parts and b"mdia" in parts and _shows(data, parts[b"mdia"]):
                return _angle(data, parts[b"tkhd"])
    return 0.0


def _shows(data: bytes, media: _Box) -> bool:
    inside = _boxes(data, media.start, min(media.stop, len(data)))
    return any(box.kind == b"hdlr" and data[box.start + 8 : box.start + 12] == b"vide" for box in inside)


def _angle(data: bytes, header: _Box) -> float:
    """Rotation in degrees by the matrix [a b u; c d v; x y w] in the track's header."""
    at = header.start + (52 if data[header.start] == 1 else 40)
    if at + 8 > len(data):
        return 0.0
    a, b = struct.unpack_from(">ii", data, at)
    return -math.degrees(math.atan2(b, a)) if (a, b) != (_IDENTITY, 0) else 0.0


class _Element(NamedTuple):
    """An element of a Matroska file."""

    name: int
    start: int
    stop: int
    """The end of the data if its length is not declared."""


def _elements(data: bytes, start: int, stop: int) -> Iterator[_Element]:
    while start < stop:
        name, length = _number(data, start)
        size, width = _number(data, start + length)
        if not length or not width:
            return
        size -= 1 << 7 * width  # without the bit that says how long it is
        start += length + width
        end = stop if size == (1 << 7 * width) - 1 else start + size
        yield _Element(name, start, end)
        start = end


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A number of one to eight bytes, whose first tells their number by its leading zeros; no bytes if there is
    none."""
    length = 9 - data[at].bit_length() if at < len(data) and data[at] else 0
    whole = length and at + length <= len(data)
    return (int.from_bytes(data[at : at + length], "big"), length) if whole else (0, 0)


def _segment(data: bytes) -> _Element | None:
    return next((each for each in _elements(data, 0, len(data)) if each.name == _SEGMENT), None)


def _missing_of_matroska(data: bytes) -> Missing | None:
    segment = _segment(data)
    if segment is None:
        return Missing("The file ends before its segment.", True)
    if segment.stop > len(data):
        return Missing(f"{len(data):,} bytes where its segment ends at {segment.stop:,}.")
    return None


def _rotation_of_matroska(data: bytes) -> float:
    segment = _segment(data)
    if segment is None:
        return 0.0
    end = min(segment.stop, segment.start + _DEEPEST_TRACKS, len(data))
    for tracks in _inside(data, segment._replace(stop=end), _TRACKS):
        for track in _inside(data, tracks, _TRACK):
            for video in _inside(data, track, _VIDEO):
                for projection in _inside(data, video, _PROJECTION):
                    for roll in _inside(data, projection, _ROLL):
                        kind = {4: ">f", 8: ">d"}.get(roll.stop - roll.start)
                        degrees = struct.unpack_from(kind, data, roll.start)[0] if kind else 0.0
                        return float(degrees) if math.isfinite(degrees) else 0.0
    return 0.0


def _inside(data: bytes, element: _Element, name: int) -> Iterator[_Element]:
    return (each for each in _elements(data, element.start, min(element.stop, len(data))) if each.name == name)


def _missing_of_avi(data: bytes) -> Missing | None:
    """RIFF chunks one after another: long files have several."""
    at = 0
    while data[at : at + 4] == b"RIFF" and at + 8 <= len(data):
        at += 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        if at > len(data):
            return Missing(f"{len(data):,} bytes where its header declares {at:,}.")
        at += at % 2
    return None
