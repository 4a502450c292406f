"""Several readings of the same examples side by side: one line learns from all of them.

Whole words beside parts of words, shares of convolutions beside counts of competing ones. On most of the sets of
evals/LOG.md a line over both was better than either, and than the mean of a line over each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from speciate.datasets.loading.loader import Example
from speciate.tasks.competing_convolutions import CompetingConvolutions
from speciate.tasks.random_convolutions import Convolutions
from speciate.tasks.representations import Documents
from speciate.tasks.task import Arrays, Representation, RepresentationSettings

_REBUILD: Mapping[str, type[Any]] = {
    "documents": Documents, "convolutions": Convolutions, "competing convolutions": CompetingConvolutions,
}  # fmt: skip
_MOST_KEPT_BYTES, _MOST_SHARED_BYTES, _MOST_KEPT = 64 << 20, 256 << 20, 2
"""Most bytes of a matrix that is kept, of one whose parts are asked for, and most matrices."""


class Joined:
    def __init__(self, representations: Sequence[Representation]) -> None:
        self._representations = tuple(representations)

    def encode(self, examples: Sequence[Example]) -> Any:
        """(N, columns of all), sparse where one of them is."""
        found = [each.encode(examples) for each in self._representations]
        if all(isinstance(each, np.ndarray) for each in found):
            return np.concatenate(found, axis=1)
        from scipy import sparse

        return sparse.hstack(found, format="csr")

    def settings(self) -> RepresentationSettings:
        return {"kind": "joined", "representations": [each.settings() for each in self._representations]}

    def arrays(self) -> Arrays:
        return numbered_arrays(self._representations)

    @classmethod
    def rebuild(cls, settings: RepresentationSettings, arrays: Arrays) -> Joined:
        every = enumerate(settings["representations"])
        return cls([_REBUILD[said["kind"]].rebuild(said, arrays_of(arrays, number)) for number, said in every])


def numbered_arrays(representations: Sequence[Representation]) -> Arrays:
    """The arrays of all, each under its number."""
    return {
        f"{number}.{name}": array
        for number, each in enumerate(representations)
        for name, array in each.arrays().items()
    }


def arrays_of(arrays: Arrays, number: int) -> Arrays:
    """Those of one, of `numbered_arrays`."""
    start = f"{number}."
    return {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}


class Remembered:
    """A representation that several groups of learners use: what it last encoded is not computed anew."""

    def __init__(self, inner: Representation, every: Sequence[Example] = ()) -> None:
        """`every`: examples of which parts will be asked for, such as folds: they are encoded once, all together."""
        self._inner, self._every = inner, every
        self._places = {example.id: place for place, example in enumerate(every)}
        self._kept: dict[tuple[str, ...], Any] = {}

    def encode(self, examples: Sequence[Example]) -> Any:
        key = tuple(example.id for example in examples)
        if self._every and self._places.keys() >= set(key):
            whole = self._encoded(self._every, tuple(self._places))
            return whole[[self._places[each] for each in key]]
        return self._encoded(examples, key)

    def _encoded(self, examples: Sequence[Example], key: tuple[str, ...]) -> Any:
        if key not in self._kept:
            made = self._inner.encode(examples)
            size = made.data.nbytes if hasattr(made, "indptr") else made.nbytes
            if size > (_MOST_SHARED_BYTES if len(key) == len(self._every) else _MOST_KEPT_BYTES):
                self._every = ()
                return made
            self._kept = dict([*self._kept.items(), (key, made)][-_MOST_KEPT:])
        return self._kept[key]

    def settings(self) -> RepresentationSettings:
        return self._inner.settings()

    def arrays(self) -> Arrays:
        return self._inner.arrays()
