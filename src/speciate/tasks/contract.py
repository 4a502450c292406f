"""What a served model is made of: a representation, an estimator, and a readout that turns scores into predictions.

    examples -> Representation -> (N, D) -> Estimator -> scores (N, K) -> Readout -> predictions

All three are saved with the model, so that nothing but its folder (and a packaged base model, where it names one) is
needed to serve it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from speciate.datasets.loading.loader import Example

Arrays = dict[str, npt.NDArray[Any]]
Scores = npt.NDArray[np.float64]


class Prediction(NamedTuple):
    """`confidence` is the probability of the label that was given; None for numbers."""

    output: str | float
    confidence: float | None
    probabilities: dict[str, float] | None


class Predictor(Protocol):
    @property
    def task(self) -> str: ...

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that it can give, sorted; empty for numbers."""
        ...

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """One prediction per example, in their order. Labels, splits and groups of the examples are not looked at."""
        ...


class Representation(Protocol):
    """Examples as rows of numbers. Fitted on training examples only; then fixed."""

    def encode(self, examples: Sequence[Example]) -> Any:
        """(N, D), dense or sparse."""
        ...

    def settings(self) -> dict[str, Any]:
        """What is needed beside `arrays` to rebuild it, as JSON."""
        ...

    def arrays(self) -> Arrays: ...


class Readout(Protocol):
    """Scores as answers of a task, and true answers as what an estimator learns."""

    @property
    def labels(self) -> tuple[str, ...]: ...

    def targets(self, answers: Sequence[str | float]) -> npt.NDArray[Any]:
        """True answers -> what the estimator is fitted to, (N,)."""
        ...

    def calibrated(self, scores: Scores, targets: npt.NDArray[Any]) -> Readout:
        """The same with confidences that fit these scores of examples that the estimator has not learned from."""
        ...

    def predictions(self, scores: Scores) -> list[Prediction]: ...
