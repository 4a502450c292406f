"""Training targets beside the label: how another model scores an example, each with a weight of its own.

A head around the task's own, for the loop: its loss is a mean over the examples of a batch, so that a batch may be
learned in parts. Held-out examples have a label alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.models.backbones.contract import States
from speciate.tasks.soft_targets import Match, logits, soft_target_loss
from speciate.tasks.task import TaskHead, WeightedLoss

if TYPE_CHECKING:
    import torch


Penalty = Callable[["torch.nn.Module"], "torch.Tensor"]
"""From the head to a loss that is added to each batch's."""


class TrainingTarget(NamedTuple):
    target: Any
    """The target as the task_head has it."""
    label_weight: float = 1.0
    """Weight of the task's own loss; 0 where there is no label."""
    soft_target: npt.NDArray[np.float32] | None = None
    """(K,) the scores of another model; NaN: none for this column."""
    weight: float = 0.0
    """Weight of the soft target."""
    states: npt.NDArray[np.float32] | None = None
    """(W,) pooled states of another model."""


class SoftTargetLoss:
    """The task's loss and that of soft targets, each with its weight in each example.

    `penalty` is added to each batch's loss. `features`: weight of matching `TrainingTarget.states`; for it the head has
    a linear layer beside it (`with_projection`).
    """

    def __init__(
        self,
        task_head: TaskHead,
        match: Match = "probabilities",
        temperature: float = 1.0,
        *,
        penalty: Penalty | None = None,
        features: float = 0.0,
    ) -> None:
        self._task_head, self._match, self._temperature = task_head, match, temperature
        self._penalty, self._features = penalty, features

    def loss(self, head: Any, states: States, targets: Sequence[TrainingTarget]) -> torch.Tensor:
        own, total = self.served(head), states.pooled.new_zeros(())
        for weight in sorted({each.label_weight for each in targets if each.label_weight}):
            places = [place for place, each in enumerate(targets) if each.label_weight == weight]
            some, wanted = _pick_states(states, places), np.asarray([targets[place].target for place in places])
            counted = (
                self._task_head.counted(some, wanted) if isinstance(self._task_head, WeightedLoss) else len(places)
            )
            total = total + weight * counted * self._task_head.loss(own, some, wanted)
        total = total + self._soft(own, states, targets) + self._alike(head, states, targets)
        total = total / max(len(targets), 1)
        return total if self._penalty is None else total + self._penalty(own)

    def counted(self, states: States, targets: Sequence[TrainingTarget]) -> int:
        return len(targets)

    def scores(self, head: Any, states: States) -> Sequence[npt.NDArray[Any]]:
        return self._task_head.scores(self.served(head), states)

    def served(self, head: Any) -> Any:
        """What of the head is kept."""
        return head.task if isinstance(head, _projection_class()) else head

    def _soft(self, head: Any, states: States, targets: Sequence[TrainingTarget]) -> torch.Tensor:
        """Sum over the examples."""
        import torch

        rows = [
            (place, one.soft_target, one.weight) for place, one in enumerate(targets) if one.soft_target is not None
        ]
        if not rows:
            return states.pooled.new_zeros(())
        some = _pick_states(states, [place for place, _, _ in rows])
        device = some.pooled.device
        wanted = torch.from_numpy(np.stack([each for _, each, _ in rows])).to(device)
        weights = torch.tensor([weight for _, _, weight in rows], device=device)
        own = logits(self._task_head, head, some)
        apart = soft_target_loss(self._match, self._task_head.family, own, wanted, self._temperature)
        return (apart * weights).sum()

    def _alike(self, head: Any, states: States, targets: Sequence[TrainingTarget]) -> torch.Tensor:
        """Squared error of the pooled states after the line, as FitNets have it (Romero et al. 2015); a sum."""
        import torch

        places = [place for place, each in enumerate(targets) if each.states is not None]
        if not self._features or not places:
            return states.pooled.new_zeros(())
        wanted = torch.from_numpy(np.stack([each.states for each in targets if each.states is not None]))
        found = head.line(states.pooled[places])
        apart: torch.Tensor = (found - wanted.to(found.device)).square().mean(1).sum()
        return self._features * apart


def held_out_targets(task_head: object, targets: Any) -> Any:
    """Targets of held-out examples, as this task_head of a training takes them."""
    return [TrainingTarget(target) for target in targets] if isinstance(task_head, SoftTargetLoss) else targets


def with_projection(task: torch.nn.Module, width: int, wanted: int) -> torch.nn.Module:
    """A head with a line from the student's states to the teacher's beside it."""
    return _projection_class()(task, width, wanted)  # type: ignore[no-any-return]


@cache
def _projection_class() -> Any:
    """The class: torch is loaded for it."""
    from torch import nn

    class WithLine(nn.Module):
        def __init__(self, task: nn.Module, width: int, wanted: int) -> None:
            super().__init__()
            self.task, self.line = task, nn.Linear(width, wanted)

    return WithLine


def _pick_states(states: States, places: Sequence[int]) -> States:
    if len(places) == len(states.pooled):
        return states
    at = list(places)
    return States(states.sequence[at], states.mask[at], states.pooled[at], states.grid)
