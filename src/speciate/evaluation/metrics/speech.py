"""Metrics of spoken answers beside a recording of the same text, and what a training chooses by. An answer that failed
counts as silence.

They say how like a recording an answer is, not whether it is understood: the scorer `spoken_wer:MODEL` says that. Raise
`VERSION` when a number here comes to mean something else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np

from speciate.evaluation.metrics.metric import Answers
from speciate.evaluation.statistics import Floats
from speciate.modalities.audio import BANDS, SAMPLE_RATE, log_mel
from speciate.modalities.audio_answers import Samples, decode_audio, is_audio_answer, resample

VERSION = 1
_CEPSTRA = 13
"""Without the first, which is how loud it is."""
_RANGE = 8.0
"""Powers of ten below the loudest band of an utterance that are told apart: 80 dB."""
_MOST_FRAMES = 3000
"""Frames that are compared, at most: every second or third one where an utterance is longer."""
_FRAME = 160
_QUIET = 0.01
"""Share of the loudest 10 ms, as amplitude, below which speech has not begun or has ended: 40 dB."""


def mel_cepstra(samples: Samples) -> Floats:
    """(F, 13) mel cepstra of each 10 ms, of natural logarithms of amplitudes."""
    bands = log_mel(samples).T.astype(np.float64)
    bands = np.maximum(bands, bands.max() - _RANGE)
    return np.asarray(bands @ _cosines() * (math.log(10) / 2), np.float64)


def align(one: Floats, other: Floats) -> float:
    """Mean Euclidean distance along the best path of dynamic time warping, whose steps advance either or both."""
    apart = np.sqrt(np.maximum((one**2).sum(1)[:, None] + (other**2).sum(1) - 2 * one @ other.T, 0))
    rows, columns = apart.shape
    total = np.full((rows + 1, columns + 1), math.inf)
    steps = np.zeros((rows + 1, columns + 1))
    total[0, 0] = 0
    for diagonal in range(2, rows + columns + 1):
        row = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        column = diagonal - row
        before = np.stack([total[row - 1, column - 1], total[row - 1, column], total[row, column - 1]])
        counts = np.stack([steps[row - 1, column - 1], steps[row - 1, column], steps[row, column - 1]])
        best, places = before.argmin(0), np.arange(len(row))
        total[row, column] = before[best, places] + apart[row - 1, column - 1]
        steps[row, column] = counts[best, places] + 1
    return float(total[rows, columns] / steps[rows, columns])


def spoken_seconds(samples: Samples) -> float:
    """From the first to the last 10 ms that are within 40 dB of the loudest; at least one of these."""
    padded = np.pad(samples, (0, -len(samples) % _FRAME)) if len(samples) else np.zeros(_FRAME, np.float32)
    loudness = np.sqrt(np.square(padded.reshape(-1, _FRAME), dtype=np.float64).mean(1))
    heard = np.flatnonzero(loudness >= max(_QUIET * loudness.max(), 1e-5))
    return float(heard[-1] - heard[0] + 1 if len(heard) else 1) * _FRAME / SAMPLE_RATE


def _mel_cepstral_distortion(answers: Answers) -> Floats:
    """(n,) in dB: 10 / ln 10 * sqrt(2) times the mean distance of aligned cepstra (Kubichek 1993)."""
    found = [
        align(_thinned(mel_cepstra(_heard(given))), _thinned(mel_cepstra(_heard(reference))))
        for reference, given in zip(answers.references, answers.given, strict=True)
    ]
    return np.array(found) * 10 / math.log(10) * math.sqrt(2)


def _duration_error(answers: Answers) -> Floats:
    """(n,): by how much speech is longer or shorter than the recording's, as the size of the ratio's logarithm."""
    pairs = zip(answers.references, answers.given, strict=True)
    return np.array([
        abs(math.log(spoken_seconds(_heard(given)) / spoken_seconds(_heard(reference)))) for reference, given in pairs
    ])  # fmt: skip


def _synthesis_loss(answers: Answers) -> Floats:
    """(n,): an answer is the loss itself; audio has none."""
    return np.array([float(each) if isinstance(each, float | int) else math.nan for each in answers.given], float)


def _heard(answer: Mapping[str, Any] | None) -> Samples:
    """Samples at 16 kHz; a tenth of a second of silence where there is no audio that can be read."""
    try:
        if answer is not None and is_audio_answer(answer):
            return resample(*decode_audio(answer), SAMPLE_RATE)
    except ValueError:
        pass
    return np.zeros(SAMPLE_RATE // 10, np.float32)


def _thinned(frames: Floats) -> Floats:
    return frames[:: -(-len(frames) // _MOST_FRAMES)]


@cache
def _cosines() -> Floats:
    """(BANDS, 13): the orthonormal cosine transform without its first wave."""
    places = (np.arange(BANDS) + 0.5) / BANDS
    return np.stack([np.cos(np.pi * wave * places) for wave in range(1, _CEPSTRA + 1)], 1) * math.sqrt(2 / BANDS)


MEANS: dict[str, Callable[[Answers], Floats]] = {
    "mel_cepstral_distortion": _mel_cepstral_distortion, "duration_error": _duration_error,
    "synthesis_loss": _synthesis_loss,
}  # fmt: skip
