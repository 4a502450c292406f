"""A vector for each example, such that those of one label lie near each other by the cosine.

A network's head is a projection that learns with the supervised contrastive loss (Khosla et al. 2020). In a batch, an
example that no other shares its label with is a stranger to the others, but has nothing to come near to: it does not
count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from speciate.datasets.loading.loader import Example
from speciate.tasks.families.classification import as_label
from speciate.tasks.task import DirectSupervision, Prediction, TaskExample, TaskTerms

if TYPE_CHECKING:
    import torch

    from speciate.models.backbones.contract import States


_TEMPERATURE = 0.1
_DIGITS = 6


class Retrieval(DirectSupervision, BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    whole_batch: ClassVar[Literal[True]] = True
    family: Literal["retrieval"] = "retrieval"
    known: tuple[str, ...]
    """Labels of the training examples; a model gives none."""
    dimensions: int = 128
    """Length of a network's vectors."""

    @classmethod
    def evaluation_example(cls, example: Example, cell: Any, terms: TaskTerms) -> TaskExample | None:
        """Target: the label, a str, of what belongs together."""
        known = as_label(cell)
        return TaskExample(example, known) if known else None

    @classmethod
    def fit(cls, targets: Sequence[Any], settings: Mapping[str, Any]) -> Self:
        """`settings["dimensions"]`: 128 where it is left out."""
        made = {"known": tuple(sorted(set(targets))), "dimensions": settings.get("dimensions", 128)}
        return cls.model_validate(made)

    @classmethod
    def baseline(cls, targets: Sequence[Any], terms: TaskTerms, metric: str = "") -> Callable[[Example], Prediction]:
        """A baseline with the same vector for all: neighbours by chance."""
        return lambda example: Prediction([1.0], None, None)

    @property
    def labels(self) -> tuple[str, ...]:
        return ()

    def encode_targets(self, targets: Sequence[Any]) -> npt.NDArray[np.int64]:
        """Places in `known`, (N,). Labels that training has not seen become -1, -2 ..."""
        place = {label: i for i, label in enumerate(self.known)}
        new = {label: -1 - i for i, label in enumerate(sorted(set(targets) - set(self.known)))}
        return np.array([(place | new)[target] for target in targets], dtype=np.int64)

    def calibrated(self, scores: Any, targets: npt.NDArray[Any]) -> Self:
        return self

    def predictions(self, scores: Any) -> list[Prediction]:
        """Vectors of unit length, a list of floats each."""
        rows = np.asarray(scores, np.float64)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        units = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
        return [Prediction(unit, None, None) for unit in units.round(_DIGITS).tolist()]

    def head(self, width: int) -> torch.nn.Module:
        from torch import nn

        return nn.Linear(width, self.dimensions)

    def loss(self, head: torch.nn.Module, states: States, targets: Any) -> torch.Tensor:
        """Khosla et al., equation 2 (the logarithm within the sum). 0 where no two of the batch share a label."""
        import torch

        units = torch.nn.functional.normalize(head(states.pooled), dim=1)
        labels = torch.as_tensor(targets, device=units.device)
        alone = torch.eye(len(labels), dtype=torch.bool, device=units.device)
        near = (units @ units.T / _TEMPERATURE).masked_fill(alone, -1e9)
        same = (labels[:, None] == labels[None, :]) & ~alone
        shares = torch.log_softmax(near, dim=1).masked_fill(~same, 0.0)
        partners = same.sum(1)
        losses = -shares.sum(1) / partners.clamp(min=1)
        return losses.sum() / (partners > 0).sum().clamp(min=1)

    def scores(self, head: torch.nn.Module, states: States) -> Sequence[npt.NDArray[Any]]:
        return list(head(states.pooled).double().cpu().numpy())
