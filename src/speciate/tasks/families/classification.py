"""One label per example: scores become probabilities by one temperature."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from speciate.datasets.columns import class_name
from speciate.datasets.loading.loader import Example
from speciate.tasks.task import DirectSupervision, Prediction, Scores, TaskExample, TaskTerms
from speciate.vocabulary import seeks_positives

if TYPE_CHECKING:
    import torch

    from speciate.models.backbones.contract import States


_MOST_TOLD, _TOLD = 1000, 100
"""Labels; of more, so many probabilities are told of each answer."""


class Classification(DirectSupervision, BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    family: Literal["classification"] = "classification"
    labels: tuple[str, ...]
    temperature: float = 1.0

    @classmethod
    def evaluation_example(cls, example: Example, cell: Any, terms: TaskTerms) -> TaskExample | None:
        """Target: the label, a str."""
        known = as_label(cell)
        return TaskExample(example, known) if known else None

    @classmethod
    def fit(cls, targets: Sequence[Any], settings: Mapping[str, Any]) -> Self:
        return cls(labels=tuple(sorted(set(targets))))

    @classmethod
    def baseline(cls, targets: Sequence[Any], terms: TaskTerms, metric: str = "") -> Callable[[Example], Prediction]:
        """The most frequent label, the first by name among equals, with the shares of all as probabilities: these are
        best by accuracy, macro-F1, log loss and Brier score. By a metric that looks for one label, that label."""
        counts = Counter(targets)
        shares = {label: counts[label] / len(targets) for label in sorted(counts)}
        label = max(shares, key=lambda name: shares[name])
        if seeks_positives(metric) and terms.positive_label in shares:
            label = str(terms.positive_label)
        elif metric == "specificity" and label == terms.positive_label and len(shares) > 1:
            label = max((name for name in shares if name != label), key=lambda name: shares[name])
        prediction = Prediction(label, shares[label], shares)
        return lambda example: prediction

    def encode_targets(self, targets: Sequence[Any]) -> npt.NDArray[np.int64]:
        """Positions in `labels`, (N,)."""
        return label_positions(self.labels, targets)

    def calibrated(self, scores: Scores, targets: npt.NDArray[Any]) -> Self:
        """Temperature scaling: no answer changes by it."""
        return self.model_copy(update={"temperature": fit_temperature(scores, targets) or self.temperature})

    def probabilities(self, scores: Scores) -> npt.NDArray[np.float64]:
        """(N, K), or (N, 1) for two labels (positive: the second) -> (N, labels)."""
        return softmax(scores, self.temperature)

    def predictions(self, scores: Scores) -> list[Prediction]:
        made = []
        for row in self.probabilities(scores):
            best = int(np.argmax(row))
            made.append(Prediction(self.labels[best], float(row[best]), self._told(row)))
        return made

    def _told(self, row: npt.NDArray[np.float64]) -> dict[str, float]:
        """Probability of each label; of very many labels, those alone that are at all probable."""
        if len(self.labels) <= _MOST_TOLD:
            return dict(zip(self.labels, row.tolist(), strict=True))
        places = np.sort(np.argpartition(-row, _TOLD)[:_TOLD])
        return {self.labels[place]: float(row[place]) for place in places.tolist()}

    def head(self, width: int) -> torch.nn.Module:
        from torch import nn

        return nn.Linear(width, len(self.labels))

    def loss(self, head: torch.nn.Module, states: States, targets: Any) -> torch.Tensor:
        """Cross-entropy; an example whose label training has not seen does not count."""
        import torch

        scores = head(states.pooled)
        wanted = torch.as_tensor(targets, device=scores.device)
        losses = torch.nn.functional.cross_entropy(scores, wanted, ignore_index=-1, reduction="sum")
        return losses / (wanted >= 0).sum().clamp(min=1)

    def counted(self, states: States, targets: Any) -> int:
        return int((np.asarray(targets) >= 0).sum())

    def scores(self, head: torch.nn.Module, states: States) -> Sequence[npt.NDArray[Any]]:
        return list(head(states.pooled).double().cpu().numpy())


def as_label(cell: Any) -> str | None:
    """A cell as a label, written as a dataset writes its classes: 1 and 1.0 are one label. None for an empty cell.

    One rule for targets of every task with labels and for answers stored in a column.
    """
    return None if is_empty(cell) else class_name(cell) or None


def is_empty(cell: Any) -> bool:
    """No value: None, an empty text or NaN."""
    return cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell))


TEMPERATURES = np.geomspace(0.02, 20, 61)


def label_positions(labels: Sequence[str], targets: Sequence[Any]) -> npt.NDArray[np.int64]:
    """Where each target stands in `labels`, (N,). A label that training has not seen becomes -1."""
    place = {label: i for i, label in enumerate(labels)}
    return np.array([place.get(target, -1) for target in targets], dtype=np.int64)


def softmax(scores: Scores, temperature: float = 1.0) -> Scores:
    """(N, K), or (N, 1) for two labels (positive: the second) -> (N, labels)."""
    if scores.shape[1] == 1:
        scores = np.hstack([np.zeros_like(scores), scores])
    scaled = scores / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    probabilities: Scores = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def sigmoid(scores: npt.NDArray[Any]) -> Scores:
    """Logistic function of scores of any shape."""
    probabilities: Scores = 1.0 / (1.0 + np.exp(-np.clip(scores.astype(np.float64), -500, 500)))
    return probabilities


def fit_temperature(scores: Scores, targets: npt.NDArray[Any]) -> float | None:
    """Temperature scaling (Guo et al. 2017): that of the least `smoothed_loss`. `targets` (N,), -1: does not count.

    None where no example counts.
    """
    rows = np.flatnonzero(targets >= 0)
    if not len(rows):
        return None
    losses = [smoothed_loss(softmax(scores[rows], t), targets[rows]) for t in TEMPERATURES]
    return float(TEMPERATURES[int(np.argmin(losses))])


def smoothed_loss(probabilities: Scores, targets: npt.NDArray[Any]) -> float:
    """Mean log loss of (N, K) probabilities where each target is certain to (N + 1) / (N + 2) only, the rest being
    shared by the other labels: Laplace's rule of succession. Else answers that are all right, of 20 examples too, would
    make every later answer certain (Platt 1999 smooths for the same reason)."""
    logs = np.log(probabilities + 1e-12)
    right = logs[np.arange(len(targets)), targets]
    if logs.shape[1] < 2:
        return float(-right.mean())
    doubt = 1 / (len(targets) + 2)
    others = (logs.sum(axis=1) - right) / (logs.shape[1] - 1)
    return float(-((1 - doubt) * right + doubt * others).mean())
