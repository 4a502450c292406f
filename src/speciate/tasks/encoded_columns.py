"""Table rows as numbers for trees: each category becomes the mean target of the rows that have it (target encoding).

A category of few rows is drawn to the mean of all (Micci-Barreca 2001). The rows that it was fitted on never see their
own target: they get the means of the other folds (as in scikit-learn's TargetEncoder), so that a learner does not take
a memory of its own targets for a signal. Numbers stay as they are, missing ones get their column's median and a flag.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.datasets.loading.loader import Example
from speciate.tasks.representations import Columns
from speciate.tasks.task import Arrays, RepresentationSettings, UnsuitableRepresentation

_FOLDS, _FEWEST_LEVELS, _PRIOR_ROWS = 5, 10, 10.0
"""Columns of fewer levels are one-hot. The mean of all counts as so many rows."""


class EncodedColumns:
    def __init__(
        self, plain: Columns, means: Mapping[str, Mapping[str, Sequence[float]]], default: Sequence[float]
    ) -> None:
        """`plain`: the other columns. `means`: column -> category -> K means; of an unknown category `default`."""
        self._plain, self._means, self._default = plain, means, tuple(default)
        self._learned: dict[str, npt.NDArray[np.float64]] = {}
        """Encoded rows that it was fitted on, by id: as the other folds encode them. Not saved."""

    @classmethod
    def fit(cls, examples: Sequence[Example], inputs: Sequence[str], targets: npt.NDArray[Any]) -> EncodedColumns:
        """`targets`: (N,) indices of labels, or numbers.

        Raises UnsuitableRepresentation where no column has many categories.
        """
        wanted = _as_columns(targets)
        many = [name for name in inputs if _is_categorical(examples, name)]
        if not many:
            raise UnsuitableRepresentation(f"no column has {_FEWEST_LEVELS} or more categories")
        others = tuple(name for name in inputs if name not in many)
        default = wanted.mean(axis=0)
        made = cls(
            Columns.fit(examples, others), {name: _means(examples, name, wanted, default) for name in many}, default
        )
        order = np.random.default_rng(0).permutation(len(examples)) % _FOLDS
        for fold in range(_FOLDS):
            rest = np.flatnonzero(order != fold).tolist()
            kept, known = [examples[place] for place in rest], wanted[rest]
            usual = known.mean(axis=0)
            means = {name: _means(kept, name, known, usual) for name in many}
            own = [examples[place] for place in np.flatnonzero(order == fold).tolist()]
            for example, row in zip(own, _encoded(own, means, usual), strict=True):
                made._learned[example.id] = row
        return made

    def encode(self, examples: Sequence[Example]) -> npt.NDArray[np.float64]:
        """(N, D)"""
        found = _encoded(examples, self._means, self._default)
        for place, example in enumerate(examples):
            if (known := self._learned.get(example.id)) is not None:
                found[place] = known
        rows: npt.NDArray[np.float64] = np.hstack([self._plain.encode(examples), found])
        return rows

    def settings(self) -> RepresentationSettings:
        return {
            "kind": "encoded columns", "plain": self._plain.settings(), "default": list(self._default),
            "means": {name: {key: list(each) for key, each in found.items()} for name, found in self._means.items()},
        }  # fmt: skip

    def arrays(self) -> Arrays:
        return self._plain.arrays()

    @classmethod
    def rebuild(cls, settings: RepresentationSettings, arrays: Arrays) -> EncodedColumns:
        return cls(Columns.rebuild(settings["plain"], arrays), settings["means"], settings["default"])


def _as_columns(targets: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """(N, K): of labels the share of each but the first, of numbers themselves."""
    targets = np.asarray(targets)
    if targets.dtype.kind not in "iu":
        return np.asarray(targets, np.float64).reshape(len(targets), -1)
    return np.asarray(targets[:, None] == np.arange(1, int(targets.max()) + 1), np.float64)


def _is_categorical(examples: Sequence[Example], name: str) -> bool:
    levels = {cell for example in examples if isinstance(cell := example.media.get(name), str)}
    return len(levels) >= _FEWEST_LEVELS


def _level(example: Example, name: str) -> str:
    cell = example.media.get(name)
    return cell if isinstance(cell, str) else ""


def _means(
    examples: Sequence[Example], name: str, wanted: npt.NDArray[np.float64], default: npt.NDArray[np.float64]
) -> dict[str, list[float]]:
    sums: dict[str, npt.NDArray[np.float64]] = {}
    counts: dict[str, int] = {}
    for example, row in zip(examples, wanted, strict=True):
        level = _level(example, name)
        sums[level] = sums.get(level, 0) + row
        counts[level] = counts.get(level, 0) + 1
    return {
        level: ((total + _PRIOR_ROWS * default) / (counts[level] + _PRIOR_ROWS)).tolist()
        for level, total in sums.items()
    }


def _encoded(
    examples: Sequence[Example], means: Mapping[str, Mapping[str, Sequence[float]]], default: Sequence[float]
) -> npt.NDArray[np.float64]:
    """(N, columns * K)"""
    rows = [
        [each for name, known in means.items() for each in known.get(_level(one, name), default)] for one in examples
    ]
    return np.array(rows, np.float64).reshape(len(examples), len(means) * len(default))
