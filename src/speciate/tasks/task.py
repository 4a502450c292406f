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
    """Settings beside the example on which a task's targets depend."""

    positive_label: str | None = None
    horizon: int | None = None
    """Steps that a forecast reaches ahead."""
    order: tuple[str, ...] = ()
    """Ordinal labels, from low to high. Empty: the order of the numbers that the labels are or begin with."""
    modality: str | None = None
    """Modality of the examples; a caller with their manifest fills it in."""


class TaskExample(NamedTuple):
    """The example as a model sees it, and its target in the task's own form."""

    example: Example
    target: Any


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


RepresentationSettings = dict[str, Any]
"""JSON that a representation is rebuilt from, beside its arrays: `kind`, and the keys of that kind."""


class Representation(Protocol):
    """Examples as rows of numbers. Fitted on training examples only, then fixed; raises UnsuitableRepresentation."""

    def encode(self, examples: Sequence[Example]) -> Any:
        """(N, D), dense or sparse."""
        ...

    def settings(self) -> RepresentationSettings:
        """What is needed beside `arrays` to rebuild it, as JSON."""
        ...

    def arrays(self) -> Arrays: ...


class DirectSupervision:
    """For task heads that learn from the examples in the form in which they are evaluated on them."""

    @classmethod
    def evaluation_example(cls, example: Example, cell: Any, terms: TaskTerms) -> TaskExample | None:
        raise NotImplementedError

    @classmethod
    def training_examples(cls, example: Example, cell: Any, terms: TaskTerms) -> list[TaskExample]:
        made = cls.evaluation_example(example, cell, terms)
        return [made] if made else []


class TaskHead(Protocol):
    """A task with what it learned from the training targets. Frozen pydantic models; `family` tells them apart.

    A target is a task's own value (a label, a number, a list of boxes), made by `evaluation_example` from the cell of a
    dataset.
    """

    @property
    def family(self) -> Family: ...

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels in the order of their codes; for ordinal ones of their ranks."""
        ...

    @classmethod
    def evaluation_example(cls, example: Example, cell: Any, terms: TaskTerms) -> TaskExample | None:
        """The input and its target. `cell`: of the target column. None if it is empty, ValueError if it is invalid."""
        ...

    @classmethod
    def training_examples(cls, example: Example, cell: Any, terms: TaskTerms) -> list[TaskExample]:
        """What a training example teaches: usually its evaluation example, once. Ids differ from each other."""
        ...

    @classmethod
    def fit(cls, targets: Sequence[Any], settings: Mapping[str, Any]) -> Self:
        """`targets`: of the training examples; `settings`: the method's hyperparameters and the TaskTerms."""
        ...

    @classmethod
    def baseline(cls, targets: Sequence[Any], terms: TaskTerms, metric: str = "") -> Callable[[Example], Prediction]:
        """The answer without a model, which every model must beat: of all that are the same for every example the best
        by `metric` on the training targets; of forecasts the last step or period.

        `terms`: with the modality of the examples.
        """
        ...

    def encode_targets(self, targets: Sequence[Any]) -> Any:
        """Targets as `calibrated` and `loss` take them: (N,) or (N, K) numbers, or a list of an array per example."""
        ...

    def calibrated(self, scores: Any, targets: Any) -> Self:
        """A copy whose confidences fit these scores of held-out examples. `targets`: encoded."""
        ...

    def predictions(self, scores: Any) -> list[Prediction]:
        """`scores`: (N, K), or a list with an array for each example."""
        ...

    def head(self, width: int) -> torch.nn.Module:
        """From a backbone's States of this width to what `loss` and `scores` take."""
        ...

    def loss(self, head: torch.nn.Module, states: States, targets: Any) -> torch.Tensor:
        """A number, the mean over the batch's examples unless WeightedLoss or WholeBatchLoss. `targets`: encoded."""
        ...

    def scores(self, head: torch.nn.Module, states: States) -> Sequence[npt.NDArray[Any]]:
        """An array for each example of the batch, (K,) or of the example's own length; no padding."""
        ...


@runtime_checkable
class RelativeOutput(Protocol):
    """A task head whose scores are relative to the example: to the size of an image, to the level of a series."""

    def placed(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> list[Prediction]:
        """The predictions for these examples, in the examples' own units."""
        ...


@runtime_checkable
class WeightedLoss(Protocol):
    """A task head whose loss is the mean over something other than examples."""

    def counted(self, states: States, targets: Any) -> int:
        """How many items the loss of these examples averages over; if 0, the loss is the sum itself."""
        ...


@runtime_checkable
class WholeBatchLoss(Protocol):
    """A task head whose loss looks at all examples of a batch together: no part of the batch can be learned alone."""

    whole_batch: ClassVar[Literal[True]]


@runtime_checkable
class ForwardLoss(Protocol):
    """A task head of a published model, whose loss needs the targets in the network's forward pass. The network is a
    `PublishedNetwork`."""

    def forward_loss(
        self, network: Any, batch: Mapping[str, torch.Tensor], targets: Sequence[Any]
    ) -> tuple[torch.Tensor, int]:
        """The mean, and over how many items it is one."""
        ...

    def forward_scores(self, network: Any, batch: Mapping[str, torch.Tensor]) -> Sequence[npt.NDArray[Any]]:
        """An array for each example of the batch."""
        ...


@runtime_checkable
class HeldOutErrors(Protocol):
    """A `ForwardLoss` that judges held-out examples otherwise than it learns: without chance, and an error for each."""

    def held_out_errors(
        self, network: Any, batch: Mapping[str, torch.Tensor], targets: Any
    ) -> Sequence[npt.NDArray[Any]]:
        """(1,) of each example of the batch."""
        ...


def predict_examples(task_head: TaskHead, scores: Any, examples: Sequence[Example]) -> list[Prediction]:
    """Predictions for these examples, in their own units."""
    predictions = task_head.predictions(scores)
    return task_head.placed(predictions, examples) if isinstance(task_head, RelativeOutput) else predictions
