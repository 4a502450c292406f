"""Texts and sequences as weighted counts of their words or characters (TF-IDF).

What text a medium stands for is its modality's `describe`. Counting is scikit-learn's; vocabulary and weights are
stored as plain data and set again through its public interface.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from speciate.datasets.loader import Example
from speciate.tasks.contract import Arrays
from speciate.tasks.description import describe

_MOST_TERMS = 50_000
Unit = Literal["word", "char", "char_wb"]


class Documents:
    def __init__(
        self, modality: str, unit: Unit, ngrams: tuple[int, int], terms: tuple[str, ...], weights: npt.NDArray[Any]
    ) -> None:
        """`weights` (terms,): the inverse document frequencies."""
        self._modality, self._unit, self._ngrams, self._terms, self._weights = modality, unit, ngrams, terms, weights
        self._vectorizer = _vectorizer(unit, ngrams, vocabulary={term: i for i, term in enumerate(terms)})
        self._vectorizer.idf_ = weights

    @classmethod
    def fit(cls, examples: Sequence[Example], modality: str, unit: Unit, ngrams: tuple[int, int]) -> Documents:
        """Keeps the most frequent terms, at most 50,000; in larger sets only those of two documents or more."""
        documents = describe(modality, examples)
        rare = 2 if len(documents) >= 100 else 1
        vectorizer = _vectorizer(unit, ngrams, max_features=_MOST_TERMS, min_df=rare)
        vectorizer.fit(documents)
        return cls(modality, unit, ngrams, tuple(vectorizer.get_feature_names_out().tolist()), vectorizer.idf_)

    def encode(self, examples: Sequence[Example]) -> Any:
        """(N, terms), sparse, rows of unit length."""
        return self._vectorizer.transform(describe(self._modality, examples))

    def settings(self) -> dict[str, Any]:
        return {
            "kind": "documents", "modality": self._modality, "unit": self._unit, "ngrams": list(self._ngrams),
            "terms": list(self._terms),
        }  # fmt: skip

    def arrays(self) -> Arrays:
        return {"weights": np.asarray(self._weights, dtype=np.float64)}

    @classmethod
    def rebuild(cls, settings: dict[str, Any], arrays: Arrays) -> Documents:
        low, high = settings["ngrams"]
        return cls(settings["modality"], settings["unit"], (low, high), tuple(settings["terms"]), arrays["weights"])


def _vectorizer(unit: Unit, ngrams: tuple[int, int], **more: Any) -> Any:
    """Logarithmic counts: the tenth mention of a word says less than the first."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(analyzer=unit, ngram_range=ngrams, sublinear_tf=True, **more)
