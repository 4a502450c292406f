"""Sound from WAV files of 16 bits, decoded to float32 (T,) between -1 and 1; channels are averaged."""

from __future__ import annotations

import io
import wave
from typing import Any

import numpy as np

from speciate.modalities.contract import DecodeError, Header, Pixels, Vector
from speciate.modalities.drawing import line_plot

_MOST_SAMPLES = 50_000_000
_BANDS = 24


class Audio:
    name = "audio"
    suffixes = (".wav",)
    analyzer = None  # described by a vector, not by a document
    ngrams = (1, 1)

    def sniff(self, head: bytes, name: str) -> bool:
        return head[:4] == b"RIFF" and head[8:12] == b"WAVE"

    def inspect(self, data: bytes) -> Header:
        with self._open(data) as sound:
            return self._header(sound)

    def decode(self, data: bytes) -> Vector:
        with self._open(data) as sound:
            header = self._header(sound)
            if header.decoded_bytes > 4 * _MOST_SAMPLES:
                raise DecodeError("refused", f"More than {_MOST_SAMPLES:,} samples.")
            channels, declared = sound.getnchannels(), sound.getnframes()
            frames = sound.readframes(declared)
        samples = np.frombuffer(frames, "<i2", len(frames) // 2)
        if len(samples) < declared * channels:
            raise DecodeError("partial", f"{len(samples)} samples where the header declares {declared * channels}.")
        return self.admit(samples.reshape(-1, channels).mean(axis=1) / 32768)

    def admit(self, value: Any) -> Vector:
        """`value`: [T], such as a cell of a table."""
        try:
            sound = np.asarray(value, np.float32)
        except (TypeError, ValueError) as error:
            raise DecodeError("error", "A sound is a list of numbers.") from error
        if sound.ndim != 1 or not sound.size or not np.isfinite(sound).all():
            raise DecodeError("error", "A sound is [T], finite and not empty.")
        return sound

    def fingerprint(self, media: Vector) -> str:
        return np.round(media, 3).tobytes().hex()

    def describe(self, media: Vector) -> Vector:
        """(24,): the logarithm of the power in bands of equal width."""
        power = np.abs(np.fft.rfft(media, max(len(media), 4 * _BANDS))) ** 2
        return np.log1p([band.mean() for band in np.array_split(power, _BANDS)]).astype(np.float32)

    def thumbnail(self, media: Vector) -> Pixels:
        return line_plot(media[np.newaxis])

    def _open(self, data: bytes) -> wave.Wave_read:
        try:
            return wave.open(io.BytesIO(data))
        except (wave.Error, EOFError) as error:
            raise DecodeError("error", f"Not a WAV file: {error or 'it ends within its header'}.") from error

    def _header(self, sound: wave.Wave_read) -> Header:
        if sound.getsampwidth() != 2:
            raise DecodeError("error", f"{8 * sound.getsampwidth()} bits a sample; only 16 are read.")
        return Header(4 * sound.getnframes(), {"frames": sound.getnframes(), "rate": sound.getframerate()})


AUDIO = Audio()
