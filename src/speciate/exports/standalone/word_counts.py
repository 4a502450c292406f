"""TF-IDF of words or characters in plain NumPy, equal to scikit-learn's `TfidfVectorizer(sublinear_tf=True)`.

Stands in for `Documents` of tasks/representations.py where a model has left this package.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.datasets.loading.loader import Example
from speciate.modalities import find

_WORD = re.compile(r"(?u)\b\w\w+\b")
_SPACES = re.compile(r"\s\s+")


class Documents:
    def __init__(
        self, modality: str, counting: dict[str, Any], terms: Sequence[str], weights: npt.NDArray[Any]
    ) -> None:
        self._modality, self._counting, self._weights = modality, counting, weights
        self._place = {term: place for place, term in enumerate(terms)}

    def encode(self, examples: Sequence[Example]) -> npt.NDArray[np.float64]:
        """(N, terms), rows of unit length."""
        kind = find(self._modality)
        rows = np.zeros((len(examples), len(self._place)))
        for row, example in zip(rows, examples, strict=True):
            counts = Counter(self._units(str(kind.describe(example.media)).lower()))
            known = [(self._place[term], count) for term, count in counts.items() if term in self._place]
            if known:
                places, often = (np.array(each) for each in zip(*known, strict=True))
                row[places] = (1 + np.log(often)) * self._weights[places]
                row[places] /= np.linalg.norm(row)
        return rows

    @classmethod
    def rebuild(cls, settings: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> Documents:
        return cls(settings["modality"], settings["counting"], settings["terms"], arrays["weights"])

    def _units(self, text: str) -> list[str]:
        low, high = self._counting["low"], self._counting["high"]
        if self._counting["unit"] == "word":
            words = _WORD.findall(text)
            return [" ".join(run) for run in _runs(words, low, high)]
        text = _SPACES.sub(" ", text)
        if self._counting["unit"] == "char":
            return ["".join(run) for run in _runs(text, low, high)]
        found = []
        for word in text.split():
            padded = f" {word} "
            for length in range(low, high + 1):
                found.append(padded[:length])
                found += [padded[start : start + length] for start in range(1, len(padded) - length + 1)]
                if length >= len(padded):  # a word shorter than the run is counted once
                    break
        return found


def _runs(units: Sequence[str], low: int, high: int) -> list[Sequence[str]]:
    return [
        units[start : start + length]
        for length in range(low, min(high, len(units)) + 1)
        for start in range(len(units) - length + 1)
    ]
