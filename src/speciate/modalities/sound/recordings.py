"""Whether the file of a recording is all there: what its container declares against the bytes that there are.

libsndfile accepts a WAV, OGG or MP3 file that ends early as a shorter recording. What cannot be told: a WAV written to
a pipe, which declares no length, and an MP3 without a header frame of its own that ends between two frames.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

_UNKNOWN = 0xFFFFFFFF  # a RIFF length that its writer did not know
_LAST_PAGE = 0x04
_SAMPLE_RATES = (44100, 48000, 32000)
_KBITS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBITS_LOW = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)


def incomplete(data: bytes) -> str | None:
    """What is missing; None where the file is whole or cannot tell. FLAC is told by the number of decoded samples."""
    if data[:4] in (b"RIFF", b"RIFX", b"RF64") and data[8:12] == b"WAVE":
        return _riff(data)
    return _ogg(data) if data.startswith(b"OggS") else _mp3(data)


def _riff(data: bytes) -> str | None:
    """The chunk of samples lies within the file. RF64 declares 64 bits in a chunk of its own; RIFX is big-endian."""
    order = ">" if data.startswith(b"RIFX") else "<"
    at, long_size = 12, None
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}4sI", data, at)
        if kind == b"ds64" and at + 24 <= len(data):
            long_size = int.from_bytes(data[at + 16 : at + 24], "little")
        if kind == b"data":
            declared = long_size if size == _UNKNOWN and long_size else size
            present = len(data) - at - 8
            short = declared != _UNKNOWN and present < declared
            return f"{present:,} bytes of samples where the header declares {declared:,}." if short else None
        at += 8 + size + size % 2
    return "The file ends before its samples."


def _ogg(data: bytes) -> str | None:
    """Page after page up to one that says it is the last, without a gap in their numbers."""
    at, last, expected = 0, False, dict[bytes, int]()
    while data.startswith(b"OggS", at) and at + 27 <= len(data):
        stream, number, segments = (
            data[at + 14 : at + 18],
            int.from_bytes(data[at + 18 : at + 22], "little"),
            data[at + 26],
        )
        if number != expected.get(stream, number):
            return f"Page {expected[stream]} is missing."
        expected[stream], last = number + 1, bool(data[at + 5] & _LAST_PAGE)
        at += 27 + segments + sum(data[at + 27 : at + 27 + segments])
    return None if last and at <= len(data) else "The file ends before its last page."


class _Frame(NamedTuple):
    size: int
    tag: int
    """Where in the frame a header of the encoder would stand."""


def _mp3(data: bytes) -> str | None:
    """Frame after frame: the last is whole, and there are as many as the encoder's own header (Xing, Info) declares."""
    at = _after_id3(data)
    frame = _frame(data, at)
    if frame is None:
        return None
    declared, found = _declared_frames(data, at + frame.tag), 0
    while frame is not None:
        if at + frame.size > len(data):
            return "The file ends within a frame."
        at, found = at + frame.size, found + 1
        frame = _frame(data, at)
    if declared is not None and found - 1 < declared:
        return f"{found - 1:,} frames where the header declares {declared:,}."
    return None


def _after_id3(data: bytes) -> int:
    """The first byte after tags and padding in front."""
    at = 0
    while data[at : at + 3] == b"ID3" and at + 10 <= len(data):
        high, *rest = data[at + 6 : at + 10]
        at += 10 + (high << 21 | rest[0] << 14 | rest[1] << 7 | rest[2]) + (10 if data[at + 5] & 0x10 else 0)
    while at < len(data) and data[at] == 0:
        at += 1
    return at


def _frame(data: bytes, at: int) -> _Frame | None:
    """The frame of MPEG audio, layer III, that begins here; None where none does or its length is not declared."""
    if at + 4 > len(data) or data[at] != 0xFF or data[at + 1] & 0xE6 != 0xE2:
        return None
    version, rate, kbits = data[at + 1] >> 3 & 3, data[at + 2] >> 2 & 3, data[at + 2] >> 4
    if version == 1 or rate == 3 or kbits in (0, 15):
        return None
    full = version == 3  # MPEG 1; 2 halves the sample rates, 2.5 halves them again
    bits = 1000 * (_KBITS if full else _KBITS_LOW)[kbits]
    hertz = _SAMPLE_RATES[rate] // {3: 1, 2: 2, 0: 4}[version]
    mono = data[at + 3] >> 6 == 3
    side = (17 if mono else 32) if full else (9 if mono else 17)
    return _Frame((144 if full else 72) * bits // hertz + (data[at + 2] >> 1 & 1), 4 + side)


def _declared_frames(data: bytes, at: int) -> int | None:
    if data[at : at + 4] not in (b"Xing", b"Info") or at + 12 > len(data) or not data[at + 7] & 1:
        return None
    return int.from_bytes(data[at + 8 : at + 12], "big")
