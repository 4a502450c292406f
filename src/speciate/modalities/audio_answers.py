"""Audio as answers: `{mime, data, seconds, sample_rate}`, the bytes of a WAV file in Base64: one channel of 16 bits.

Nothing here needs an audio library: the files are this package's own.
"""

from __future__ import annotations

import base64
import io
import math
import wave
from collections.abc import Mapping
from typing import Any, NamedTuple, TypedDict, TypeGuard

import numpy as np
import numpy.typing as npt

from speciate.modalities.media_bytes import media_bytes

Samples = npt.NDArray[np.float32]
"""(T,), where full scale is 1."""
MIME = "audio/wav"
RATES = (4_000, 96_000)
"""Hertz, the least and the most: between rates that share no factor a resampling filter grows with the higher one."""
_LONGEST = 600
"""Seconds of audio that is decoded."""
_FULL = 32767


class AudioAnswer(TypedDict):
    mime: str
    data: str
    """Base64."""
    seconds: float
    sample_rate: int


class Sound(NamedTuple):
    samples: Samples
    rate: int
    """Hertz."""


def encode_audio(samples: npt.NDArray[Any], rate: int) -> AudioAnswer:
    """The audio answer of samples (T,); what is beyond full scale is cut. The same samples give the same bytes."""
    codes = (np.nan_to_num(np.asarray(samples, np.float64)).clip(-1, 1) * _FULL).round().astype("<i2")
    with io.BytesIO() as file:
        with wave.open(file, "wb") as out:
            out.setparams((1, 2, rate, len(codes), "NONE", ""))
            out.writeframes(codes.tobytes())
        data = file.getvalue()
    seconds = round(len(codes) / rate, 4)
    return {"mime": MIME, "data": base64.b64encode(data).decode(), "seconds": seconds, "sample_rate": rate}


def decode_audio(answer: Mapping[str, Any]) -> Sound:
    """Raises ValueError for what is no audio answer of one channel with 16 bits, at a rate of `RATES`, or too long."""
    try:
        with wave.open(io.BytesIO(media_bytes(answer))) as file:
            if (file.getnchannels(), file.getsampwidth()) != (1, 2):
                raise ValueError("the audio is not one channel of 16 bits")
            rate = file.getframerate()
            if not RATES[0] <= rate <= RATES[1] or not 0 < file.getnframes() <= _LONGEST * rate:
                raise ValueError(f"the audio has {file.getnframes():,} samples at {rate:,} Hz")
            codes = np.frombuffer(file.readframes(file.getnframes()), "<i2")
            return Sound((codes / _FULL).astype(np.float32), rate)
    except (wave.Error, EOFError) as error:
        raise ValueError(f"the audio cannot be read: {type(error).__name__}") from error


def resample(samples: Samples, rate: int, wanted: int) -> Samples:
    """The same sound at another rate. What lies above half of the lower one is gone then."""
    if rate == wanted:
        return np.asarray(samples, np.float32)
    from scipy.signal import resample_poly

    common = math.gcd(rate, wanted)
    return np.asarray(resample_poly(samples, wanted // common, rate // common), np.float32)


def is_audio_answer(output: object) -> TypeGuard[AudioAnswer]:
    """Whether an output is audio, by its form alone: nothing is decoded."""
    if not isinstance(output, dict) or set(output) != set(AudioAnswer.__annotations__):
        return False
    length, rate = output["seconds"], output["sample_rate"]
    if isinstance(length, bool) or not isinstance(length, int | float) or not isinstance(rate, int):
        return False
    return output["mime"] == MIME and isinstance(output["data"], str) and RATES[0] <= rate <= RATES[1]
