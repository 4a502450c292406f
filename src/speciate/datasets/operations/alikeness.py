"""When two vectors of an extractor say that their media are nearly the same: as what their cosine is taken, and from
which on.

Vectors of models and counts of letters point where their meaning is, so their plain cosine says it. Gray values and
measurements do not: all are positive, or one of them outweighs all others, and the cosine of any two is near 1. From
pictures their own mean is taken first, so that the cosine is the correlation of their patterns, and one without a
pattern is like no other; measurements are first brought to mean 0 and spread 1 over all rows.

Measured, plain cosine 0.98 before and now: of 120 crops of two photographs, none a copy, 45 and 2 would go (88 % of
copies as JPEG of quality 35 are found, what is missed is bare sky); of 300 tumours' measurements 99.6 % and none of the
pairs are alike, and every copy within 0.5 % is found; of made-up sounds 36 % and none.
"""

from __future__ import annotations

import numpy as np

from speciate.datasets.operations.context import Vectors
from speciate.datasets.similarity.extractors import DESCRIPTOR

COSINE, PATTERN = 0.98, 0.99
_NO_SPREAD = 1e-6
_PATTERNS = ("image",)
_MEASUREMENTS = ("audio", "tabular", "time-series")


def comparable(vectors: Vectors, modality: str, extractor: str | None) -> Vectors:
    """(N, D) of length 1, whose products say how alike the media are; 0 for one that is like no other."""
    if extractor not in (None, DESCRIPTOR):
        return _normalised(vectors)
    if modality in _PATTERNS:
        return _normalised(vectors - vectors.mean(axis=1, keepdims=True))
    if modality in _MEASUREMENTS and len(vectors) > 1:
        mean, spread = vectors.mean(axis=0, dtype=np.float64), vectors.std(axis=0, dtype=np.float64)
        spread[spread < _NO_SPREAD] = 1.0
        return _normalised((vectors - mean.astype(np.float32)) / spread.astype(np.float32))
    return _normalised(vectors)


def least(modality: str, extractor: str | None) -> float:
    """From which product on two are nearly the same, where nothing else is asked for."""
    return PATTERN if extractor in (None, DESCRIPTOR) and modality in _PATTERNS else COSINE


def _normalised(vectors: Vectors) -> Vectors:
    """Each of length 1; one without direction stays 0."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0))
