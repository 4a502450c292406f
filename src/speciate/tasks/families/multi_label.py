"""Any number of labels per example: a yes or no to each, with a threshold of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from speciate.datasets.loading.loader import Example
from speciate.tasks.families.classification import is_empty, sigmoid
from speciate.tasks.task import DirectSupervision, Prediction, Scores, TaskExample, TaskTerms

if TYPE_CHECKING:
    import torch

    from speciate.models.backbones.contract import States


_DIVIDED = re.compile(r"[|;]")
_ROUNDS = 50


class MultiLabel(DirectSupervision, BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    family: Literal["multi-label"] = "multi-label"
    labels: tuple[str, ...]
    thresholds: tuple[float, ...]
    """A label is given where its probability is above its own."""
    objective: str = "f1_micro"
    """The metric that thresholds are tuned for."""

    @classmethod
    def evaluation_example(cls, example: Example, cell: Any, terms: TaskTerms) -> TaskExample | None:
        """Target: the sorted list of labels, which may be empty."""
        labels = labels_of(cell)
        return None if labels is None else TaskExample(example, labels)

    @classmethod
    def fit(cls, targets: Sequence[Any], settings: Mapping[str, Any]) -> Self:
        labels = tuple(sorted({label for target in targets for label in target}))
        metric = settings.get("objective_metric") or "f1_micro"
        return cls(labels=labels, thresholds=(0.5,) * len(labels), objective=metric)

    @classmethod
    def baseline(cls, targets: Sequence[Any], terms: TaskTerms, metric: str = "") -> Callable[[Example], Prediction]:
        """A baseline with the same labels for all: those with the greatest F1 over all pairs; all, by the mean of the
        labels' F1; by shares of wrong pairs the labels of at least half of the examples; by whole sets the most
        frequent set."""
        task_head = cls.fit(targets, {})
        wanted = task_head.encode_targets(targets)
        shares = wanted.mean(axis=0)
        if metric == "f1_macro_labels":
            given = np.ones(len(shares), np.bool_)
        elif metric == "f1_micro":
            given = _best_labels(shares)
        elif metric == "hamming_loss":
            given = shares > 0.5
        elif metric == "subset_accuracy":
            sets, counts = np.unique(wanted, axis=0, return_counts=True)
            given = sets[int(np.argmax(counts))] > 0.5
        else:
            given = shares >= min(0.5, shares.max(initial=0.0))
        prediction = task_head._prediction(shares, given)
        return lambda example: prediction

    def encode_targets(self, targets: Sequence[Any]) -> npt.NDArray[np.float32]:
        """(N, K) of 0 and 1. A label that training has not seen has no column."""
        return np.array([[label in target for label in self.labels] for target in map(set, targets)], np.float32)

    def calibrated(self, scores: Scores, targets: npt.NDArray[Any]) -> Self:
        """Thresholds that are best by the objective on these examples, each label having its own."""
        tune = _TUNED_BY.get(self.objective, _thresholds)
        return self.model_copy(update={"thresholds": tuple(tune(sigmoid(scores), targets > 0.5))})

    def predictions(self, scores: Scores) -> list[Prediction]:
        probabilities = sigmoid(scores)
        return [self._prediction(row, row > np.array(self.thresholds)) for row in probabilities]

    def head(self, width: int) -> torch.nn.Module:
        from torch import nn

        return nn.Linear(width, len(self.labels))

    def loss(self, head: torch.nn.Module, states: States, targets: Any) -> torch.Tensor:
        """Cross-entropy of each label's yes and no."""
        import torch

        scores = head(states.pooled)
        wanted = torch.as_tensor(targets, dtype=torch.float32, device=scores.device)
        return torch.nn.functional.binary_cross_entropy_with_logits(scores, wanted)

    def scores(self, head: torch.nn.Module, states: States) -> Sequence[npt.NDArray[Any]]:
        return list(head(states.pooled).double().cpu().numpy())

    def _prediction(self, probabilities: npt.NDArray[Any], given: npt.NDArray[np.bool_]) -> Prediction:
        """Confidence: the mean probability of the answers to all labels."""
        output = [label for label, is_given in zip(self.labels, given, strict=True) if is_given]
        sure = np.where(given, probabilities, 1 - probabilities)
        table = {label: float(probability) for label, probability in zip(self.labels, probabilities, strict=True)}
        return Prediction(output, float(sure.mean()) if len(sure) else None, table)


