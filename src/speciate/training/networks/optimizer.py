"""AdamW (Loshchilov & Hutter 2019), its schedule, its state by parameter name, and the loop's settings."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from speciate.training.old_option_names import Options

if TYPE_CHECKING:
    import torch


_MOMENT_SLOTS = ("step", "exp_avg", "exp_avg_sq")


def adamw(module: torch.nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """Weights are pulled to zero, norms and biases are not. Fused: on a CPU a quarter of the time of the other two."""
    import torch

    spared = {
        id(parameter)
        for part in module.modules()
        if "norm" in type(part).__name__.lower()
        for parameter in part.parameters(recurse=False)
    }
    pulled: list[torch.Tensor] = []
    free: list[torch.Tensor] = []
    for parameter in module.parameters():
        if parameter.requires_grad:
            (free if parameter.ndim < 2 or id(parameter) in spared else pulled).append(parameter)
    groups = [{"params": pulled, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=learning_rate, fused=True)


def optimizer_moments(optimizer: torch.optim.Optimizer, named: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`NAME.exp_avg` and the like; a parameter that never had a gradient has none."""
    return {
        f"{name}.{slot}": optimizer.state[parameter][slot]
        for name, parameter in named.items()
        if parameter in optimizer.state
        for slot in _MOMENT_SLOTS
    }


def moment_names(parameters: list[str]) -> set[str]:
    return {f"{name}.{slot}" for name in parameters for slot in _MOMENT_SLOTS}


def keep_only_moments(
    optimizer: torch.optim.Optimizer, named: Mapping[str, torch.Tensor], parameters: Collection[str]
) -> None:
    """Have those of `parameters` and no others; new ones are zero."""
    import torch

    for name, parameter in named.items():
        if name not in parameters:
            optimizer.state.pop(parameter, None)
        elif parameter not in optimizer.state:
            step = torch.zeros((), dtype=torch.float32, device=parameter.device)
            own = {slot: step if slot == "step" else torch.zeros_like(parameter) for slot in _MOMENT_SLOTS}
            optimizer.state[parameter] = own


def set_moments(
    optimizer: torch.optim.Optimizer, named: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]
) -> None:
    """`found`: as `optimizer_moments` gave it, checked against `moment_names`."""
    optimizer.state.clear()
    for name, parameter in named.items():
        if f"{name}.step" in found:
            own = {slot: found[f"{name}.{slot}"].to(parameter.device).clone() for slot in _MOMENT_SLOTS}
            optimizer.state[parameter] = own


Schedule = Literal["cosine", "constant"]


def learning_rate_factor(step: int, steps: int, warmup: float, schedule: Schedule = "cosine") -> float:
    """Factor of the highest learning rate in step `step` of `steps`, from 0: above 0, at most 1.

    A linear rise, then half a cosine (Loshchilov & Hutter 2017), or no change. `warmup`: share of the steps in which it
    rises.
    """
    rise = math.ceil(warmup * steps)
    if step < rise:
        return (step + 1) / rise
    if schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(steps - rise, 1)))


Precision = Literal["float32", "bfloat16"]


class LoopParameters(Options):
    """The options of the loop that trains a network, with bounds."""

    num_train_epochs: int = Field(10, ge=1, le=10_000, description="Passes over the training examples, at most.")
    batch_size: int = Field(32, ge=1, description="Examples in each step of the optimizer.")
    per_device_train_batch_size: int | None = Field(
        None,
        ge=1,
        description="Examples that are in memory at once; the step stays the same. None: all of a batch, "
        "as some losses and norms need it.",
    )
    learning_rate: float = Field(1e-3, gt=0, le=10, description="Its highest value, after the warm-up.")
    weight_decay: float = Field(0.01, ge=0, le=1, description="Pull to zero of weights; not of norms and biases.")
    warmup_ratio: float = Field(0.1, ge=0, le=1, description="Share of the steps in which the learning rate rises.")
    lr_scheduler_type: Schedule = Field(
        "cosine", description="The learning rate after that: falls to nothing, or stays."
    )
    max_grad_norm: float = Field(1.0, gt=0, description="Longest gradient, as L2 norm of all of it.")
    precision: Precision = Field("float32", description="Of matrix products while it learns; weights are float32.")
    keep: Literal["best", "last"] = Field("best", description="Weights: the best on held-out examples, or the last.")
    early_stopping_patience: int | None = Field(
        None, ge=1, description="Stop after so many epochs without a better value on held-out examples."
    )
