"""`nearest:`, the nearest neighbours of the training split: what costs nothing to train.

It is a baseline and never a candidate. Everything is fitted on the training split: the scales, the terms that are
counted, and the number of neighbours. That number is chosen by the evaluation's main metric, leaving out each training
row together with its group and its copies, since none of these lies on the other side of a split. Of equal distances
the earlier row counts, so that the answers are the same each time.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.datasets.loading.loader import Example
from speciate.evaluation.metrics import Answers, contributions, corpus, judged
from speciate.evaluation.payload import EvaluationPayload
from speciate.evaluation.predictors.answering import Answer, ModelAnswers, PredictorRequest, answer_all
from speciate.features import media_digest
from speciate.tasks.families.regression import best_constant
from speciate.tasks.predictor import constant
from speciate.tasks.representations import Columns, Documents, Features, ngram_choices
from speciate.tasks.task import Prediction, TaskExample, UnsuitableRepresentation
from speciate.use_cases import COLUMN
from speciate.vocabulary import Metric, find_metric, find_task, metrics_of

Floats = npt.NDArray[np.float64]
Distances = Callable[[Sequence[Example]], Floats]
"""(N,) examples -> (N, S) distances to the training rows, smaller is nearer."""

MOST_ROWS = 10_000
"""Training rows that are looked at; of more, so many at even distances."""
_COUNTS = (1, 3, 9, 27)
"""Numbers of neighbours to choose from."""
_CHOSEN_ON = 1_000
"""Training rows that the number of neighbours is chosen on."""
_STEPS, _VALUES = 256, 2_048
"""Most steps of a series, and most values of all its channels; longer ones are squeezed."""
_DIGITS = 9
"""Decimals of a distance: what differs beyond is rounding, and equal rows shall be equally near."""
_CHUNK = 256


class NearestNeighbours(NamedTuple):
    """Fitted: answers by so many of the nearest training rows."""

    distances: Distances
    targets: Sequence[Any]
    neighbours: int
    answer: Callable[[Sequence[Any]], Prediction]
    """The answer from the targets of the neighbours, nearest first."""

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        return [
            self.answer([self.targets[place] for place in places])
            for start in range(0, len(examples), _CHUNK)
            for places in _nearest(self.distances(examples[start : start + _CHUNK]), self.neighbours)
        ]


def predict_nearest(request: PredictorRequest) -> ModelAnswers:
    """Where nothing can be compared, the constant's answers, and a note that says so."""
    task, rows = request.task, _at_even_distances(request.training_examples)
    notes: list[str] = []
    name, count = request.evaluated_model.name, len(request.training_examples)
    if len(rows) < count:
        notes.append(f"{name} looks at {len(rows):,} of {count:,} training rows.")
    try:
        if not rows:
            raise UnsuitableRepresentation("there are no training rows")
        answers = answer_all(
            request.run, _identity(task), request.examples, fit(rows, task).predict, request.on_progress
        )
    except UnsuitableRepresentation as error:
        answers = _constant_answers(request)
        notes.append(f"{name} answers as the constant does: {error}.")
    return ModelAnswers(request.evaluated_model, (answers,), notes=tuple(notes))


def fit(rows: Sequence[TaskExample], task: EvaluationPayload) -> NearestNeighbours:
    """Raises UnsuitableRepresentation where the training rows have nothing to be compared by."""
    metric = _metric(task)
    targets = [row.target for row in rows]
    answer = _average(metric.name) if task.family == "regression" else _vote(targets)
    examples = [row.example for row in rows]
    places = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _CHOSEN_ON)).astype(np.int64))
    apart = _independent(examples)
    best: tuple[float, NearestNeighbours] | None = None
    for measure in _measures(examples, task):
        found = _neighbours_apart(measure, examples, places, apart)
        references = [targets[place] for place in found]
        for count in _COUNTS:
            made = [answer([targets[one] for one in near[:count]]) for near in found.values()]
            value = _value(metric, task, references, made, targets) if made else -math.inf
            if best is None or value > best[0]:
                best = value, NearestNeighbours(measure, targets, count, answer)
    assert best is not None, "there is a way to compare"
    return best[1]


def _identity(task: EvaluationPayload) -> str:
    parts = task.dataset.id, task.task, task.target_column, _metric(task).name, task.positive_label, _inputs(task)
    return f"nearest 1 {parts}"


