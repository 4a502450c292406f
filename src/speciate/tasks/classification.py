"""One label per example: scores become probabilities by one temperature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from speciate.tasks.contract import Prediction, Scores

_TEMPERATURES = np.geomspace(0.02, 20, 61)


class Classification(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    family: Literal["classification"] = "classification"
    labels: tuple[str, ...]
    temperature: float = 1.0

    @classmethod
    def of(cls, answers: Sequence[str | float]) -> Classification:
        return cls(labels=tuple(sorted({str(answer) for answer in answers})))

    def targets(self, answers: Sequence[str | float]) -> npt.NDArray[np.int64]:
        """Positions in `labels`, (N,). A label that training has not seen becomes -1."""
        place = {label: i for i, label in enumerate(self.labels)}
        return np.array([place.get(str(answer), -1) for answer in answers], dtype=np.int64)

    def calibrated(self, scores: Scores, targets: npt.NDArray[Any]) -> Classification:
        """Temperature scaling (Guo et al. 2017): the temperature with the least log loss. No answer changes by it."""
        known = targets >= 0
        if not known.any():
            return self
        rows, columns = np.flatnonzero(known), targets[known]
        losses = [-np.log(self._softmax(scores, t)[rows, columns] + 1e-12).mean() for t in _TEMPERATURES]
        return self.model_copy(update={"temperature": float(_TEMPERATURES[int(np.argmin(losses))])})

    def probabilities(self, scores: Scores) -> npt.NDArray[np.float64]:
        """(N, K), or (N, 1) for two labels (positive: the second) -> (N, labels)."""
        return self._softmax(scores, self.temperature)

    def predictions(self, scores: Scores) -> list[Prediction]:
        made = []
        for row in self.probabilities(scores):
            best = int(np.argmax(row))
            chances = {label: float(chance) for label, chance in zip(self.labels, row, strict=True)}
            made.append(Prediction(self.labels[best], float(row[best]), chances))
        return made

    def _softmax(self, scores: Scores, temperature: float) -> npt.NDArray[np.float64]:
        if scores.shape[1] == 1:
            scores = np.hstack([np.zeros_like(scores), scores])
        scaled = scores / temperature
        powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        chances: npt.NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
        return chances
