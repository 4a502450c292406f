"""Another model's predictions as soft targets: its probabilities, or its raw scores.

Of families with a vector of scores for each example. Columns are those of the student's own head; where the other
model knows nothing of a label, the column is NaN and does not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from speciate.tasks.task import Prediction, TaskHead
from speciate.vocabulary import Family

if TYPE_CHECKING:
    import torch

    from speciate.models.backbones.contract import States


FAMILIES: tuple[Family, ...] = ("classification", "multi-label", "ordinal", "regression")
Match = Literal["probabilities", "scores"]
SoftTargets = npt.NDArray[np.float32]  # (N, K)
_LEAST = 1e-6
"""The least probability, so that its logarithm is finite."""


def logits(task_head: TaskHead, head: Any, states: States) -> torch.Tensor:
    """(B, K): the scores, of which a gradient can be taken."""
    ordinal = task_head.family == "ordinal"
    found: torch.Tensor = states.pooled @ head["weight"].T + head["bias"] if ordinal else head(states.pooled)
    return found


def targets_from_predictions(task_head: TaskHead, predictions: Sequence[Prediction]) -> SoftTargets:
    """Predictions as scores: log probabilities, log odds of each label or bound, or numbers in the student's spread."""
    if task_head.family == "regression":
        mean, spread = task_head.mean, task_head.spread  # type: ignore[attr-defined]  # Regression has them
        return np.array([[(float(each.output) - mean) / spread] for each in predictions], np.float32)
    table = np.array([_row(task_head.labels, each.probabilities or {}) for each in predictions], np.float64)
    if task_head.family == "classification":
        return np.log(np.maximum(table, _LEAST)).astype(np.float32)
    if task_head.family == "ordinal":  # above each bound; NaN from a rank on that the other does not know
        table = np.cumsum(table[:, ::-1], axis=1)[:, ::-1][:, 1:]
    bounded = np.clip(table, _LEAST, 1 - _LEAST)
    return np.log(bounded / (1 - bounded)).astype(np.float32)


def average_targets(targets: Sequence[SoftTargets], task_head: TaskHead) -> SoftTargets:
    """The mean over several models: of each label's probability, or of the number, where known."""
    if len(targets) == 1:
        return targets[0]
    stacked = np.stack(targets).astype(np.float64)
    known = ~np.isnan(stacked)
    share = stacked if task_head.family == "regression" else _to_probability(stacked, task_head.family)
    total = np.where(known, share, 0.0).sum(0)
    mean = np.where(known.any(0), total / np.maximum(known.sum(0), 1), np.nan)
    if task_head.family == "regression":
        return mean.astype(np.float32)
    bounded = np.clip(mean, _LEAST, 1 - _LEAST)
    odds = bounded if task_head.family == "classification" else bounded / (1 - bounded)
    found: SoftTargets = np.log(odds).astype(np.float32)
    return found


def align_columns(old: TaskHead, new: TaskHead, scores: Sequence[npt.NDArray[Any]]) -> SoftTargets:
    """Raw scores of `old`'s head in the columns of `new`'s; NaN where that has a label more."""
    rows = np.stack(scores).astype(np.float32)
    if old.family not in ("classification", "multi-label"):
        return rows
    place = {label: i for i, label in enumerate(old.labels)}
    aligned = np.full((len(rows), len(new.labels)), np.nan, np.float32)
    for column, label in enumerate(new.labels):
        if label in place:
            aligned[:, column] = rows[:, place[label]]
    return aligned


def soft_target_loss(
    match: Match, family: Family, scores: torch.Tensor, targets: torch.Tensor, temperature: float
) -> torch.Tensor:
    """(B,): the distance of scores (B, K) from soft targets (B, K), over the columns that are known.

    `scores`: squared error, as DER has it (Buzzega et al. 2020). `probabilities`: Kullback-Leibler divergence at a
    temperature, times its square (Hinton et al. 2015): of the known labels, or of each yes and no.
    """
    import torch

    known = ~torch.isnan(targets)
    count = known.sum(1).clamp(min=1)
    filled = torch.where(known, targets, torch.zeros_like(targets))
    if match == "scores" or family == "regression":
        return ((scores - filled).square() * known).sum(1) / count
    if family == "classification":
        low = torch.finfo(scores.dtype).min
        own = torch.log_softmax((scores / temperature).masked_fill(~known, low), 1)
        theirs = torch.log_softmax((filled / temperature).masked_fill(~known, low), 1)
        apart = theirs.exp() * (theirs - own)
        return torch.where(known, apart, torch.zeros_like(apart)).sum(1) * temperature**2
    share = torch.sigmoid(filled / temperature)
    functional = torch.nn.functional
    apart = functional.binary_cross_entropy_with_logits(scores / temperature, share, reduction="none")
    apart = apart - functional.binary_cross_entropy_with_logits(filled / temperature, share, reduction="none")
    return (apart * known).sum(1) / count * temperature**2


def _row(labels: Sequence[str], table: Mapping[str, float]) -> list[float]:
    return [table.get(label, np.nan) for label in labels]


def _to_probability(scores: npt.NDArray[np.float64], family: Family) -> npt.NDArray[np.float64]:
    probability: npt.NDArray[np.float64] = np.exp(scores) if family == "classification" else 1 / (1 + np.exp(-scores))
    return probability