def _inputs(task: EvaluationPayload) -> tuple[str, ...]:
    """The columns that may be compared: no answers, whether right ones or those of the system in use."""
    answers = {task.target_column, task.dataset.label, *(model.column for model in task.models)}
    if task.use_case is not None:
        answers.add((task.use_case.incumbent or "").removeprefix(COLUMN))
    return tuple(name for name in task.dataset.inputs if name not in answers)


def _metric(task: EvaluationPayload) -> Metric:
    """The main metric; a judge's or a scorer's is not known of training rows, so there the task's usual one."""
    usual = metrics_of(task.family, task.positive_label)
    return find_metric(task.metrics[0] if task.metrics[0] in usual else find_task(task.task).default_metric)


def _constant_answers(request: PredictorRequest) -> list[Answer]:
    task = request.task
    terms = task.terms._replace(modality=task.dataset.modality, positive_label=task.positive_label)
    made = constant(task.task, request.training_targets, terms, task.metrics[0]).predict(request.examples)
    return [Answer(*prediction) for prediction in made]


def _at_even_distances(rows: Sequence[TaskExample]) -> Sequence[TaskExample]:
    if len(rows) <= MOST_ROWS:
        return rows
    return [rows[place] for place in np.linspace(0, len(rows) - 1, MOST_ROWS).astype(np.int64)]


# Answers of neighbours


def _vote(targets: Sequence[str]) -> Callable[[Sequence[Any]], Prediction]:
    """Shares of votes, as if one more neighbour had voted by the shares of all labels: a single neighbour is not sure,
    and equal votes go to the more frequent label."""
    counts = Counter(targets)
    prior = {label: counts[label] / len(targets) for label in sorted(counts)}

    def answer(near: Sequence[Any]) -> Prediction:
        votes = Counter(near)
        shares = {label: (votes[label] + share) / (len(near) + 1) for label, share in prior.items()}
        best = max(shares, key=lambda label: shares[label])
        return Prediction(best, shares[best], shares)

    return answer


def _average(metric: str) -> Callable[[Sequence[Any]], Prediction]:
    """The best constant of the neighbours by the metric: their median for absolute errors, else their mean."""
    return lambda near: Prediction(best_constant(np.array(near, float), metric), None, None)


def _value(
    metric: Metric, task: EvaluationPayload, references: Sequence[Any], made: Sequence[Prediction], known: Sequence[Any]
) -> float:
    """The metric's value on these answers, signed so that more is better; minus infinity where it is undefined."""
    labels = () if task.family == "regression" else task.terms.order or tuple(sorted(set(known)))
    answers: Answers = judged(
        task.family, references, [one.output for one in made], [one.probabilities for one in made], labels,
        task.positive_label,
    )  # fmt: skip
    if metric.shape == "mean":
        scores = contributions(metric, answers)
        value = float(scores[~np.isnan(scores)].mean()) if not np.isnan(scores).all() else math.nan
    else:
        value = float(corpus(metric, answers, np.arange(len(made)))(np.ones((1, len(made))))[0])
    return metric.sign * value if math.isfinite(value) else -math.inf


# Neighbours


def _independent(examples: Sequence[Example]) -> Callable[[int], npt.NDArray[np.bool_]]:
    """Training row -> which rows, (N,), could lie across a split from it: those of another group and other content."""
    groups = np.unique([example.group or f"alone {k}" for k, example in enumerate(examples)], return_inverse=True)[1]
    contents = np.unique([media_digest(example.media) for example in examples], return_inverse=True)[1]
    return lambda row: (groups != groups[row]) & (contents != contents[row])


def _neighbours_apart(
    measure: Distances,
    examples: Sequence[Example],
    places: npt.NDArray[np.int64],
    apart: Callable[[int], npt.NDArray[np.bool_]],
) -> dict[int, list[int]]:
    """For each training row the nearest among those that are independent of it; rows that have none are left out."""
    found: dict[int, list[int]] = {}
    for start in range(0, len(places), _CHUNK):
        chunk = places[start : start + _CHUNK]
        distances = measure([examples[place] for place in chunk])
        for row, place in zip(distances, chunk.tolist(), strict=True):
            allowed = np.flatnonzero(apart(place))
            if len(allowed):
                found[place] = allowed[_nearest(row[None, allowed], max(_COUNTS))[0]].tolist()
    return found


