"""How the tensors of one name in several models become one: pure, tensor by tensor, in float32.

    soup, greedy     the weighted mean                                      Wortsman et al. 2022
    slerp            along the arc between two                              Shoemake 1985
    task_arithmetic  base + sum of weight times (model - base)              Ilharco et al. 2023
    ties             the same of what is large and agrees in sign           Yadav et al. 2023
    dare             the same of a random part, scaled up to the whole      Yu et al. 2024

Departures: TIES and DARE look at each tensor by itself, as mergekit and peft do, where Yadav et al. take the largest
of the whole network; SLERP, too, has an angle for each tensor. A tensor that the base lacks (a head that came with
the task) has no change to speak of: it is averaged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from speciate.training.merging.specs import MergeMethod

if TYPE_CHECKING:
    from torch import Tensor

_PARALLEL = 1 - 1e-6
"""Cosine from which on there is no arc to speak of, and the sine would be divided by nearly nothing."""


class Rule(NamedTuple):
    """`weights`: one for each model, as `specs.usual_weights` leaves them. `ids`: what chance depends on, beside the
    seed and the tensor's name; the order of the models is no part of it."""

    method: MergeMethod
    weights: tuple[float, ...]
    ids: tuple[str, ...] = ()
    density: float = 1.0
    scale: float = 1.0
    seed: int = 0

    def __call__(self, name: str, tensors: Sequence[Tensor], base: Tensor | None) -> Tensor:
        """(K,) float32 tensors of one shape -> one. `base`: None where it has none of this name."""
        if self.method in ("soup", "greedy") or (base is None and self.method != "slerp"):
            return mean(tensors, self.weights)
        if self.method == "slerp":
            return slerp(tensors[0], tensors[1], share(self.weights))
        assert base is not None, "the first case"
        changes = [tensor - base for tensor in tensors]
        match self.method:
            case "ties":
                return base + self.scale * agreed([largest(each, self.density) for each in changes], self.weights)
            case "dare":
                ids = self.ids or tuple(map(str, range(len(tensors))))
                changes = [
                    thinned(each, self.density, f"{self.seed} {own} {name}")
                    for own, each in zip(ids, changes, strict=True)
                ]
        return base + self.scale * total(changes, self.weights)


def share(weights: Sequence[float]) -> float:
    """How far on the way from the first of two to the second."""
    first, second = weights
    return second / (first + second)


def mean(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Weighted; of one, and of equal ones, exactly that one: the differences from the first are summed."""
    whole, found = sum(weights), tensors[0].clone()
    for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
        found += (weight / whole) * (tensor - tensors[0])
    return found


def total(changes: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    found = weights[0] * changes[0]
    for change, weight in zip(changes[1:], weights[1:], strict=True):
        found += weight * change
    return found


def slerp(first: Tensor, second: Tensor, t: float) -> Tensor:
    """At t = 0 the first, at t = 1 the second, exactly. Where both point the same way, or one nowhere, a straight
    line is the limit of the arc."""
    import torch

    if t in (0, 1):
        return (second if t else first).clone()
    norms = first.norm() * second.norm()
    cosine = float((first * second).sum() / norms) if float(norms) > 0 else 1.0
    if abs(cosine) > _PARALLEL:
        return first + t * (second - first)
    angle = torch.arccos(torch.tensor(cosine, dtype=torch.float64))
    of_first = float(torch.sin((1 - t) * angle) / torch.sin(angle))
    of_second = float(torch.sin(t * angle) / torch.sin(angle))
    return of_first * first + of_second * second


def largest(change: Tensor, density: float) -> Tensor:
    """Only the share `density` of the numbers, those that are largest in size; at least one."""
    count = max(1, round(density * change.numel()))
    if count >= change.numel():
        return change
    kept = change.abs().flatten().topk(count).indices
    found = change.new_zeros(change.numel())
    found[kept] = change.flatten()[kept]
    return found.view_as(change)


def agreed(changes: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Number by number the mean of those changes whose sign is that of the weighted sum; 0 where none is left."""
    import torch

    sign = torch.sign(total(changes, weights))
    summed, counted = torch.zeros_like(sign), torch.zeros_like(sign)
    for change, weight in zip(changes, weights, strict=True):
        agrees = (torch.sign(change) == sign) & (change != 0)
        summed += weight * change * agrees
        counted += weight * agrees
    return torch.where(counted > 0, summed / counted.clamp(min=1e-12), torch.zeros_like(summed))


def thinned(change: Tensor, density: float, chance: str) -> Tensor:
    """Each number is kept with the probability `density` and divided by it, else it is zero: the same on average."""
    import torch

    if density >= 1:
        return change
    seed = int.from_bytes(hashlib.sha256(chance.encode()).digest()[:8]) >> 1
    drawn = torch.rand(change.shape, generator=torch.Generator().manual_seed(seed))
    return change * (drawn < density) / density
