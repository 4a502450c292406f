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
    """One model's answers to n examples, beside the truth.

    `truth` and `given` are codes into `labels` (one label), numbers (one number; an error is NaN), or else whatever the
    task's truths and outputs are (an error is None). `probabilities` is (n, K); rows of models without probabilities
    are one-hot. `marks` holds the scores (n,) of metrics that the evaluation brings along, by name.
    """

    truth: NDArray[Any]
    given: NDArray[Any]
    labels: tuple[str, ...] = ()
    positive: int | None = None
    probabilities: Floats | None = None
    marks: Mapping[str, Floats] = {}

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
"""Of a number that is answered, for its fourth power is still one."""


def label_answers(
    truth: Sequence[str],
    given: Sequence[str | None],
    probabilities: Sequence[dict[str, float] | None],
    labels: Sequence[str],
    positive: str | None = None,
) -> Answers:
    """Answers of a classifier; `given` None is an error. Labels that only the truth knows are added."""
    names = tuple(labels) + tuple(sorted(set(truth) - set(labels)))
    code = {name: place for place, name in enumerate(names)}
    table = np.zeros((len(truth), len(names)))
    for row, (answer, shares) in enumerate(zip(given, probabilities, strict=True)):
        if answer is None:
            continue
        for name, chance in (shares or {answer: 1.0}).items():
            if name in code:
                table[row, code[name]] = chance
    return Answers(
        np.array([code[name] for name in truth], np.int64),
        np.array([ERROR if answer is None else code.get(answer, UNKNOWN) for answer in given], np.int64),
        names,
        code.get(positive) if positive is not None else None,
        table,
    )


def number_answers(truth: Sequence[float], given: Sequence[float | None]) -> Answers:
    """Answers of a regressor; `given` None (or not finite) is an error."""
    numbers = np.array([math.nan if answer is None else answer for answer in given], float)
    numbers[~np.isfinite(numbers)] = math.nan
    return Answers(np.array(truth, float), numbers)


def object_answers(truth: Sequence[Any], given: Sequence[Any], labels: Sequence[str] = ()) -> Answers:
    """Answers that are neither one label nor one number; `given` None is an error."""
    return Answers(_objects(truth), _objects(given), tuple(labels))


def judged(
    family: Family,
    truth: Sequence[Any],
    given: Sequence[Any],
    probabilities: Sequence[dict[str, float] | None],
    labels: Sequence[str],
    positive: str | None = None,
) -> Answers:
    """The answers to a task of this family; `labels` in the order of their ranks, where they have one."""
    if family in ("classification", "ordinal", "anomaly"):
        said = [None if answer is None else str(answer) for answer in given]
        if family == "ordinal":
            labels = with_ranks(labels, truth)
        return label_answers([str(answer) for answer in truth], said, probabilities, labels, positive)
    if family == "regression":
        return number_answers(
            [float(answer) for answer in truth], [None if answer is None else float(answer) for answer in given]
        )
    return object_answers(truth, given, labels)


def with_ranks(labels: Sequence[str], truth: Sequence[Any]) -> list[str]:
    """The labels, and those that only the truth knows: in their natural order where the labels are, else last."""
    natural = list(labels) == rank_labels(labels)
    return rank_labels({*labels, *map(str, truth)}, () if natural else labels)


def _objects(values: Sequence[Any]) -> NDArray[Any]:
    found = np.empty(len(values), object)
    found[:] = list(values)
    return found
