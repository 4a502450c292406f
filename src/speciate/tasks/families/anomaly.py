"""Whether an example is unlike the normal ones. Only normal examples teach; examples without a label count as normal.

A score says how odd an example is, in whatever unit. Held-out normal examples make it a rank, the share of normal ones
that are less odd, and the rank a probability: that of k normal examples none is as odd, with k such that an example at
the threshold has one half.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.tasks.families.classification import as_label, is_empty
from speciate.tasks.task import Prediction, Scores, TaskExample, TaskTerms
from speciate.vocabulary import seeks_positives

if TYPE_CHECKING:
    import torch

    from speciate.models.backbones.contract import States


NORMAL, ANOMALY = "normal", "anomaly"
_QUANTILES = 257  # of the normal scores, that are kept


class Anomaly(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    family: Literal["anomaly"] = "anomaly"
    positive_label: str
    normal_share: float
    """Share of the normal examples that are to be called normal."""
    normal_scores: tuple[float, ...] = ()
    """Scores of held-out normal examples, from low to high; evenly spaced quantiles where they are many."""
    counted: int = 0
    """How many examples `normal_scores` stand for."""

    @property
    def labels(self) -> tuple[str, ...]:
        return (NORMAL, self.positive_label)

    @classmethod
    def evaluation_example(cls, example: Example, cell: Any, terms: TaskTerms) -> TaskExample | None:
        """Target: the positive label, or "normal" whatever else the label is."""
        if is_empty(cell):
            return None
        positive = terms.positive_label or ANOMALY
        return TaskExample(example, positive if as_label(cell) == positive else NORMAL)

    @classmethod
    def training_examples(cls, example: Example, cell: Any, terms: TaskTerms) -> list[TaskExample]:
        """Nothing for an anomaly: models learn from normal examples only."""
        made = cls.evaluation_example(example, cell, terms) or TaskExample(example, NORMAL)
        return [made] if made.target == NORMAL else []

    @classmethod
    def fit(cls, targets: Sequence[Any], settings: Mapping[str, Any]) -> Self:
        return cls(
            positive_label=settings.get("positive_label") or ANOMALY, normal_share=settings.get("normal_share", 0.95)
        )

    @classmethod
    def baseline(cls, targets: Sequence[Any], terms: TaskTerms, metric: str = "") -> Callable[[Example], Prediction]:
        """Everything is normal; by a metric that looks for anomalies, nothing is."""
        positive = terms.positive_label or ANOMALY
        answer = positive if seeks_positives(metric) else NORMAL
        prediction = Prediction(answer, 1.0, {answer: 1.0})
        return lambda example: prediction

    def encode_targets(self, targets: Sequence[Any]) -> npt.NDArray[np.int64]:
        """(N,): 1 for an anomaly."""
        return np.array([target == self.positive_label for target in targets], np.int64)

    def calibrated(self, scores: Scores, targets: npt.NDArray[Any]) -> Self:
        """By the scores of the normal examples among these. INVALID: there are none."""
        normal = np.sort(np.asarray(scores, np.float64)[targets == 0, 0])
        if not len(normal):
            raise SpeciateError(
                Code.INVALID,
                "There is no normal example among those held out, so nothing says how odd is odd.",
                "Move normal examples to the validation split, or leave that split out.",
            )
        kept = normal if len(normal) <= _QUANTILES else np.quantile(normal, np.linspace(0, 1, _QUANTILES))
        return self.model_copy(update={"normal_scores": tuple(kept.tolist()), "counted": len(normal)})

    def predictions(self, scores: Scores) -> list[Prediction]:
        odd = self._ranks(np.asarray(scores, np.float64)[:, 0]) ** (math.log(0.5) / math.log(self.normal_share))
        return [
            Prediction(
                self.positive_label if probability > 0.5 else NORMAL,
                max(probability, 1 - probability),
                {NORMAL: 1 - probability, self.positive_label: probability},
            )
            for probability in odd.tolist()
        ]

    def _ranks(self, scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """(N,) shares between 0 and 1: linear between the normal scores, and beyond them ever slower towards the ends,
        so that no two scores that differ are ranked alike.
        """
        known, counts = np.unique(np.array(self.normal_scores), return_counts=True)
        ends = np.cumsum(counts)
        share = (ends - (counts - 1) / 2) / len(self.normal_scores)  # of equal scores the middle
        outside = 1 / (self.counted + 1)
        share = outside + (1 - 2 * outside) * (share - share[0]) / max(share[-1] - share[0], 1e-12)
        unit = max(known[-1] - known[0], 1e-9 * max(abs(known[-1]), 1.0))
        above, below = np.maximum(scores - known[-1], 0) / unit, np.maximum(known[0] - scores, 0) / unit
        inside = np.interp(scores, known, share, left=outside, right=1 - outside)
        ranks: npt.NDArray[np.float64] = inside + outside * (above / (1 + above) - below / (1 + below))
        return ranks

    def head(self, width: int) -> torch.nn.Module:
        raise _no_network()

    def loss(self, head: torch.nn.Module, states: States, targets: Any) -> torch.Tensor:
        raise _no_network()

    def scores(self, head: torch.nn.Module, states: States) -> Sequence[npt.NDArray[Any]]:
        raise _no_network()


def _no_network() -> SpeciateError:
    return SpeciateError(
        Code.INVALID,
        "No network is trained to find anomalies: it would learn to call everything normal.",
        "Call train_model with method='classical', or method='probe' on a base model.",
    )
