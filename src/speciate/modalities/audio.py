"""Audio from WAV, FLAC, OGG and MP3 files, and from tracks of M4A, MP4, MOV, Matroska, WebM and AVI, decoded
to float32 (T,): one channel, 16 kHz, full scale is 1.

Channels are averaged. The header may declare at most two hours. A silent file decodes, but is no example. `log_mel` is
the spectrogram that learners see. libsndfile accepts a WAV, OGG or MP3 file that ends early as a shorter one, so
`missing_audio` compares the container's declarations with the bytes. It cannot tell for a WAV written to a pipe, which
declares no length, and for an MP3 without a header frame that ends between two frames.
"""

from __future__ import annotations

import hashlib
import io
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.modalities.audio_tracks import Track, is_container, open_track, read_track
from speciate.modalities.contract import DecodeError, Header, Modality, Pixels, Vector
from speciate.modalities.drawing import spectrogram
from speciate.modalities.series_similarity import SPECTROGRAMS, sketch_series
from speciate.modalities.video.containers import AUDIO_BRANDS

if TYPE_CHECKING:
    import soundfile


SAMPLE_RATE = 16_000
BANDS = 64
_WINDOW, _HOP, _POINTS = 400, 160, 512  # 25 ms every 10 ms
_LOWEST = 50.0  # hertz
_FLOOR = 1e-10  # power: 16 bits end near here
_CHUNK = 4096

Bands = npt.NDArray[np.float32]  # (BANDS, F)


