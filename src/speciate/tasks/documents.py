"""Texts and sequences as weighted counts of their words or characters (TF-IDF).

What text a medium stands for is its modality's `describe`. Counting is scikit-learn's; vocabulary and weights are
stored as plain data and set again through its public interface.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.datasets.loading.loader import Example
from speciate.tasks.contract import Arrays, Unsuited
from speciate.tasks.description import Counting, describe

_MOST_TERMS = 50_000


class Documents:
    def __init__(self, modality: str, counting: Counting, terms: tuple[str, ...], weights: npt.NDArray[Any]) -> None:
        """`weights` (terms,): the inverse document frequencies."""
        self._modality, self._counting, self._terms, self._weights = modality, counting, terms, weights
        self._vectorizer = _vectorizer(counting, vocabulary={term: i for i, term in enumerate(terms)})
        self._vectorizer.idf_ = weights

    @classmethod
    def fit(cls, examples: Sequence[Example], modality: str, counting: Counting) -> Documents:
        """Keeps the most frequent terms, at most 50,000; in larger sets only those of two documents or more.

        Raises Unsuited where no term is left: whole words of a script without spaces, or of texts of one letter.
        """
        documents = describe(modality, examples)
        rare = 2 if len(documents) >= 100 else 1
        vectorizer = _vectorizer(counting, max_features=_MOST_TERMS, min_df=rare)
        try:
            vectorizer.fit(documents)
        except ValueError as error:
            raise Unsuited(f"nothing that is counted occurs in {rare} or more of {len(documents)} texts") from error
        return cls(modality, counting, tuple(vectorizer.get_feature_names_out().tolist()), vectorizer.idf_)

    def encode(self, examples: Sequence[Example]) -> Any:
        """(N, terms), sparse, rows of unit length."""
        return self._vectorizer.transform(describe(self._modality, examples))

    def settings(self) -> dict[str, Any]:
        return {
            "kind": "documents",
            "modality": self._modality,
            "counting": self._counting._asdict(),
            "terms": list(self._terms),
        }

    def arrays(self) -> Arrays:
        return {"weights": np.asarray(self._weights, dtype=np.float64)}

    @classmethod
    def rebuild(cls, settings: dict[str, Any], arrays: Arrays) -> Documents:
        counting = Counting(**settings["counting"])
        return cls(settings["modality"], counting, tuple(settings["terms"]), arrays["weights"])


def _vectorizer(counting: Counting, **more: Any) -> Any:
    """Logarithmic counts: the tenth mention of a word says less than the first."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(analyzer=counting.unit, ngram_range=(counting.low, counting.high), sublinear_tf=True, **more)
