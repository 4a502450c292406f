"""One number per example. Estimators learn it in units of its spread, which kernels and neighbours need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from speciate.tasks.contract import Prediction, Scores


class Regression(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    family: Literal["regression"] = "regression"
    mean: float
    spread: float

    @classmethod
    def of(cls, answers: Sequence[str | float]) -> Regression:
        numbers = np.array([float(answer) for answer in answers])
        return cls(mean=float(numbers.mean()), spread=float(numbers.std()) or 1.0)

    @property
    def labels(self) -> tuple[str, ...]:
        return ()

    def targets(self, answers: Sequence[str | float]) -> npt.NDArray[np.float64]:
        return (np.array([float(answer) for answer in answers]) - self.mean) / self.spread

    def calibrated(self, scores: Scores, targets: npt.NDArray[Any]) -> Regression:
        return self

    def predictions(self, scores: Scores) -> list[Prediction]:
        return [Prediction(float(score) * self.spread + self.mean, None, None) for score in scores[:, 0]]
