"""AdamW (Loshchilov & Hutter 2019) over what can be trained of a module, and its state by parameter name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_SLOTS = ("step", "exp_avg", "exp_avg_sq")


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


def moments(optimizer: torch.optim.Optimizer, named: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`NAME.exp_avg` and the like; a parameter that never had a gradient has none."""
    return {
        f"{name}.{slot}": optimizer.state[parameter][slot]
        for name, parameter in named.items()
        if parameter in optimizer.state
        for slot in _SLOTS
    }


def moment_names(parameters: list[str]) -> set[str]:
    return {f"{name}.{slot}" for name in parameters for slot in _SLOTS}


def keep_moments(
    optimizer: torch.optim.Optimizer, named: Mapping[str, torch.Tensor], parameters: Collection[str]
) -> None:
    """Have those of `parameters` and no others; new ones are zero."""
    import torch

    for name, parameter in named.items():
        if name not in parameters:
            optimizer.state.pop(parameter, None)
        elif parameter not in optimizer.state:
            step = torch.zeros((), dtype=torch.float32, device=parameter.device)
            own = {slot: step if slot == "step" else torch.zeros_like(parameter) for slot in _SLOTS}
            optimizer.state[parameter] = own


def set_moments(
    optimizer: torch.optim.Optimizer, named: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]
) -> None:
    """`found`: as `moments` gave it, checked against `moment_names`."""
    optimizer.state.clear()
    for name, parameter in named.items():
        if f"{name}.step" in found:
            own = {slot: found[f"{name}.{slot}"].to(parameter.device).clone() for slot in _SLOTS}
            optimizer.state[parameter] = own
