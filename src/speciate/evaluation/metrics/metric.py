"""What a metric takes and gives: one model's answers beside the references, and sums or scores of them.

Shapes: n examples, K labels, C clusters, B resamples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from speciate.evaluation.statistics import Floats
from speciate.tasks.families.ordinal import rank_labels
from speciate.vocabulary import Family

UNKNOWN, ERROR = -1, -2
"""Codes of an answer that is no known label, and of no answer at all."""


class Answers(NamedTuple):
    """One model's answers to n examples, beside the references.

    `references` and `given` are codes into `labels` (one label), numbers (an error is NaN), or the task's targets and
    outputs themselves (an error is None). `probabilities` is (n, K), one-hot for models without probabilities. `scores`
    holds scores (n,) of metrics that are computed outside the metric tables (judges, scorers), by name.
    """

    references: NDArray[Any]
    given: NDArray[Any]
    labels: tuple[str, ...] = ()
    positive: int | None = None
    probabilities: Floats | None = None
    scores: Mapping[str, Floats] = {}

    @property
    def table(self) -> Floats:
        """`probabilities`, of answers that have them."""
        if self.probabilities is None:
            raise TypeError("label answers carry a table of probabilities")
        return self.probabilities


class Statistic(NamedTuple):
    """A corpus metric as sums: `combine` maps weighted sums of `parts`, (B, S), to values, (B,)."""

    parts: Floats
    combine: Callable[[Floats], Floats]


LARGEST = 1e60
"""The largest size of a number that counts as an answer: its fourth power is still finite."""


def label_answers(
    references: Sequence[str],
    given: Sequence[str | None],
    probabilities: Sequence[dict[str, float] | None],
    labels: Sequence[str],
    positive: str | None = None,
) -> Answers:
    """Answers of a classifier; `given` None is an error. Labels that only the reference knows are added."""
    names = tuple(labels) + tuple(sorted(set(references) - set(labels)))
    code = {name: place for place, name in enumerate(names)}
    table = np.zeros((len(references), len(names)))
    for row, (answer, shares) in enumerate(zip(given, probabilities, strict=True)):
        if answer is None:
            continue
        for name, probability in (shares or {answer: 1.0}).items():
            if name in code:
                table[row, code[name]] = probability
    return Answers(
        np.array([code[name] for name in references], np.int64),
        np.array([ERROR if answer is None else code.get(answer, UNKNOWN) for answer in given], np.int64),
        names,
        code.get(positive) if positive is not None else None,
        table,
    )


def number_answers(references: Sequence[float], given: Sequence[float | None]) -> Answers:
    """Answers of a regressor; `given` None (or not finite) is an error."""
    numbers = np.array([math.nan if answer is None else answer for answer in given], float)
    numbers[~np.isfinite(numbers)] = math.nan
    return Answers(np.array(references, float), numbers)


def object_answers(references: Sequence[Any], given: Sequence[Any], labels: Sequence[str] = ()) -> Answers:
    """Answers that are neither one label nor one number; `given` None is an error."""
    return Answers(_objects(references), _objects(given), tuple(labels))


def judged(
    family: Family,
    references: Sequence[Any],
    given: Sequence[Any],
    probabilities: Sequence[dict[str, float] | None],
    labels: Sequence[str],
    positive: str | None = None,
) -> Answers:
    """The answers to a task of this family; `labels` in the order of their ranks, where they have one."""
    if family in ("classification", "ordinal", "anomaly"):
        said = [None if answer is None else str(answer) for answer in given]
        if family == "ordinal":
            labels = with_ranks(labels, references)
        return label_answers([str(answer) for answer in references], said, probabilities, labels, positive)
    if family == "regression":
        return number_answers(
            [float(answer) for answer in references], [None if answer is None else float(answer) for answer in given]
        )
    return object_answers(references, given, labels)


def with_ranks(labels: Sequence[str], references: Sequence[Any]) -> list[str]:
    """The labels, and those that only the reference knows: in their natural order where the labels are, else last."""
    natural = list(labels) == rank_labels(labels)
    return rank_labels({*labels, *map(str, references)}, () if natural else labels)


def _objects(values: Sequence[Any]) -> NDArray[Any]:
    found = np.empty(len(values), object)
    found[:] = list(values)
    return found
