"""A row of numbers for each word or residue: what it looks like, and what stands beside it.

Words: each with two on either side, its shape, beginnings and endings, hashed (Weinberger et al. 2009) into a row of
fixed width. Residues: which stands at each of 15 places around (Qian & Sejnowski 1988). Nothing is learned.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from speciate.datasets.loading.loader import Example
from speciate.modalities.biology.protein import sequence_of
from speciate.models.units import UnitRows
from speciate.tasks.contract import Arrays

_WIDTH = 2**16
_REACH = 2
_WINDOW = 15
_RESIDUES = "ACDEFGHIKLMNPQRSTVWYX"
_RUN = re.compile(r"(.)\1{2,}")


class UnitFeatures:
    def __init__(self, modality: str) -> None:
        self._modality = modality

    def encode(self, examples: Sequence[Example]) -> Any:
        """UnitRows, its matrix sparse."""
        if self._modality == "protein":
            return _residues([sequence_of(example.media) for example in examples])
        return _words([example.media.split() for example in examples])

    def settings(self) -> dict[str, Any]:
        return {"kind": "unit features", "modality": self._modality}

    def arrays(self) -> Arrays:
        return {}

    @classmethod
    def rebuild(cls, settings: dict[str, Any], arrays: Arrays) -> UnitFeatures:
        return cls(settings["modality"])


def _words(texts: Sequence[Sequence[str]]) -> UnitRows:
    from sklearn.feature_extraction import FeatureHasher

    rows = (list(_look(words, place)) for words in texts for place in range(len(words)))
    matrix = FeatureHasher(_WIDTH, input_type="string").transform(rows)
    return UnitRows(matrix, np.array([len(words) for words in texts], np.int64))


def _look(words: Sequence[str], place: int) -> Iterator[str]:
    for step in range(-_REACH, _REACH + 1):
        there = 0 <= place + step < len(words)
        word = words[place + step] if there else ""
        yield f"{step} word {word.lower()}"
        if abs(step) <= 1:
            yield f"{step} shape {_shape(word)}"
            yield f"{step} end {word[-3:].lower()}"
    word = words[place].lower()
    for length in (1, 2, 3, 4):
        yield f"begins {word[:length]}"
        yield f"ends {word[-length:]}"


def _shape(word: str) -> str:
    """Xx9 and the like: where capitals, small letters and digits are; long runs are shortened."""
    kinds = ("X" if c.isupper() else "x" if c.isalpha() else "9" if c.isdigit() else c for c in word)
    return _RUN.sub(r"\1\1\1", "".join(kinds))


def _residues(sequences: Sequence[str]) -> UnitRows:
    """A column for each place and residue; beyond the ends there is none."""
    from scipy.sparse import csr_array

    code = {letter: place for place, letter in enumerate(_RESIDUES)}
    half, kinds = _WINDOW // 2, len(_RESIDUES)
    rows, columns, before = [], [], 0
    for sequence in sequences:
        residues = np.array([code.get(letter, code["X"]) for letter in sequence], np.int64)
        around = np.arange(len(residues))[:, None] + np.arange(-half, half + 1)[None, :]
        unit, place = np.nonzero((around >= 0) & (around < len(residues)))
        rows.append(before + unit)
        columns.append(place * kinds + residues[around[unit, place]])
        before += len(residues)
    row, column = (np.concatenate(each).astype(np.int32) for each in (rows, columns))
    matrix = csr_array((np.ones(len(row)), (row, column)), shape=(before, _WINDOW * kinds))
    return UnitRows(matrix, np.array([len(sequence) for sequence in sequences], np.int64))
