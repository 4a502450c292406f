"""How often each term occurs in each document, counted once however often a training asks for it.

    documents -> counts (N, all terms so far) -> those of some documents, of the terms that are kept

A training counts the same documents in each fold, and again for the model itself. Terms and counts are those of
scikit-learn's CountVectorizer on the same documents (tests/tasks/test_term_counts.py), whose analyzer takes documents
apart. Parts of words do not depend on what is beside the word, so each word is taken apart once.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

NGramUnit = Literal["word", "char", "char_wb"]


class NGrams(NamedTuple):
    """What is counted in a document: runs of `low` to `high` units. `char_wb`: characters, not across words."""

    unit: NGramUnit
    low: int
    high: int

    def analyzer(self) -> dict[str, Any]:
        """Arguments of scikit-learn's vectorizers."""
        return {"analyzer": self.unit, "ngram_range": (self.low, self.high)}


class KeptTerms(NamedTuple):
    terms: tuple[str, ...]
    """In alphabetical order."""
    counts: Any
    """(N, terms) CSR of float64, indices in order."""


_MOST_KEPT = 20_000_000
"""Counts, 8 bytes each, beyond which those of earlier documents go."""


class _Ragged:
    """Rows of numbers, each of a length of its own."""

    def __init__(self) -> None:
        self._numbers, self._starts = array("i"), [0]

    def append(self, row: Iterable[int]) -> None:
        self._numbers.extend(row)
        self._starts.append(len(self._numbers))

    @property
    def rows(self) -> int:
        return len(self._starts) - 1

    def counts(self, columns: int) -> Any:
        """(rows, columns) CSR: how often each number is in each row; a number may have several entries."""
        from scipy.sparse import csr_array

        numbers = np.array(self._numbers, np.int32)  # a copy: an array that is looked at cannot grow
        return csr_array((np.ones(len(numbers)), numbers, self._starts), shape=(self.rows, columns))


class TermCounter:
    def __init__(self, counting: NGrams) -> None:
        from sklearn.feature_extraction.text import CountVectorizer

        vectorizer = CountVectorizer(**counting.analyzer())
        self._counting = counting
        self._take_apart: Callable[[str], Iterable[str]] = vectorizer.build_analyzer()
        self._prepare: Callable[[str], str] = vectorizer.build_preprocessor()
        self._numbers = _numbering()
        self._forget()

    def keep(self, documents: Sequence[str], fewest: int, most: int) -> KeptTerms | None:
        """Terms that `fewest` documents have or more, and of these the `most` frequent ones; None if there is none."""
        counts, terms = self._rows(documents), list(self._numbers)
        often = np.bincount(counts.indices, minlength=len(terms))
        kept = np.array(sorted(np.flatnonzero(often >= fewest).tolist(), key=terms.__getitem__), np.int64)
        if len(kept) > most:
            totals = np.bincount(counts.indices, weights=counts.data, minlength=len(terms))[kept]
            kept = kept[np.sort((-totals).argsort()[:most])]  # in the order, also among equals, of scikit-learn
        return KeptTerms(tuple(terms[place] for place in kept), _columns(counts, kept)) if len(kept) else None

    def count(self, documents: Sequence[str], terms: Sequence[str]) -> Any:
        """(N, terms) CSR of float64, indices in order."""
        counts = self._rows(documents)
        return _columns(counts, np.array([self._numbers.get(term, -1) for term in terms], np.int64))

    def _forget(self) -> None:
        self._places = dict[str, int]()
        self._documents, self._words, self._parts = _Ragged(), _numbering(), _Ragged()
        self._every: Any = None

    def _rows(self, documents: Sequence[str]) -> Any:
        """(N, terms so far) CSR, each term of a document once."""
        if self._every is not None and self._every.nnz > _MOST_KEPT:
            self._forget()
        by_words = self._counting.unit == "char_wb"
        number = (self._words if by_words else self._numbers).__getitem__
        for document in documents:
            if document not in self._places:
                self._places[document] = len(self._places)
                pieces = self._prepare(document).split() if by_words else self._take_apart(document)
                self._documents.append(map(number, pieces))
                self._every = None
        if self._every is None:
            self._every = self._counted_parts() if by_words else self._documents.counts(len(self._numbers))
            if not by_words:
                self._every.sum_duplicates()
        places = [self._places[document] for document in documents]
        return self._every if places == list(range(len(self._places))) else self._every[places]

    def _counted_parts(self) -> Any:
        """Parts of each document: how often it has each word, times how often the word has each part."""
        for word in islice(self._words, self._parts.rows, None):
            self._parts.append(map(self._numbers.__getitem__, _parts_of(word, self._counting)))
        return self._documents.counts(len(self._words)) @ self._parts.counts(len(self._numbers))


def _numbering() -> defaultdict[str, int]:
    """Terms as they come -> 0, 1, 2, ..."""
    numbers = defaultdict[str, int]()
    numbers.default_factory = numbers.__len__
    return numbers


def _parts_of(word: str, counting: NGrams) -> list[str]:
    """As scikit-learn takes it apart: of a word shorter than a part there is the whole word, once."""
    padded = f" {word} "
    sizes = range(counting.low, min(counting.high, len(padded) - 1) + 1)
    found = [padded[start : start + size] for size in sizes for start in range(len(padded) - size + 1)]
    return found if len(padded) > counting.high else [*found, padded]


def _columns(counts: Any, kept: npt.NDArray[np.int64]) -> Any:
    """Those columns in this order; -1: of zeros."""
    from scipy.sparse import csr_array

    place = np.full(counts.shape[1] + 1, -1, np.int32)  # as scikit-learn's learners take them
    place[kept] = np.arange(len(kept))
    place[-1] = -1  # where `kept` says -1
    moved = place[counts.indices]
    there = moved >= 0
    starts = np.concatenate([[0], np.cumsum(there, dtype=np.int32)])[counts.indptr].astype(np.int32)
    found = csr_array((counts.data[there], moved[there], starts), shape=(counts.shape[0], len(kept)))
    found.sort_indices()
    return found
