"""How often each term occurs in each document, counted once however often a training asks for it.

    documents -> counts (N, all terms so far) -> those of some documents, of the terms that are kept

A training counts the same documents in each fold, and again for the model itself. Terms and counts are those of
scikit-learn's CountVectorizer on the same documents (tests/tasks/test_term_counts.py), whose analyzer takes documents
apart. Parts of words do not depend on what is beside the word, so each word is taken apart once.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
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
_MOST_WORDS = 200_000
"""Words whose parts are kept."""


class TermCounter:
    def __init__(self, counting: NGrams) -> None:
        from sklearn.feature_extraction.text import CountVectorizer

        vectorizer = CountVectorizer(**counting.analyzer())
        self._take_apart: Callable[[str], Iterable[str]] = vectorizer.build_analyzer()
        self._prepare: Callable[[str], str] = vectorizer.build_preprocessor()
        self._by_words, self._words = counting.unit == "char_wb", dict[str, list[int]]()
        self._numbers = dict[str, int]()
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
        self._indices, self._counts, self._starts = array("i"), array("i"), [0]
        self._every: Any = None

    def _rows(self, documents: Sequence[str]) -> Any:
        """(N, terms so far) CSR, each term of a document once."""
        from scipy.sparse import csr_array

        if len(self._indices) > _MOST_KEPT:
            self._forget()
        for document in documents:
            if document not in self._places:
                self._places[document] = len(self._places)
                counted = Counter(self._numbered(document))
                self._indices.extend(counted.keys())
                self._counts.extend(counted.values())
                self._starts.append(len(self._indices))
                self._every = None
        if self._every is None:  # copies: an array that is looked at cannot grow
            indices, counts = np.array(self._indices, np.int32), np.array(self._counts, np.float64)
            shape = len(self._places), len(self._numbers)
            self._every = csr_array((counts, indices, self._starts), shape=shape)
        return self._every[[self._places[document] for document in documents]]

    def _numbered(self, document: str) -> Iterable[int]:
        if not self._by_words:
            return map(self._number, self._take_apart(document))
        return chain.from_iterable(map(self._parts_of, self._prepare(document).split()))

    def _parts_of(self, word: str) -> list[int]:
        found = self._words.get(word)
        if found is None:
            found = [self._number(part) for part in self._take_apart(word)]
            if len(self._words) < _MOST_WORDS:
                self._words[word] = found
        return found

    def _number(self, term: str) -> int:
        return self._numbers.setdefault(term, len(self._numbers))


def _columns(counts: Any, kept: npt.NDArray[np.int64]) -> Any:
    """Those columns in this order; -1: of zeros."""
    from scipy.sparse import csr_array

    place = np.full(counts.shape[1] + 1, -1, np.int32)  # as scikit-learn's learners take them
    place[kept] = np.arange(len(kept))
    place[-1] = -1  # where `kept` says -1
    moved = place[counts.indices]
    there = moved >= 0
    starts = np.concatenate([[0], np.cumsum(there)])[counts.indptr].astype(np.int32)
    found = csr_array((counts.data[there], moved[there], starts), shape=(counts.shape[0], len(kept)))
    found.sort_indices()
    return found
