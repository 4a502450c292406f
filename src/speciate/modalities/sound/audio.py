"""Sound from WAV, FLAC, OGG and MP3 files, and from tracks of M4A, MP4, MOV, Matroska, WebM and AVI (sound_tracks.py),
decoded to float32 (T,): one channel, 16 kHz, full scale is 1.

Channels are averaged. The header must declare no more than two hours. A recording in which nothing is to be heard
decodes, but is no example.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from speciate.modalities.contract import DecodeError, Header, Modality, Pixels, Vector
from speciate.modalities.drawing import spectrogram
from speciate.modalities.sound.mel import BANDS, SAMPLE_RATE, log_mel
from speciate.modalities.sound.recordings import incomplete
from speciate.modalities.sound.sound_tracks import Track, is_container
from speciate.modalities.sound.sound_tracks import opened as track_of
from speciate.modalities.sound.sound_tracks import read as read_track
from speciate.modalities.videos.containers import SOUND

if TYPE_CHECKING:
    import soundfile

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


class Audio(Modality[Vector]):
    name = "audio"
    suffixes = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a")
    borrows = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
    window_unit = "seconds"

    def sniff(self, head: bytes, name: str) -> bool:
        wave = head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:12] == b"WAVE"
        mpeg = len(head) > 1 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2
        track = head[4:8] == b"ftyp" and head[8:12] in SOUND
        return wave or mpeg or track or head.startswith(_MAGIC) or name.lower().endswith(self.suffixes)

    def inspect(self, data: bytes) -> Header:
        if is_container(data):
            with track_of(data) as track:
                return _header_of_track(track)
        with _opened(data) as file:
            return _header(file)

    def decode(self, data: bytes) -> Vector:
        if is_container(data):
            with track_of(data) as track:
                _check_budget(track.seconds, track.channels)
                sound = read_track(track, SAMPLE_RATE)
        else:
            if missing := incomplete(data):
                raise DecodeError("partial", missing)
            with _opened(data) as file:
                _check_budget(file.frames / file.samplerate, file.channels)
                sound = _read(file)
        if not len(sound):
            raise DecodeError("error", "The recording has no samples.")
        peak = float(np.abs(sound).max())
        if not peak <= _LOUDEST:  # also where a sample is not a number
            raise DecodeError("error", f"A sample of {peak:g}, where full scale is 1.")
        if peak < _INAUDIBLE:
            raise DecodeError("partial", "Nothing but silence: no sample above -80 dBFS.")
        return sound

    def admit(self, value: Any) -> Vector:
        """`value`: encoded bytes."""
        if not isinstance(value, bytes):
            raise DecodeError("error", "A recording must be the bytes of a file.")
        return self.decode(value)

    def fingerprint(self, media: Vector) -> str:
        """Of the samples in 16 bits: the same recording in another lossless container is the same recording."""
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
        """(320,): `features`, and 16 wide bands over eight equal parts of the recording: what comes first and last."""
        bands = log_mel(media)
        wide = bands.reshape(_GROUPS, BANDS // _GROUPS, -1).mean(axis=1)
        edges = np.linspace(0, wide.shape[1], _SEGMENTS + 1).astype(int)
        parts = [wide[:, low : max(high, low + 1)].mean(axis=1) for low, high in pairwise(edges)]
        return np.concatenate([_statistics(bands), *parts])

    def features(self, media: Vector) -> Vector:
        """(192,): mean, spread and mean change from frame to frame of each band of the log-mel spectrogram."""
        return _statistics(log_mel(media))

    def thumbnail(self, media: Vector) -> Pixels:
        return spectrogram(log_mel(media), len(media) / SAMPLE_RATE, SAMPLE_RATE // 2)

    def window(self, media: Vector, start: float, stop: float) -> Vector:
        return media[round(start * SAMPLE_RATE) : round(stop * SAMPLE_RATE)]


@contextmanager
def _opened(data: bytes) -> Iterator[soundfile.SoundFile]:
    """The file with its header read; whatever libsndfile then raises becomes a refusal."""
    try:
        import soundfile
        import soxr  # noqa: F401 - it is needed as soon as samples are read
    except ImportError as error:
        reason = "Recordings need soundfile and soxr. Run: pip install 'speciate[audio]'"
        raise DecodeError("error", reason) from error
    try:
        opened = soundfile.SoundFile(io.BytesIO(data))
    except Exception as error:
        reason = "Not a recording in a known format, or its header is damaged." if data else "The file is empty."
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


AUDIO = Audio()
