"""Texts as counts of whole words and of parts of words, side by side: one line learns from both.

On six sets of texts a line over both was better than either, and than the mean of a line over each (evals/LOG.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from speciate.datasets.loading.loader import Example
from speciate.tasks.representations import Documents
from speciate.tasks.task import Arrays, RepresentationSettings


class JoinedDocuments:
    def __init__(self, documents: Sequence[Documents]) -> None:
        self._documents = tuple(documents)

    def encode(self, examples: Sequence[Example]) -> Any:
        """(N, terms of all), sparse; each one's columns are rows of unit length."""
        found = [each.encode(examples) for each in self._documents]
        if all(isinstance(each, np.ndarray) for each in found):  # where a model has left this package
            return np.concatenate(found, axis=1)
        from scipy import sparse

        return sparse.hstack(found, format="csr")

    def settings(self) -> RepresentationSettings:
        return {"kind": "joined documents", "documents": [each.settings() for each in self._documents]}

    def arrays(self) -> Arrays:
        return {
            f"{number}.{name}": array
            for number, each in enumerate(self._documents)
            for name, array in each.arrays().items()
        }

    @classmethod
    def rebuild(cls, settings: RepresentationSettings, arrays: Mapping[str, Any]) -> JoinedDocuments:
        made = []
        for number, said in enumerate(settings["documents"]):
            own = {name.partition(".")[2]: each for name, each in arrays.items() if name.startswith(f"{number}.")}
            made.append(Documents.rebuild(said, own))
        return cls(made)
