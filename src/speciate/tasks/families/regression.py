"""One number per example. It is learned in units of its spread, which kernels, neighbours and networks need."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from speciate.datasets.loading.loader import Example
from speciate.tasks.task import DirectSupervision, Prediction, Scores, TaskExample, TaskTerms
from speciate.vocabulary import METRICS

if TYPE_CHECKING:
    import torch

    from speciate.models.backbones.contract import States


class Regression(DirectSupervision, BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    family: Literal["regression"] = "regression"
    mean: float
    spread: float

    @classmethod
    def evaluation_example(cls, example: Example, cell: Any, terms: TaskTerms) -> TaskExample | None:
        """Target: a finite number."""
        if cell is None or cell == "":
            return None
        number = float(cell)
        return TaskExample(example, number) if math.isfinite(number) else None

    @classmethod
    def fit(cls, targets: Sequence[Any], settings: Mapping[str, Any]) -> Self:
        numbers = np.array(targets, float)
        return cls(mean=float(numbers.mean()), spread=float(numbers.std()) or 1.0)

    @classmethod
    def baseline(cls, targets: Sequence[Any], terms: TaskTerms, metric: str = "") -> Callable[[Example], Prediction]:
        """The best constant by the metric: the median for absolute errors, the mean for squared ones and others."""
        prediction = Prediction(best_constant(np.array(targets, float), metric), None, None)
        return lambda example: prediction

    @property
    def labels(self) -> tuple[str, ...]:
        return ()

    def encode_targets(self, targets: Sequence[Any]) -> npt.NDArray[np.float64]:
        return (np.array(targets, float) - self.mean) / self.spread

    def calibrated(self, scores: Scores, targets: npt.NDArray[Any]) -> Self:
        return self

    def predictions(self, scores: Scores) -> list[Prediction]:
        return [Prediction(float(score) * self.spread + self.mean, None, None) for score in scores[:, 0]]

    def head(self, width: int) -> torch.nn.Module:
        from torch import nn

        return nn.Linear(width, 1)

    def loss(self, head: torch.nn.Module, states: States, targets: Any) -> torch.Tensor:
        import torch

        scores = head(states.pooled).squeeze(1)
        wanted = torch.as_tensor(targets, dtype=torch.float32, device=scores.device)
        return torch.nn.functional.mse_loss(scores, wanted)

    def scores(self, head: torch.nn.Module, states: States) -> Sequence[npt.NDArray[Any]]:
        return list(head(states.pooled).double().cpu().numpy())


def best_constant(numbers: npt.NDArray[np.float64], metric: str) -> float:
    """The number with the least error of all that are answered to everything. `numbers`: (N,).

    The mean has the least squared error, the median the least absolute one; for shares of the target it is the median
    with weights 1 / |target|. The median of absolute errors is least in the middle of the shortest half (Rousseeuw
    1984).
    """
    match METRICS[metric].middle if metric in METRICS else "mean":
        case "median":
            return float(np.median(numbers))
        case "weighted median":
            return _weighted_median(numbers[numbers != 0])
        case "middle of the shortest half":
            return _middle_of_shortest_half(numbers)
        case "mean":
            return float(numbers.mean())


def _weighted_median(numbers: npt.NDArray[np.float64]) -> float:
    if not numbers.size:
        return 0.0
    ordered = np.sort(numbers)
    reached = np.cumsum(1 / np.abs(ordered))
    return float(ordered[int(np.searchsorted(reached, reached[-1] / 2))])


def _middle_of_shortest_half(numbers: npt.NDArray[np.float64]) -> float:
    ordered = np.sort(numbers)
    half = ordered.size // 2
    first = int(np.argmin(ordered[half:] - ordered[: ordered.size - half]))
    return float((ordered[first] + ordered[first + half]) / 2)