def labels_of(cell: Any) -> list[str] | None:
    """A list, a JSON list, or text divided by | or ; -> sorted labels, each once. None: an empty cell."""
    if is_empty(cell):
        return None
    if isinstance(cell, str):
        cell = _parse_list(cell) if cell.lstrip().startswith("[") else _DIVIDED.split(cell)
    if not isinstance(cell, list | tuple):
        raise ValueError(f"{str(cell)[:40]!r} is no list of labels")
    for label in cell:
        if not isinstance(label, str | int) or isinstance(label, bool):
            raise ValueError(f"{str(label)[:40]!r} in a list of labels is no label")
    return sorted({text for label in cell if (text := str(label).strip())})


def _parse_list(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{text[:40]!r} begins like a JSON list and is none ({error})") from error


def _thresholds(probabilities: Scores, labelled: npt.NDArray[np.bool_]) -> list[float]:
    """By Dinkelbach's method (1967): F = 2 hits / (given + labelled) is greatest where hits - F/2 * given is, and that
    is a sum over the labels, so each label's threshold is found alone, and F again until it does not grow."""
    curves = [_curve(column, target) for column, target in zip(probabilities.T, labelled.T, strict=True)]
    total, half = float(labelled.sum()), 0.0
    chosen = [0.5] * len(curves)
    for _ in range(_ROUNDS if total else 0):
        places = [int(np.argmax(hits - half * given)) for _, given, hits in curves]
        chosen = [float(cuts[place]) for (cuts, _, _), place in zip(curves, places, strict=True)]
        hits = sum(each[2][place] for each, place in zip(curves, places, strict=True))
        given = sum(each[1][place] for each, place in zip(curves, places, strict=True))
        if hits / (given + total) <= half:
            break
        half = hits / (given + total)
    return chosen


def _thresholds_of_each(probabilities: Scores, labelled: npt.NDArray[np.bool_]) -> list[float]:
    """By the mean of the labels' F1: each label's own is greatest. A label that no example has keeps 0.5."""
    chosen = []
    for column, target in zip(probabilities.T, labelled.T, strict=True):
        cuts, given, hits = _curve(column, target)
        total = float(target.sum())
        chosen.append(float(cuts[int(np.argmax(2 * hits / (given + total)))]) if total else 0.5)
    return chosen


def _thresholds_of_errors(probabilities: Scores, labelled: npt.NDArray[np.bool_]) -> list[float]:
    """Thresholds by the share of wrong pairs: each label's errors are fewest."""
    chosen = []
    for column, target in zip(probabilities.T, labelled.T, strict=True):
        cuts, given, hits = _curve(column, target)
        chosen.append(float(cuts[int(np.argmax(2 * hits - given))]))
    return chosen


_TUNED_BY = {
    "f1_micro": _thresholds,
    "f1_macro_labels": _thresholds_of_each,
    "hamming_loss": _thresholds_of_errors,
    "subset_accuracy": _thresholds_of_errors,
}


def _best_labels(shares: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """(K,): the labels that, given to all, have the greatest F1 over all pairs: the k most frequent, for some k."""
    order = np.argsort(-shares, kind="stable")
    given = np.zeros(len(shares), np.bool_)
    if shares.sum() > 0:
        hits = np.cumsum(shares[order])
        best = int(np.argmax(2 * hits / (np.arange(1, len(shares) + 1) + shares.sum())))
        given[order[: best + 1]] = True
    return given


def _curve(probabilities: Scores, labelled: npt.NDArray[np.bool_]) -> tuple[Scores, Scores, Scores]:
    """Thresholds between neighbouring probabilities, those nearest to 0.5 first (of equals the first is chosen); how
    many examples each gives the label to, and how many of them rightly."""
    levels = np.unique(probabilities)
    cuts = np.concatenate([[levels[0] / 2], (levels[:-1] + levels[1:]) / 2, [(levels[-1] + 1) / 2], [0.5]])
    cuts = cuts[np.argsort(np.abs(cuts - 0.5), kind="stable")]
    order = np.argsort(probabilities)
    given = len(probabilities) - np.searchsorted(probabilities[order], cuts, side="right")
    right = np.concatenate([np.cumsum(labelled[order][::-1])[::-1], [0]])[len(probabilities) - given]
    return cuts, given.astype(np.float64), right.astype(np.float64)
