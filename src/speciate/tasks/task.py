"""What a task is, and what a served model is made of: something that turns examples into scores, and a task head.

    examples -> Representation -> (N, D) -> Estimator -> scores -> TaskHead -> predictions     (predictor.py)
    examples -> Backbone -> States -> TaskHead.head -> scores -> TaskHead -> predictions       (network_predictor.py)

All of it is saved with the model, so that nothing but its folder (and a packaged base model, where it names one) is
needed to serve it. A task head is what a task is: one file each in families/, listed in task_heads.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from speciate.datasets.loading.loader import Example
from speciate.vocabulary import Family

if TYPE_CHECKING:
    import torch

    from speciate.models.backbones.contract import States


Arrays = dict[str, npt.NDArray[Any]]
Scores = npt.NDArray[np.float64]


class Prediction(NamedTuple):
    """`output` as JSON: a label, a number, or what the task's file says.

    `confidence` is the probability of the label that was given; None where there is no such thing.
    """

    output: Any
    confidence: float | None
    probabilities: dict[str, float] | None


class TaskTerms(NamedTuple):
    """What a task's truths depend on beside the example."""

    positive_label: str | None = None
    horizon: int | None = None
    """Of forecasts, in steps."""
    order: tuple[str, ...] = ()
    """Of ordinal labels, from low to high; empty: by the numbers that they are or begin with."""
    modality: str | None = None
    """Of the examples; whoever has their manifest fills it in."""


class TaskExample(NamedTuple):
    """What is asked of a model, and the true answer as the task has it."""

    example: Example
    truth: Any


class Predictor(Protocol):
    @property
    def task(self) -> str: ...

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that it can give; empty where it gives none."""
        ...

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """One prediction per example, in their order. Labels, splits and groups of the examples are not looked at."""
        ...


class SavablePredictor(Predictor, Protocol):
    """A predictor that can become a version of a model."""

    @property
    def parameters(self) -> int:
        """How many numbers were learned, those of a frozen base model included."""
        ...

    def save(self, folder: Path) -> str:
        """Write and seal a new model folder; returns its id."""
        ...


class UnsuitableRepresentation(ValueError):
    """A kind of representation finds nothing to count in the training examples, though another may."""


class Representation(Protocol):
    """Examples as rows of numbers. Fitted on training examples only, then fixed; raises UnsuitableRepresentation."""

    def encode(self, examples: Sequence[Example]) -> Any:
        """(N, D), dense or sparse."""
        ...

    def settings(self) -> dict[str, Any]:
        """What is needed beside `arrays` to rebuild it, as JSON."""
        ...

    def arrays(self) -> Arrays: ...


class DirectSupervision:
    """Of a readout: each training example teaches the question that it would be asked, once."""

    @classmethod
    def pose(cls, example: Example, cell: Any, terms: TaskTerms) -> TaskExample | None:
        raise NotImplementedError

    @classmethod
    def lessons(cls, example: Example, cell: Any, terms: TaskTerms) -> list[TaskExample]:
        posed = cls.pose(example, cell, terms)
        return [posed] if posed else []


class TaskHead(Protocol):
    """A task with what it learned of the training truths. Pydantic models, frozen; `family` tells them apart.

    A truth is a task's own value (a label, a number, a list of boxes), made by `pose` of the cell of a dataset.
    """

    @property
    def family(self) -> Family: ...

    @property
    def labels(self) -> tuple[str, ...]:
        """In the order of their codes; for ordinal ones of their ranks."""
        ...

    @classmethod
    def pose(cls, example: Example, cell: Any, terms: TaskTerms) -> TaskExample | None:
        """The question and its truth. `cell`: of the target column. None: no truth there. ValueError: it is none."""
        ...

    @classmethod
    def lessons(cls, example: Example, cell: Any, terms: TaskTerms) -> list[TaskExample]:
        """What a training example teaches: mostly the question itself, once. Ids differ from each other."""
        ...

    @classmethod
    def of(cls, truths: Sequence[Any], settings: Mapping[str, Any]) -> Self:
        """`truths`: of the training examples; `settings`: the method's hyperparameters, and those of Terms."""
        ...

    @classmethod
    def baseline(cls, truths: Sequence[Any], terms: TaskTerms) -> Callable[[Example], Prediction]:
        """The answer without a model, which every model must beat: the commonest, the mean, the last step again.

        `terms`: with the modality of the examples.
        """
        ...

    def targets(self, truths: Sequence[Any]) -> Any:
        """What is learned: (N,) or (N, K) numbers, or a list with an array for each example."""
        ...

    def calibrated(self, scores: Any, targets: Any) -> Self:
        """The same with confidences that fit these scores of examples that the model has not learned from."""
        ...

    def predictions(self, scores: Any) -> list[Prediction]:
        """`scores`: (N, K), or a list with an array for each example."""
        ...

    def head(self, width: int) -> torch.nn.Module:
        """From a backbone's States of this width to what `loss` and `scores` take."""
        ...

    def loss(self, head: torch.nn.Module, states: States, targets: Any) -> torch.Tensor:
        """A number, the mean over the batch's examples unless `Counting` or `Comparing`; `targets`: theirs."""
        ...

    def scores(self, head: torch.nn.Module, states: States) -> Sequence[npt.NDArray[Any]]:
        """An array for each example of the batch, (K,) or of the example's own length; no padding."""
        ...


@runtime_checkable
class RelativeOutput(Protocol):
    """A readout whose scores are relative to the example: to the size of a picture, to the level of a series."""

    def placed(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> list[Prediction]:
        """The predictions for these examples, in the examples' own units."""
        ...


@runtime_checkable
class WeightedLoss(Protocol):
    """A readout whose loss is the mean over something other than examples."""

    def counted(self, states: States, targets: Any) -> int:
        """Over how many the loss of these examples is the mean; where they are none, it is the sum itself."""
        ...


@runtime_checkable
class WholeBatchLoss(Protocol):
    """A readout whose loss looks at all examples of a batch together: no part of the batch can be learned alone."""

    whole_batch: ClassVar[Literal[True]]


def predict_examples(readout: TaskHead, scores: Any, examples: Sequence[Example]) -> list[Prediction]:
    """What is predicted of these examples, in their own units."""
    predictions = readout.predictions(scores)
    return readout.placed(predictions, examples) if isinstance(readout, RelativeOutput) else predictions