def _nearest(distances: Floats, count: int) -> list[list[int]]:
    """Places of the `count` smallest of each row, (N, S); of equal ones the first."""
    rounded = np.round(distances, _DIGITS)
    count = min(count, rounded.shape[1])
    bounds = np.partition(rounded, count - 1, axis=1)[:, count - 1]
    found = []
    for row, bound in zip(rounded, bounds, strict=True):
        near = np.flatnonzero(row <= bound)
        found.append(near[np.argsort(row[near], kind="stable")][:count].tolist())
    return found


def _measures(examples: Sequence[Example], task: EvaluationPayload) -> list[Distances]:
    """The ways in which media of this modality are compared."""
    modality = task.dataset.modality
    if modality == "tabular":
        return [_euclidean(examples, Columns.fit(examples, _inputs(task)).encode)]
    if modality == "time-series":
        return _series(examples)
    if modality == "molecule":
        return [_tanimoto(examples)]
    return [_cosine(examples, Documents.fit(examples, modality, ngram_choices(modality)[0]))]


def _euclidean(examples: Sequence[Example], encode: Callable[[Sequence[Example]], Any]) -> Distances:
    """Squared, divided by the number of columns."""
    known = np.asarray(encode(examples), np.float64)
    norms, width = np.square(known).sum(axis=1), max(1, known.shape[1])

    def distances(asked: Sequence[Example]) -> Floats:
        rows = np.asarray(encode(asked), np.float64)
        squared: Floats = (np.square(rows).sum(axis=1)[:, None] + norms - 2.0 * rows @ known.T) / width
        return squared

    return distances


def _cosine(examples: Sequence[Example], documents: Documents) -> Distances:
    known = documents.encode(examples).T.tocsr()

    def distances(asked: Sequence[Example]) -> Floats:
        similar: Floats = np.asarray((documents.encode(asked) @ known).toarray(), np.float64)
        return 1.0 - similar

    return distances


def _series(examples: Sequence[Example]) -> list[Distances]:
    """By their values, and with level and spread of each channel taken away. All are brought to one length, the median
    of the training rows."""
    channels = len(examples[0].media)
    if any(len(example.media) != channels for example in examples):
        raise UnsuitableRepresentation("the series differ in their channels, so that they cannot be compared")
    usual = int(np.median([example.media.shape[1] for example in examples]))
    steps = max(2, min(usual, _STEPS, _VALUES // max(1, channels)))

    def resampled(asked: Sequence[Example]) -> Floats:
        return np.stack([_resample(example.media, channels, steps) for example in asked])

    def shapes(asked: Sequence[Example]) -> Floats:
        rows = resampled(asked)
        spread = rows.std(axis=2, keepdims=True)
        scaled: Floats = (rows - rows.mean(axis=2, keepdims=True)) / np.where(spread > 0, spread, 1.0)
        return scaled.reshape(len(rows), -1)

    unit = float(resampled(examples).std()) or 1.0
    return [
        _euclidean(examples, shapes),
        _euclidean(examples, lambda asked: resampled(asked).reshape(len(asked), -1) / unit),
    ]


def _resample(media: npt.NDArray[Any], channels: int, steps: int) -> Floats:
    """(C, steps). ValueError for a series of other channels, which becomes an error of that example."""
    if len(media) != channels:
        raise ValueError(f"{len(media)} channels, and the training rows have {channels}")
    places, there = np.linspace(0, media.shape[1] - 1, steps), np.arange(media.shape[1])
    return np.stack([np.interp(places, there, channel) for channel in media.astype(np.float64)])


def _tanimoto(examples: Sequence[Example]) -> Distances:
    """Tanimoto distance of Morgan fingerprints: 1 less the shared bits over the bits of either."""
    bits = Features("molecule")
    known = np.asarray(bits.encode(examples), np.float32)
    sizes = known.sum(axis=1, dtype=np.float64)

    def distances(asked: Sequence[Example]) -> Floats:
        rows = np.asarray(bits.encode(asked), np.float32)
        shared = np.asarray(rows @ known.T, np.float64)
        either = rows.sum(axis=1, dtype=np.float64)[:, None] + sizes - shared
        alike: Floats = shared / np.where(either > 0, either, 1.0)
        return 1.0 - alike

    return distances
