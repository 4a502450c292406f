"""One label per example, of labels that have an order: answers are judged by how many ranks they are off.

Scores are cumulative: (N, K - 1), of the probability that the label lies above each of the first K - 1. A network's
head is CORAL (Cao, Mirjalili & Raschka 2020), one weighted sum with a bias for each, so that the probabilities cannot
cross. The answer is the median, the rank with the least expected error.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.tasks.families.classification import TEMPERATURES, as_label, label_positions, sigmoid, smoothed_loss
from speciate.tasks.task import DirectSupervision, Prediction, Scores, TaskExample, TaskTerms

if TYPE_CHECKING:
    import torch

    from speciate.models.backbones.contract import States


_LEADING = re.compile(r"\s*([+-]?\d+(?:\.\d+)?)")


class Ordinal(DirectSupervision, BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    family: Literal["ordinal"] = "ordinal"
    labels: tuple[str, ...]
    """Labels from low to high."""
    temperature: float = 1.0

    @classmethod
    def evaluation_example(cls, example: Example, cell: Any, terms: TaskTerms) -> TaskExample | None:
        """Target: the label, a str. ValueError where an order is given that lacks it."""
        known = as_label(cell)
        if known and terms.order and known not in terms.order:
            raise ValueError(f"{known[:40]!r} is not in the order that was given: {' < '.join(terms.order)}")
        return TaskExample(example, known) if known else None

    @classmethod
    def fit(cls, targets: Sequence[Any], settings: Mapping[str, Any]) -> Self:
        """`settings["order"]`: from low to high; labels that training has not seen have no rank. INVALID: it is not
        known which label is higher.
        """
        check_order(set(targets), settings.get("order") or ())
        return cls(labels=tuple(rank_labels(set(targets), settings.get("order") or ())))

    @classmethod
    def baseline(cls, targets: Sequence[Any], terms: TaskTerms, metric: str = "") -> Callable[[Example], Prediction]:
        """The median of the labels, which is best by the error in ranks; by agreement the most frequent label."""
        labels, counts = rank_labels(set(targets), terms.order), Counter(targets)
        shares = {label: counts[label] / len(targets) for label in labels}
        above = np.searchsorted(np.cumsum(list(shares.values())), 0.5 - 1e-9)
        label = labels[int(above)]
        if metric in ("accuracy", "f1_macro"):
            label = max(labels, key=lambda name: shares[name])
        prediction = Prediction(label, shares[label], shares)
        return lambda example: prediction

    def encode_targets(self, targets: Sequence[Any]) -> npt.NDArray[np.int64]:
        """Ranks, (N,)."""
        return label_positions(self.labels, targets)

    def calibrated(self, scores: Scores, targets: npt.NDArray[Any]) -> Self:
        """The temperature with the least smoothed log loss. No answer changes by it."""
        rows = np.flatnonzero(targets >= 0)
        if not len(rows):
            return self
        losses = [smoothed_loss(_rank_probabilities(scores[rows] / t), targets[rows]) for t in TEMPERATURES]
        return self.model_copy(update={"temperature": float(TEMPERATURES[int(np.argmin(losses))])})

    def predictions(self, scores: Scores) -> list[Prediction]:
        made = []
        for row, probabilities in zip(scores, _rank_probabilities(scores / self.temperature), strict=True):
            rank = int((np.minimum.accumulate(row) > 0).sum())
            table = {label: float(probability) for label, probability in zip(self.labels, probabilities, strict=True)}
            made.append(Prediction(self.labels[rank], float(probabilities[rank]), table))
        return made

    def head(self, width: int) -> torch.nn.Module:
        import torch
        from torch import nn

        bounds = torch.linspace(1.0, -1.0, len(self.labels) - 1)
        sum_of = nn.Linear(width, 1, bias=False)
        return nn.ParameterDict({"weight": sum_of.weight, "bias": nn.Parameter(bounds)})

    def loss(self, head: torch.nn.Module, states: States, targets: Any) -> torch.Tensor:
        """Mean cross-entropy of the K - 1 questions "above?"; an example without a rank does not count."""
        import torch

        scores = _cumulative(head, states)
        ranks = torch.as_tensor(targets, device=scores.device).unsqueeze(1)
        above = (ranks > torch.arange(scores.shape[1], device=scores.device)).float()
        losses = torch.nn.functional.binary_cross_entropy_with_logits(scores, above, reduction="none").mean(1)
        counted = (ranks.squeeze(1) >= 0).float()
        return (losses * counted).sum() / counted.sum().clamp(min=1)

    def counted(self, states: States, targets: Any) -> int:
        return int((np.asarray(targets) >= 0).sum())

    def scores(self, head: torch.nn.Module, states: States) -> Sequence[npt.NDArray[Any]]:
        return list(_cumulative(head, states).double().cpu().numpy())


def rank_labels(labels: Collection[str], order: Sequence[str] = ()) -> list[str]:
    """From low to high: as `order` says, else by the numbers that they are or begin with, else by name.

    What the order lacks comes last.
    """
    place = {label: i for i, label in enumerate(order)}
    numbers = [_number(label) for label in labels]
    by_number = all(math.isfinite(number) for number in numbers)

    def rank(label: str) -> tuple[int, float, str]:
        return place.get(label, len(place)), _number(label) if by_number else 0.0, label

    return sorted(labels, key=rank)


def check_order(labels: Collection[str], order: Sequence[str]) -> None:
    """INVALID for words without an order: by name, "excellent" would be lower than "poor"."""
    numbers = {_number(label) for label in labels}
    if order or (len(numbers) == len(labels) and all(map(math.isfinite, numbers))):
        return
    shown = sorted(labels)[:20]
    raise SpeciateError(
        Code.INVALID,
        f"Which of the labels {', '.join(shown)} is higher is not known: they are no numbers, and no order was given.",
        "Call again with the labels from low to high: hyperparameters={'order': [...]} of train_model, order=[...] of "
        "specialize. Labels that begin with their rank, as '1-poor' and '2-fair', need none.",
    )


def _number(label: str) -> float:
    """Number that a label is or begins with, as in "1-poor"; NaN where there is none."""
    try:
        return float(label)
    except ValueError:
        found = _LEADING.match(label)
        return float(found[1]) if found else math.nan


def _cumulative(head: Any, states: States) -> torch.Tensor:
    """(B, K - 1)"""
    scores: torch.Tensor = states.pooled @ head["weight"].T + head["bias"]
    return scores


def _rank_probabilities(scores: Scores) -> Scores:
    """(N, K - 1) -> (N, K): what lies between one bound and the next. Bounds that cross are moved together."""
    above = np.minimum.accumulate(sigmoid(scores), axis=1)
    ones, zeros = np.ones((len(above), 1)), np.zeros((len(above), 1))
    shares: Scores = np.hstack([ones, above]) - np.hstack([above, zeros])
    return shares