def log_mel(samples: Vector) -> Bands:
    """sound: (T,) -> (BANDS, F): log10 of the power, a frame every 10 ms; at least one frame."""
    padded = np.pad(samples, (0, max(_WINDOW - len(samples), 0)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    window = np.hanning(_WINDOW + 1)[:-1].astype(np.float32)
    weights = _weights()
    found = [
        (np.abs(np.fft.rfft(frames[at : at + _CHUNK] * window, _POINTS)) ** 2 / _WINDOW).astype(np.float32) @ weights.T
        for at in range(0, len(frames), _CHUNK)
    ]
    return np.log10(np.maximum(np.concatenate(found), _FLOOR)).T


@cache
def _weights() -> Bands:
    """(BANDS, _POINTS / 2 + 1): triangles, equally wide in mel = 2595 log10(1 + hertz / 700) (O'Shaughnessy 1987)."""
    low, high = (2595 * math.log10(1 + hertz / 700) for hertz in (_LOWEST, SAMPLE_RATE / 2))
    edges = 700 * (10 ** (np.linspace(low, high, BANDS + 2) / 2595) - 1)
    hertz = np.fft.rfftfreq(_POINTS, 1 / SAMPLE_RATE)
    left, centre, right = edges[:-2, np.newaxis], edges[1:-1, np.newaxis], edges[2:, np.newaxis]
    rising, falling = (hertz - left) / (centre - left), (right - hertz) / (right - centre)
    weights = np.maximum(np.minimum(rising, falling), 0)
    narrow = weights.sum(axis=1) == 0  # the lowest triangles can lie between two frequencies
    weights[narrow, np.abs(hertz - centre[narrow]).argmin(axis=1)] = 1
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


LONGEST = 2 * 3600
"""Seconds."""
_MOST_CHANNELS = 64
_FORMATS = ("WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3")
_MAGIC = (b"fLaC", b"OggS", b"ID3")
_LOUDEST = 100.0  # of floats; loud masters go a little beyond 1
_INAUDIBLE = 1e-4  # -80 dBFS
_SILENT_FRAME = 1e-3  # -60 dBFS
_FRAME = SAMPLE_RATE // 50
_BLOCK = 1 << 16
_SEGMENTS, _GROUPS = 8, 16
_COARSE = 8


class Audio(Modality[Vector]):
    name = "audio"
    suffixes = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a")
    borrows = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
    sketching = SPECTROGRAMS
    window_unit = "seconds"

    def sniff(self, head: bytes, name: str) -> bool:
        wave = head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:12] == b"WAVE"
        mpeg = len(head) > 1 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2
        track = head[4:8] == b"ftyp" and head[8:12] in AUDIO_BRANDS
        return wave or mpeg or track or head.startswith(_MAGIC) or name.lower().endswith(self.suffixes)

    def inspect(self, data: bytes) -> Header:
        if is_container(data):
            with open_track(data) as track:
                return _header_of_track(track)
        with _opened(data) as file:
            return _header(file)

    def decode(self, data: bytes) -> Vector:
        if is_container(data):
            with open_track(data) as track:
                _check_budget(track.seconds, track.channels)
                samples = read_track(track, SAMPLE_RATE)
        else:
            if missing := missing_audio(data):
                raise DecodeError("partial", missing)
            with _opened(data) as file:
                _check_budget(file.frames / file.samplerate, file.channels)
                samples = _read(file)
        if not len(samples):
            raise DecodeError("error", "The audio has no samples.")
        peak = float(np.abs(samples).max())
        if not peak <= _LOUDEST:  # also where a sample is not a number
            raise DecodeError("error", f"A sample of {peak:g}, where full scale is 1.")
        if peak < _INAUDIBLE:
            raise DecodeError("partial", "Nothing but silence: no sample above -80 dBFS.")
        return samples

    def admit(self, value: Any) -> Vector:
        """`value`: encoded bytes."""
        if not isinstance(value, bytes):
            raise DecodeError("error", "Audio must be the bytes of a file.")
        return self.decode(value)

    def fingerprint(self, media: Vector) -> str:
        """Length and hash of the samples in 16 bits: the same audio in another lossless container is the same audio."""
        samples = (media * 32767).round().clip(-32768, 32767).astype("<i2")
        return f"{len(media)} {hashlib.sha256(samples.data).hexdigest()}"

    def measure(self, media: Vector) -> dict[str, int | float]:
        """Loudest sample and effective value, where 0 is full scale; share of 20 ms frames below -60 dBFS."""
        power = np.square(media, dtype=np.float64)
        frames = np.add.reduceat(power, np.arange(0, len(power), _FRAME)) / _FRAME
        return {
            "peak_dbfs": _decibels(float(np.abs(media).max())),
            "rms_dbfs": _decibels(math.sqrt(float(power.mean()))),
            "silent_share": round(float((frames < _SILENT_FRAME**2).mean()), 4),
        }

    def describe(self, media: Vector) -> Vector:
        """(320,): `features`, and 16 wide bands over eight equal parts of the time: what comes first and last."""
        bands = log_mel(media)
        wide = bands.reshape(_GROUPS, BANDS // _GROUPS, -1).mean(axis=1)
        edges = np.linspace(0, wide.shape[1], _SEGMENTS + 1).astype(int)
        parts = [wide[:, low : max(high, low + 1)].mean(axis=1) for low, high in pairwise(edges)]
        return np.concatenate([_statistics(bands), *parts])

    def features(self, media: Vector) -> Vector:
        """(192,): mean, spread and mean change from frame to frame of each band of the log-mel spectrogram."""
        return _statistics(log_mel(media))

    def sketch(self, media: Vector) -> bytes | None:
        return sketch_series(_coarse_bands(media), joint=True)

    def thumbnail(self, media: Vector) -> Pixels:
        return spectrogram(log_mel(media), len(media) / SAMPLE_RATE, SAMPLE_RATE // 2)

    def window(self, media: Vector, start: float, stop: float) -> Vector:
        return media[round(start * SAMPLE_RATE) : round(stop * SAMPLE_RATE)]


def _coarse_bands(samples: Vector) -> Bands:
    """(T,) -> (_COARSE, F): log10 of the power in wide bands, from 40 ms every 20 ms.

    A hundred-thousandth of the loudest is added, so that compression and faint noise change little.
    """
    padded = np.pad(samples, (0, max(2 * _FRAME - len(samples), 0)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, 2 * _FRAME)[::_FRAME]
    window = np.hanning(2 * _FRAME + 1)[:-1].astype(np.float32)
    hertz = np.fft.rfftfreq(2 * _FRAME, 1 / SAMPLE_RATE)
    edges = np.searchsorted(hertz, np.geomspace(100, 7000, _COARSE + 1))
    found = []
    for at in range(0, len(frames), _CHUNK):
        spectrum = np.fft.rfft(frames[at : at + _CHUNK] * window)
        power = spectrum.real**2 + spectrum.imag**2
        found.append(np.add.reduceat(power[:, : edges[-1]], edges[:-1], axis=1))
    bands = np.concatenate(found).T
    return np.asarray(np.log10(bands + 1e-5 * max(float(bands.max()), _FLOOR)), np.float32)


@contextmanager
def _opened(data: bytes) -> Iterator[soundfile.SoundFile]:
    """The file with its header read; whatever libsndfile then raises becomes a DecodeError."""
    try:
        import soundfile
        import soxr  # noqa: F401 - it is needed as soon as samples are read
    except ImportError as error:
        reason = "Audio files need soundfile and soxr. Run: pip install 'speciate[audio]'"
        raise DecodeError("error", reason) from error
    try:
        opened = soundfile.SoundFile(io.BytesIO(data))
    except Exception as error:
        reason = "Not an audio file in a known format, or its header is damaged." if data else "The file is empty."
        raise DecodeError("error", reason) from error
    with opened as file:
        if file.format not in _FORMATS:
            raise DecodeError("error", f"{file.format} files are not read, only WAV, FLAC, OGG and MP3.")
        try:
            yield file
        except soundfile.LibsndfileError as error:
            cut = any(word in str(error) for word in ("lost sync", "psf_fseek"))  # a FLAC file that ends early
            raise DecodeError("partial" if cut else "error", f"{error}") from error


def _check_budget(seconds: float, channels: int) -> None:
    if seconds > LONGEST:
        raise DecodeError("refused", f"{seconds:,.0f} seconds, more than {LONGEST:,}.")
    if channels > _MOST_CHANNELS:
        raise DecodeError("refused", f"{channels} channels, more than {_MOST_CHANNELS}.")


def _header_of_track(track: Track) -> Header:
    fields: dict[str, str | int | float] = {
        "sample_rate": track.sample_rate,
        "channels": track.channels,
        "seconds": round(track.seconds, 3),
        "format": track.format,
    }
    return Header(max(4 * math.ceil(track.seconds * SAMPLE_RATE), 4), fields)


def _header(file: soundfile.SoundFile) -> Header:
    seconds = file.frames / file.samplerate
    fields = {
        "sample_rate": file.samplerate,
        "channels": file.channels,
        "seconds": round(seconds, 3),
        "format": file.format,
    }
    return Header(4 * math.ceil(seconds * SAMPLE_RATE), fields)


def _read(file: soundfile.SoundFile) -> Vector:
    """Block by block, so that many channels at a high rate take no more memory than the result."""
    import soxr

    resample = soxr.ResampleStream(file.samplerate, SAMPLE_RATE, 1, dtype="float32")
    parts, read = [], 0
    for block in file.blocks(_BLOCK, dtype="float32", always_2d=True):
        read += len(block)
        with np.errstate(all="ignore"):  # infinite samples are refused afterwards
            parts.append(resample.resample_chunk(block.mean(axis=1), last=False))
    parts.append(resample.resample_chunk(np.zeros(0, np.float32), last=True))
    if read < file.frames:
        raise DecodeError("partial", f"{read:,} samples where the header declares {file.frames:,}.")
    return np.concatenate(parts)


def _statistics(bands: Vector) -> Vector:
    change = np.abs(np.diff(bands, axis=1)).mean(axis=1) if bands.shape[1] > 1 else np.zeros(BANDS)
    return np.concatenate([bands.mean(axis=1), bands.std(axis=1), change]).astype(np.float32)


def _decibels(amplitude: float) -> float:
    return round(20 * math.log10(max(amplitude, 1e-6)), 2)


_UNKNOWN = 0xFFFFFFFF  # a RIFF length that its writer did not know
_LAST_PAGE = 0x04
_SAMPLE_RATES = (44100, 48000, 32000)
_KBITS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBITS_LOW = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)


def missing_audio(data: bytes) -> str | None:
    """What is missing; None if the file is complete or cannot tell. FLAC is checked by the number of decoded
    samples."""
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


AUDIO = Audio()
